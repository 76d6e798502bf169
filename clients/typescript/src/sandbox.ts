/** A sandbox: where all begins. */

import { type Binding } from './binding.js';
import * as checkpoints from './checkpoint.js';
import { CodeInterpreter } from './code-interpreter.js';
import { SandboxError, SandboxSecurityError } from './error.js';
import { type EventsOptions, type SandboxEvent, events } from './event.js';
import { Http } from './http.js';
import { idleOf, sleepAfterMs } from './idle.js';
import { Operations } from './operations.js';
import type { NetworkPolicy } from './network.js';
import { type Abortable, Scope, type SessionRef, now, unlessAborted, variables } from './scope.js';
import { type ExecutionSession, type SessionDeleteResult, type SessionOptions, createSession, ExecutionSession as Session } from './session.js';
import type { Env } from './exec.js';
import type * as wire from './wire.js';

/** Options of `getSandbox`. */
export interface SandboxOptions {
  /**
   * It is frozen when nobody has used it for this long: `"30s"`, `"10m"` (the default), `"1h"`, or seconds.
   * Nothing is lost, and the next use wakes it.
   */
  sleepAfter?: string | number;
  /** It never sleeps. */
  keepAlive?: boolean;
  /** What else becomes of it when nobody uses it: whether it is stopped or destroyed, and when. */
  idle?: wire.IdleSettings;
  /** Started with it, as the process `on-start`, each time: when it is made, and after a stop. */
  onStart?: string | string[];
  /** Milliseconds from when it is made to when it is destroyed, whatever happens. */
  ttlMs?: number;
  /** Lower-case the id, so that `MyBox` and `mybox` are one sandbox. */
  normalizeId?: boolean;
  /** `cd`, `export` and functions stay from one `exec` to the next; true unless given. */
  enableDefaultSession?: boolean;
  /** Names of yours, to find it by. Given to it when it is made. */
  labels?: Record<string, string>;
  /** The image of its files, when it is made; the server's default unless given. */
  image?: string;
  /** Variables of all its commands, when it is made. */
  env?: Env;
  /** What it may reach, when it is made: `internet` (the default), `none`, or `{ allow: [...] }`. */
  network?: NetworkPolicy;
  /** What it may use, when it is made. */
  resources?: wire.Resources;
  /** Accepted and not used: there is no container to wait for. */
  containerTimeouts?: { instanceGetTimeoutMS?: number; portReadyTimeoutMS?: number; waitIntervalMS?: number };
  /** Accepted and not used. */
  transport?: SandboxTransport;
  /** Accepted and not used: the server knows its own preview domain. */
  baseUrl?: string;
}

/** How the reference speaks with its containers. */
export type SandboxTransport = 'http' | 'websocket' | 'rpc';

/** What `startAndWaitForPorts` waits for. */
export interface StartAndWaitOptions {
  /** The ports; none unless given. */
  ports?: number | number[];
  /** As the reference has it; `signal` behind the options is the same. */
  cancellationOptions?: { abort?: AbortSignal };
}

/** A sandbox as the server sees it. */
export type SandboxInfo = wire.Sandbox;

/** Where a sandbox is in its life, in the words of the reference. */
export interface SandboxState {
  status: 'running' | 'healthy' | 'stopping' | 'stopped' | 'stopped_with_code';
  lastChange: number;
}

const RESERVED = ['www', 'api', 'admin', 'root', 'system', 'cloudflare', 'workers'];

/** Refuses what no sandbox may be called. */
export function checkId(id: string): void {
  if (typeof id !== 'string' || id.length < 1 || id.length > 63) {
    const shown = typeof id === 'string' ? `${id.length}` : typeof id;
    throw new SandboxSecurityError(`Sandbox ID must be 1-63 characters long (this one: ${shown})`, 'INVALID_SANDBOX_ID_LENGTH');
  }
  if (id.startsWith('-') || id.endsWith('-')) {
    throw new SandboxSecurityError('Sandbox ID cannot start or end with hyphens', 'INVALID_SANDBOX_ID_HYPHENS');
  }
  if (RESERVED.includes(id.toLowerCase())) {
    throw new SandboxSecurityError(`Sandbox ID '${id}' is reserved and cannot be used`, 'RESERVED_SANDBOX_ID');
  }
}

/** What a handle is made of, to tell it from what a Workers runtime gives a Durable Object. */
class Origin {
  constructor(
    readonly binding: Binding,
    readonly id: string,
    readonly options: SandboxOptions,
  ) {}
}

/**
 * A sandbox. Get one with `getSandbox`; nothing is sent before its first method is called.
 *
 * The class can also be exported from a Worker as the Durable Object that its configuration names. It
 * is never used as one: `getSandbox` talks to the server.
 */
export class Sandbox<_Env = unknown> extends Operations {
  /** So that `DurableObjectNamespace<Sandbox>` is a type. */
  declare readonly __DURABLE_OBJECT_BRAND: never;
  /** Its id. */
  readonly id: string;
  readonly #options: SandboxOptions;
  #preparing: Promise<void> | undefined;
  #interpreter: CodeInterpreter | undefined;

  /** @internal */
  constructor(origin?: unknown, _env?: unknown) {
    const { binding, id, options } =
      origin instanceof Origin ? origin : new Origin(undefined, `durable-object-${Date.now()}`, {});
    const scope = new Scope(
      new Http(binding),
      id,
      options.enableDefaultSession === false ? undefined : 'default',
      // The handle is not there yet when the scope is made.
      (gone) => this.#prepare(gone),
    );
    super(scope);
    this.id = id;
    this.#options = options;
  }

  /** Makes the sandbox where that is not left to its first use, because it shall be made in a way. */
  #prepare(gone: Promise<void> | undefined): Promise<void> | undefined {
    const { image, env, labels, network, resources, onStart, ttlMs } = this.#options;
    if (!image && !env && !labels && !network && !resources && !onStart && !ttlMs && !idleOf(this.#options)) return undefined;
    // Of several who find it gone, one has it made again.
    if (this.#preparing === gone) this.#preparing = undefined;
    this.#preparing ??= this.#make().catch((error: unknown) => {
      this.#preparing = undefined;
      throw error;
    });
    return this.#preparing;
  }

  async #make(): Promise<void> {
    const { image, env, labels, network, resources, onStart, ttlMs } = this.#options;
    const idle = idleOf(this.#options);
    const json: wire.CreateSandbox = { id: this.id };
    if (image) json.image = image;
    if (labels) json.labels = labels;
    if (network) json.network = network;
    if (resources) json.resources = resources;
    if (env) json.env = variables(env) as Record<string, string>;
    if (idle) json.idle = idle;
    if (onStart) json.onStart = onStart;
    if (ttlMs) json.ttlMs = ttlMs;
    try {
      await this.scope.http.done('POST', '/v1/sandboxes', { attempt: 'make a sandbox', json, repeatable: true });
    } catch (error) {
      if (!(error instanceof SandboxError) || error.code !== 'SANDBOX_EXISTS') throw error;
      // Labels are for a sandbox that is made, and idle times are for any; both may have been changed
      // since. One that was made in another way goes on as it is, unless that way was asked for.
      const only = !image && !env && !network && !resources && !onStart && !ttlMs;
      const differs = String(error.context.fields).split(', ');
      if (!only && !differs.every((field) => field === 'idle' || field === 'labels')) throw error;
      if (idle) await this.#change({ idle });
    }
  }

  /** Changes it, if it is there. */
  async #change(json: wire.UpdateSandbox, { signal }: Abortable = {}): Promise<boolean> {
    try {
      await this.scope.http.done('PATCH', this.scope.path(), { attempt: 'change a sandbox', json, signal, repeatable: true });
      return true;
    } catch (error) {
      if (error instanceof SandboxError && error.code === 'SANDBOX_NOT_FOUND') return false;
      throw error;
    }
  }

  /** The code interpreter alone. */
  get interpreter(): CodeInterpreter {
    return (this.#interpreter ??= new CodeInterpreter(this));
  }

  // Sessions

  /** Makes a session. */
  createSession(options?: SessionOptions): Promise<ExecutionSession> {
    if (options?.id === `sandbox-${this.id}`) {
      throw new SandboxSecurityError(`Session id '${options.id}' is the default session's`, 'RESERVED_SESSION_ID');
    }
    return createSession(this.scope, options);
  }

  /** A session by its id or name. It is made by its first use when it does not exist. */
  async getSession(session: SessionRef): Promise<ExecutionSession> {
    return new Session(this.scope, this.scope.sessionOf({ session }) ?? 'default');
  }

  /** Deletes a session and ends what runs in it. The default session cannot be deleted. */
  async deleteSession(session: SessionRef, { signal }: Abortable = {}): Promise<SessionDeleteResult> {
    const sessionId = this.scope.sessionOf({ session }) ?? 'default';
    await this.scope.done('DELETE', `/sessions/${encodeURIComponent(sessionId)}`, { attempt: 'delete a session', signal });
    return { success: true, sessionId, timestamp: now() };
  }

  /** The sessions there are. */
  async listSessions({ signal }: Abortable = {}): Promise<wire.Session[]> {
    const call = { attempt: 'list sessions', signal, repeatable: true };
    return (await this.scope.json<wire.SessionList>('GET', '/sessions', call)).sessions;
  }

  // Network

  /** Changes what it may reach, at once and for good: connections that this does not allow end. */
  async setNetwork(network: NetworkPolicy, options?: Abortable): Promise<void> {
    const exists = await this.#change({ network }, options);
    this.#options.network = network;
    // One that is not there yet is made so; one that is there must not be made again.
    this.#preparing = exists ? Promise.resolve() : undefined;
  }

  /** It may reach these hosts and nothing else; any when there is none. In place of what was allowed. */
  setAllowedHosts(hosts: string[], options?: Abortable): Promise<void> {
    return this.setNetwork(hosts.length > 0 ? { allow: hosts } : 'internet', options);
  }

  /** It may reach this host too, and nothing but what is allowed so. */
  async allowHost(host: string, options?: Abortable): Promise<void> {
    const rules = await this.#rules(options);
    if (!rules.includes(host)) await this.setNetwork({ allow: [...rules, host] }, options);
  }

  /** Takes a host out of those that are allowed. When it was the last, nothing is reached. */
  async removeAllowedHost(host: string, options?: Abortable): Promise<void> {
    const rules = await this.#rules(options);
    if (rules.includes(host)) await this.setNetwork({ allow: rules.filter((rule) => rule !== host) }, options);
  }

  /** What is listed; nothing where everything or nothing may be reached. */
  async #rules(options?: Abortable): Promise<string[]> {
    const info = await this.info(options);
    const network = info ? info.network : this.#options.network;
    return typeof network === 'object' ? network.allow : [];
  }

  // Life

  /** What happened and happens to it; see `events`. */
  events(options: Omit<EventsOptions, 'sandbox'> = {}): AsyncGenerator<SandboxEvent, void, undefined> {
    return events(this.scope.http.binding, { ...options, sandbox: this.id });
  }

  /** What the server says of it; `undefined` when it does not exist. */
  async info({ signal }: Abortable = {}): Promise<SandboxInfo | undefined> {
    try {
      const call = { attempt: 'look at a sandbox', signal, repeatable: true };
      return await this.scope.http.json<wire.Sandbox>('GET', this.scope.path(), call);
    } catch (error) {
      if (error instanceof SandboxError && error.code === 'SANDBOX_NOT_FOUND') return undefined;
      throw error;
    }
  }

  /** Whether it runs, in the words of the reference. */
  async getState(options?: Abortable): Promise<SandboxState> {
    const info = await this.info(options);
    // Frozen, it answers as if it were not.
    const status = info?.state === 'running' || info?.state === 'frozen' ? 'healthy' : info?.state === 'creating' ? 'running' : info?.state === 'failed' ? 'stopped_with_code' : 'stopped';
    return { status, lastChange: info?.createdAtMs ?? 0 };
  }

  /** Ends everything in it and deletes its files. Its id can be used again, for a new one. */
  async destroy({ signal }: Abortable = {}): Promise<void> {
    try {
      await this.scope.http.done('DELETE', this.scope.path(), { attempt: 'destroy a sandbox', signal, repeatable: true });
    } catch (error) {
      if (!(error instanceof SandboxError) || error.code !== 'SANDBOX_NOT_FOUND') throw error;
    }
    this.#preparing = undefined;
  }

  /** Destroys it: `await using sandbox = getSandbox(...)`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.destroy();
  }

  /** Freezes it from now on when nobody has used it for this long: `"3m"`, or seconds. */
  async setSleepAfter(sleepAfter: string | number, options?: Abortable): Promise<void> {
    const idle = { sleepAfterMs: sleepAfterMs(sleepAfter) };
    await this.#change({ idle }, options);
    // One that is not there yet is made so.
    this.#options.sleepAfter = sleepAfter;
  }

  /** Whether it never sleeps, from now on. */
  async setKeepAlive(keepAlive: boolean, options?: Abortable): Promise<void> {
    await this.#change({ idle: { keepAlive } }, options);
    this.#options.keepAlive = keepAlive;
  }

  /** Has it run, whatever it did before: it is made, woken or started. Its first use does, too. */
  async start(options?: Abortable): Promise<void> {
    await unlessAborted(this.scope.prepared(), options?.signal);
    if (!(await this.#steer('start', options))) await this.#make();
  }

  /** Has it run, and waits until something listens on its ports. */
  async startAndWaitForPorts(ports?: number | number[] | StartAndWaitOptions, options: Abortable = {}): Promise<void> {
    const asked = typeof ports === 'object' && !Array.isArray(ports) ? ports : { ports };
    const signal = asked.cancellationOptions?.abort ?? options.signal;
    await this.start({ signal });
    await Promise.all([asked.ports ?? []].flat().map((portToCheck) => this.waitForPort({ portToCheck, signal })));
  }

  /** Its idle time begins anew. */
  async renewActivityTimeout(options?: Abortable): Promise<void> {
    await this.#steer('start', options);
  }

  /** Stops all that runs in it where it is, without losing anything. The next use wakes it. */
  async freeze(options?: Abortable): Promise<void> {
    await this.#steer('freeze', options);
  }

  /** Has a frozen one go on. The next use does, too. */
  async thaw(options?: Abortable): Promise<void> {
    await this.#steer('thaw', options);
  }

  /** Whether it is there: one that is not has nothing to be steered. */
  async #steer(verb: 'freeze' | 'thaw' | 'stop' | 'start', { signal }: Abortable = {}): Promise<boolean> {
    try {
      await this.scope.http.done('POST', `${this.scope.path()}/${verb}`, { attempt: `${verb} a sandbox`, signal, repeatable: true });
      return true;
    } catch (error) {
      if (!(error instanceof SandboxError) || error.code !== 'SANDBOX_NOT_FOUND') throw error;
      return false;
    }
  }

  /** Accepted: there is no container to wait for. */
  async setContainerTimeouts(_timeouts: SandboxOptions['containerTimeouts']): Promise<void> {}

  /** Accepted: there is one transport. */
  async setTransport(_transport: SandboxTransport): Promise<void> {}

  /** Its labels, in place of those it has. */
  async setLabels(labels: Record<string, string>, options?: Abortable): Promise<void> {
    if (!(await this.#change({ labels }, options))) this.#preparing = undefined;
    this.#options.labels = labels;
  }

  /** There is no placement on one machine. */
  async getContainerPlacementId(): Promise<null> {
    return null;
  }

  /** Keeps its files as they are now, with an id of yours or a generated one. What runs in it goes on. */
  createCheckpoint(id?: string, options?: Abortable): Promise<checkpoints.Checkpoint> {
    return checkpoints.create(this.scope, id, options);
  }

  /** Its checkpoints, oldest first. */
  listCheckpoints(options?: Abortable): Promise<checkpoints.Checkpoint[]> {
    return checkpoints.list(this.scope, options);
  }

  /** Removes a checkpoint. Sandboxes that were forked from it stay. */
  deleteCheckpoint(id: string, options?: Abortable): Promise<void> {
    return checkpoints.remove(this.scope, id, options);
  }

  /** Ends what runs in it and gives it back the files of a checkpoint. The next use starts it. */
  restoreCheckpoint(id: string, options?: Abortable): Promise<void> {
    return checkpoints.restore(this.scope, id, options);
  }

  /**
   * Sandboxes that begin with its files, or those of a checkpoint, and with its settings, whatever
   * the size. They have no processes, sessions or ports of it.
   */
  async fork(options: checkpoints.ForkOptions = {}): Promise<Sandbox[]> {
    const ids = await checkpoints.fork(this.scope, options);
    return ids.map((id) => new Sandbox(new Origin(this.scope.http.binding, id, {})));
  }

  /** Ends everything that runs in it; its files stay. */
  async stop(options?: Abortable): Promise<void> {
    await this.#steer('stop', options);
  }
}

/**
 * The sandbox with this id, which is made by its first use. The same id is always the same sandbox.
 *
 * @param binding which server: a URL, options, or nothing for the one that the environment names or
 * that runs on this machine. A Durable Object namespace is taken for nothing.
 */
export function getSandbox<T extends Sandbox<any> = Sandbox>(
  binding: Binding | DurableObjectNamespaceOf<T>,
  id: string,
  options: SandboxOptions = {},
): T {
  checkId(id);
  const name = options.normalizeId ? id.toLowerCase() : id;
  return new Sandbox(new Origin(binding as Binding, name, { ...options })) as T;
}

/** A namespace of Durable Objects of a class, however the types of the runtime call it. */
export interface DurableObjectNamespaceOf<T> {
  idFromName(name: string): any;
  get(id: any): { fetch: any } | T;
}

/** Options of `listSandboxes`. */
export interface ListSandboxesOptions extends Abortable {
  /** Only those with this label, as `name` or `name=value`. */
  label?: string;
}

/** The sandboxes there are, page by page as they are asked for. */
export async function* listSandboxes(binding?: Binding, options: ListSandboxesOptions = {}): AsyncGenerator<SandboxInfo, void, undefined> {
  const http = new Http(binding);
  let cursor: string | undefined;
  do {
    const call = { attempt: 'list sandboxes', query: { label: options.label, cursor }, signal: options.signal, repeatable: true };
    const page: wire.SandboxList = await http.json<wire.SandboxList>('GET', '/v1/sandboxes', call);
    yield* page.sandboxes;
    cursor = page.nextCursor ?? undefined;
  } while (cursor !== undefined);
}

