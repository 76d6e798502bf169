import assert from 'node:assert/strict';
import test from 'node:test';
import { getSandbox, type Sandbox } from '@sandbar/sandbox';
import { errorFrom, sandboxOf } from './bench.js';

async function until(sandbox: Sandbox, state: string): Promise<void> {
  for (let looks = 0; looks < 6000; looks += 1) {
    if ((await sandbox.info())?.state === state) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.fail(`${(await sandbox.info())?.state} is not ${state}`);
}

test('a sandbox sleeps when its time has come, and loses nothing', async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.exec('export WHO=me');
  await sandbox.setSleepAfter('200ms');
  await until(sandbox, 'frozen');
  assert.equal((await sandbox.getState()).status, 'healthy');
  assert.equal((await sandbox.exec('echo $WHO')).stdout, 'me\n');
  await sandbox.setKeepAlive(true);
  const info = await sandbox.info();
  assert.deepEqual([info?.idle?.keepAlive, info?.idle?.sleepAfterMs], [true, 200]);
});

test('options say when, before the first use and for a sandbox that is there', async (t) => {
  const id = sandboxOf(t).id;
  await getSandbox(undefined, id, { sleepAfter: '3m', idle: { onIdle: 'stop' } }).exec('true');
  const made = await getSandbox(undefined, id).info();
  assert.deepEqual([made?.idle?.sleepAfterMs, made?.idle?.onIdle], [180_000, 'stop']);
  await getSandbox(undefined, id, { sleepAfter: 90, keepAlive: true }).exec('true');
  const changed = await getSandbox(undefined, id).info();
  assert.deepEqual([changed?.idle?.sleepAfterMs, changed?.idle?.keepAlive], [90_000, true]);
  // A lookup without options resets nothing.
  await getSandbox(undefined, id).exec('true');
  assert.deepEqual((await getSandbox(undefined, id).info())?.idle, changed?.idle);
});

test('a program that changes times or labels finds its sandbox by the options that made it', async (t) => {
  const { id } = sandboxOf(t);
  const options = { env: { MADE: 'so' }, sleepAfter: '5m', labels: { a: '1' } };
  const made = getSandbox(undefined, id, options);
  await made.exec('true');
  await made.setSleepAfter('20m');
  await made.setKeepAlive(true);
  await made.setLabels({ a: '2' });
  assert.equal((await getSandbox(undefined, id, options).exec('echo $MADE')).stdout, 'so\n');
  const info = await made.info();
  // The times are those that were asked for last, the labels its own.
  assert.deepEqual([info?.idle?.sleepAfterMs, info?.labels], [300_000, { a: '2' }]);
  const other = { ...options, env: { MADE: 'else' }, sleepAfter: '1m' };
  assert.equal((await errorFrom(getSandbox(undefined, id, other).exec('true'))).code, 'SANDBOX_EXISTS');
  assert.equal((await made.info())?.idle?.sleepAfterMs, 300_000);
});

test('a sandbox is frozen, thawed and stopped by hand', async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.exec('echo kept > file; sleep 1000 &');
  await sandbox.freeze();
  assert.equal((await sandbox.info())?.state, 'frozen');
  await sandbox.thaw();
  assert.equal((await sandbox.info())?.state, 'running');
  await sandbox.stop();
  assert.equal((await sandbox.getState()).status, 'stopped');
  assert.equal((await sandbox.exec('cat file; pgrep sleep || echo none')).stdout, 'kept\nnone\n');
  await sandbox.renewActivityTimeout();
  await sandbox.setLabels({ a: 'b' });
  assert.deepEqual((await sandbox.info())?.labels, { a: 'b' });
});

test('times that are none are refused', async (t) => {
  for (const time of ['soon', '', '-1s', '3 minutes', Number.NaN]) {
    const error = await errorFrom(sandboxOf(t).setSleepAfter(time));
    assert.equal(error.code, 'INVALID_SLEEP_AFTER', `${time}`);
  }
});
