/** Terminals: programs on a pseudoterminal that viewers come to and leave. */

import { platform } from '#platform';
import { forget } from './binding.js';
import { errorOf, type SandboxError } from './error.js';
import { broken, failure } from './http.js';
import { Refused, type Socket } from './platform/platform.js';
import { type Abortable, type InSession, type Scope, variables } from './scope.js';
import type { Command, Env } from './exec.js';
import type * as wire from './wire.js';

/** Options of `terminal(request, options)`. */
export interface PtyOptions {
  /** Columns; 80 unless given. */
  cols?: number;
  /** Rows; 24 unless given. */
  rows?: number;
  /** The program; bash unless given. */
  shell?: string;
}

/** Options of `openTerminal`. */
export interface TerminalOptions extends PtyOptions, InSession, Abortable {
  /** The id of the terminal, which is made when it does not exist; generated unless given. */
  id?: string;
  /** What to run in a terminal that is made now. */
  command?: Command;
  /** Where it starts; the directory of its session unless given. */
  cwd?: string;
  /** Variables over those of its session. */
  env?: Env;
  /** Begin with the output after this position instead of all that is kept. */
  cursor?: number;
}

/** How the program of a terminal ended. */
export interface TerminalExit {
  code: number;
  /** Name of the signal that ended it. */
  signal?: string;
}

const ATTEMPT = 'attach to a terminal';

/** Bytes of output that came and were not read, after which the rest is to wait; of output that nobody reads, the newest so many are kept. */
const UNREAD_BYTES = 1024 * 1024;

/** The same, at most: where a WebSocket cannot be told to wait. */
const LONGEST_BYTES = 64 * 1024 * 1024;

interface Messages {
  data: (bytes: Uint8Array) => void;
  exit: (exit: TerminalExit) => void;
}

/**
 * A viewer of a terminal: what is written is typed, what is read is the output. Who iterates slowly
 * slows the program down; of what nobody reads the newest MiB is kept.
 */
export class Terminal implements AsyncIterable<Uint8Array> {
  readonly #socket: Socket;
  readonly #scope: Scope;
  readonly #waiting: Uint8Array[] = [];
  #unread = 0;
  /** Somebody iterates. */
  #isRead = false;
  /** Left from here. */
  #isLeft = false;
  #listener: Messages['data'] | undefined;
  #wake: (() => void) | undefined;
  #over = false;
  #failure: Error | undefined;
  #exit: TerminalExit | undefined;
  /** Resolves when the program has ended; rejects when the connection broke before. */
  readonly exited: Promise<TerminalExit>;
  /** Position after the last byte of output that came, for `cursor`. */
  cursor: number;

  constructor(
    scope: Scope,
    socket: Socket,
    /** Its id. */
    readonly id: string,
  ) {
    this.#scope = scope;
    this.#socket = socket;
    this.cursor = Number(socket.headers?.get('x-sandbar-cursor') ?? 0);
    this.exited = new Promise((resolve, reject) => {
      socket.onclose = (error) => {
        this.#over = true;
        if (!this.#exit) this.#failure ??= error ?? broken(ATTEMPT, 'the server', new Error('the terminal was closed'));
        this.#wake?.();
        if (this.#exit) resolve(this.#exit);
        else reject(this.#failure);
      };
    });
    // Whoever does not ask for the end is not told of a broken connection by a crash.
    this.exited.catch(() => {});
    socket.onmessage = (data) => {
      if (typeof data === 'string') return this.#event(data);
      this.cursor += data.length;
      if (this.#listener) this.#listener(data);
      else this.#keep(data);
      this.#wake?.();
    };
  }

  #keep(data: Uint8Array): void {
    this.#waiting.push(data);
    this.#unread += data.length;
    if (this.#isRead) {
      if (this.#unread > UNREAD_BYTES) this.#socket.pause?.();
      if (this.#unread <= LONGEST_BYTES) return;
      this.#failure ??= errorOf('TERMINAL_ERROR', `${LONGEST_BYTES} bytes came that were not read`);
      this.#socket.close();
    }
    // The end comes behind the output, and is for whoever waits for that alone.
    while (this.#unread - this.#waiting[0]!.length >= UNREAD_BYTES) this.#unread -= this.#waiting.shift()!.length;
  }

  #event(text: string): void {
    const event = JSON.parse(text) as { type: string; code?: number; signal?: string; message?: string };
    if (event.type === 'exit') this.#exit = { code: event.code ?? 0, ...(event.signal ? { signal: event.signal } : {}) };
    if (event.type === 'error') this.#failure = errorOf('TERMINAL_ERROR', event.message ?? 'the terminal failed');
  }

  /** Types. */
  write(data: string | Uint8Array): void {
    this.#socket.send(typeof data === 'string' ? new TextEncoder().encode(data) : data);
  }

  /** Says that the viewer's size has changed. */
  resize(cols: number, rows: number): void {
    this.#socket.send(JSON.stringify({ type: 'resize', cols, rows }));
  }

  /** Calls back with the output, first with what came before. Not together with iterating. */
  onData(listener: (bytes: Uint8Array) => void): void {
    this.#listener = listener;
    this.#unread = 0;
    for (const bytes of this.#waiting.splice(0)) listener(bytes);
  }

  /** The output from what is kept on, to the end of the program; throws when the connection broke before. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    this.#isRead = true;
    try {
      for (;;) {
        const next = this.#waiting.shift();
        if (next) {
          if (this.#unread > UNREAD_BYTES && this.#unread - next.length <= UNREAD_BYTES) this.#socket.resume?.();
          this.#unread -= next.length;
          yield next;
        } else if (!this.#over) await new Promise<void>((resolve) => (this.#wake = resolve));
        else if (this.#exit || this.#isLeft) return;
        else throw this.#failure;
      }
    } finally {
      this.#isRead = false;
      this.#socket.resume?.();
    }
  }

  /** Leaves; the program runs on, for whoever comes back by its id. */
  close(): void {
    this.#isLeft = true;
    this.#socket.close();
  }

  /** Ends the program with all its processes. */
  async terminate({ signal }: Abortable = {}): Promise<void> {
    await this.#scope.done('DELETE', route(this.id), { attempt: 'end a terminal', signal });
  }
}

const route = (id: string) => `/terminals/${encodeURIComponent(id)}`;

/** Its URL, and the header with the key. */
async function address(scope: Scope, id: string, query: Record<string, string | number | undefined>): Promise<[string, Record<string, string>]> {
  const { url, key } = await scope.http.server();
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== undefined) pairs.set(name, String(value));
  const text = pairs.toString();
  return [`${url}${scope.path(route(id))}${text && `?${text}`}`, { authorization: `Bearer ${key}` }];
}

/** Attaches to a terminal, which is made when it does not exist. */
export async function open(scope: Scope, options: TerminalOptions = {}): Promise<Terminal> {
  const session = scope.sessionOf(options);
  const { cols, rows, shell, cursor, command, cwd, signal } = options;
  let { id } = options;
  if (id === undefined || command !== undefined || cwd !== undefined || options.env) {
    const json: wire.CreateTerminal = { id, command: command ?? shell, session, cwd, cols, rows, env: variables(options.env) };
    id = (await scope.json<wire.Terminal>('POST', '/terminals', { attempt: 'start a terminal', json, signal })).id;
  }
  const query = { cols, rows, session, shell, cursor };
  return scope.use((headers) => attach(scope, id, query, headers, signal), { signal });
}

async function attach(
  scope: Scope,
  id: string,
  query: Record<string, string | number | undefined>,
  headers: Record<string, string>,
  signal: AbortSignal | undefined,
): Promise<Terminal> {
  const [url, key] = await address(scope, id, query);
  try {
    return new Terminal(scope, await platform.socket(url, { ...headers, ...key }, signal), id);
  } catch (error) {
    if (!(error instanceof Refused)) forget(scope.http.binding);
    throw await told(error, url);
  }
}

async function told(error: unknown, url: string): Promise<SandboxError | unknown> {
  if (error instanceof Refused) return failure(error.response, ATTEMPT);
  if (error instanceof DOMException || error instanceof TypeError) return error;
  return broken(ATTEMPT, new URL(url).origin, error);
}

/**
 * Answers a request for a WebSocket with a terminal: binary messages are its input and output, text
 * messages are JSON (`ready`, `exit`, `error`, and `resize` from the viewer).
 */
export async function answer(scope: Scope, request: Request, options: PtyOptions, session: string | undefined): Promise<Response> {
  if (request.headers.get('upgrade')?.toLowerCase() !== 'websocket') {
    throw errorOf('VALIDATION_FAILED', 'terminal() answers requests for a WebSocket, and this one asks for none', { httpStatus: 400 });
  }
  const { cols, rows, shell } = options;
  return scope.use(async (headers) => {
    const [url, key] = await address(scope, `session-${session ?? 'none'}`, { cols, rows, session, shell });
    const response = await platform.tunnel(new Request(request, { headers: handshake(request.headers) }), url, { ...headers, ...key });
    const error = response.status === 404 ? await failure(response.clone(), ATTEMPT) : undefined;
    if (error?.context.firstUse) throw error;
    return response;
  }, { signal: request.signal });
}

/** What a WebSocket is agreed on with. The rest, as its page's origin and its cookies, was said to the Worker. */
function handshake(visitor: Headers): Record<string, string> {
  const passed: Record<string, string> = { upgrade: 'websocket' };
  visitor.forEach((value, name) => {
    if (name.startsWith('sec-websocket-')) passed[name] = value;
  });
  return passed;
}

/** What a terminal is, for lists. */
export type TerminalInfo = wire.Terminal;

export async function list(scope: Scope, { signal }: Abortable = {}): Promise<TerminalInfo[]> {
  const call = { attempt: 'list terminals', signal, repeatable: true };
  return (await scope.json<wire.TerminalList>('GET', '/terminals', call)).terminals;
}
