/** What happened in the lives of sandboxes, and what happens. */

import assert from 'node:assert/strict';
import test from 'node:test';
import { type SandboxEvent, events, getSandbox } from '@sandbar/sandbox';
import { errorFrom, sandboxOf } from './bench.js';

const kinds = (list: SandboxEvent[]) => list.map((event) => event.kind);

async function all(source: AsyncIterable<SandboxEvent>): Promise<SandboxEvent[]> {
  const list: SandboxEvent[] = [];
  for await (const event of source) list.push(event);
  return list;
}

test('a life is told in its order, once, with its reasons', { timeout: 60_000 }, async (t) => {
  const sandbox = sandboxOf(t, { labels: { team: 'a' } });
  await sandbox.exec('true');
  await sandbox.freeze();
  await sandbox.exec('true');
  await sandbox.stop();
  await sandbox.destroy();
  const told = await all(sandbox.events({ follow: false }));
  assert.deepEqual(kinds(told), ['created', 'started', 'frozen', 'thawed', 'stopped', 'destroyed']);
  assert.deepEqual(told.map((event) => [event.sandboxId, event.labels?.team]), told.map(() => [sandbox.id, 'a']));
  assert.deepEqual(told.map((event) => event.cause), ['request', 'request', 'request', 'use', 'request', 'request']);
  assert.ok(told.every((event, at) => at === 0 || event.cursor > told[at - 1]!.cursor));

  const some = await all(events(undefined, { follow: false, sandbox: sandbox.id, after: told[1]!.cursor, kinds: ['stopped', 'frozen'] }));
  assert.deepEqual(some, [told[2], told[4]]);
});

test('what happens is told as it happens, and again from where one was', { timeout: 60_000 }, async (t) => {
  const sandbox = sandboxOf(t);
  const seen: SandboxEvent[] = [];
  await sandbox.start();
  const [first] = await all(sandbox.events({ follow: false }));
  const following = sandbox.events({ after: first!.cursor });
  const next = async () => {
    const { value } = await following.next();
    seen.push(value as SandboxEvent);
    return (value as SandboxEvent).kind;
  };
  assert.equal(await next(), 'started');
  await sandbox.freeze();
  assert.equal(await next(), 'frozen');
  await following.return();
  await sandbox.thaw();
  await sandbox.stop();
  const later: string[] = [];
  for await (const event of sandbox.events({ after: seen.at(-1)!.cursor })) {
    later.push(event.kind);
    if (event.kind === 'stopped') break;
  }
  assert.deepEqual(later, ['thawed', 'stopped']);
});

test('following ends with its signal, and says what cannot be told', async () => {
  const reason = new Error('enough');
  const signal = AbortSignal.timeout(50);
  assert.equal((await errorFrom(all(events(undefined, { sandbox: 'nobody', signal })))).name, 'TimeoutError');
  assert.equal(await errorFrom(all(events(undefined, { signal: AbortSignal.abort(reason) }))), reason);
  assert.equal((await errorFrom(all(events(undefined, { after: 2 ** 50, follow: false })))).code, 'EVENTS_MISSED');
  assert.equal((await errorFrom(all(getSandbox(undefined, 'nobody').events({ kinds: ['never' as never] })))).code, 'VALIDATION_FAILED');
});
