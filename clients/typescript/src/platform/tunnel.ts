/**
 * An answer 101 on a platform whose `Response` cannot be one: the headers and the raw connection,
 * which `serve` joins to the connection of the caller.
 */

import type { Duplex } from 'node:stream';

const CONNECTION = Symbol.for('sandbar.connection');

export interface Tunnel {
  headers: Headers;
  socket: Duplex;
  head: Uint8Array;
}

/** Status 101 to who asks, and the connection to `serve`. */
export function tunnelled(headers: Headers, socket: Duplex, head: Uint8Array): Response {
  const response = new Response(null, { headers });
  Object.defineProperty(response, 'status', { value: 101 });
  Object.defineProperty(response, CONNECTION, { value: { headers, socket, head } satisfies Tunnel });
  return response;
}

export function tunnelOf(response: Response): Tunnel | undefined {
  return (response as unknown as Record<symbol, Tunnel | undefined>)[CONNECTION];
}
