/** Which server is meant. */

import { platform } from '#platform';
import { errorOf } from './error.js';
import type { Server } from './platform/platform.js';

/** A server by its URL and key. What is left out comes from the environment or this machine. */
export interface BindingOptions {
  /** Base URL, as `http://127.0.0.1:8787`. */
  url?: string;
  /** The API key. */
  key?: string;
  /** State directory of a server on this machine, which has its URL and key. */
  stateDir?: string;
  /** `url` of `[preview]` in the server's configuration, for `proxyToSandbox`; `SANDBAR_PREVIEW_URL` unless given. */
  previewUrl?: string;
}

/** A Durable Object namespace, as a Worker has it. Accepted so that programs need no change, and not used. */
export interface NamespaceLike {
  idFromName(name: string): unknown;
}

/**
 * Where sandboxes are:
 * - nothing, or a Durable Object namespace: `SANDBAR_URL` and `SANDBAR_KEY`, else the server of this
 *   machine by the files in its state directory (`SANDBAR_STATE_DIR`, or `/var/lib/sandbar`);
 * - a URL, which may hold the key as its password (`http://:KEY@host:8787`);
 * - options.
 */
export type Binding = BindingOptions | NamespaceLike | URL | string | null | undefined;

let configured: BindingOptions = {};

/** Sets what bindings that name no server mean, for the whole program. */
export function configure(options: BindingOptions): void {
  configured = { ...options };
  found.clear();
}

function isNamespace(binding: object): boolean {
  // Real ones are proxies of the runtime, on which any name is there.
  return typeof (binding as Partial<NamespaceLike>).idFromName === 'function';
}

function optionsOf(binding: Binding): BindingOptions {
  if (binding === undefined || binding === null) return configured;
  if (typeof binding === 'string' || binding instanceof URL) {
    const url = new URL(binding);
    const key = decodeURIComponent(url.password || url.username);
    url.username = '';
    url.password = '';
    return key ? { url: url.href, key } : { url: url.href };
  }
  if (typeof binding !== 'object' && typeof binding !== 'function') {
    throw new TypeError('a binding is a URL, options, a Durable Object namespace, or nothing');
  }
  if (isNamespace(binding)) return configured;
  return binding as BindingOptions;
}

const found = new Map<string, Promise<Server>>();

/** The server that `binding` means. Looked for once for each binding that reads the same. */
export function serverOf(binding: Binding): () => Promise<Server> {
  const options = optionsOf(binding);
  const name = nameOf(binding);
  return () => {
    let server = found.get(name);
    if (!server) {
      server = locate(options);
      found.set(name, server);
      // A server that is started later is found then.
      server.catch(() => found.delete(name));
    }
    return server;
  };
}

/** Looks again next time: a server that was started again may have another address. */
export function forget(binding: Binding): void {
  if (!optionsOf(binding).url) found.delete(nameOf(binding));
}

/** The same for bindings that read the same. */
export function nameOf(binding: Binding): string {
  const { url, key, stateDir, previewUrl } = optionsOf(binding);
  return JSON.stringify([url, key, stateDir, previewUrl]);
}

async function locate({ url, key, stateDir, previewUrl }: BindingOptions): Promise<Server> {
  if (!url && !stateDir) url = await platform.variable('SANDBAR_URL');
  if (!key && !stateDir) key = await platform.variable('SANDBAR_KEY');
  if (!url || !key) {
    const local = await platform.localServer(stateDir).catch((cause: unknown) => {
      throw errorOf('CONNECTION_FAILED', `no connection to a server: its state directory cannot be read: ${cause}`, {
        cause,
      });
    });
    url ??= local.url;
    key ??= local.key;
  }
  if (!url) throw errorOf('CONNECTION_FAILED', 'no connection to a server: none is named, and none runs on this machine');
  if (!key) throw errorOf('UNAUTHORIZED', `no key for the server ${url}`);
  previewUrl ??= await platform.variable('SANDBAR_PREVIEW_URL');
  const server = { url: url.replace(/\/+$/, ''), key };
  return previewUrl ? { ...server, previewUrl } : server;
}
