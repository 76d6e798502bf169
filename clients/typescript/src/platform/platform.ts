/**
 * What differs between the runtimes: how a request is sent, how a connection is upgraded, and where
 * a server is looked for when nobody named one.
 */

/** A server: where it is, and the key to its API. */
export interface Server {
  /** Base URL, as `http://127.0.0.1:8787`. */
  url: string;
  /** The API key. */
  key: string;
  /** What `[preview] url` of its configuration says, if anything. */
  previewUrl?: string;
}

/** A request, as a platform sends it. */
export interface Outgoing {
  method: string;
  headers: Record<string, string>;
  body?: string | Uint8Array | ReadableStream<Uint8Array>;
  signal?: AbortSignal;
}

/** A connection that has become a WebSocket, seen from here. */
export interface Socket {
  send(data: string | Uint8Array): void;
  close(): void;
  onmessage: (data: string | Uint8Array) => void;
  onclose: (error?: Error) => void;
  /** What comes waits in the connection from now on, and after `resume` no more; where the platform can. */
  pause?(): void;
  resume?(): void;
  /** Resolves when there is room to send more; where the platform can tell. */
  drained?(): Promise<void>;
  /** Headers of the answer that agreed to the WebSocket, where the platform shows them. */
  headers?: { get(name: string): string | null };
}

/** Bytes both ways. */
export interface Connection {
  /** The next that came; nothing at the end. */
  read(): Promise<Uint8Array | undefined>;
  /** Resolves when there is room for more. */
  write(bytes: Uint8Array): Promise<void>;
  close(): void;
}

/** How a request for a WebSocket is passed on over a connection. */
export interface Bridge {
  /** What is asked of the other end. */
  asked: Request;
  /** The answer to the request, once the other end has agreed. */
  answer(headers: Headers, connection: Connection): Response;
}

/** The runtime. */
export interface Platform {
  /** An environment variable; `undefined` also when it is empty. */
  variable(name: string): Promise<string | undefined>;
  /** The server of this machine, from the files it keeps for its clients. */
  localServer(stateDir: string | undefined): Promise<Partial<Server>>;
  /** Sends a request. Rejects when the connection fails; any status is an answer. */
  send(url: string, request: Outgoing): Promise<Response>;
  /** Opens a WebSocket. Rejects with a `Refused` when the server answers otherwise. */
  socket(url: string, headers: Record<string, string>, signal?: AbortSignal): Promise<Socket>;
  /** A connection to a server, where `send` cannot name another host than its URL does. */
  connect?(url: string): Promise<Socket>;
  /** Passes an incoming request for a WebSocket on over a connection. */
  bridge(request: Request): Bridge;
  /** Answers an incoming upgrade request with what `url` answers to one. */
  tunnel(request: Request, url: string, headers: Record<string, string>): Promise<Response>;
}

/** The server did not agree to a WebSocket. */
export class Refused extends Error {
  constructor(readonly response: Response) {
    super(`the server answered ${response.status} to a request for a WebSocket`);
  }
}

/** True for an error that came before any byte was sent, so that sending again is safe. */
export function isUnsent(error: unknown): boolean {
  for (let at = error as { code?: string; cause?: unknown } | undefined, depth = 0; at && depth < 4; depth++) {
    if (at.code && ['ECONNREFUSED', 'ENOENT', 'EAI_AGAIN', 'ConnectionRefused'].includes(at.code)) return true;
    at = at.cause as typeof at;
  }
  return false;
}
