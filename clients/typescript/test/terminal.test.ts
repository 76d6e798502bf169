import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type IncomingMessage, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import test from 'node:test';
import { type Terminal, getSandbox } from '@sandbar/sandbox';
import { serve } from '@sandbar/sandbox/serve';
import { platform } from '../src/platform/node.js';
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

/** Begins with a key, when its viewer is there. */
const FLOOD = { command: "stty raw -echo; printf ready; head -c 1 > /dev/null; head -c 64M /dev/zero | tr '\\0' x; exit 7", cols: 80 };
const FLOOD_BYTES = 64 * 1024 * 1024;

test('of output that nobody reads the newest is kept, and the end is told', async (t) => {
  const terminal = await sandboxOf(t).openTerminal(FLOOD);
  await until(terminal, 'ready');
  terminal.write('x');
  assert.deepEqual(await terminal.exited, { code: 7 });
  assert.equal(terminal.cursor, 'ready'.length + FLOOD_BYTES);
  let kept = 0;
  for await (const bytes of terminal) kept += bytes.length;
  assert.ok(kept > 0 && kept <= 2 * 1024 * 1024, `${kept} bytes`);
});

test('who reads slowly has the program wait, and misses nothing', async (t) => {
  const sandbox = sandboxOf(t);
  const terminal = await sandbox.openTerminal(FLOOD);
  await until(terminal, 'ready');
  terminal.write('x');
  let read = 0;
  for await (const bytes of terminal) {
    if (read === 0) {
      for (let turns = 0; turns < 100; turns++) await sandbox.exec('true');
      assert.ok(terminal.cursor < FLOOD_BYTES / 4, `${terminal.cursor} bytes came`);
    }
    read += bytes.length;
  }
  assert.equal(read, FLOOD_BYTES);
  assert.deepEqual(await terminal.exited, { code: 7 });
});

test('output that is cut off does not look whole, and who leaves is done', async (t) => {
  const sandbox = sandboxOf(t);
  const terminal = await sandbox.openTerminal({ command: 'echo ready; sleep 1000' });
  const read = async () => {
    let shown = '';
    for await (const bytes of terminal) {
      shown += new TextDecoder().decode(bytes);
      if (shown.includes('ready')) await sandbox.destroy();
    }
  };
  assert.equal((await errorFrom(read())).code, 'OPERATION_INTERRUPTED');
  const left = await sandbox.openTerminal();
  left.close();
  for await (const _bytes of left);
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

test('a page of any origin that its Worker lets has a terminal, and the server is told nothing else of it', { timeout: 60_000 }, async (t) => {
  const page = { origin: 'https://app.example', cookie: 'a=1', 'x-sandbar-request': '1', 'idempotency-key': 'a', authorization: 'Bearer its-own' };
  const sandbox = sandboxOf(t);
  const worker = await serve({ fetch: (request) => sandbox.terminal(request) }, { port: 0, config: false });
  t.after(() => worker.close());
  const socket = await platform.socket(worker.url, page);
  // What was shown before may come first.
  const ready = await new Promise((resolve) => (socket.onmessage = (data) => typeof data === 'string' && resolve(data)));
  assert.match(String(ready), /"ready"/);
  socket.close();

  const server = createServer((_asked, answer) => answer.end('{}')).listen(0, '127.0.0.1');
  t.after(() => server.close());
  await once(server, 'listening');
  const told = once(server, 'upgrade') as Promise<[IncomingMessage, { end(text: string): void }]>;
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const headers = { ...page, upgrade: 'websocket', 'sec-websocket-key': 'a', 'sec-websocket-version': '13', 'sec-websocket-protocol': 'b' };
  const refused = getSandbox({ url, key: 'ours' }, 'box').terminal(new Request('http://worker.example/', { headers }));
  const [asked, connection] = await told;
  connection.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
  const { host, ...said } = asked.headers;
  assert.deepEqual(said, { authorization: 'Bearer ours', connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-key': 'a', 'sec-websocket-version': '13', 'sec-websocket-protocol': 'b' });
  assert.equal((await refused).status, 403);
});
