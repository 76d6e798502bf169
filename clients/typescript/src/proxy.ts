/** Requests to previews, passed on from a Worker. */

import { platform } from '#platform';
import { type Binding, forget, serverOf } from './binding.js';
import { passOver } from './connection.js';
import { broken } from './http.js';
import { Sandbox } from './sandbox.js';

/** Bytes of a host's label (RFC 1035). */
const LABEL_BYTES = 63;

const isPort = (text: string) => /^[1-9]\d{3,4}$/.test(text) && Number(text) >= 1024 && Number(text) <= 65_535;

/** Of a sandbox that a host name can hold: no number, and nothing that announces an international name. */
const isId = (text: string) => /^(?!\d+$)(?!..--)[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?$/.test(text);

/**
 * Whether a label is a preview's: `{port}-{id}-{token}`, or `{id}-{port}` of a public port. No token
 * is a port, so what is after the last dash says which; as the server has it.
 */
function isPreview(label: string): boolean {
  const [, rest = '', last = ''] = /^(.+)-([a-z0-9_]{1,16})$/.exec(label) ?? [];
  if (label.length > LABEL_BYTES) return false;
  if (isPort(last)) return isId(rest);
  const [, port = '', id = ''] = /^(\d+)-(.+)$/.exec(rest) ?? [];
  return isPort(port) && isId(id);
}

/** Headers that are about one connection, not about the request. */
const OF_CONNECTION = ['connection', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'host', 'content-length'];

/**
 * Passes a request to a preview on, if its host is one; else `null`, and the Worker goes on.
 *
 * `env` is the Worker's environment or the binding itself; `env.Sandbox` says which server is meant.
 */
export async function proxyToSandbox(request: Request, env?: unknown, _sandboxId?: string): Promise<Response | null> {
  const host = request.headers.get('host') ?? new URL(request.url).host;
  const [label = '', ...domain] = host.split('.');
  if (domain.length === 0 || !isPreview(label)) return null;
  const given = (env && typeof env === 'object' && 'Sandbox' in env ? env.Sandbox : env) as Binding;
  const binding = given instanceof Sandbox ? undefined : given;
  const server = await serverOf(binding)();
  const { pathname, search } = new URL(request.url);
  const preview = server.previewUrl === undefined ? undefined : new URL(server.previewUrl);
  // Without a domain of their own, previews share the API's address and are known by their host.
  const { protocol, host: of } = preview ?? { protocol: 'http:', host: `localhost${portOf(server.url)}` };
  const own = `${protocol}//${label}.${of}`;
  const base = preview ? own : server.url;
  const url = `${base}${pathname}${search}`;
  const headers: Record<string, string> = {};
  request.headers.forEach((value, name) => {
    if (!OF_CONNECTION.includes(name)) headers[name] = value;
  });
  headers['x-forwarded-host'] ??= host;
  for (const name of ['origin', 'referer']) {
    const said = headers[name];
    if (said !== undefined) headers[name] = inward(said, domain.join('.'), `${protocol}//`, of);
  }
  if (!preview) headers.host = `${label}.${of}`;
  try {
    if (!preview && platform.connect) {
      const { host: name, ...named } = headers;
      return outward(await passOver(await platform.connect(base), withHeaders(request, named), name!), own);
    }
    if (request.headers.get('upgrade')?.toLowerCase() === 'websocket') return await platform.tunnel(request, url, headers);
    const answer = await platform.send(url, { method: request.method, headers, body: request.body ?? undefined, signal: request.signal });
    // Some runtimes let nobody change what they received.
    return outward(new Response(answer.body, answer), own);
  } catch (error) {
    forget(binding);
    throw broken('reach a preview', preview?.host ?? server.url, untold(error, label));
  }
}

/**
 * A URL under a preview's name here, as the server knows it: only so can it tell the preview's own
 * pages, and those of other previews, from the rest. Whoever ended TLS knows the visitor's scheme.
 */
function inward(url: string, domain: string, scheme: string, of: string): string {
  const [, label = '', host, rest] = /^https?:\/\/([^./]*)\.([^/]*)(.*)$/.exec(url) ?? [];
  return host === domain && isPreview(label) ? `${scheme}${label}.${of}${rest}` : url;
}

/** What leads to the preview's own origin leads to the visitor's: it names none. */
function outward(answer: Response, own: string): Response {
  for (const name of ['location', 'content-location']) {
    const url = answer.headers.get(name);
    const rest = url?.startsWith(own) ? url.slice(own.length) : undefined;
    if (rest === undefined || !/^(?:[/?#]|$)/.test(rest)) continue;
    const path = rest.startsWith('/') ? rest : `/${rest}`;
    // Two slashes would be before a host.
    answer.headers.set(name, path.startsWith('//') ? `/.${path}` : path);
  }
  return answer;
}

/** An error that does not name the preview's host, which holds its token. */
function untold(error: unknown, label: string): unknown {
  const { message, code } = (error ?? {}) as { message?: string; code?: string };
  return message?.includes(label) ? Object.assign(new Error(message.replaceAll(label, '…')), { code }) : error;
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

