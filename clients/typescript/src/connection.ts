/** Connections to ports of a sandbox, which need not be exposed, and HTTP over them. */

import { platform } from '#platform';
import { forget } from './binding.js';
import { errorOf } from './error.js';
import { broken, failure } from './http.js';
import { Refused, type Connection, type Socket } from './platform/platform.js';
import type { Abortable, Scope } from './scope.js';

/** Bytes that came and were not read, after which the rest is to wait. */
const PAUSE_BYTES = 1024 * 1024;

/** The same, at most: where a WebSocket cannot be told to wait. */
const UNREAD_BYTES = 64 * 1024 * 1024;

/** Bytes of one message that is sent. */
const PIECE_BYTES = 64 * 1024;

/** Bytes of an answer's head, or of one line within its body. */
const HEAD_BYTES = 64 * 1024;

/** Headers that are about one connection; and what the sandbox's program is told by us. */
const OF_CONNECTION = ['connection', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'host', 'content-length', 'expect', 'cf-container-target-port'];

const encoder = new TextEncoder();

/** Bytes as they come and as they are wanted. */
class Bytes implements Connection {
  readonly #socket: Socket;
  readonly #chunks: Uint8Array[] = [];
  #unread = 0;
  #over = false;
  #failure: Error | undefined;
  #wake = () => {};

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.onmessage = (data) => {
      if (typeof data === 'string' || data.length === 0 || this.#over) return;
      this.#chunks.push(data);
      this.#unread += data.length;
      if (this.#unread > PAUSE_BYTES) socket.pause?.();
      if (this.#unread > UNREAD_BYTES) this.#end(new Error(`${UNREAD_BYTES} bytes came that were not read`));
      this.#wake();
    };
    socket.onclose = (error) => this.#end(error);
  }

  #end(error: Error | undefined): void {
    if (!this.#over) this.#failure = error;
    this.#over = true;
    this.#wake();
  }

  async read(): Promise<Uint8Array | undefined> {
    for (;;) {
      const next = this.#chunks.shift();
      if (next) {
        if (this.#unread > PAUSE_BYTES && this.#unread - next.length <= PAUSE_BYTES) this.#socket.resume?.();
        this.#unread -= next.length;
        return next;
      }
      if (this.#failure) throw this.#failure;
      if (this.#over) return undefined;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  /** Bytes that were read too far. */
  putBack(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#chunks.unshift(bytes);
    this.#unread += bytes.length;
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += PIECE_BYTES) this.#socket.send(bytes.subarray(at, at + PIECE_BYTES));
    await this.#socket.drained?.();
  }

  close(reason?: Error): void {
    this.#socket.close();
    this.#end(reason);
  }

  /** Text up to `end`, which is left out. */
  async until(end: string): Promise<string> {
    let text = '';
    for (;;) {
      const chunk = await this.read();
      if (!chunk) throw new Error('the connection ended in the middle of an answer');
      // One character for each byte, as heads are.
      const from = Math.max(0, text.length - end.length);
      for (let at = 0; at < chunk.length; at += 8192) text += String.fromCharCode(...chunk.subarray(at, at + 8192));
      const found = text.indexOf(end, from);
      if (found >= 0) {
        const used = chunk.length - (text.length - found - end.length);
        this.putBack(chunk.subarray(used));
        return text.slice(0, found);
      }
      if (text.length > HEAD_BYTES) throw new Error('the head of an answer is too long');
    }
  }

  /** At most `length` bytes. */
  async upTo(length: number): Promise<Uint8Array> {
    const chunk = await this.read();
    if (!chunk) throw new Error('the connection ended in the middle of an answer');
    this.putBack(chunk.subarray(length));
    return chunk.subarray(0, length);
  }
}

async function* exactly(bytes: Bytes, length: number): AsyncGenerator<Uint8Array> {
  for (let left = length; left > 0; ) {
    const chunk = await bytes.upTo(left);
    left -= chunk.length;
    yield chunk;
  }
}

async function* chunked(bytes: Bytes): AsyncGenerator<Uint8Array> {
  for (;;) {
    const line = await bytes.until('\r\n');
    const size = /^([0-9a-f]{1,8})[ \t]*(?:;.*)?$/i.exec(line)?.[1];
    if (size === undefined) throw new Error('the body of an answer is no HTTP');
    const length = Number.parseInt(size, 16);
    if (length === 0) break;
    yield* exactly(bytes, length);
    if ((await bytes.until('\r\n')) !== '') throw new Error('the body of an answer is no HTTP');
  }
  while ((await bytes.until('\r\n')) !== '');
}

async function* toItsEnd(bytes: Bytes): AsyncGenerator<Uint8Array> {
  for (let chunk = await bytes.read(); chunk; chunk = await bytes.read()) yield chunk;
}

interface Head {
  status: number;
  statusText: string;
  headers: Headers;
}

async function headOf(bytes: Bytes): Promise<Head> {
  const [first, ...lines] = (await bytes.until('\r\n\r\n')).split('\r\n');
  const [, status, statusText] = /^HTTP\/1\.[01] ([1-5]\d\d)(?: (.*))?$/.exec(first!) ?? [];
  if (!status) throw new Error('the answer is no HTTP');
  const headers = new Headers();
  for (const line of lines) {
    const [, name, value] = /^([!#$%&'*+.^_`|~\w-]+):[ \t]*(.*?)[ \t]*$/.exec(line) ?? [];
    if (!name) throw new Error('the head of an answer is no HTTP');
    headers.append(name, value!);
  }
  return { status: Number(status), statusText: statusText ?? '', headers };
}

function bodyOf(bytes: Bytes, { headers }: Head): AsyncGenerator<Uint8Array> {
  const coding = headers.get('transfer-encoding')?.toLowerCase();
  const length = headers.get('content-length');
  if (coding !== undefined) {
    if (coding !== 'chunked') throw new Error(`the answer has a coding that is not understood: ${coding}`);
    return chunked(bytes);
  }
  if (length === null) return toItsEnd(bytes);
  if (!/^\d{1,15}$/.test(length)) throw new Error('the length of an answer is no number');
  return exactly(bytes, Number(length));
}

/** The body as a stream, whose end closes the connection. */
function streamOf(chunks: AsyncGenerator<Uint8Array>, finish: () => void, told: (error: unknown) => unknown): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await chunks.next();
          if (!done) return controller.enqueue(value);
          controller.close();
        } catch (error) {
          controller.error(told(error));
        }
        finish();
      },
      cancel: finish,
    },
    { highWaterMark: 0 },
  );
}

/** Statuses whose answers have no body. */
const BODILESS = [204, 205, 304];

/** The answer with this head, whose body is as it came: workerd would encode it once more. */
function answerOf(body: ReadableStream<Uint8Array> | null, { status, statusText, headers }: Head): Response {
  const init: ResponseInit & { encodeBody: 'manual' } = { status, statusText, headers, encodeBody: 'manual' };
  return new Response(body, init);
}

async function dial(scope: Scope, port: number, attempt: string, signal: AbortSignal | undefined): Promise<Bytes> {
  if (signal?.aborted) throw signal.reason;
  return scope.use(async (headers) => {
    const { url, key } = await scope.http.server();
    try {
      const address = `${url}${scope.path(`/ports/${port}/connect`)}`;
      return new Bytes(await platform.socket(address, { ...headers, authorization: `Bearer ${key}` }, signal));
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (error instanceof Refused) throw await failure(error.response, attempt);
      forget(scope.http.binding);
      throw broken(attempt, url, error);
    }
  }, { signal });
}

const linesOf = (request: Request, host: string, extra: string[]): string => {
  const { pathname, search } = new URL(request.url);
  const lines = [`${request.method} ${pathname}${search} HTTP/1.1`, `host: ${host}`, ...extra];
  request.headers.forEach((value, name) => {
    if (!OF_CONNECTION.includes(name)) lines.push(`${name}: ${value}`);
  });
  return `${lines.join('\r\n')}\r\n\r\n`;
};

const isUpgrade = (request: Request) => request.headers.get('upgrade')?.toLowerCase() === 'websocket';

/** A request and its answer, and nothing behind it. */
async function exchange(bytes: Bytes, request: Request, host: string, attempt: string, signal: AbortSignal | undefined): Promise<Response> {
  const abort = () => bytes.close(new Error('aborted'));
  signal?.addEventListener('abort', abort, { once: true });
  const finish = () => {
    signal?.removeEventListener('abort', abort);
    bytes.close();
  };
  const told = (error: unknown) => (signal?.aborted ? signal.reason : broken(attempt, 'the sandbox', error));
  try {
    const body = new Uint8Array(await request.arrayBuffer());
    const length = body.length > 0 || !['GET', 'HEAD'].includes(request.method) ? [`content-length: ${body.length}`] : [];
    bytes.write(encoder.encode(linesOf(request, host, ['connection: close', ...length])));
    bytes.write(body);
    let head = await headOf(bytes);
    while (head.status < 200) head = await headOf(bytes);
    const isEmpty = request.method === 'HEAD' || BODILESS.includes(head.status);
    if (isEmpty) finish();
    const stream = isEmpty ? null : streamOf(bodyOf(bytes, head), finish, told);
    for (const name of ['connection', 'keep-alive', 'transfer-encoding']) head.headers.delete(name);
    return answerOf(stream, head);
  } catch (error) {
    finish();
    throw told(error);
  }
}

/** A request for a WebSocket, and the WebSocket. */
async function upgrade(bytes: Bytes, request: Request, host: string, attempt: string): Promise<Response> {
  const { asked, answer } = platform.bridge(request);
  const abort = () => bytes.close(new Error('aborted'));
  request.signal?.addEventListener('abort', abort, { once: true });
  try {
    bytes.write(encoder.encode(linesOf(asked, host, ['connection: Upgrade', 'upgrade: websocket'])));
    const head = await headOf(bytes);
    if (head.status === 101) return answer(head.headers, bytes);
    // What it said instead is its answer.
    const body = bodyOf(bytes, head);
    return answerOf(streamOf(body, () => bytes.close(), (error) => broken(attempt, 'the sandbox', error)), head);
  } catch (error) {
    bytes.close();
    throw broken(attempt, 'the sandbox', error);
  } finally {
    // From here on it is the connection's end that ends it.
    request.signal?.removeEventListener('abort', abort);
  }
}

/** Sends a request to what listens on a port of the sandbox, and answers with its answer. */
export async function fetchPort(scope: Scope, request: Request, port: number, { signal = request.signal }: Abortable = {}): Promise<Response> {
  if (isUpgrade(request)) return connect(scope, request, port);
  const attempt = `send a request to port ${port}`;
  return exchange(await dial(scope, port, attempt, signal), request, `localhost:${port}`, attempt, signal);
}

/** Answers a request for a WebSocket with one to what listens on a port of the sandbox. */
export async function connect(scope: Scope, request: Request, port: number): Promise<Response> {
  const attempt = `open a WebSocket to port ${port}`;
  if (!isUpgrade(request)) {
    throw errorOf('VALIDATION_FAILED', 'wsConnect() answers requests for a WebSocket, and this one asks for none', { httpStatus: 400 });
  }
  return upgrade(await dial(scope, port, attempt, request.signal), request, `localhost:${port}`, attempt);
}

/** Sends a request, or one for a WebSocket, over a connection that is there, in the name of a host. */
export function passOver(socket: Socket, request: Request, host: string): Promise<Response> {
  const [bytes, attempt] = [new Bytes(socket), 'reach a preview'];
  return isUpgrade(request) ? upgrade(bytes, request, host, attempt) : exchange(bytes, request, host, attempt, request.signal);
}
