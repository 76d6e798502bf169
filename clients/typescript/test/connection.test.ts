/** What happens when connections break: a server of TCP in between cuts them. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, type Socket, connect, createServer } from 'node:net';
import test, { type TestContext } from 'node:test';
import { type ExecEvent, type FileWatchSSEEvent, type LogEvent, OperationInterruptedError, events, getSandbox, parseSSEStream, proxyToSandbox } from '@sandbar/sandbox';
import { errorFrom, sandboxOf } from './bench.js';

const state = process.env.SANDBAR_STATE_DIR ?? '/var/lib/sandbar';
const url = new URL(process.env.SANDBAR_URL ?? readFileSync(`${state}/endpoint`, 'utf8').trim());
const key = process.env.SANDBAR_KEY ?? readFileSync(`${state}/key`, 'utf8').trim();

async function wire(t: TestContext) {
  const sockets = new Set<Socket>();
  let refusals = 0;
  const server = createServer((socket) => {
    if (refusals > 0) {
      refusals--;
      return socket.destroy();
    }
    const upstream = connect(Number(url.port), url.hostname);
    for (const each of [socket, upstream]) {
      sockets.add(each);
      each.on('error', () => {});
      each.on('close', () => {
        socket.destroy();
        upstream.destroy();
      });
    }
    // The server answers to its own name only.
    const asks = Buffer.from(`Host: 127.0.0.1:${(server.address() as AddressInfo).port}`);
    socket.on('data', (chunk: Buffer) => {
      const at = chunk.indexOf(asks);
      if (at < 0) return void upstream.write(chunk);
      upstream.write(Buffer.concat([chunk.subarray(0, at), Buffer.from(`Host: ${url.host}`), chunk.subarray(at + asks.length)]));
    });
    upstream.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return {
    binding: { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, key },
    /** Nobody listens there any more, and who was connected has seen it. */
    async end() {
      server.close();
      for (const socket of sockets) socket.end();
      await once(server, 'close');
    },
    cut(times = 0) {
      refusals = times;
      for (const socket of sockets) socket.destroy();
      sockets.clear();
    },
  };
}

test('a stream of a command goes on after its connection broke, without loss or repetition', async (t) => {
  const direct = sandboxOf(t);
  const { binding, cut } = await wire(t);
  const sandbox = getSandbox(binding, direct.id);
  let shown = '';
  let cuts = 0;
  let exitCode: number | undefined;
  const command = 'for i in $(seq 1 300); do echo $i; [ $((i % 100)) = 0 ] && while [ ! -e /tmp/go$i ]; do sleep 0.01; done; done; exit 0';
  for await (const event of parseSSEStream<ExecEvent>(await sandbox.execStream(`(${command})`))) {
    if (event.type === 'stdout') shown += event.data;
    assert.notEqual(event.type, 'error', event.error);
    for (const at of [100, 200, 300]) {
      if (cuts === at / 100 - 1 && shown.endsWith(`${at}\n`)) {
        cuts++;
        cut(2);
        await direct.writeFile(`/tmp/go${at}`, '');
      }
    }
    if (event.type === 'complete') exitCode = event.exitCode;
  }
  assert.equal(cuts, 3);
  assert.equal(exitCode, 0);
  assert.equal(shown, Array.from({ length: 300 }, (_, at) => `${at + 1}\n`).join(''));
});

test('the log of a process goes on after its connection broke', async (t) => {
  const direct = sandboxOf(t);
  const { binding, cut } = await wire(t);
  const sandbox = getSandbox(binding, direct.id);
  const process = await sandbox.startProcess('echo one; while [ ! -e /tmp/go ]; do sleep 0.01; done; echo two');
  let shown = '';
  for await (const event of parseSSEStream<LogEvent>(await sandbox.streamProcessLogs(process.id))) {
    shown += event.data;
    if (event.data === 'one\n') {
      cut();
      await direct.writeFile('/tmp/go', '');
    }
  }
  assert.equal(shown, 'one\ntwo\n');
});

test('a command without a key is not run twice, and its end with its connection is told', async (t) => {
  const direct = sandboxOf(t);
  const { binding, cut } = await wire(t);
  const sandbox = getSandbox(binding, direct.id);
  const running = sandbox.exec('echo x >> /tmp/runs; echo begun; sleep 1000', { onOutput: () => cut() });
  const error = await errorFrom(running);
  assert.ok(error instanceof OperationInterruptedError, String(error));
  assert.match(error.message, /connection/);
  assert.equal((await direct.exec('wc -l < /tmp/runs; pgrep -x sleep || echo ended')).stdout, '1\nended\n');
});

test('a command with a key comes back and has run once', async (t) => {
  const direct = sandboxOf(t);
  const { binding, cut } = await wire(t);
  const sandbox = getSandbox(binding, direct.id);
  let told = false;
  const result = await sandbox.exec('echo x >> /tmp/runs; echo begun; while [ ! -e /tmp/go ]; do sleep 0.01; done; wc -l < /tmp/runs', {
    idempotencyKey: 'k',
    onOutput() {
      if (told) return;
      told = true;
      cut(1);
      void direct.writeFile('/tmp/go', '');
    },
  });
  assert.equal(result.stdout, 'begun\n1\n');
});

test('reading and writing is done again when the connection breaks', async (t) => {
  const direct = sandboxOf(t);
  const { binding, cut } = await wire(t);
  const sandbox = getSandbox(binding, direct.id);
  await sandbox.writeFile('/tmp/a', 'a');
  cut(3);
  assert.equal((await sandbox.readFile('/tmp/a')).content, 'a');
  cut(3);
  await sandbox.writeFile('/tmp/a', 'b');
  cut(3);
  assert.equal((await sandbox.exists('/tmp/a')).exists, true);
  assert.equal((await direct.readFile('/tmp/a')).content, 'b');
});

test('a stream of code goes on after its connection broke, and the code runs once', async (t) => {
  const direct = sandboxOf(t);
  const { binding, cut } = await wire(t);
  const sandbox = getSandbox(binding, direct.id);
  const code = 'import os, time\nprint("one", flush=True)\nwhile not os.path.exists("/tmp/go"): time.sleep(0.01)\nprint("two")\n6 * 7';
  const shown: string[] = [];
  for await (const event of parseSSEStream(await sandbox.runCodeStream(code))) {
    shown.push(event.type === 'stdout' || event.type === 'result' ? event.text : event.type);
    if (event.text !== 'one\n') continue;
    cut(2);
    await direct.writeFile('/tmp/go', '');
  }
  assert.deepEqual(shown, ['one\n', 'two\n', '42', 'execution_complete']);
});

test('a file that is read goes on after its connection broke, unless it is another by then', async (t) => {
  const direct = sandboxOf(t);
  const { binding, cut } = await wire(t);
  const sandbox = getSandbox(binding, direct.id);
  const size = 24 * 1024 * 1024;
  await direct.exec(`seq 1 10000000 | head -c ${size} > /tmp/long`);
  const { stdout: sum } = await direct.exec('sha256sum < /tmp/long');
  const read = async (change?: () => Promise<unknown>) => {
    const { content } = await sandbox.readFile('/tmp/long', { encoding: 'none' });
    const hash = createHash('sha256');
    let [bytes, cuts] = [0, 0];
    for await (const chunk of content) {
      hash.update(chunk);
      bytes += chunk.length;
      if (bytes < (cuts + 1) * 4 * 1024 * 1024 || cuts === 3) continue;
      cuts++;
      cut(1);
      await change?.();
    }
    assert.equal(cuts, 3);
    assert.equal(bytes, size);
    return hash.digest('hex');
  };
  assert.equal(await read(), sum.split(' ')[0]);
  const error = await errorFrom(read(() => direct.writeFile('/tmp/long', 'another')));
  assert.equal(error.code, 'PRECONDITION_FAILED', String(error));
});

test('events are followed on after their connection broke, without loss or repetition', async (t) => {
  const direct = sandboxOf(t);
  await direct.start();
  const { binding, cut } = await wire(t);
  const told: string[] = [];
  const following = events(binding, { sandbox: direct.id, after: 0 });
  const next = async () => told.push((await following.next()).value!.kind);
  await next();
  await next();
  const waiting = next();
  cut();
  await direct.freeze();
  await waiting;
  // What happens while nobody is there is told later.
  cut(2);
  await direct.thaw();
  await direct.stop();
  await next();
  await next();
  await following.return();
  assert.deepEqual(told, ['created', 'started', 'frozen', 'thawed', 'stopped']);
});

test('a watch is armed again after its connection broke, and says that something may be missing', async (t) => {
  const direct = sandboxOf(t);
  const { binding, cut } = await wire(t);
  const sandbox = getSandbox(binding, direct.id);
  const seen: string[] = [];
  for await (const event of parseSSEStream<FileWatchSSEEvent>(await sandbox.watch('/workspace'))) {
    seen.push(event.type);
    if (event.type === 'watching') cut(1);
    if (event.type === 'overflow') await direct.exec('touch /workspace/a');
    if (event.type === 'event') break;
  }
  assert.deepEqual(seen, ['watching', 'overflow', 'event']);
});

test('a server that comes back at another address, or with another key, is found by whoever asks next', async (t) => {
  const { id } = sandboxOf(t);
  const stateDir = mkdtempSync('/tmp/sandbar-moved-');
  t.after(() => rmSync(stateDir, { recursive: true }));
  const move = (to: string, its = key) => {
    writeFileSync(`${stateDir}/endpoint`, to);
    writeFileSync(`${stateDir}/key`, its);
  };
  const said = async () => (await getSandbox({ stateDir }, id).exec('echo yes')).stdout;
  const first = await wire(t);
  move(first.binding.url);
  assert.equal(await said(), 'yes\n');
  await first.end();
  const second = await wire(t);
  move(second.binding.url, 'wrong');
  assert.equal((await errorFrom(said())).code, 'UNAUTHORIZED');
  move(second.binding.url);
  assert.equal(await said(), 'yes\n');
  // What goes over a connection of its own is told that there is none, and finds it then.
  const connect = () => getSandbox({ stateDir }, id).containerFetch('/', 9);
  const open = () => getSandbox({ stateDir }, id).openTerminal({ id: 'none', cursor: 0 });
  const proxy = () => proxyToSandbox(new Request('http://8080-none-token.localhost/'), { Sandbox: { stateDir } });
  let last = second;
  for (const attempt of [connect, open, proxy]) {
    await last.end();
    last = await wire(t);
    move(last.binding.url);
    assert.equal((await errorFrom(attempt())).code, 'CONNECTION_FAILED');
    const found = await attempt().catch((error) => error);
    assert.notEqual(found.code, 'CONNECTION_FAILED', String(found));
  }
});
