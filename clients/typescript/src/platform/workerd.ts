/** Workers: `fetch` does everything, also WebSockets with headers. */

import { connect } from 'cloudflare:sockets';
import * as workers from 'cloudflare:workers';
import { Frames, encodeFrame } from './frames.js';
import { type Connection, Refused, type Outgoing, type Platform, type Socket } from './platform.js';

interface WorkerSocket extends EventTarget {
  accept(): void;
  send(data: string | Uint8Array): void;
  close(): void;
}

async function variable(name: string): Promise<string | undefined> {
  const fromProcess = (globalThis as { process?: { env?: Record<string, string> } }).process?.env?.[name];
  if (fromProcess) return fromProcess;
  // Older runtimes have the module without it.
  const value = (workers.env as Record<string, unknown> | undefined)?.[name];
  return typeof value === 'string' && value ? value : undefined;
}

function send(url: string, { method, headers, body, signal }: Outgoing): Promise<Response> {
  const init: RequestInit = { method, headers, redirect: 'manual' };
  if (body !== undefined) init.body = body as BodyInit;
  if (signal) init.signal = signal;
  return fetch(url, init);
}

declare const WebSocketPair: new () => { 0: WorkerSocket; 1: WorkerSocket };

/** A WebSocket of the runtime's, whose messages go over a connection. */
function joined(headers: Headers, connection: Connection): Response {
  const { 0: theirs, 1: ours } = new WebSocketPair();
  ours.accept();
  const write = (opcode: number, payload: Uint8Array) =>
    connection.write(encodeFrame(opcode, payload, crypto.getRandomValues(new Uint8Array(4))));
  let over = false;
  const finish = () => {
    if (over) return;
    over = true;
    write(8, new Uint8Array([3, 232]));
    connection.close();
    ours.close();
  };
  ours.addEventListener('message', (event) => {
    const { data } = event as MessageEvent<string | ArrayBuffer>;
    if (!over) write(typeof data === 'string' ? 1 : 2, typeof data === 'string' ? new TextEncoder().encode(data) : new Uint8Array(data));
  });
  ours.addEventListener('close', finish);
  ours.addEventListener('error', finish);
  const frames = new Frames({ message: (data) => ours.send(data), ping: (payload) => write(10, payload), close: finish });
  const read = async () => {
    for (let bytes = await connection.read(); bytes && !over; bytes = await connection.read()) frames.read(bytes);
  };
  // A broken connection is the end of the WebSocket.
  read().then(finish, finish);
  const init: ResponseInit & { webSocket: WorkerSocket } = { status: 101, webSocket: theirs };
  const protocol = headers.get('sec-websocket-protocol');
  if (protocol) init.headers = { 'sec-websocket-protocol': protocol };
  return new Response(null, init);
}

export const platform: Platform = {
  variable,
  async localServer() {
    return {};
  },
  send,
  async socket(url, headers, signal) {
    const response = await send(url, { method: 'GET', headers: { ...headers, upgrade: 'websocket' }, signal });
    const accepted = (response as Response & { webSocket?: WorkerSocket }).webSocket;
    if (!accepted) throw new Refused(response);
    accepted.accept();
    const handle: Socket = {
      headers: response.headers,
      onmessage: () => {},
      onclose: () => {},
      send: (data) => accepted.send(data),
      close: () => accepted.close(),
    };
    accepted.addEventListener('message', (event) => {
      const { data } = event as MessageEvent<string | ArrayBuffer>;
      handle.onmessage(typeof data === 'string' ? data : new Uint8Array(data));
    });
    accepted.addEventListener('close', () => handle.onclose());
    accepted.addEventListener('error', () => handle.onclose(new Error('the connection broke')));
    return handle;
  },
  // The runtime writes the host of the URL whatever a request says.
  async connect(url) {
    const { protocol, hostname, port } = new URL(url);
    const secure = protocol === 'https:';
    const raw = connect({ hostname: hostname.replace(/^\[|\]$/g, ''), port: Number(port || (secure ? 443 : 80)) }, { secureTransport: secure ? 'on' : 'off' });
    await raw.opened;
    const writer = raw.writable.getWriter();
    let room: Promise<void> | undefined;
    let resume = () => {};
    const close = () => {
      resume();
      void raw.close().catch(() => {});
    };
    const handle: Socket = {
      onmessage: () => {},
      onclose: () => {},
      send: (data) => void writer.write(typeof data === 'string' ? new TextEncoder().encode(data) : data).catch(close),
      close,
      pause: () => {
        room ??= new Promise((resolve) => (resume = resolve));
      },
      resume: () => {
        room = undefined;
        resume();
      },
    };
    const read = async () => {
      const reader = raw.readable.getReader();
      for (let next = await reader.read(); !next.done; next = await reader.read()) {
        handle.onmessage(next.value);
        await room;
      }
    };
    // The caller sets its handlers before the first bytes come: those take a turn of the runtime.
    read().then(() => handle.onclose(), (error: Error) => handle.onclose(error));
    return handle;
  },
  // The runtime has shaken hands with who asks, so this is a client of its own.
  bridge(request) {
    const asked = new Request(request);
    const key = btoa(String.fromCharCode(...crypto.getRandomValues(new Uint8Array(16))));
    asked.headers.set('sec-websocket-key', key);
    asked.headers.set('sec-websocket-version', '13');
    asked.headers.delete('sec-websocket-extensions');
    return { asked, answer: joined };
  },
  async tunnel(request, url, headers) {
    const passed = new Headers(request.headers);
    for (const [name, value] of Object.entries(headers)) passed.set(name, value);
    return fetch(url, { method: request.method, headers: passed });
  },
};
