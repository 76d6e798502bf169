/** Ports of a sandbox, and the URLs under which others reach them. */

import type { Abortable, Scope } from './scope.js';
import type * as wire from './wire.js';

/** Options of `exposePort`. */
export interface ExposePortOptions extends Abortable {
  /**
   * Host that the URL shall have, where a Worker of yours answers with `proxyToSandbox`; the
   * server's own preview domain unless given.
   */
  hostname?: string;
  /** A name for people. */
  name?: string;
  /** The secret part of the URL: 1 to 16 of `a-z`, `0-9` and `_`; generated unless given. */
  token?: string;
  /** The URL has no secret part. */
  public?: boolean;
}

/** An exposed port. */
export interface ExposedPort {
  port: number;
  /** Where it is reached. */
  url: string;
  /** The same as `url`. */
  exposedAt: string;
  name?: string;
  /** Whether something listens there. */
  status: 'active' | 'inactive';
  /** When it was exposed, in ISO 8601. */
  timestamp: string;
}

/** Exposed ports: a list, which has itself as `ports`, too. */
export type ExposedPorts = ExposedPort[] & { ports: ExposedPort[]; count: number };

interface WirePort {
  port: number;
  url: string;
  name?: string | null;
  status: 'active' | 'inactive';
  exposedAtMs: number;
}

const LOCAL = /^(localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(:\d+)?$/;

/** A URL of the server's under another host. */
function at(url: string, hostname: string | undefined): string {
  if (!hostname) return url;
  const label = new URL(url).hostname.split('.')[0]!;
  if (LOCAL.test(hostname)) return `http://${label}.localhost${/:\d+$/.exec(hostname)?.[0] ?? ''}/`;
  return `${/(^|\.)localhost(:\d+)?$/.test(hostname) ? 'http' : 'https'}://${label}.${hostname}/`;
}

function portOf(told: WirePort, hostname: string | undefined): ExposedPort {
  const url = at(told.url, hostname);
  const port: ExposedPort = {
    url,
    port: told.port,
    exposedAt: url,
    status: told.status,
    timestamp: new Date(told.exposedAtMs).toISOString(),
  };
  if (told.name) port.name = told.name;
  return port;
}

/** What `waitForPort` waits for. Without `retries` it waits as long as it takes. */
export interface WaitOptions extends Abortable {
  /** The port. */
  portToCheck: number;
  /** How many tries to wait for; without an end unless given. */
  retries?: number;
  /** Milliseconds between two tries; 300 unless given. They only say how long it may take: the server tries by itself. */
  waitInterval?: number;
}

/** Resolves to the number of tries that are needed of its caller: one. */
export async function wait(scope: Scope, { portToCheck, retries, waitInterval = 300, signal }: WaitOptions): Promise<number> {
  const json: wire.WaitPort = retries === undefined ? {} : { timeoutMs: Math.max(1, retries * waitInterval) };
  await scope.done('POST', `/ports/${portToCheck}/wait`, { attempt: `wait for port ${portToCheck}`, json, signal, repeatable: true });
  return 1;
}

export async function expose(scope: Scope, port: number, options: ExposePortOptions = {}): Promise<ExposedPort> {
  const { hostname, name, token, signal } = options;
  const json = { port, name, token, public: options.public };
  return portOf(await scope.json<WirePort>('POST', '/ports', { attempt: `expose port ${port}`, json, signal }), hostname);
}

export async function unexpose(scope: Scope, port: number, { signal }: Abortable = {}): Promise<void> {
  try {
    await scope.done('DELETE', `/ports/${port}`, { attempt: `hide port ${port}`, signal, repeatable: true });
  } catch (error) {
    // Hidden is hidden, as since 0.11.
    if (!['PORT_NOT_EXPOSED', 'SANDBOX_NOT_FOUND'].includes((error as { code?: string }).code!)) throw error;
  }
}

export async function list(scope: Scope, hostname?: string, { signal }: Abortable = {}): Promise<ExposedPorts> {
  const call = { attempt: 'list exposed ports', signal, repeatable: true };
  const { ports } = await scope.json<{ ports: WirePort[] }>('GET', '/ports', call).catch((error: { code?: string }) => {
    // A sandbox is made by its first use, and looking is none.
    if (error.code === 'SANDBOX_NOT_FOUND') return { ports: [] };
    throw error;
  });
  const all = ports.map((port) => portOf(port, hostname)) as ExposedPorts;
  // Not seen by JSON or iteration: as a list it is a list.
  Object.defineProperty(all, 'ports', { value: all });
  Object.defineProperty(all, 'count', { value: all.length });
  return all;
}

export async function validateToken(scope: Scope, port: number, token: string, { signal }: Abortable = {}): Promise<boolean> {
  const call = { attempt: `look at the token of port ${port}`, json: { token }, signal, repeatable: true };
  return (await scope.json<{ valid: boolean }>('POST', `/ports/${port}/validate-token`, call)).valid;
}
