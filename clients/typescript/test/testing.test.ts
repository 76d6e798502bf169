/** The test double: a real server of the test's own. Needs `SANDBAR_BIN`, and root. */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import test from 'node:test';
import { createTestSandbox, startTestServer } from '@sandbar/sandbox/testing';
import { errorFrom } from './bench.js';

test('sandboxes for tests share a server, which goes with the last', { timeout: 120_000 }, async () => {
  const first = await createTestSandbox({ ownServer: true });
  const second = await createTestSandbox({ ownServer: true });
  assert.equal((await first.exec('echo real; id -u')).stdout, 'real\n0\n');
  assert.equal((await second.exec('hostname')).stdout, `${second.id}\n`);
  await first.destroy();
  assert.equal((await second.exec('echo still')).stdout, 'still\n');
  await second.destroy();
  assert.equal((await errorFrom(second.exec('echo gone'))).code, 'CONNECTION_FAILED');
});

test('where there is a server, it is used', async () => {
  await using sandbox = await createTestSandbox();
  assert.equal((await sandbox.exec('echo yes')).stdout, 'yes\n');
});

test('a program that is not there is told', async () => {
  const error = await errorFrom(startTestServer({ binary: '/no/such/sandbar' }));
  assert.deepEqual([error.code, existsSync('/no/such/sandbar')], ['NO_SERVER', false]);
  assert.match(error.message, /SANDBAR_BIN/);
});
