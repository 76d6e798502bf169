/**
 * Runs a Worker on Node, Bun or Deno: `export default { fetch, scheduled }`, with `env` from its
 * configuration files.
 */

import { once } from 'node:events';
import * as http from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { Readable } from 'node:stream';
import { readConfig } from './config.js';
import { cron } from './cron.js';
import { type Tunnel, tunnelOf } from './platform/tunnel.js';

/** What a Worker may leave running after its answer. */
export interface ExecutionContext {
  /** The server does not close before this promise has settled. */
  waitUntil(promise: Promise<unknown>): void;
  /** Accepted and not used: there is no origin behind the Worker. */
  passThroughOnException(): void;
  props: Record<string, unknown>;
}

/** An event of a cron trigger. */
export interface ScheduledController {
  readonly cron: string;
  /** Milliseconds since 1970-01-01 UTC. */
  readonly scheduledTime: number;
  readonly type: 'scheduled';
  noRetry(): void;
}

/** A Worker, as its module exports one by default. */
export interface Worker<Env = any> {
  fetch?(request: any, env: Env, context: any): Response | Promise<Response> | any;
  scheduled?(event: any, env: Env, context: any): void | Promise<void> | any;
}

export interface ServeOptions {
  /** The port; 8787 unless given, 0 for a free one. */
  port?: number;
  /** The address; `127.0.0.1` unless given. */
  hostname?: string;
  /** Added to what the configuration files say. */
  env?: Record<string, unknown>;
  /** Where `wrangler.jsonc` (or `.json`, `.toml`) and `.dev.vars` are; the current directory unless given, `false` for none. */
  config?: string | false;
  /** Which server the bindings of sandboxes mean; see `getSandbox`. */
  binding?: object | string | URL;
  /** Told of what fails in the Worker; `console.error` unless given. */
  onError?: (error: unknown) => void;
}

/** A Worker that runs. */
export interface WorkerServer {
  /** Where it listens. */
  readonly url: string;
  readonly port: number;
  /** The environment that the Worker gets. */
  readonly env: Record<string, unknown>;
  /** Runs `scheduled` now; with the first cron trigger unless one is given. */
  runScheduled(cron?: string): Promise<void>;
  /**
   * Takes no more requests, ends its WebSockets, and resolves when the requests it has are answered;
   * what is not after five seconds is cut off. What `waitUntil` was given is waited for.
   */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Runs `scheduled` as a cron trigger would, for trying it out; as `wrangler dev` has it. */
const SCHEDULED_PATH = '/cdn-cgi/handler/scheduled';

/** How long answers may take that are not whole when the server closes: whoever stops a container waits ten seconds. */
const GRACE_MS = 5_000;

/** The one method that comes here and that no `Request` can have. */
const REFUSED_METHOD = 'TRACE';

export async function serve<Env = any>(worker: Worker<Env> | { default: Worker<Env> }, options: ServeOptions = {}): Promise<WorkerServer> {
  const handlers = 'default' in worker ? worker.default : worker;
  const { hostname = '127.0.0.1', onError = (error) => console.error(error) } = options;
  const config = options.config === false ? { vars: {}, bindings: [], crons: [] } : await readConfig(options.config ?? '.');
  const env: Record<string, unknown> = { ...config.vars };
  for (const name of new Set(['Sandbox', ...config.bindings])) env[name] = options.binding ?? {};
  Object.assign(env, options.env);

  const pending = new Set<Promise<unknown>>();
  const context = (): ExecutionContext => ({
    waitUntil(promise) {
      const settled = Promise.resolve(promise).catch(onError).finally(() => pending.delete(settled));
      pending.add(settled);
    },
    passThroughOnException() {},
    props: {},
  });

  const runScheduled = async (expression = config.crons[0] ?? '* * * * *') => {
    if (!handlers.scheduled) throw new TypeError('this Worker has no `scheduled`');
    const controller: ScheduledController = { cron: expression, scheduledTime: Date.now(), type: 'scheduled', noRetry() {} };
    await handlers.scheduled(controller, env as Env, context());
  };

  const answer = async (request: Request): Promise<Response> => {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === SCHEDULED_PATH && handlers.scheduled) {
      await runScheduled(searchParams.get('cron') ?? undefined);
      return new Response('ok\n');
    }
    if (!handlers.fetch) return new Response('this Worker has no `fetch`\n', { status: 501 });
    return handlers.fetch(request, env as Env, context());
  };

  /** Requests in work. */
  const answers = new Set<Promise<void>>();
  const attend = (incoming: http.IncomingMessage, outgoing: http.ServerResponse, gone: AbortSignal, pass: (response: Response) => Promise<void>) => {
    let request: Request;
    try {
      request = requestOf(incoming, gone);
    } catch {
      return incoming.method === REFUSED_METHOD
        ? refuse(outgoing, 405, 'there is no answer to this method\n', { allow: 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS' })
        : refuse(outgoing, 400, 'this is no request\n');
    }
    const answered = answer(request)
      .then(pass)
      .catch((error: unknown) => {
        if (gone.aborted) return;
        onError(error);
        // Of an answer that has begun, only its end can tell that it is not whole.
        if (outgoing.headersSent) return void outgoing.destroy();
        refuse(outgoing, 500, 'the Worker failed\n');
      })
      .finally(() => answers.delete(answered));
    answers.add(answered);
  };

  // Whoever offers another protocol, as HTTP/2, is answered in the one that was asked in. Node knows
  // this option since 22.21; before, what asks for any upgrade is one, and its body is not read.
  const server = http.createServer({ shouldUpgradeCallback: asksForWebSocket } as http.ServerOptions, (incoming, outgoing) => {
    const gone = new AbortController();
    outgoing.on('close', () => {
      if (!outgoing.writableFinished) gone.abort(new Error('the client is gone'));
    });
    attend(incoming, outgoing, gone.signal, (response) => respond(response, outgoing, gone.signal));
  });
  const upgraded = new Set<Socket>();
  server.on('upgrade', (incoming, duplex, head) => {
    const socket = duplex as Socket;
    if (!server.listening) return void socket.destroy();
    upgraded.add(socket);
    const gone = new AbortController();
    socket.on('close', () => {
      upgraded.delete(socket);
      gone.abort(new Error('the client is gone'));
    });
    socket.on('error', () => {});
    const unwatch = watch(socket);
    const outgoing = outgoingOver(socket, incoming);
    if (!asksForWebSocket(incoming)) return refuse(outgoing, 426, 'only WebSockets are spoken here\n', { upgrade: 'websocket' });
    attend(incoming, outgoing, gone.signal, async (response) => {
      const tunnel = tunnelOf(response);
      if (!tunnel) return respond(response, outgoing, gone.signal);
      unwatch();
      join(tunnel, socket, head);
    });
  });
  server.listen(options.port ?? 8787, hostname);
  await once(server, 'listening');

  const stop = schedule(config.crons, (expression) => context().waitUntil(runScheduled(expression)), handlers.scheduled !== undefined);
  const { port } = server.address() as AddressInfo;
  const close = async () => {
    stop();
    server.closeIdleConnections();
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const socket of upgraded) socket.destroy();
    let timer: ReturnType<typeof setTimeout>;
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, GRACE_MS)));
    await Promise.race([Promise.all([closed, ...answers]), late]);
    clearTimeout(timer!);
    server.closeAllConnections();
    await closed;
    while (pending.size > 0) await Promise.all(pending);
  };
  const shown = hostname === '0.0.0.0' || hostname === '::' ? 'localhost' : hostname;
  return { url: `http://${shown}:${port}`, port, env, runScheduled, close, [Symbol.asyncDispose]: close };
}

/** Calls `run` in each minute that an expression means, until it is stopped. */
function schedule(crons: string[], run: (expression: string) => void, wanted: boolean): () => void {
  const matchers = crons.map((expression) => [expression, cron(expression)] as const);
  if (!wanted || matchers.length === 0) return () => {};
  let timer: ReturnType<typeof setTimeout>;
  let last = Math.floor(Date.now() / 60_000);
  const tick = () => {
    // A clock that was late or put forward leaves no minute out, but for those of a long sleep.
    const minute = Math.floor(Date.now() / 60_000);
    for (let at = Math.max(last + 1, minute - 5); at <= minute; at++) {
      for (const [expression, matches] of matchers) if (matches(new Date(at * 60_000))) run(expression);
    }
    last = Math.max(last, minute);
    timer = setTimeout(tick, 60_000 - (Date.now() % 60_000) + 10);
  };
  timer = setTimeout(tick, 60_000 - (Date.now() % 60_000) + 10);
  return () => clearTimeout(timer);
}

function asksForWebSocket({ headers }: http.IncomingMessage): boolean {
  return headers.upgrade?.toLowerCase() === 'websocket';
}

/** Throws for what `Request` takes for none. */
function requestOf(incoming: http.IncomingMessage, signal: AbortSignal): Request {
  // HTTP/1.1 has an empty one where there is no name.
  const host = incoming.headers.host || 'localhost';
  if (/[/\\?#@]/.test(host)) throw new TypeError('a host is more than a name and a port');
  const headers = new Headers();
  for (let at = 0; at + 1 < incoming.rawHeaders.length; at += 2) headers.append(incoming.rawHeaders[at]!, incoming.rawHeaders[at + 1]!);
  // What stands before is the visitor's own word, or that of a proxy in front.
  headers.append('x-forwarded-for', incoming.socket.remoteAddress ?? 'unknown');
  const { method = 'GET' } = incoming;
  const init: RequestInit & { duplex?: 'half' } = { method, headers, signal };
  if (method !== 'GET' && method !== 'HEAD') {
    init.body = Readable.toWeb(incoming) as unknown as ReadableStream;
    init.duplex = 'half';
  }
  const path = incoming.url?.startsWith('/') ? incoming.url : '/';
  return new Request(`http://${host}${path}`, init);
}

function refuse(outgoing: http.ServerResponse, status: number, text: string, headers: Record<string, string> = {}): void {
  outgoing.writeHead(status, { 'content-type': 'text/plain', ...headers }).end(text);
}

function headersFor(response: Response): [string, string | string[]][] {
  const headers: [string, string | string[]][] = [];
  response.headers.forEach((value, name) => {
    if (name !== 'set-cookie') headers.push([name, value]);
  });
  const cookies = response.headers.getSetCookie();
  if (cookies.length > 0) headers.push(['set-cookie', cookies]);
  return headers;
}

async function respond(response: Response, outgoing: http.ServerResponse, gone: AbortSignal): Promise<void> {
  const reader = response.body?.getReader();
  const leave = () => void reader?.cancel().catch(() => {});
  gone.addEventListener('abort', leave);
  try {
    if (gone.aborted) return;
    for (const [name, value] of headersFor(response)) outgoing.setHeader(name, value);
    outgoing.writeHead(response.status, response.statusText || undefined);
    if (reader) outgoing.flushHeaders();
    while (reader) {
      const { done, value } = await reader.read();
      if (done || gone.aborted) break;
      if (!outgoing.write(value)) await writable(outgoing);
    }
    outgoing.end();
  } finally {
    // Of a body that came to its end, nothing is left to cancel.
    leave();
  }
}

/** Resolves when there is room again, or nobody reads any more. */
function writable(outgoing: http.ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const settle = () => {
      outgoing.off('drain', settle);
      outgoing.off('close', settle);
      resolve();
    };
    outgoing.on('drain', settle);
    outgoing.on('close', settle);
  });
}

/** Destroys a connection whose other end leaves, until it is told not to: nobody else reads it before its upgrade. */
function watch(socket: Socket): () => void {
  const leave = () => socket.destroy();
  const look = () => {
    const early: Uint8Array | null = socket.read();
    if (early) socket.unshift(early);
  };
  socket.on('end', leave);
  socket.once('readable', look);
  return () => {
    socket.off('end', leave);
    socket.off('readable', look);
  };
}

/** Answers in HTTP, once, over a connection that was to become something else. */
function outgoingOver(socket: Socket, incoming: http.IncomingMessage): http.ServerResponse {
  const outgoing = new http.ServerResponse(incoming);
  outgoing.shouldKeepAlive = false;
  outgoing.assignSocket(socket);
  socket.on('drain', () => outgoing.emit('drain'));
  outgoing.on('finish', () => socket.end());
  return outgoing;
}

/** Joins the connection of a caller to the one that an answer 101 came with. */
function join(tunnel: Tunnel, socket: Socket, head: Uint8Array): void {
  if (socket.destroyed) return void tunnel.socket.destroy();
  const lines: string[] = [];
  tunnel.headers.forEach((value, name) => lines.push(`${name}: ${value}`));
  socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.map((line) => `${line}\r\n`).join('')}\r\n`);
  socket.write(tunnel.head);
  tunnel.socket.write(head);
  tunnel.socket.on('error', () => socket.destroy());
  tunnel.socket.on('close', () => socket.end());
  socket.on('close', () => tunnel.socket.destroy());
  socket.pipe(tunnel.socket).pipe(socket);
}
