/** Keys, and what a sandbox may reach. */

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { createKey, getSandbox, listKeys, listSandboxes, removeKey } from '@sandbar/sandbox';
import { errorFrom, sandboxOf } from './bench.js';

const state = process.env.SANDBAR_STATE_DIR ?? '/var/lib/sandbar';
const url = process.env.SANDBAR_URL ?? readFileSync(`${state}/endpoint`, 'utf8').trim();

test('a key with a prefix opens the sandboxes that begin with it, until it is removed', async (t) => {
  const name = `sdk-${randomUUID().slice(0, 8)}`;
  const made = await createKey(undefined, name, { prefix: `${name}-`, expiresInSecs: 600 });
  t.after(() => removeKey(undefined, name).catch(() => {}));
  assert.match(made.secret, /^sbk_/);
  assert.equal((await errorFrom(createKey(undefined, name))).code, 'KEY_EXISTS');
  const listed = (await listKeys()).find((key) => key.name === name)!;
  assert.deepEqual(listed.scope, { type: 'sandboxes', prefix: `${name}-` });
  assert.equal('secret' in listed, false);

  const binding = { url, key: made.secret };
  const own = getSandbox(binding, `${name}-a`);
  t.after(() => getSandbox(undefined, own.id).destroy());
  assert.equal((await own.exec('echo mine')).stdout, 'mine\n');
  const ids = [];
  for await (const { id } of listSandboxes(binding)) ids.push(id);
  assert.deepEqual(ids, [own.id]);
  const other = sandboxOf(t);
  await other.exec('true');
  assert.equal((await errorFrom(getSandbox(binding, other.id).exec('true'))).code, 'SANDBOX_NOT_FOUND');
  assert.equal((await errorFrom(getSandbox(binding, 'sdk-more', { image: 'host' }).exec('true'))).code, 'FORBIDDEN');
  assert.equal((await errorFrom(listKeys(binding))).code, 'FORBIDDEN');

  await removeKey(undefined, name);
  assert.equal((await errorFrom(own.exec('true'))).code, 'UNAUTHORIZED');
  assert.equal((await errorFrom(removeKey(undefined, name))).code, 'KEY_NOT_FOUND');
});

test('what a sandbox may reach is changed while it runs', async (t) => {
  const sandbox = sandboxOf(t, { network: 'none' });
  const network = async () => (await sandbox.info())?.network;
  // Nothing is there yet, so it is made in this way.
  await sandbox.setNetwork({ allow: ['pypi.org:443'] });
  const { pid } = await sandbox.startProcess('sleep 1000');
  assert.deepEqual(await network(), { allow: ['pypi.org:443'] });
  await sandbox.allowHost('*.example.com');
  assert.deepEqual(await network(), { allow: ['pypi.org:443', '*.example.com'] });
  await sandbox.removeAllowedHost('pypi.org:443');
  await sandbox.removeAllowedHost('*.example.com');
  assert.deepEqual(await network(), { allow: [] });
  const failed = await sandbox.exec('true < /dev/tcp/192.0.2.1/80');
  assert.deepEqual(failed.refused, { connections: 1, destinations: ['192.0.2.1:80/tcp'] });
  assert.equal((await sandbox.exec('false')).refused, undefined);
  await sandbox.setAllowedHosts([]);
  assert.equal(await network(), 'internet');
  assert.equal((await errorFrom(sandbox.allowHost('not a host'))).code, 'VALIDATION_FAILED');
  assert.equal(await sandbox.isProcessRunning(pid), true);
});
