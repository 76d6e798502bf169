import assert from 'node:assert/strict';
import test from 'node:test';
import type { Terminal } from '@sandbar/sandbox';
import { errorFrom, sandboxOf } from './bench.js';

async function until(terminal: Terminal, text: string): Promise<string> {
  let shown = '';
  const decoder = new TextDecoder();
  for await (const bytes of terminal) {
    shown += decoder.decode(bytes, { stream: true });
    if (shown.includes(text)) return shown;
  }
  throw new Error(`the terminal ended without ${text}: ${shown}`);
}

test('what is typed is run and shown, and the end is told', async (t) => {
  const sandbox = sandboxOf(t);
  const terminal = await sandbox.openTerminal({ cols: 90, rows: 20 });
  terminal.write('stty size; echo $((6 * 7))\n');
  await until(terminal, '20 90');
  terminal.resize(100, 30);
  terminal.write('stty size\n');
  await until(terminal, '30 100');
  terminal.write('exit 3\n');
  assert.deepEqual(await terminal.exited, { code: 3 });
});

test('a viewer comes back and is shown what was', async (t) => {
  const sandbox = sandboxOf(t);
  const first = await sandbox.openTerminal({ id: 'main' });
  first.write('echo fir""st\n');
  await until(first, 'first');
  const { cursor } = first;
  first.close();
  const second = await sandbox.openTerminal({ id: 'main' });
  await until(second, 'first');
  second.write('echo sec""ond\n');
  const third = await sandbox.openTerminal({ id: 'main', cursor });
  assert.ok(!(await until(third, 'second')).includes('first\r'));
  assert.deepEqual((await sandbox.listTerminals()).map((each) => [each.id, each.running]), [['main', true]]);
  await third.terminate();
  assert.deepEqual(await sandbox.listTerminals(), []);
});

test('a terminal with a program, a directory and variables', async (t) => {
  const terminal = await sandboxOf(t).openTerminal({ command: 'pwd; echo $WHAT', cwd: '/tmp', env: { WHAT: 'this' } });
  assert.match(await until(terminal, 'this'), /\/tmp/);
  assert.deepEqual(await terminal.exited, { code: 0 });
});

test('a terminal of a session starts where the session is', async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.exec('cd /tmp; export SEEN=yes');
  const terminal = await sandbox.openTerminal();
  terminal.write('echo $PWD-$SEEN\n');
  await until(terminal, '/tmp-yes');
});

test('a large paste arrives whole', async (t) => {
  const terminal = await sandboxOf(t).openTerminal({ command: 'stty raw -echo; echo ready; head -c 200000 | sha256sum' });
  await until(terminal, 'ready');
  terminal.write('x'.repeat(200_000));
  const shown = await until(terminal, '-');
  const { createHash } = await import('node:crypto');
  assert.ok(shown.includes(createHash('sha256').update('x'.repeat(200_000)).digest('hex')), shown);
});

test('what is refused is told', async (t) => {
  const sandbox = sandboxOf(t);
  const error = await errorFrom(sandbox.openTerminal({ command: ['/no/such/shell'] }));
  assert.equal(error.code, 'COMMAND_NOT_FOUND');
  assert.equal((await errorFrom(sandbox.openTerminal({ id: '---' }))).code, 'VALIDATION_FAILED');
  assert.equal((await errorFrom(sandbox.terminal(new Request('http://x/')))).code, 'VALIDATION_FAILED');
});
