/** Processes: commands that run on by themselves, with a log that is read from any position. */

import { SandboxError, errorOf } from './error.js';
import { type Command, type BaseExecOptions } from './exec.js';
import { resumed } from './resume.js';
import { type Abortable, type Scope, isoOf, milliseconds, now, variables } from './scope.js';
import { eventStream } from './sse.js';
import type * as wire from './wire.js';

/** Where a process is in its life. `failed` has an exit code that is not 0; `error` did not start or was lost. */
export type ProcessStatus = 'starting' | 'running' | 'completed' | 'failed' | 'killed' | 'error';

/** Options of `startProcess`. */
export interface ProcessOptions extends BaseExecOptions {
  /** The id to give it; generated unless given. */
  processId?: string;
  /** Forget it and its log as soon as it has ended, and callbacks were told; false unless given, so that logs can be read. */
  autoCleanup?: boolean;
  /** Keep its stdin open for `writeStdin`. */
  stdin?: 'open' | 'closed';
  /** Called when it runs. */
  onStart?: (process: Process) => void;
  /** Called with each piece of output as it comes. */
  onOutput?: (stream: 'stdout' | 'stderr', data: string) => void;
  /** Called when it has ended; `null` when its end is not known. */
  onExit?: (code: number | null) => void;
  /** Called when following it fails. */
  onError?: (error: Error) => void;
}

/** What a process wrote so far. As a text it is both outputs. */
export interface ProcessLogs {
  stdout: string;
  stderr: string;
  processId: string;
  toString(): string;
}

/** A line that was waited for. */
export interface WaitForLogResult {
  /** The line, without its end. */
  line: string;
  /** What a regular expression matched. */
  match?: RegExpMatchArray;
}

/** Options of `waitForPort` of a process. */
export interface WaitForPortOptions extends Abortable {
  /** `http` waits for an answer, `tcp` for a connection to be accepted. `http` unless given. */
  mode?: 'http' | 'tcp';
  /** The path to ask for; `/` unless given. */
  path?: string;
  /** The statuses that count; 200 to 399 unless given. */
  status?: number | { min: number; max: number };
  /** Milliseconds to wait; no limit unless given. */
  timeout?: number;
  /** Accepted and not used: the server looks by itself. */
  interval?: number;
}

/** How a process ended. */
export interface WaitForExitResult {
  exitCode: number;
}

/** An event of `streamProcessLogs`. */
export interface LogEvent {
  type: 'stdout' | 'stderr' | 'exit' | 'error';
  /** When, in ISO 8601. */
  timestamp: string;
  /** The output; empty for other events. */
  data: string;
  processId: string;
  sessionId?: string;
  /** Of `exit`. */
  exitCode?: number;
}

/** Milliseconds of one request that waits: intermediaries give up on longer ones. */
const WAIT_MS = 60_000;

/** Milliseconds that a timer can be set to, 24 days; what waits for longer has no limit. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

function statusOf({ running, ending }: wire.Process): ProcessStatus {
  if (running) return 'running';
  switch (ending?.type) {
    case 'exited':
      return ending.code === 0 ? 'completed' : 'failed';
    case 'killed':
    case 'signaled':
      return 'killed';
    case 'lost':
    case undefined:
      return 'error';
    default:
      return 'failed';
  }
}

/** A process: what is known of it, and what can be done with it. */
export class Process {
  readonly #scope: Scope;
  /** Its id. */
  readonly id: string;
  /** Its process id inside the sandbox. */
  readonly pid: number;
  readonly command: string;
  /** As it was when this object was made; `getStatus()` asks again. */
  readonly status: ProcessStatus;
  readonly startTime: Date;
  declare readonly endTime?: Date;
  declare readonly exitCode?: number;
  declare readonly sessionId?: string;
  /** How it ended. */
  declare readonly ending?: wire.Ending;
  /** What the network policy refused to the sandbox while it ran, if it failed and that is something. */
  declare readonly refused?: wire.Refused;

  constructor(scope: Scope, about: wire.Process) {
    this.#scope = scope;
    this.id = about.id;
    this.pid = about.pid;
    this.command = about.command;
    this.status = statusOf(about);
    this.startTime = new Date(about.startedAtMs);
    if (about.endedAtMs !== undefined && about.endedAtMs !== null) this.endTime = new Date(about.endedAtMs);
    if (about.exitCode !== undefined && about.exitCode !== null) this.exitCode = about.exitCode;
    if (about.session) this.sessionId = about.session;
    if (about.ending) this.ending = about.ending;
    if (about.refused) this.refused = about.refused;
  }

  /** Asks its whole tree to end, and ends it after five seconds. */
  kill(signal?: string | number, options?: Abortable): Promise<void> {
    return kill(this.#scope, this.id, signal, options);
  }

    /** Where it is in its life now. */
  async getStatus(options?: Abortable): Promise<ProcessStatus> {
    return statusOf(await about(this.#scope, this.id, options));
  }

    /** What it wrote so far. */
  getLogs(options?: Abortable): Promise<ProcessLogs> {
    return logs(this.#scope, this.id, options);
  }

  /** What it writes, from the beginning on and as it comes. */
  async *output(options: Abortable = {}): AsyncGenerator<LogEvent, void, undefined> {
    yield* follow(this.#scope, this.id, options.signal);
  }

  /**
   * Waits for a line of its output, also one that it wrote before.
   *
   * @throws ProcessReadyTimeoutError, ProcessExitedBeforeReadyError
   */
  waitForLog(pattern: string | RegExp, timeout?: number, options?: Abortable): Promise<WaitForLogResult> {
    return typeof pattern === 'string'
      ? waitForText(this.#scope, this, pattern, timeout, options?.signal)
      : waitForPattern(this.#scope, this, pattern, timeout, options?.signal);
  }

  /**
   * Waits until something answers on a port of the sandbox.
   *
   * @throws ProcessReadyTimeoutError, ProcessExitedBeforeReadyError
   */
  async waitForPort(port: number, options: WaitForPortOptions = {}): Promise<void> {
    const { mode = 'http', path = '/', status, timeout, signal } = options;
    const [statusMin, statusMax] =
      status === undefined ? [200, 399] : typeof status === 'number' ? [status, status] : [status.min, status.max];
    const until: wire.WaitUntil =
      mode === 'tcp' ? { type: 'port', port } : { type: 'http', port, path, statusMin, statusMax };
    const condition = mode === 'tcp' ? `port ${port} (TCP)` : `port ${port} (HTTP ${path})`;
    await wait(this.#scope, this, until, condition, timeout, signal);
  }

  /** Waits for its end. */
  async waitForExit(timeout?: number, options?: Abortable): Promise<WaitForExitResult> {
    const ready = await wait(this.#scope, this, { type: 'exit' }, 'process exit', timeout, options?.signal);
    return { exitCode: ready.process.exitCode ?? 0 };
  }

  /** Writes to its stdin, which was left open by `stdin: 'open'`. */
  async writeStdin(data: string | Uint8Array, options: { close?: boolean } & Abortable = {}): Promise<void> {
    const { close, signal } = options;
    await this.#scope.done('POST', `${route(this.id)}/stdin`, { attempt: 'write to a process', body: data, query: { close }, signal });
  }
}

const route = (id: string) => `/processes/${encodeURIComponent(id)}`;

const about = (scope: Scope, id: string, { signal }: Abortable = {}) =>
  scope.json<wire.Process>('GET', route(id), { attempt: 'look at a process', signal, repeatable: true });

export async function start(scope: Scope, command: Command, options: ProcessOptions = {}): Promise<Process> {
  const json: wire.StartProcess = { command };
  const session = scope.sessionOf(options);
  if (session !== undefined) json.session = session;
  json.id = options.processId ?? `proc_${Date.now()}_${Math.random().toString(36).slice(2, 8)}`;
  if (options.cwd !== undefined) json.cwd = options.cwd;
  const env = variables(options.env);
  if (env) json.env = env;
  const timeoutMs = milliseconds(options.timeout);
  if (timeoutMs !== undefined) json.timeoutMs = timeoutMs;
  // One that is followed is forgotten when its end has been told: it may end before it is followed.
  const isFollowed = options.onOutput !== undefined || options.onExit !== undefined;
  if (options.autoCleanup !== undefined) json.autoCleanup = options.autoCleanup && !isFollowed;
  if (options.stdin !== undefined) json.stdin = options.stdin;
  let process: Process;
  try {
    const call = { attempt: 'start a process', json, signal: options.signal };
    process = new Process(scope, await scope.json<wire.Process>('POST', '/processes', call));
  } catch (error) {
    options.onError?.(error as Error);
    throw error;
  }
  options.onStart?.(process);
  if (isFollowed) void tell(scope, process, options);
  return process;
}

/** Calls back until the process has ended. Never rejects: there is nobody to tell but `onError`. */
async function tell(scope: Scope, process: Process, options: ProcessOptions): Promise<void> {
  try {
    for await (const event of follow(scope, process.id, options.signal)) {
      if (event.type === 'exit') {
        if (options.autoCleanup) await scope.done('DELETE', route(process.id), { attempt: 'forget a process' }).catch(() => undefined);
        options.onExit?.(event.exitCode ?? null);
      } else if (event.type !== 'error') options.onOutput?.(event.type, event.data);
    }
  } catch (error) {
    options.onError?.(error as Error);
  }
}

export async function list(scope: Scope, { signal }: Abortable = {}): Promise<Process[]> {
  const call = { attempt: 'list processes', query: { kind: 'process' }, signal, repeatable: true };
  const { processes } = await scope.json<wire.ProcessList>('GET', '/processes', call);
  return processes.map((each) => new Process(scope, each));
}

export async function get(scope: Scope, id: string | number, options?: Abortable): Promise<Process | null> {
  if (typeof id === 'number' || /^\d+$/.test(id)) {
    return (await list(scope, options)).findLast((process) => process.pid === Number(id)) ?? null;
  }
  try {
    return new Process(scope, await about(scope, id, options));
  } catch (error) {
    if (error instanceof SandboxError && error.code === 'PROCESS_NOT_FOUND') return null;
    throw error;
  }
}

/** The id of a process by its id or its process id in the sandbox. */
export async function idOf(scope: Scope, id: string | number, options?: Abortable): Promise<string> {
  if (typeof id === 'string' && !/^\d+$/.test(id)) return id;
  const found = await get(scope, id, options);
  if (found) return found.id;
  throw errorOf('PROCESS_NOT_FOUND', `no process with the process id ${id}`, {
    httpStatus: 404,
    context: { processId: String(id) },
  });
}

export async function kill(scope: Scope, id: string | number, signal?: string | number, options: Abortable = {}): Promise<void> {
  const json = signal === undefined ? {} : { signal };
  const path = `${route(await idOf(scope, id, options))}/kill`;
  await scope.done('POST', path, { attempt: 'end a process', json, signal: options.signal, repeatable: true });
}

export async function killAll(scope: Scope, { signal }: Abortable = {}): Promise<number> {
  const call = { attempt: 'end all processes', json: {}, signal, repeatable: true };
  return (await scope.json<wire.KilledProcesses>('POST', '/processes:kill', call)).killed;
}

export async function logs(scope: Scope, given: string | number, options: Abortable = {}): Promise<ProcessLogs> {
  const id = await idOf(scope, given, options);
  const call = { attempt: 'read the log of a process', signal: options.signal, repeatable: true };
  const { records } = await scope.json<wire.ProcessLogs>('GET', `${route(id)}/logs`, call);
  const text = (stream?: string) => records.flatMap((each) => (stream && each.stream !== stream ? [] : each.data)).join('');
  const result = { stdout: text('stdout'), stderr: text('stderr'), processId: id };
  Object.defineProperty(result, 'toString', { value: () => text() });
  return result;
}

/** The log from the beginning on and as it grows, also over broken connections, to the end of the process. */
async function* follow(scope: Scope, id: string, signal?: AbortSignal): AsyncGenerator<LogEvent, void, undefined> {
  const attempt = 'follow the log of a process';
  const open = (after: string | undefined) => {
    const headers: Record<string, string> = { accept: 'text/event-stream' };
    if (after !== undefined) headers['last-event-id'] = after;
    return scope.send('GET', `${route(id)}/logs`, { attempt, headers, query: { follow: true }, signal, repeatable: true });
  };
  const isEnd = (event: wire.ExecEvent) => event.type === 'exit';
  for await (const event of resumed({ attempt, signal, open, isEnd, resumes: true })) {
    if (event.type === 'stdout' || event.type === 'stderr') {
      yield { type: event.type, timestamp: isoOf(event.timeMs), data: event.data, processId: id };
    } else if (event.type === 'exit') {
      yield { type: 'exit', timestamp: now(), data: '', processId: id, exitCode: event.exitCode };
    }
  }
}

export async function stream(scope: Scope, given: string | number, options: Abortable = {}): Promise<ReadableStream<Uint8Array>> {
  const id = await idOf(scope, given, options);
  // Fails now, not in the stream, if it is not there.
  await about(scope, id, options);
  return eventStream((signal) => follow(scope, id, signal), options.signal);
}

interface Awaited {
  id: string;
  command: string;
}

function tooLate({ id, command }: Awaited, condition: string, timeout: number): SandboxError {
  return errorOf('PROCESS_READY_TIMEOUT', `Process did not become ready within ${timeout}ms. Waiting for: ${condition}`, {
    httpStatus: 408,
    context: { processId: id, command, condition, timeout },
    suggestion: 'Look at its output with getProcessLogs(), or give it a longer timeout.',
  });
}

function tooEarly({ id, command }: Awaited, condition: string, exitCode: number): SandboxError {
  return errorOf('PROCESS_EXITED_BEFORE_READY', `Process exited with code ${exitCode} before becoming ready. Waiting for: ${condition}`, {
    httpStatus: 500,
    context: { processId: id, command, condition, exitCode },
    suggestion: 'Look at its output with getProcessLogs().',
  });
}

async function wait(
  scope: Scope,
  process: Awaited,
  until: wire.WaitUntil,
  condition: string,
  timeout: number | undefined,
  signal: AbortSignal | undefined,
): Promise<wire.ProcessReady> {
  const end = timeout === undefined ? Infinity : Date.now() + timeout;
  for (;;) {
    const timeoutMs = Math.max(1, Math.round(Math.min(WAIT_MS, end - Date.now())));
    try {
      const call = { attempt: 'wait for a process', json: { until, timeoutMs }, signal, repeatable: true };
      return await scope.json<wire.ProcessReady>('POST', `${route(process.id)}/wait`, call);
    } catch (error) {
      if (!(error instanceof SandboxError)) throw error;
      if (error.code === 'PROCESS_EXITED_BEFORE_READY') {
        const known = await about(scope, process.id).catch(() => undefined);
        throw tooEarly(process, condition, known?.exitCode ?? Number(error.context.exitCode ?? 1));
      }
      if (error.code !== 'PROCESS_READY_TIMEOUT') throw error;
      if (Date.now() >= end) throw tooLate(process, condition, timeout!);
    }
  }
}

async function waitForText(scope: Scope, process: Awaited, text: string, timeout?: number, signal?: AbortSignal): Promise<WaitForLogResult> {
  const ready = await wait(scope, process, { type: 'log', text }, `"${text}"`, timeout, signal);
  return { line: ready.line?.text ?? text };
}

/** Looks at the lines here, because only here is a regular expression what its writer means. */
async function waitForPattern(scope: Scope, process: Awaited, pattern: RegExp, timeout?: number, signal?: AbortSignal): Promise<WaitForLogResult> {
  if (signal?.aborted) throw signal.reason;
  // With these flags a match would depend on the one before.
  const plain = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, ''));
  const giveUp = new AbortController();
  const stop = () => giveUp.abort(signal!.reason);
  signal?.addEventListener('abort', stop, { once: true });
  const late = timeout === undefined || timeout > LONGEST_TIMER_MS ? undefined : setTimeout(() => giveUp.abort(tooLate(process, String(pattern), timeout)), timeout);
  const begun: Record<string, string> = { stdout: '', stderr: '' };
  try {
    for await (const event of follow(scope, process.id, giveUp.signal)) {
      if (event.type === 'exit') throw tooEarly(process, String(pattern), event.exitCode ?? 1);
      const lines = ((begun[event.type] ?? '') + event.data).split('\n');
      for (const [at, each] of lines.entries()) {
        const line = each.endsWith('\r') ? each.slice(0, -1) : each;
        const match = line.match(plain);
        // The last one has no end yet, and may match already.
        if (match) return { line, match };
        if (at === lines.length - 1) begun[event.type] = each;
      }
    }
    throw tooEarly(process, String(pattern), 1);
  } finally {
    clearTimeout(late);
    signal?.removeEventListener('abort', stop);
  }
}
