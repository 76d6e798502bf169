import assert from 'node:assert/strict';
import test from 'node:test';
import { type LogEvent, ProcessExitedBeforeReadyError, ProcessNotFoundError, ProcessReadyTimeoutError, isProcess, parseSSEStream } from '@sandbar/sandbox';
import { errorFrom, sandboxOf } from './bench.js';

test('a process runs on, is listed, and is ended', async (t) => {
  const sandbox = sandboxOf(t);
  const server = await sandbox.startProcess('echo up; exec sleep 1000', { processId: 'web', env: { A: '1' }, cwd: '/tmp' });
  assert.deepEqual([server.id, server.status, server.command], ['web', 'running', 'echo up; exec sleep 1000']);
  assert.ok(server.pid > 0 && server.startTime instanceof Date && isProcess(server));
  assert.deepEqual((await sandbox.listProcesses()).map((each) => each.id), ['web']);
  assert.equal((await sandbox.getProcess('web'))?.pid, server.pid);
  assert.equal((await sandbox.getProcess(server.pid))?.id, 'web');
  assert.equal(await sandbox.isProcessRunning(server.pid), true);
  await server.waitForLog('up');
  await sandbox.killProcess('web', 'SIGKILL');
  const ended = (await sandbox.getProcess('web'))!;
  assert.deepEqual([ended.status, ended.exitCode, ended.ending], ['killed', 137, { type: 'killed', signal: 9 }]);
  assert.equal(await sandbox.isProcessRunning('web'), false);
  assert.equal(await sandbox.getProcess('none'), null);
  assert.ok((await errorFrom(sandbox.killProcess('none'))) instanceof ProcessNotFoundError);
});

test('the signal is the one that was asked for', async (t) => {
  const sandbox = sandboxOf(t);
  const process = await sandbox.spawn(`trap 'echo told; exit 5' USR1; echo ready; while :; do sleep 0.02; done`);
  await process.waitForLog('ready');
  await process.kill('SIGUSR1');
  assert.match((await process.getLogs()).stdout, /told/);
});

test('killAllProcesses says how many there were', async (t) => {
  const sandbox = sandboxOf(t);
  await Promise.all([1, 2, 3].map(() => sandbox.startProcess('sleep 1000')));
  assert.equal(await sandbox.killAllProcesses(), 3);
  assert.deepEqual((await sandbox.listProcesses()).map((each) => each.status), ['killed', 'killed', 'killed']);
});

test('logs are both outputs, and a text', async (t) => {
  const sandbox = sandboxOf(t);
  const process = await sandbox.startProcess('echo out; while [ ! -e /tmp/go ]; do sleep 0.01; done; echo err >&2');
  // One after the other, also for whoever reads both.
  await process.waitForLog('out');
  await sandbox.writeFile('/tmp/go', '');
  assert.deepEqual(await process.waitForExit(), { exitCode: 0 });
  const logs = await sandbox.getProcessLogs(process.id);
  assert.deepEqual({ ...logs }, { stdout: 'out\n', stderr: 'err\n', processId: process.id });
  assert.equal(String(logs), 'out\nerr\n');
  assert.equal(await process.getStatus(), 'completed');
  const failed = await sandbox.startProcess('exit 4');
  assert.deepEqual(await failed.waitForExit(), { exitCode: 4 });
  assert.equal(await failed.getStatus(), 'failed');
});

test('the stream of a log begins at its beginning and ends with the process', async (t) => {
  const sandbox = sandboxOf(t);
  const process = await sandbox.startProcess('echo one; while [ ! -e /tmp/go ]; do sleep 0.01; done; echo two; exit 3');
  await process.waitForLog('one');
  const events: LogEvent[] = [];
  for await (const event of parseSSEStream<LogEvent>(await sandbox.streamProcessLogs(process.id))) {
    events.push(event);
    if (event.data === 'one\n') await sandbox.writeFile('/tmp/go', '');
  }
  assert.deepEqual(events.map((event) => [event.type, event.data]), [['stdout', 'one\n'], ['stdout', 'two\n'], ['exit', '']]);
  assert.deepEqual([events[2]!.exitCode, events[0]!.processId], [3, process.id]);
  assert.ok((await errorFrom(sandbox.streamProcessLogs('none'))) instanceof ProcessNotFoundError);
});

test('leaving the stream of a log leaves the process alone', async (t) => {
  const sandbox = sandboxOf(t);
  const process = await sandbox.startProcess('echo ready; sleep 1000');
  for await (const event of parseSSEStream<LogEvent>(await sandbox.streamProcessLogs(process.id))) if (event.data) break;
  assert.equal(await process.getStatus(), 'running');
});

test('callbacks of a process', async (t) => {
  const sandbox = sandboxOf(t);
  const told: unknown[] = [];
  await new Promise<void>((resolve) => {
    void sandbox.startProcess('read go; echo hello; exit 2', {
      stdin: 'open',
      onStart: (process) => {
        told.push(process.status);
        void process.writeStdin('go\n');
      },
      onOutput: (stream, data) => told.push([stream, data]),
      onExit: (code) => {
        told.push(code);
        resolve();
      },
    });
  });
  assert.deepEqual(told, ['running', ['stdout', 'hello\n'], 2]);
});

test('callbacks are told the end of a process that is forgotten then', async (t) => {
  const sandbox = sandboxOf(t);
  for (let times = 0; times < 10; times++) {
    const told: unknown[] = [];
    await new Promise<void>((resolve, reject) => {
      const done = (code: number | null) => {
        told.push(code);
        resolve();
      };
      sandbox.startProcess('echo hello', { autoCleanup: true, onOutput: (_, data) => told.push(data), onExit: done, onError: reject }).catch(reject);
    });
    assert.deepEqual(told, ['hello\n', 0]);
  }
  assert.deepEqual(await sandbox.listProcesses(), []);
});

test('waiting for a line: text, pattern, what was before, too late, too early', async (t) => {
  const sandbox = sandboxOf(t);
  const server = await sandbox.startProcess(`echo "Listening on port 8123"; printf 'no end yet'; sleep 1000`);
  assert.deepEqual(await server.waitForLog('Listening'), { line: 'Listening on port 8123' });
  const { line, match } = await server.waitForLog(/port (?<number>\d+)/);
  assert.deepEqual([line, match?.[1], match?.groups?.number], ['Listening on port 8123', '8123', '8123']);
  assert.equal((await server.waitForLog(/(?<=no )end/)).line, 'no end yet');
  const slow = await sandbox.startProcess('read go; echo ready; sleep 1000', { stdin: 'open' });
  const waits = [Infinity, 2 ** 31, 3e9].flatMap((time) => ['ready', /ready/].map((pattern) => slow.waitForLog(pattern, time)));
  await slow.writeStdin('go\n');
  for (const wait of waits) assert.equal((await wait).line, 'ready');
  for (const pattern of ['never', /never/]) {
    const late = await errorFrom(server.waitForLog(pattern, 150));
    assert.ok(late instanceof ProcessReadyTimeoutError, String(late));
    assert.deepEqual([late.code, late.httpStatus, late.processId, late.timeout], ['PROCESS_READY_TIMEOUT', 408, server.id, 150]);
    assert.match(late.message, /Process did not become ready within 150ms\. Waiting for: .*never/);
    const short = await sandbox.startProcess('echo bye; exit 6');
    const early = await errorFrom(short.waitForLog(pattern, 60_000));
    assert.ok(early instanceof ProcessExitedBeforeReadyError, String(early));
    assert.deepEqual([early.exitCode, early.httpStatus], [6, 500]);
  }
});

test('waiting for a port', async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.writeFile('/tmp/server.py', `
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204 if self.path == '/ok' else 500)
        self.end_headers()
http.server.HTTPServer(('127.0.0.1', 8080), Handler).serve_forever()
`);
  const server = await sandbox.startProcess('exec python3 /tmp/server.py');
  await server.waitForPort(8080, { mode: 'tcp', timeout: 60_000 });
  await server.waitForPort(8080, { path: '/ok', timeout: 60_000 });
  await server.waitForPort(8080, { status: 500, timeout: 60_000 });
  await server.waitForPort(8080, { status: { min: 500, max: 599 }, timeout: 60_000 });
  const late = await errorFrom(server.waitForPort(8080, { timeout: 300 }));
  assert.ok(late instanceof ProcessReadyTimeoutError);
  assert.match(late.condition, /8080/);
});

test('stdin of a process that is left open', async (t) => {
  const process = await sandboxOf(t).startProcess('cat; echo over', { stdin: 'open' });
  await process.writeStdin('typed\n');
  await process.waitForLog('typed');
  await process.writeStdin('', { close: true });
  await process.waitForLog('over');
});

test('the events of output are iterated', async (t) => {
  const process = await sandboxOf(t).startProcess('echo a; echo b >&2');
  const types = [];
  for await (const event of process.output()) types.push(event.type);
  assert.deepEqual(types.sort(), ['exit', 'stderr', 'stdout']);
});
