import assert from 'node:assert/strict';
import test from 'node:test';
import {
  CommandError,
  ContainerUnavailableError,
  type ExecEvent,
  FileNotFoundError,
  SandboxError,
  SandboxSecurityError,
  SessionTerminatedError,
  getSandbox,
  isExecResult,
  parseSSEStream,
} from '@sandbar/sandbox';
import { all, errorFrom, sandboxOf } from './bench.js';

test('a command returns what it wrote and how it ended', async (t) => {
  const sandbox = sandboxOf(t);
  const result = await sandbox.exec('echo out; echo err >&2; (exit 3)');
  assert.equal(result.success, false);
  assert.equal(result.exitCode, 3);
  assert.equal(result.stdout, 'out\n');
  assert.equal(result.stderr, 'err\n');
  assert.equal(result.command, 'echo out; echo err >&2; (exit 3)');
  assert.deepEqual(result.ending, { type: 'exited', code: 3 });
  assert.ok(result.duration >= 0 && !Number.isNaN(Date.parse(result.timestamp)));
  assert.ok(isExecResult(result));
});

test('a command that is not there is a result', async (t) => {
  const result = await sandboxOf(t).exec('no-such-program');
  assert.equal(result.exitCode, 127);
  assert.match(result.stderr, /not found/);
});

test('a list of arguments is not read by a shell', async (t) => {
  const result = await sandboxOf(t, { enableDefaultSession: false }).exec(['echo', '$HOME; ls', "it's"]);
  assert.equal(result.stdout, "$HOME; ls it's\n");
});

test('the default session keeps directory, variables and functions', async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.exec('cd /tmp; export KEPT=yes; greet() { echo "hello $1"; }');
  assert.equal((await sandbox.exec('pwd; echo $KEPT; greet you')).stdout, '/tmp\nyes\nhello you\n');
  assert.equal((await sandbox.exec('echo $KEPT', { cwd: '/', env: { KEPT: 'once' } })).stdout, 'once\n');
  assert.equal((await sandbox.exec('echo $KEPT')).stdout, 'yes\n');
});

test('without a default session nothing is kept', async (t) => {
  const sandbox = sandboxOf(t, { enableDefaultSession: false });
  const moved = await sandbox.exec('cd /tmp; export KEPT=yes');
  assert.equal(moved.sessionId, undefined);
  assert.equal((await sandbox.exec('pwd; echo ${KEPT:-nothing}')).stdout, '/workspace\nnothing\n');
});

test('a timeout is an error in a session, with what was written, and 124 without one', async (t) => {
  const sandbox = sandboxOf(t);
  let error = await errorFrom(sandbox.exec('echo begun; sleep 60', { timeout: 200 }));
  // The first that was long enough for it to begin, however slow the machine is just now.
  for (let timeout = 400; timeout < 30_000 && error.context?.stdout === ''; timeout *= 2) error = await errorFrom(sandbox.exec('echo begun; sleep 60', { timeout }));
  assert.ok(error instanceof CommandError);
  assert.match(error.message, /timeout/i);
  assert.equal(error.code, 'COMMAND_EXECUTION_ERROR');
  assert.equal(error.context.stdout, 'begun\n');
  assert.equal((await sandbox.exec('echo alive')).stdout, 'alive\n');

  const stateless = getSandbox(undefined, sandbox.id, { enableDefaultSession: false });
  const result = await stateless.exec('sleep 60', { timeout: 200 });
  assert.equal(result.exitCode, 124);
  assert.deepEqual(result.ending, { type: 'timeout' });
});

test('a shell that ends is told, and the next command has a fresh one', async (t) => {
  const sandbox = sandboxOf(t);
  const error = await errorFrom(sandbox.exec('exit 7'));
  assert.ok(error instanceof SessionTerminatedError);
  assert.deepEqual([error.code, error.httpStatus, error.exitCode], ['SESSION_TERMINATED', 410, 7]);
  assert.ok(error.suggestion);
  assert.equal((await sandbox.exec('echo again')).stdout, 'again\n');
});

test('callbacks are told output as it comes, and the result', async (t) => {
  const sandbox = sandboxOf(t);
  const told: [string, string][] = [];
  let completed: unknown;
  const result = await sandbox.exec('echo one; while [ ! -e /tmp/go ]; do sleep 0.01; done; echo two >&2', {
    stream: true,
    onOutput: (stream, data) => {
      told.push([stream, data]);
      // Output that was told only at the end would never bring the end about.
      if (data.includes('one')) void sandbox.writeFile('/tmp/go', '');
    },
    onComplete: (result) => (completed = result),
  });
  assert.deepEqual(told, [['stdout', 'one\n'], ['stderr', 'two\n']]);
  assert.equal(completed, result);
  let failed: Error | undefined;
  const error = await errorFrom(sandbox.exec('true', { cwd: '/no/such', onError: (error) => (failed = error) }));
  assert.equal(failed, error);
  assert.ok(error instanceof FileNotFoundError, String(error));
});

test('a stream has start, output and complete, and shares the state of the session', async (t) => {
  const sandbox = sandboxOf(t);
  const events = await all<ExecEvent>(await sandbox.execStream('cd /tmp; echo here; echo there >&2'));
  assert.deepEqual(events.map((event) => event.type).sort(), ['complete', 'start', 'stderr', 'stdout']);
  assert.equal(events[0]!.type, 'start');
  assert.ok(events[0]!.pid! > 0 && events[0]!.command!.startsWith('cd'));
  const last = events.at(-1)!;
  assert.deepEqual([last.type, last.exitCode, last.result!.success], ['complete', 0, true]);
  assert.ok(events.every((event) => !Number.isNaN(Date.parse(event.timestamp))));
  assert.equal((await sandbox.exec('pwd')).stdout, '/tmp\n');
});

test('a stream has its types on event lines, for EventSource', async (t) => {
  const text = await new Response(await sandboxOf(t).execStream('echo x')).text();
  assert.match(text, /^event: start\ndata: \{"type":"start"/);
  assert.match(text, /\nevent: complete\ndata: .*"exitCode":0/);
});

test('a stream of events that ends without a blank line has told its last event', async () => {
  const events = async (text: string) => all(new Blob([text]).stream() as ReadableStream<Uint8Array>);
  for (const end of ['', '\n', '\r', '\r\n', '\n\n']) {
    assert.deepEqual(await events(`data: {"a":1}\n\nevent: x\ndata: {"b":2}${end}`), [{ a: 1 }, { b: 2 }], JSON.stringify(end));
  }
  assert.deepEqual(await events('data: {"a":1}\n\n: comment'), [{ a: 1 }]);
});

test('leaving a stream while nothing comes ends its command', async (t) => {
  const sandbox = sandboxOf(t);
  for (const stream of [
    await sandbox.execStream('sleep 1002'),
    await sandbox.runCodeStream('import subprocess; subprocess.run(["sleep", "1002"])'),
  ]) {
    const reader = stream.getReader();
    // The second is waited for in vain.
    const read = reader.read().then(() => reader.read());
    // Besides, because the default session has no turn.
    await sandbox.exec('until pgrep -fx "sleep 1002"; do sleep 0.02; done', { session: 'besides', timeout: 60_000 });
    await reader.cancel();
    await read;
  }
  await sandbox.runCode('1');
  assert.equal((await sandbox.exec('pgrep -fx "sleep 1002" || echo none')).stdout, 'none\n');
});

test('leaving a stream that was never read ends its command', async (t) => {
  const sandbox = sandboxOf(t);
  await (await sandbox.execStream('sleep 1001')).cancel();
  await (await sandbox.runCodeStream('import subprocess; subprocess.run(["sleep", "1001"])')).cancel();
  // The session's turn comes when its command has ended, the context's when its code has.
  await sandbox.runCode('1');
  assert.equal((await sandbox.exec('pgrep -fx "sleep 1001" || echo none')).stdout, 'none\n');
});

test('leaving a stream ends its command', async (t) => {
  const sandbox = sandboxOf(t);
  for await (const event of parseSSEStream<ExecEvent>(await sandbox.execStream('echo begun; sleep 1000'))) {
    if (event.type === 'stdout') break;
  }
  // The session is one's turn after the other, so it answers only when the command has ended.
  assert.equal((await sandbox.exec('echo free')).stdout, 'free\n');
  assert.equal((await sandbox.exec('pgrep -x sleep || echo none')).stdout, 'none\n');
});

test('aborting ends the command in the sandbox', async (t) => {
  const sandbox = sandboxOf(t);
  for (const idempotencyKey of [undefined, 'abort-key']) {
    const abort = new AbortController();
    const reason = new Error('enough');
    const running = sandbox.exec('echo begun; sleep 1000', { signal: abort.signal, idempotencyKey, onOutput: () => abort.abort(reason) });
    assert.equal(await errorFrom(running), reason);
    assert.equal((await sandbox.exec('pgrep -x sleep || echo none')).stdout, 'none\n');
  }
  const error = await errorFrom(sandbox.exec('true', { signal: AbortSignal.abort() }));
  assert.equal(error.name, 'AbortError');
});

test('an idempotency key runs a command once', async (t) => {
  const sandbox = sandboxOf(t);
  const run = () => sandbox.exec('echo x >> /tmp/count; wc -l < /tmp/count', { idempotencyKey: 'once' });
  assert.equal((await run()).stdout.trim(), '1');
  assert.equal((await run()).stdout.trim(), '1');
});

test('much output comes whole', async (t) => {
  const result = await sandboxOf(t).exec('seq 1 400000');
  assert.equal(result.droppedBytes, 0);
  const lines = result.stdout.split('\n');
  assert.deepEqual([lines.length, lines[399_999]], [400_001, '400000']);
});

test('text that is cut between its bytes is whole', async (t) => {
  const result = await sandboxOf(t).exec(`printf '\\xe2\\x82'; sleep 0.05; printf '\\xac'`);
  assert.equal(result.stdout, '€');
});

test('stdin is what was given, else nothing', async (t) => {
  const sandbox = sandboxOf(t);
  assert.equal((await sandbox.exec('cat', { stdin: 'given' })).stdout, 'given');
  assert.equal((await sandbox.exec('cat')).stdout, '');
});

test('variables go from the sandbox to every command', async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.setEnvVars({ A: '1', B: '2' });
  assert.equal((await sandbox.exec('echo $A$B')).stdout, '12\n');
  await sandbox.setEnvVars({ A: undefined, B: '3' });
  assert.equal((await sandbox.exec('echo ${A-unset}$B')).stdout, 'unset3\n');
  const session = await sandbox.createSession();
  assert.equal((await session.exec('echo $B')).stdout, '3\n');
});

test('ids are checked before anything is sent', () => {
  for (const [id, code] of [
    ['', 'INVALID_SANDBOX_ID_LENGTH'],
    ['x'.repeat(64), 'INVALID_SANDBOX_ID_LENGTH'],
    ['-a', 'INVALID_SANDBOX_ID_HYPHENS'],
    ['a-', 'INVALID_SANDBOX_ID_HYPHENS'],
    ['API', 'RESERVED_SANDBOX_ID'],
  ]) {
    assert.throws(
      () => getSandbox(undefined, id!),
      (error) => error instanceof SandboxSecurityError && error.code === code,
    );
  }
});

test('ids are lower-cased on request', async (t) => {
  const name = `Sdk-Upper-${process.pid}`;
  const sandbox = getSandbox(undefined, name, { normalizeId: true });
  t.after(() => sandbox.destroy());
  assert.equal(sandbox.id, name.toLowerCase());
  await sandbox.exec('true');
  assert.equal((await getSandbox(undefined, name.toLowerCase()).info())?.state, 'running');
});

test('errors say what, why and what to do', async (t) => {
  const sandbox = sandboxOf(t);
  const error = await errorFrom(sandbox.readFile('/no/such/file'));
  assert.ok(error instanceof FileNotFoundError && error instanceof SandboxError && error instanceof Error);
  assert.deepEqual([error.name, error.code, error.httpStatus], ['FileNotFoundError', 'FILE_NOT_FOUND', 404]);
  assert.equal(error.context.path, '/no/such/file');
  assert.ok(error.message && error.suggestion && error.operation && error.requestId);
  assert.equal(JSON.parse(JSON.stringify(error)).code, 'FILE_NOT_FOUND');
});

test('a server that is not there is told with what to do', async () => {
  const error = await errorFrom(getSandbox('http://:key@127.0.0.1:9', 'x').exec('true'));
  assert.ok(error instanceof ContainerUnavailableError, String(error));
  assert.match(error.message, /connection/);
  assert.match(error.suggestion!, /sandbar serve/);
});

test('a wrong key is refused', async () => {
  const state = process.env.SANDBAR_STATE_DIR;
  const { readFileSync } = await import('node:fs');
  const url = process.env.SANDBAR_URL ?? readFileSync(`${state}/endpoint`, 'utf8').trim();
  const error = await errorFrom(getSandbox({ url, key: 'wrong' }, 'x').exec('true'));
  assert.deepEqual([error.code, error.httpStatus], ['UNAUTHORIZED', 401]);
});

test('a link in the state directory is not followed', async (t) => {
  const { linkSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } = await import('node:fs');
  const dir = mkdtempSync('/tmp/sandbar-links-');
  t.after(() => rmSync(dir, { recursive: true }));
  writeFileSync(`${dir}/endpoint`, 'http://127.0.0.1:9\n');
  writeFileSync(`${dir}/of-root`, 'secret\n');
  for (const link of [linkSync, symlinkSync]) {
    link(`${dir}/of-root`, `${dir}/key`);
    const error = await errorFrom(getSandbox({ stateDir: dir }, 'x').exec('true'));
    assert.match(error.message, /key is a link/);
    rmSync(`${dir}/key`);
  }
});

test('a Durable Object namespace is accepted and not used', async (t) => {
  const namespace = { idFromName: () => ({}), get: () => ({ fetch: () => {} }) };
  const sandbox = getSandbox(namespace as never, `sdk-ns-${process.pid}`);
  t.after(() => sandbox.destroy());
  assert.equal((await sandbox.exec('echo yes')).stdout, 'yes\n');
});

test('a sandbox that shall be made in a way is made in that way again, whoever destroyed it', async (t) => {
  const { id } = sandboxOf(t);
  const sandbox = getSandbox(undefined, id, { env: { MADE: 'so' }, network: 'none' });
  const uses = {
    exec: async () => assert.equal((await sandbox.exec('echo $MADE')).stdout, 'so\n'),
    'several at once': async () => {
      const results = await Promise.all([1, 2, 3].map(() => sandbox.exec('echo $MADE; echo x >> times; wc -l < times')));
      assert.deepEqual(results.map(({ stdout }) => stdout).sort(), ['so\n1\n', 'so\n2\n', 'so\n3\n']);
    },
    openTerminal: async () => (await sandbox.openTerminal()).close(),
    exposePort: async () => assert.equal((await sandbox.exposePort(8080, { hostname: 'localhost' })).port, 8080),
    // A connection to it, to nobody.
    containerFetch: async () => assert.equal((await errorFrom(sandbox.containerFetch('http://x/', 1))).name, 'ServiceNotRespondingError'),
  };
  for (const [name, use] of Object.entries(uses)) {
    await sandbox.exec('true');
    await getSandbox(undefined, id).destroy();
    await use();
    assert.equal((await sandbox.info())?.network, 'none', name);
  }
  // What was read of a stream cannot be sent again, and is not sent to a sandbox of another kind.
  await getSandbox(undefined, id).destroy();
  const write = () => sandbox.writeFile('file', new Response('content').body!);
  assert.equal((await errorFrom(write())).code, 'SANDBOX_NOT_FOUND');
  await write();
  assert.equal((await sandbox.info())?.network, 'none');
});

test('a sandbox can be made with settings, and goes with its block', async () => {
  const id = `sdk-made-${process.pid}`;
  {
    await using sandbox = getSandbox(undefined, id, { env: { MADE: 'so' }, labels: { of: 'sdk' }, network: 'none' });
    assert.equal((await sandbox.exec('echo $MADE')).stdout, 'so\n');
    const info = await sandbox.info();
    assert.deepEqual([info?.labels.of, info?.network], ['sdk', 'none']);
    assert.equal((await sandbox.getState()).status, 'healthy');
    const other = getSandbox(undefined, id, { network: 'internet', env: { MADE: 'else' } });
    assert.equal((await errorFrom(other.exec('true'))).code, 'SANDBOX_EXISTS');
  }
  assert.equal(await getSandbox(undefined, id).info(), undefined);
});
