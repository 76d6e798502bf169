/** Keys of a server: who may call it, and for what. For those who hold an admin key. */

import type { Binding } from './binding.js';
import { Http } from './http.js';
import type { Abortable } from './scope.js';
import type * as wire from './wire.js';

/** A key, without its secret. */
export type ApiKey = wire.Key;

/** A key that was just made, with its secret, which is told this once. */
export type NewApiKey = wire.NewKey;

/** Options of `createKey`. */
export interface CreateKeyOptions extends Abortable {
  /** What the ids of its sandboxes begin with; no other exists for its holder. Without it, it may do everything. */
  prefix?: string;
  /** Seconds until it is refused; it does not expire unless given. */
  expiresInSecs?: number;
}

/**
 * Makes a key.
 *
 * @throws SandboxError with `KEY_EXISTS`, or `FORBIDDEN` for who has no admin key
 */
export async function createKey(binding: Binding, name: string, options: CreateKeyOptions = {}): Promise<NewApiKey> {
  const { prefix, expiresInSecs, signal } = options;
  const scope: wire.KeyScope = prefix === undefined ? { type: 'admin' } : { type: 'sandboxes', prefix };
  const json: wire.CreateKey = { name, scope };
  if (expiresInSecs !== undefined) json.expiresInSecs = expiresInSecs;
  return new Http(binding).json<wire.NewKey>('POST', '/v1/keys', { attempt: `make the key ${name}`, json, signal });
}

/** All keys, by name. */
export async function listKeys(binding?: Binding, { signal }: Abortable = {}): Promise<ApiKey[]> {
  const call = { attempt: 'list keys', signal, repeatable: true };
  return (await new Http(binding).json<wire.KeyList>('GET', '/v1/keys', call)).keys;
}

/** Takes a key back: it opens nothing any more, and what is under way with it is broken off. Its sandboxes stay. */
export async function removeKey(binding: Binding, name: string, { signal }: Abortable = {}): Promise<void> {
  await new Http(binding).done('DELETE', `/v1/keys/${encodeURIComponent(name)}`, { attempt: `remove the key ${name}`, signal });
}
