/** Browsers. There is no server of this machine, and a page cannot give a WebSocket headers. */

import type { Outgoing, Platform } from './platform.js';

export const platform: Platform = {
  async variable() {
    return undefined;
  },
  async localServer() {
    return {};
  },
  async send(url, { method, headers, body, signal }: Outgoing) {
    const init: RequestInit = { method, headers };
    // Browsers stream bodies over HTTP/2 alone, if at all; a blob may be on their disk.
    if (body !== undefined) init.body = body instanceof ReadableStream ? await new Response(body).blob() : (body as BodyInit);
    if (signal) init.signal = signal;
    return fetch(url, init);
  },
  async socket() {
    throw new TypeError('a browser cannot send the API key with a WebSocket: open terminals from your server');
  },
  bridge() {
    throw new TypeError('a browser answers no requests');
  },
  async tunnel() {
    throw new TypeError('a browser answers no requests');
  },
};
