/** Requests to the API: one place for the key, for retries and for what failures become. */

import { platform } from '#platform';
import { type Binding, forget, nameOf, serverOf } from './binding.js';
import { SandboxError, errorOf, errorOfWire } from './error.js';
import { isUnsent } from './platform/platform.js';

/** Milliseconds of trying again before a failure is told: a server is replaced in that time. */
const RETRY_LIMIT_MS = 20_000;

/** Milliseconds before the first try again; doubled for each further one. */
const FIRST_PAUSE_MS = 50;

/** Milliseconds between tries at most. */
const LONGEST_PAUSE_MS = 2_000;

/** Codes of answers that say that nothing was done, and that it may work later. */
const LATER = new Set(['STARTING', 'SHUTTING_DOWN', 'TOO_MANY_REQUESTS', 'CAPACITY_EXCEEDED']);

/** Codes of failures after which a server is looked for again: it may have another address or key by now. */
const MOVED = new Set(['CONNECTION_FAILED', 'OPERATION_INTERRUPTED', 'UNAUTHORIZED']);

/** Servers, by what names them, that have answered before, so that they are worth waiting for. */
const answered = new Set<string>();

export interface Call {
  /** What is attempted, for errors: `run a command`. */
  attempt: string;
  query?: Record<string, string | number | boolean | string[] | undefined>;
  /** A JSON body. */
  json?: unknown;
  /** A raw body. */
  body?: string | Uint8Array | ReadableStream<Uint8Array>;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
  /** Doing it twice is as doing it once, so it is tried again when the connection breaks. */
  repeatable?: boolean;
}

export const sleep = (ms: number, signal?: AbortSignal): Promise<void> =>
  new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const abort = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', abort);
      resolve();
    }, ms);
    signal?.addEventListener('abort', abort, { once: true });
  });

/** The API of one server. */
export class Http {
  readonly server: ReturnType<typeof serverOf>;
  readonly #name: string;

  constructor(readonly binding: Binding) {
    this.server = serverOf(binding);
    this.#name = nameOf(binding);
  }

  /** Sends a request; resolves to an answer that says that it was done. */
  async send(method: string, path: string, call: Call): Promise<Response> {
    const begun = Date.now();
    for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
      try {
        return await this.#once(method, path, call);
      } catch (error) {
        if (error instanceof SandboxError && MOVED.has(error.code)) forget(this.binding);
        const left = RETRY_LIMIT_MS - (Date.now() - begun);
        if (call.signal?.aborted || left <= 0 || !this.#mayRepeat(call, error)) throw error;
        const asked = error instanceof SandboxError ? Number(error.context.retryAfterMs ?? 0) : 0;
        await sleep(Math.min(Math.max(pause, asked), left), call.signal);
      }
    }
  }

  #mayRepeat(call: Call, error: unknown): boolean {
    if (!(error instanceof SandboxError) || call.body instanceof ReadableStream) return false;
    if (LATER.has(error.code)) return true;
    if (error.code === 'CONNECTION_FAILED') return answered.has(this.#name);
    return error.code === 'OPERATION_INTERRUPTED' && call.repeatable === true;
  }

  async #once(method: string, path: string, call: Call): Promise<Response> {
    const { attempt, signal } = call;
    const server = await this.server();
    const headers: Record<string, string> = { authorization: `Bearer ${server.key}`, ...call.headers };
    let body = call.body;
    if (call.json !== undefined) {
      headers['content-type'] = 'application/json';
      body = JSON.stringify(call.json);
    }
    let response: Response;
    try {
      response = await platform.send(`${server.url}${path}${queryOf(call.query)}`, { method, headers, body, signal });
    } catch (cause) {
      if (signal?.aborted) throw signal.reason;
      throw broken(attempt, server.url, cause);
    }
    answered.add(this.#name);
    if (response.ok || response.status === 304) return response;
    throw await failure(response, attempt);
  }

  /** As `send`, with the answer's JSON. */
  async json<T>(method: string, path: string, call: Call): Promise<T> {
    const response = await this.send(method, path, call);
    const text = await textOf(response, call);
    try {
      return (text === '' ? undefined : JSON.parse(text)) as T;
    } catch (cause) {
      throw errorOf('PROTOCOL_ERROR', `the server's answer to the attempt to ${call.attempt} is no JSON`, { cause });
    }
  }

  /** As `send`, for an answer that holds nothing. */
  async done(method: string, path: string, call: Call): Promise<void> {
    await textOf(await this.send(method, path, call), call);
  }
}

async function textOf(response: Response, { attempt, signal }: Call): Promise<string> {
  try {
    return await response.text();
  } catch (cause) {
    if (signal?.aborted) throw signal.reason;
    throw broken(attempt, 'the server', cause);
  }
}

/** What a failed connection becomes. */
export function broken(attempt: string, server: string, cause: unknown): SandboxError {
  const why = cause instanceof Error ? cause.message || (cause as { code?: string }).code : String(cause);
  return isUnsent(cause)
    ? errorOf('CONNECTION_FAILED', `no connection to ${server} to ${attempt}: ${why}`, { operation: attempt, cause })
    : errorOf('OPERATION_INTERRUPTED', `the connection to ${server} broke in the attempt to ${attempt}: ${why}`, {
        operation: attempt,
        cause,
      });
}

/** The error that an answer tells. */
export async function failure(response: Response, attempt: string): Promise<SandboxError> {
  let body: unknown;
  try {
    body = JSON.parse(await response.text());
  } catch {
    body = undefined;
  }
  const error = errorOfWire(body, response.status, attempt);
  const after = Number(response.headers.get('retry-after'));
  if (after > 0) error.context.retryAfterMs = after * 1000;
  return error;
}

function queryOf(query: Call['query']): string {
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (Array.isArray(value)) for (const each of value) pairs.append(name, each);
    else if (value !== undefined && value !== false) pairs.append(name, String(value));
  }
  const text = pairs.toString();
  return text && `?${text}`;
}
