/**
 * Node, Bun and Deno: their HTTP client of old. It has no hidden limits of time, which `fetch` has
 * (five minutes without a byte), and lets a caller name the host that is asked for.
 */

import { randomBytes } from 'node:crypto';
import { lstat, open as openFile } from 'node:fs/promises';
import * as http from 'node:http';
import * as https from 'node:https';
import type { Socket as NetSocket } from 'node:net';
import { join } from 'node:path';
import { Duplex, Readable } from 'node:stream';
import { Frames, encodeFrame } from './frames.js';
import { type Connection, Refused, type Outgoing, type Platform, type Server, type Socket } from './platform.js';
import { tunnelled } from './tunnel.js';

/** Connections are kept for the next request; as long as the server keeps them, less a margin. */
const KEPT_MS = 15_000;

const agents = {
  'http:': new http.Agent({ keepAlive: true, keepAliveMsecs: 5_000, timeout: KEPT_MS, scheduling: 'lifo' }),
  'https:': new https.Agent({ keepAlive: true, keepAliveMsecs: 5_000, timeout: KEPT_MS, scheduling: 'lifo' }),
};

/** Milliseconds between signs of life of who reads nothing for now: the server waits for 60 s. */
const ALIVE_MS = 20_000;

const DEFAULT_STATE_DIR = '/var/lib/sandbar';

function open(url: string, options: http.RequestOptions): http.ClientRequest {
  const target = new URL(url);
  const secure = target.protocol === 'https:';
  if (!secure && target.protocol !== 'http:') throw new TypeError(`${url} is no URL of http: or https:`);
  return (secure ? https : http).request(target, options);
}

/** The body of an answer as the web's stream. Cancelling it closes the connection. */
function bodyOf(message: http.IncomingMessage, signal: AbortSignal | undefined): ReadableStream<Uint8Array> {
  let over = false;
  const abort = () => message.destroy(signal?.reason ?? new Error('aborted'));
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        const end = (finish: () => void) => {
          if (over) return;
          over = true;
          signal?.removeEventListener('abort', abort);
          finish();
        };
        message.on('data', (chunk: Uint8Array) => {
          if (over) return;
          controller.enqueue(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength));
          if ((controller.desiredSize ?? 0) <= 0) message.pause();
        });
        message.on('end', () =>
          end(() => (message.complete ? controller.close() : controller.error(new Error('the connection broke')))),
        );
        message.on('error', (error) => end(() => controller.error(signal?.aborted ? signal.reason : error)));
        message.on('close', () => end(() => controller.error(new Error('the connection broke'))));
        message.pause();
        signal?.addEventListener('abort', abort, { once: true });
      },
      pull() {
        message.resume();
      },
      cancel() {
        over = true;
        signal?.removeEventListener('abort', abort);
        message.destroy();
      },
    },
    { highWaterMark: 64 * 1024, size: (chunk) => chunk.byteLength },
  );
}

function headersOf(message: http.IncomingMessage): Headers {
  const headers = new Headers();
  for (let at = 0; at + 1 < message.rawHeaders.length; at += 2) {
    headers.append(message.rawHeaders[at]!, message.rawHeaders[at + 1]!);
  }
  return headers;
}

function send(url: string, request: Outgoing): Promise<Response> {
  return new Promise((resolve, reject) => {
    const { signal, body } = request;
    if (signal?.aborted) return reject(signal.reason);
    const { protocol } = new URL(url);
    const call = open(url, {
      method: request.method,
      headers: request.headers,
      agent: agents[protocol as 'http:'],
      // A kept connection sits idle between requests only.
      timeout: 0,
    });
    const abort = () => call.destroy(signal!.reason instanceof Error ? signal!.reason : new Error('aborted'));
    signal?.addEventListener('abort', abort, { once: true });
    call.on('error', (error) => {
      signal?.removeEventListener('abort', abort);
      reject(signal?.aborted ? signal.reason : error);
    });
    call.on('response', (message) => {
      signal?.removeEventListener('abort', abort);
      const status = message.statusCode ?? 0;
      const empty = request.method === 'HEAD' || status === 204 || status === 304;
      if (empty) message.resume();
      const headers = headersOf(message);
      const statusText = message.statusMessage ?? '';
      resolve(new Response(empty ? null : bodyOf(message, signal), { status, statusText, headers }));
    });
    if (body === undefined || typeof body === 'string' || body instanceof Uint8Array) {
      call.end(body);
    } else {
      const source = Readable.fromWeb(body as never);
      source.on('error', (error) => {
        call.destroy();
        reject(error);
      });
      source.pipe(call);
      // An answer can come before all of it is sent, or none.
      call.on('close', () => source.destroy());
    }
  });
}

function upgrade(
  url: string,
  headers: Record<string, string>,
  signal?: AbortSignal,
): Promise<{ message: http.IncomingMessage; socket: NetSocket; head: Uint8Array }> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const call = open(url, { headers: { connection: 'Upgrade', upgrade: 'websocket', ...headers } });
    const abort = () => call.destroy(new Error('aborted'));
    signal?.addEventListener('abort', abort, { once: true });
    const settled = () => signal?.removeEventListener('abort', abort);
    call.on('error', (error) => {
      settled();
      reject(signal?.aborted ? signal.reason : error);
    });
    call.on('response', (message) => {
      settled();
      const init = { status: message.statusCode, headers: headersOf(message) };
      reject(new Refused(new Response(bodyOf(message, signal), init)));
    });
    call.on('upgrade', (message, socket, head) => {
      settled();
      // Nobody else listens before it is joined to another.
      socket.on('error', () => {});
      resolve({ message, socket: socket as NetSocket, head });
    });
    call.end();
  });
}

async function socket(url: string, headers: Record<string, string>, signal?: AbortSignal): Promise<Socket> {
  const key = randomBytes(16).toString('base64');
  const handshake = { 'sec-websocket-key': key, 'sec-websocket-version': '13' };
  const { message, socket: raw, head } = await upgrade(url, { ...handshake, ...headers }, signal);
  raw.setNoDelay(true);
  const write = (opcode: number, payload: Uint8Array) => {
    if (!raw.destroyed) raw.write(encodeFrame(opcode, payload, randomBytes(4)));
  };
  let over = false;
  let alive: ReturnType<typeof setInterval> | undefined;
  const resume = () => {
    clearInterval(alive);
    raw.resume();
  };
  const handle: Socket = {
    headers: headersOf(message),
    onmessage: () => {},
    onclose: () => {},
    send: (data) => write(typeof data === 'string' ? 1 : 2, typeof data === 'string' ? Buffer.from(data) : data),
    close: () => {
      write(8, new Uint8Array([3, 232]));
      raw.end();
      // Its end comes after all that was sent.
      resume();
    },
    pause: () => {
      raw.pause();
      clearInterval(alive);
      // The server's pings wait in the connection, too.
      if (!over) alive = setInterval(() => write(10, new Uint8Array(0)), ALIVE_MS);
    },
    resume,
    drained: () => room(raw),
  };
  const finish = (error?: Error) => {
    if (over) return;
    over = true;
    clearInterval(alive);
    raw.destroy();
    handle.onclose(error);
  };
  const frames = new Frames({
    message: (data) => handle.onmessage(data),
    ping: (payload) => write(10, payload),
    close: () => {
      write(8, new Uint8Array(0));
      finish();
    },
  });
  const read = (chunk: Uint8Array) => {
    try {
      frames.read(chunk);
    } catch (error) {
      finish(error as Error);
    }
  };
  // What came with the answer is read first, and before the end. The caller sets its handlers before
  // the first message is told: reading begins when all that waits for this has run.
  if (head.length > 0) raw.unshift(head);
  raw.on('data', read);
  raw.on('error', finish);
  raw.on('close', () => finish());
  return handle;
}

/** Resolves when the connection takes more, or nothing any more. */
function room(raw: NetSocket): Promise<void> {
  if (!raw.writableNeedDrain || raw.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    const settle = () => {
      raw.off('drain', settle);
      raw.off('close', settle);
      resolve();
    };
    raw.on('drain', settle);
    raw.on('close', settle);
  });
}

function duplexOf(connection: Connection): Duplex {
  return new Duplex({
    read() {
      connection.read().then(
        (bytes) => this.push(bytes ?? null),
        (error: Error) => this.destroy(error),
      );
    },
    write(chunk: Uint8Array, _encoding, done) {
      connection.write(chunk).then(() => done(), done);
    },
    destroy(error, done) {
      connection.close();
      done(error);
    },
  });
}

/**
 * What a file says that is one itself, and has no other name. Who runs as root reads files here in a
 * directory in which the server's user makes them: a link would have the reader tell the server what
 * only root may read.
 */
async function readOwn(path: string): Promise<string> {
  const named = await lstat(path);
  if (!named.isFile() || named.nlink !== 1) {
    throw new Error(`${path} is a link, or no file; the server makes neither`);
  }
  const opened = await openFile(path);
  try {
    const found = await opened.stat();
    if (found.dev !== named.dev || found.ino !== named.ino) {
      throw new Error(`${path} was replaced while it was read; try again`);
    }
    return await opened.readFile('utf8');
  } finally {
    await opened.close();
  }
}

export const platform: Platform = {
  async variable(name) {
    return process.env[name] || undefined;
  },
  async localServer(stateDir) {
    const dir = stateDir ?? process.env.SANDBAR_STATE_DIR ?? DEFAULT_STATE_DIR;
    const read = (name: string) =>
      readOwn(join(dir, name)).then(
        (text) => text.trim(),
        (error: NodeJS.ErrnoException) => {
          if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined;
          throw error;
        },
      );
    const [url, key] = await Promise.all([read('endpoint'), read('key')]);
    const found: Partial<Server> = {};
    if (url) found.url = url;
    if (key) found.key = key;
    return found;
  },
  send,
  socket,
  // The two ends shake hands with each other.
  bridge: (request) => ({
    asked: request,
    answer: (headers, connection) => tunnelled(headers, duplexOf(connection), new Uint8Array(0)),
  }),
  async tunnel(request, url, headers) {
    const passed: Record<string, string> = {};
    request.headers.forEach((value, name) => {
      if (name !== 'host' && name !== 'connection') passed[name] = value;
    });
    try {
      const { message, socket: raw, head } = await upgrade(url, { ...passed, ...headers }, request.signal);
      return tunnelled(headersOf(message), raw, head);
    } catch (error) {
      if (error instanceof Refused) return error.response;
      throw error;
    }
  },
};
