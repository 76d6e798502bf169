/** What every operation needs: the server, the sandbox, the session, and that the sandbox is made. */

import { SandboxError } from './error.js';
import type { Call, Http } from './http.js';

/** A session, as options name one: its id or name, or the object. */
export type SessionRef = string | { readonly id: string };

/** Options of every method that works in a session. */
export interface InSession {
  /** The session; that of the object it is called on unless given. */
  session?: SessionRef;
  /** The same as `session`. */
  sessionId?: SessionRef;
}

/** Options of every method. */
export interface Abortable {
  /** Cancels the operation, also in the sandbox. */
  signal?: AbortSignal;
}

/** What requests say that must not make their sandbox, because the server would not make it as it shall be. */
const FIRST_USE_REFUSED = { 'x-sandbar-first-use': 'refused' };

export class Scope {
  constructor(
    readonly http: Http,
    /** The sandbox's id. */
    readonly sandboxId: string,
    /** The session that calls without one use; none for a fresh shell each. */
    readonly session: string | undefined,
    /**
     * Resolves when the sandbox has been made in the way that it shall be; nothing where its first use
     * may make it. `gone` is what this returned before, of a sandbox that has gone since.
     */
    readonly prepared: (gone?: Promise<void>) => Promise<void> | undefined,
  ) {}

  /** The path of a route of the sandbox. */
  path(route = ''): string {
    return `/v1/sandboxes/${encodeURIComponent(this.sandboxId)}${route}`;
  }

  /** The session that is meant: by options, by a trailing argument, or the scope's own. */
  sessionOf(options?: InSession | undefined, argument?: SessionRef): string | undefined {
    const ref = argument ?? options?.session ?? options?.sessionId;
    if (ref === undefined || ref === null) return this.session;
    const id = typeof ref === 'string' ? ref : ref.id;
    // What the reference calls its default session.
    return id === `sandbox-${this.sandboxId}` ? 'default' : id;
  }

  /**
   * Uses the sandbox: `attempt` sends one request with these headers. One that shall be made in a way is
   * never made by its use; if it has gone, it is made again, and used again where that can be.
   */
  async use<T>(attempt: (headers: Record<string, string>) => Promise<T>, { signal, body }: Pick<Call, 'signal' | 'body'>): Promise<T> {
    const preparing = this.prepared();
    if (!preparing) return attempt({});
    await unlessAborted(preparing, signal);
    try {
      return await attempt(FIRST_USE_REFUSED);
    } catch (error) {
      if (!(error instanceof SandboxError) || error.context.firstUse !== 'refused') throw error;
      await unlessAborted(this.prepared(preparing), signal);
      // A stream may have been read.
      if (body instanceof ReadableStream) throw error;
      return attempt(FIRST_USE_REFUSED);
    }
  }

  send(method: string, route: string, call: Call): Promise<Response> {
    return this.use((headers) => this.http.send(method, this.path(route), { ...call, headers: { ...headers, ...call.headers } }), call);
  }

  json<T>(method: string, route: string, call: Call): Promise<T> {
    return this.use((headers) => this.http.json<T>(method, this.path(route), { ...call, headers: { ...headers, ...call.headers } }), call);
  }

  done(method: string, route: string, call: Call): Promise<void> {
    return this.use((headers) => this.http.done(method, this.path(route), { ...call, headers: { ...headers, ...call.headers } }), call);
  }
}

/** What `promise` becomes; rejects as soon as `signal` aborts. */
export function unlessAborted<T>(promise: Promise<T> | undefined, signal: AbortSignal | undefined): Promise<T> | undefined {
  if (!promise || !signal) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/** Variables as the API takes them: numbers and booleans as text, and `undefined` left out. */
export function variables(
  env: Record<string, string | number | boolean | null | undefined> | undefined,
  unset = false,
): Record<string, string | null> | undefined {
  if (!env) return undefined;
  const entries = Object.entries(env).flatMap(([name, value]): [string, string | null][] => {
    if (value === undefined || value === null) return unset || value === null ? [[name, null]] : [];
    return [[name, String(value)]];
  });
  return Object.fromEntries(entries);
}

export const now = (): string => new Date().toISOString();

export const isoOf = (ms: number): string => new Date(ms).toISOString();

/** A number of milliseconds as the API takes it; none for what is not a positive number. */
export function milliseconds(value: number | undefined): number | undefined {
  if (value === undefined || value === null || !Number.isFinite(value) || value <= 0) return undefined;
  return Math.min(Math.max(1, Math.round(value)), 86_400_000);
}
