/** Commands: run to their end, with their output at once or as it comes. */

import { SandboxError, errorOf } from './error.js';
import { broken } from './http.js';
import { COME_BACK_MS, resumed } from './resume.js';
import { type Abortable, type InSession, type Scope, isoOf, milliseconds, now, variables } from './scope.js';
import { eventStream, ownEvents } from './sse.js';
import type * as wire from './wire.js';

/** How a command ended. */
export type Ending = wire.Ending;

/** Variables of a command; `undefined` is left out, `null` unsets. */
export type Env = Record<string, string | null | undefined>;

/** What commands and processes have in common. */
export interface BaseExecOptions extends InSession, Abortable {
  /** Milliseconds until the command's whole process tree is killed; the session's, else none. */
  timeout?: number;
  /** Variables for this command only. */
  env?: Env;
  /** Working directory, for this command only. */
  cwd?: string;
  /** Output is text; accepted and not used. */
  encoding?: string;
}

/** Options of `exec`. */
export interface ExecOptions extends BaseExecOptions {
  /** Tell output as it comes; so does `onOutput` alone. */
  stream?: boolean;
  /** Called with each piece of output as it comes. */
  onOutput?: (stream: 'stdout' | 'stderr', data: string) => void;
  /** Called with the result before the promise resolves. */
  onComplete?: (result: ExecResult) => void;
  /** Called with the error before the promise rejects. */
  onError?: (error: Error) => void;
  /** What the command reads; nothing unless given. */
  stdin?: string;
  /** Accepted and not used. */
  origin?: 'user' | 'internal';
  /**
   * Makes the call safe to repeat: calls with one key and one command run it once, and each returns
   * its result. When the connection breaks, the call comes back by itself. Cancelling it ends the
   * command all the same.
   */
  idempotencyKey?: string;
}

/** Options of `execStream`. */
export interface StreamOptions extends BaseExecOptions {
  /** What the command reads; nothing unless given. */
  stdin?: string;
  /** Accepted and not used: the stream is read no faster than its reader takes it. */
  bufferSize?: number;
  /** See `ExecOptions`; one is made unless given, so streams resume by themselves. */
  idempotencyKey?: string;
}

/** A finished command. An exit code other than 0 is a result, not an error. */
export interface ExecResult {
  /** The command returned 0. */
  success: boolean;
  /** The number a shell would give: 127 for a command that is not there, 124 for a timeout, ... */
  exitCode: number;
  stdout: string;
  stderr: string;
  /** The command as it was given. */
  command: string;
  /** Milliseconds from start to end. */
  duration: number;
  /** When it ended, in ISO 8601. */
  timestamp: string;
  /** The session it ran in. */
  sessionId?: string;
  /** How it truly ended. */
  ending: Ending;
  /** Its id among the processes of the sandbox. */
  processId?: string;
  /** CPU time and memory. */
  usage: wire.ExecUsage;
  /** Bytes of output that were lost; 0 means that nothing is missing. */
  droppedBytes: number;
  /** What the network policy refused to the sandbox meanwhile, if the command failed and that is something. */
  refused?: wire.Refused;
}

/** The answer of `exec`, as older documents call it. */
export type ExecuteResponse = ExecResult;

/** An event of `execStream`. */
export interface ExecEvent {
  type: 'start' | 'stdout' | 'stderr' | 'complete' | 'error';
  /** When, in ISO 8601. */
  timestamp: string;
  /** Of `stdout` and `stderr`. */
  data: string;
  /** Of `start`. */
  command?: string;
  /** Of `start`. */
  pid?: number;
  /** Of `start`. */
  processId?: string;
  sessionId?: string;
  /** Of `complete`. */
  exitCode?: number;
  /** Of `complete`: the result without the output, which was sent before. */
  result?: Omit<ExecResult, 'stdout' | 'stderr'>;
  /** Of `error`. */
  error?: string;
}

const ATTEMPT = 'run a command';

/** A text for the shell, or a program and its arguments, which no shell sees. */
export type Command = string | string[];

interface Run {
  command: Command;
  options: BaseExecOptions & { stdin?: string };
  session: string | undefined;
  key: string | undefined;
}

const shown = (command: Command) => (typeof command === 'string' ? command : command.join(' '));

function bodyOf({ command, options, session }: Run): wire.ExecRequest {
  const body: wire.ExecRequest = { command };
  if (session !== undefined) body.session = session;
  if (options.cwd !== undefined) body.cwd = options.cwd;
  const env = variables(options.env);
  if (env) body.env = env;
  const timeoutMs = milliseconds(options.timeout);
  if (timeoutMs !== undefined) body.timeoutMs = timeoutMs;
  if (options.stdin !== undefined) body.stdin = options.stdin;
  return body;
}

function open(scope: Scope, run: Run, after: string | undefined, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = { accept: 'text/event-stream' };
  if (run.key) headers['idempotency-key'] = run.key;
  if (after !== undefined) headers['last-event-id'] = after;
  return scope.send('POST', '/exec', {
    attempt: ATTEMPT,
    json: bodyOf(run),
    headers,
    signal,
    repeatable: run.key !== undefined,
  });
}

/**
 * The events of a command. With a key it goes on by itself when the connection breaks, and giving
 * up kills the command, because the server would wait for somebody to come back.
 */
async function* follow(scope: Scope, run: Run, first: Response): AsyncGenerator<wire.ExecEvent> {
  const { signal } = run.options;
  let processId: string | undefined;
  let over = false;
  const stream = {
    attempt: ATTEMPT,
    signal,
    open: (after: string | undefined) => open(scope, run, after, signal),
    isEnd: (event: wire.ExecEvent) => event.type === 'exit',
    resumes: run.key !== undefined,
  };
  try {
    for await (const event of resumed(stream, first)) {
      if (event.type === 'start') {
        // Each connection begins with it.
        if (processId) continue;
        processId = event.processId;
      }
      over = event.type === 'exit';
      yield event;
    }
  } catch (error) {
    over ||= isToldEnd(error);
    throw error;
  } finally {
    if (!over && run.key) kill(scope, run, processId);
  }
}

/** The server said that it is over: there is nothing to end, and asking would begin it again. */
export const isToldEnd = (error: unknown): boolean =>
  error instanceof SandboxError && !['CONNECTION_FAILED', 'OPERATION_INTERRUPTED'].includes(error.code);

/** Ends a command that waits for a caller who does not come back. */
function kill(scope: Scope, run: Run, processId: string | undefined): void {
  const end = async () => {
    const id = processId ?? (await startOf(scope, run));
    if (id) await scope.done('POST', `/processes/${encodeURIComponent(id)}/kill`, { attempt: 'end a command', json: { graceMs: 0 } });
  };
  // Nobody waits for it; where it fails the server ends the command after its time of grace.
  end().catch(() => {});
}

async function startOf(scope: Scope, run: Run): Promise<string | undefined> {
  const response = await open(scope, run, undefined, AbortSignal.timeout(COME_BACK_MS));
  for await (const { data } of ownEvents(response.body!)) {
    const event = JSON.parse(data) as wire.ExecEvent;
    return event.type === 'start' ? event.processId : undefined;
  }
  return undefined;
}

async function begin(scope: Scope, run: Run): Promise<AsyncGenerator<wire.ExecEvent>> {
  let response: Response;
  try {
    response = await open(scope, run, undefined, run.options.signal);
  } catch (error) {
    if (run.key && run.options.signal?.aborted) kill(scope, run, undefined);
    throw error;
  }
  return follow(scope, run, response);
}

function resultOf(run: Run, exit: Extract<wire.ExecEvent, { type: 'exit' }>, more: { processId?: string; dropped: number }) {
  const { success, exitCode, ending, durationMs, usage } = exit;
  const result: Omit<ExecResult, 'stdout' | 'stderr'> = {
    success,
    exitCode,
    command: shown(run.command),
    duration: durationMs,
    timestamp: now(),
    ending,
    usage,
    droppedBytes: more.dropped,
  };
  if (exit.refused) result.refused = exit.refused;
  if (run.session !== undefined) result.sessionId = run.session;
  if (more.processId) result.processId = more.processId;
  return result;
}

/** As the reference: a timeout in a session is an error, in a shell of its own an exit code. */
function timedOut(result: ExecResult, timeout: number | undefined): SandboxError | undefined {
  if (result.ending.type !== 'timeout' || result.sessionId === undefined) return undefined;
  const time = timeout ? `${timeout} ms` : "the session's time";
  return errorOf('COMMAND_EXECUTION_ERROR', `Command timeout: it did not end within ${time} and was killed: ${result.command}`, {
    httpStatus: 500,
    operation: ATTEMPT,
    context: { ...result, timeout },
    suggestion: 'Give it a longer `timeout`, or start it with startProcess(). What it wrote is in `error.context`.',
  });
}

export async function exec(scope: Scope, command: Command, options: ExecOptions = {}): Promise<ExecResult> {
  const run: Run = { command, options, session: scope.sessionOf(options), key: options.idempotencyKey };
  try {
    let [stdout, stderr, dropped] = ['', '', 0];
    let processId: string | undefined;
    for await (const event of await begin(scope, run)) {
      if (event.type === 'stdout') stdout += event.data;
      else if (event.type === 'stderr') stderr += event.data;
      else if (event.type === 'dropped') dropped += event.bytes;
      else if (event.type === 'start') processId = event.processId;
      if (event.type === 'stdout' || event.type === 'stderr') options.onOutput?.(event.type, event.data);
      if (event.type !== 'exit') continue;
      const { success, exitCode, ...rest } = resultOf(run, event, { processId, dropped });
      const result: ExecResult = { success, exitCode, stdout, stderr, ...rest };
      const error = timedOut(result, options.timeout);
      if (error) throw error;
      options.onComplete?.(result);
      return result;
    }
    throw broken(ATTEMPT, 'the server', new Error('it ended early'));
  } catch (error) {
    options.onError?.(error as Error);
    throw error;
  }
}

async function* translate(run: Run, events: AsyncGenerator<wire.ExecEvent>): AsyncGenerator<ExecEvent> {
  let processId: string | undefined;
  let dropped = 0;
  const session = run.session === undefined ? {} : { sessionId: run.session };
  try {
    for await (const event of events) {
      if (event.type === 'start') {
        processId = event.processId;
        const { pid } = event;
        yield { type: 'start', timestamp: now(), command: shown(run.command), pid, processId, ...session } as ExecEvent;
      } else if (event.type === 'stdout' || event.type === 'stderr') {
        yield { type: event.type, timestamp: isoOf(event.timeMs), data: event.data, ...session };
      } else if (event.type === 'dropped') {
        dropped += event.bytes;
      } else {
        const result = resultOf(run, event, { processId, dropped });
        yield { type: 'complete', timestamp: now(), exitCode: event.exitCode, result, ...session } as ExecEvent;
      }
    }
  } catch (error) {
    if (run.options.signal?.aborted) throw error;
    yield { type: 'error', timestamp: now(), error: (error as Error).message, ...session } as ExecEvent;
  }
}

/** A key that no other call has. */
export function newKey(): string {
  const words = crypto.getRandomValues(new Uint32Array(4));
  return Array.from(words, (word) => word.toString(36)).join('-');
}

export function execStream(scope: Scope, command: Command, options: StreamOptions = {}): Promise<ReadableStream<Uint8Array>> {
  const key = options.idempotencyKey ?? newKey();
  return eventStream(async (signal) => {
    const run: Run = { command, options: { ...options, signal }, session: scope.sessionOf(options), key };
    return translate(run, await begin(scope, run));
  }, options.signal);
}
