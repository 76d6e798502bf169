/** The test double: a real server of the test's own. Needs `SANDBAR_BIN`, and root. */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { createTestSandbox, startTestServer } from '@sandbar/sandbox/testing';
import { errorFrom } from './bench.js';

test('sandboxes for tests share a server, which goes with the last', { timeout: 120_000 }, async () => {
  const claims = async () => (await readdir('/run')).filter((name) => /^sandbar-(js\d|10\.214\.)/.test(name));
  const before = await claims();
  const first = await createTestSandbox({ ownServer: true });
  const second = await createTestSandbox({ ownServer: true });
  assert.equal((await first.exec('echo real; id -u')).stdout, 'real\n0\n');
  assert.equal((await second.exec('hostname')).stdout, `${second.id}\n`);
  await first.destroy();
  assert.equal((await second.exec('echo still')).stdout, 'still\n');
  await second.destroy();
  assert.equal((await errorFrom(second.exec('echo gone'))).code, 'CONNECTION_FAILED');
  assert.deepEqual(await claims(), before, 'nothing is left of the server');
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

test('a server that is not ready in time is killed, and nothing is left of it', { timeout: 120_000 }, async () => {
  const dir = await mkdtemp(join(tmpdir(), 'slow-'));
  const binary = join(dir, 'sandbar');
  const states = async () => (await readdir(tmpdir())).filter((name) => name.startsWith('sandbar-test-'));
  const before = await states();
  // Nobody hears that it is ready.
  await writeFile(binary, `#!/bin/sh\nexec "${process.env.SANDBAR_BIN}" "$@" 2>/dev/null\n`, { mode: 0o755 });
  const settings = { SANDBAR_NAME: 'jsslow', SANDBAR_NETWORK_SUBNET: '10.214.128.0/24' };

  const error = await errorFrom(startTestServer({ binary, settings, readyMs: 2000 }));

  assert.deepEqual([error.code, error.message], ['SERVER_NOT_READY', 'the server was not ready within 2000 ms:\n']);
  const left = ['/run/sandbar-jsslow.lock', '/run/sandbar-10.214.128.1.lock'].filter((file) => existsSync(file));
  assert.deepEqual([left, await states()], [[], before]);
  assert.equal(networkInterfaces().lo?.some(({ address }) => address === '10.214.128.1'), false);
  await rm(dir, { recursive: true });
});
