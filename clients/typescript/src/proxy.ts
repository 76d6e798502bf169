/** Requests to previews, passed on from a Worker. */

import { platform } from '#platform';
import { type Binding, forget, serverOf } from './binding.js';
import { passOver } from './connection.js';
import { broken } from './http.js';
import { Sandbox } from './sandbox.js';

/** A preview's host: port, sandbox and the secret part, which a public port has not. */
const PREVIEW = /^(\d{4,5})-([a-z0-9](?:[a-z0-9_-]*[a-z0-9_])?)\./;

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
  const given = (env && typeof env === 'object' && 'Sandbox' in env ? env.Sandbox : env) as Binding;
  const binding = given instanceof Sandbox ? undefined : given;
  const server = await serverOf(binding)();
  const { pathname, search } = new URL(request.url);
  const label = host.split('.')[0];
  const preview = server.previewUrl === undefined ? undefined : new URL(server.previewUrl);
  // Without a domain of their own, previews share the API's address and are known by their host.
  const base = preview ? `${preview.protocol}//${label}.${preview.host}` : server.url;
  const url = `${base}${pathname}${search}`;
  const headers: Record<string, string> = {};
  request.headers.forEach((value, name) => {
    if (!OF_CONNECTION.includes(name)) headers[name] = value;
  });
  headers['x-forwarded-host'] ??= host;
  if (!preview) headers.host = `${label}.localhost${portOf(server.url)}`;
  try {
    if (!preview && platform.connect) {
      const { host: name, ...named } = headers;
      return await passOver(await platform.connect(base), withHeaders(request, named), name!);
    }
    if (request.headers.get('upgrade')?.toLowerCase() === 'websocket') return await platform.tunnel(request, url, headers);
    return await platform.send(url, { method: request.method, headers, body: request.body ?? undefined, signal: request.signal });
  } catch (error) {
    forget(binding);
    throw broken('reach a preview', base, error);
  }
}

/** As the request, with these headers; what asks for a WebSocket goes on asking. */
function withHeaders(request: Request, headers: Record<string, string>): Request {
  const upgrade = request.headers.get('upgrade');
  return new Request(request, { headers: upgrade ? { ...headers, upgrade } : headers });
}

function portOf(url: string): string {
  const { port } = new URL(url);
  return port && `:${port}`;
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

