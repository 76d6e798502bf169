/** Workers: `fetch` does everything, also WebSockets with headers. */

import * as workers from 'cloudflare:workers';
import { Refused, type Outgoing, type Platform, type Socket } from './platform.js';

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
  async tunnel(request, url, headers) {
    const passed = new Headers(request.headers);
    for (const [name, value] of Object.entries(headers)) passed.set(name, value);
    return fetch(url, { method: request.method, headers: passed });
  },
};
