/** Whoever gives up is answered at once, and in the sandbox it ends too. */

import assert from 'node:assert/strict';
import test from 'node:test';
import { Sandbox, createKey, listKeys, listSandboxes, removeKey } from '@sandbar/sandbox';
import { errorFrom, sandboxOf } from './bench.js';

test('every method takes a signal', async (t) => {
  const sandbox = sandboxOf(t);
  const process = await sandbox.startProcess('sleep 1000', { stdin: 'open' });
  const session = await sandbox.createSession();
  const terminal = await sandbox.openTerminal();
  t.after(() => terminal.close());
  const given = new Error('changed my mind');
  const signal = AbortSignal.abort(given);
  const o = { signal };
  const calls: Record<string, () => Promise<unknown>> = {
    exec: () => sandbox.exec('true', o),
    execStream: () => sandbox.execStream('true', o),
    startProcess: () => sandbox.startProcess('true', o),
    listProcesses: () => sandbox.listProcesses(o),
    getProcess: () => sandbox.getProcess(process.id, o),
    isProcessRunning: () => sandbox.isProcessRunning(process.pid, o),
    killProcess: () => sandbox.killProcess(process.id, 'SIGTERM', o),
    killAllProcesses: () => sandbox.killAllProcesses(o),
    getProcessLogs: () => sandbox.getProcessLogs(process.id, o),
    streamProcessLogs: () => sandbox.streamProcessLogs(process.id, o),
    'process.kill': () => process.kill(undefined, o),
    'process.getStatus': () => process.getStatus(o),
    'process.getLogs': () => process.getLogs(o),
    'process.waitForLog': () => process.waitForLog('x', undefined, o),
    'process.waitForLog, a pattern': () => process.waitForLog(/x/, undefined, o),
    'process.waitForPort': () => process.waitForPort(1, o),
    'process.waitForExit': () => process.waitForExit(undefined, o),
    'process.writeStdin': () => process.writeStdin('x', o),
    writeFile: () => sandbox.writeFile('a', 'b', o),
    readFile: () => sandbox.readFile('a', o),
    readFileStream: () => sandbox.readFileStream('a', o),
    mkdir: () => sandbox.mkdir('d', o),
    deleteFile: () => sandbox.deleteFile('a', o),
    rm: () => sandbox.rm('a', o),
    renameFile: () => sandbox.renameFile('a', 'b', o),
    moveFile: () => sandbox.moveFile('a', 'b', o),
    listFiles: () => sandbox.listFiles('.', o),
    readdir: () => sandbox.readdir('.', o),
    exists: () => sandbox.exists('a', o),
    watch: () => sandbox.watch('.', o),
    checkChanges: () => sandbox.checkChanges('.', o),
    gitCheckout: () => sandbox.gitCheckout('https://example.com/a', o),
    setEnvVars: () => sandbox.setEnvVars({ A: '1' }, o),
    'session.setEnvVars': () => session.setEnvVars({ A: '1' }, o),
    createSession: () => sandbox.createSession(o),
    deleteSession: () => sandbox.deleteSession(session, o),
    listSessions: () => sandbox.listSessions(o),
    createCodeContext: () => sandbox.createCodeContext(o),
    runCode: () => sandbox.runCode('1', o),
    listCodeContexts: () => sandbox.listCodeContexts(o),
    deleteCodeContext: () => sandbox.deleteCodeContext('a', o),
    interruptCodeContext: () => sandbox.interruptCodeContext('a', o),
    restartCodeContext: () => sandbox.restartCodeContext('a', o),
    warmCodeContexts: () => sandbox.warmCodeContexts(o),
    exposePort: () => sandbox.exposePort(8080, o),
    unexposePort: () => sandbox.unexposePort(8080, o),
    getExposedPorts: () => sandbox.getExposedPorts(undefined, o),
    isPortExposed: () => sandbox.isPortExposed(8080, o),
    validatePortToken: () => sandbox.validatePortToken(8080, 'a', o),
    containerFetch: () => sandbox.containerFetch('/', 8080, o),
    openTerminal: () => sandbox.openTerminal(o),
    listTerminals: () => sandbox.listTerminals(o),
    'terminal.terminate': () => terminal.terminate(o),
    setNetwork: () => sandbox.setNetwork('none', o),
    setAllowedHosts: () => sandbox.setAllowedHosts(['a.example'], o),
    allowHost: () => sandbox.allowHost('a.example', o),
    removeAllowedHost: () => sandbox.removeAllowedHost('a.example', o),
    setSleepAfter: () => sandbox.setSleepAfter('1m', o),
    setKeepAlive: () => sandbox.setKeepAlive(true, o),
    createCheckpoint: () => sandbox.createCheckpoint(undefined, o),
    listCheckpoints: () => sandbox.listCheckpoints(o),
    deleteCheckpoint: () => sandbox.deleteCheckpoint('a', o),
    restoreCheckpoint: () => sandbox.restoreCheckpoint('a', o),
    fork: () => sandbox.fork(o),
    createBackup: () => sandbox.createBackup({ dir: '/workspace', ...o }),
    restoreBackup: () => sandbox.restoreBackup({ id: 'a', dir: '/workspace' }, o),
    spawn: () => sandbox.spawn('true', o),
    runCodeStream: () => sandbox.runCodeStream('1', o),
    waitForPort: () => sandbox.waitForPort({ portToCheck: 8080, ...o }),
    start: () => sandbox.start(o),
    startAndWaitForPorts: () => sandbox.startAndWaitForPorts(8080, o),
    events: () => sandbox.events(o).next(),
    fetch: () => sandbox.fetch(new Request('http://sandbox/', o)),
    renewActivityTimeout: () => sandbox.renewActivityTimeout(o),
    setLabels: () => sandbox.setLabels({ a: 'b' }, o),
    freeze: () => sandbox.freeze(o),
    thaw: () => sandbox.thaw(o),
    stop: () => sandbox.stop(o),
    getState: () => sandbox.getState(o),
    info: () => sandbox.info(o),
    destroy: () => sandbox.destroy(o),
    listSandboxes: () => listSandboxes(undefined, o).next(),
    createKey: () => createKey(undefined, 'never', o),
    listKeys: () => listKeys(undefined, o),
    removeKey: () => removeKey(undefined, 'never', o),
  };
  // They ask nothing, or take a request that has one, or say that they cannot.
  const without = ['getSession', 'cleanupCompletedProcesses', 'setContainerTimeouts', 'setTransport', 'getContainerPlacementId', 'interpreter', 'terminal', 'wsConnect', 'mountBucket', 'unmountBucket'];
  const methods = [Sandbox.prototype, Object.getPrototypeOf(Sandbox.prototype)].flatMap(Object.getOwnPropertyNames);
  assert.deepEqual(methods.filter((name) => !(name in calls) && ![...without, 'constructor'].includes(name)), []);
  for (const [name, call] of Object.entries(calls)) assert.equal(await errorFrom(call()), given, name);
  // Nothing of it was done.
  assert.equal(await process.getStatus(), 'running');
  assert.equal((await sandbox.exists('b')).exists, false);
  assert.equal((await sandbox.listTerminals()).length, 1);
});

test('code that is given up is interrupted, and its context keeps what it has', async (t) => {
  const sandbox = sandboxOf(t);
  const context = await sandbox.createCodeContext();
  await sandbox.runCode('kept = 42', { context });
  for (const idempotencyKey of [undefined, 'k']) {
    const abort = new AbortController();
    const running = sandbox.runCode('print("begun", flush=True)\nimport time\ntime.sleep(1000)', {
      context,
      signal: abort.signal,
      onStdout: () => abort.abort(new Error('enough')),
      ...(idempotencyKey && { idempotencyKey }),
    });
    assert.equal((await errorFrom(running)).message, 'enough');
    // It waits for its turn, which comes when that code has ended.
    assert.equal((await sandbox.runCode('kept', { context })).output, '42');
  }
  assert.equal(await sandbox.interruptCodeContext(context), false);
  assert.equal((await sandbox.restartCodeContext(context)).id, context.id);
  assert.equal((await sandbox.runCode('kept', { context })).error?.name, 'NameError');
});

test('a session is told by its id or by the object, in options or behind the path', async (t) => {
  const sandbox = sandboxOf(t);
  const session = await sandbox.createSession({ cwd: '/tmp/there' });
  await sandbox.writeFile('a', 'x', session);
  await sandbox.renameFile('a', 'b', session.id);
  assert.equal((await sandbox.exists('b', { session })).exists, true);
  assert.equal((await sandbox.exists('/tmp/there/b')).exists, true);
  assert.deepEqual(await sandbox.readdir('.', session), ['b']);
  await sandbox.deleteFile('b', session);
  assert.deepEqual(await session.readdir('.'), []);
});

test('a started Python is kept, and contexts go on from it', async (t) => {
  const sandbox = sandboxOf(t);
  const warm = await sandbox.warmCodeContexts({ imports: ['decimal'] });
  assert.ok(warm.bytes > 0 && warm.durationMs > 0);
  assert.equal((await sandbox.runCode('import sys; "decimal" in sys.modules')).output, 'True');
});
