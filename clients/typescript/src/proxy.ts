/** Requests to previews, passed on from a Worker. */

import { platform } from '#platform';
import { type Binding, serverOf } from './binding.js';
import { broken } from './http.js';
import { Sandbox } from './sandbox.js';

/** A preview's host: port, sandbox and the secret part, which a public port has not. */
const PREVIEW = /^(\d{4,5})-([a-z0-9](?:[a-z0-9-]*[a-z0-9])?)\./;

/** Headers that are about one connection, not about the request. */
const OF_CONNECTION = ['connection', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'host', 'content-length'];

/**
 * Passes a request to a preview on, if its host is one; else `null`, and the Worker goes on.
 *
 * `env` is the Worker's environment or the binding itself; `env.Sandbox` says which server is meant.
 */
export async function proxyToSandbox(request: Request, env?: unknown, _sandboxId?: string): Promise<Response | null> {
  const host = request.headers.get('host') ?? new URL(request.url).host;
  if (!PREVIEW.test(host)) return null;
  const binding = (env && typeof env === 'object' && 'Sandbox' in env ? env.Sandbox : env) as Binding;
  const server = await serverOf(binding instanceof Sandbox ? undefined : binding)();
  const { pathname, search } = new URL(request.url);
  const url = `${server.url}${pathname}${search}`;
  const domain = await previewDomain(binding, server.url);
  const headers: Record<string, string> = {};
  request.headers.forEach((value, name) => {
    if (!OF_CONNECTION.includes(name)) headers[name] = value;
  });
  headers['x-forwarded-host'] ??= host;
  headers.host = `${host.split('.')[0]}.${domain}`;
  try {
    if (request.headers.get('upgrade')?.toLowerCase() === 'websocket') return await platform.tunnel(request, url, headers);
    return await platform.send(url, { method: request.method, headers, body: request.body ?? undefined, signal: request.signal });
  } catch (error) {
    throw broken('reach a preview', server.url, error);
  }
}

async function previewDomain(_binding: Binding, url: string): Promise<string> {
  const { port } = new URL(url);
  return `localhost${port && `:${port}`}`;
}

/** Answers a request for a WebSocket with a terminal of a session. */
export function proxyTerminal(
  sandbox: Pick<Sandbox, 'getSession'>,
  sessionId: string,
  request: Request,
  options?: { cols?: number; rows?: number; shell?: string },
): Promise<Response> {
  return sandbox.getSession(sessionId).then((session) => session.terminal(request, options));
}

