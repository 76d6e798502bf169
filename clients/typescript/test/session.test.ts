import assert from 'node:assert/strict';
import test from 'node:test';
import { ExecutionSession } from '@sandbar/sandbox';
import { errorFrom, sandboxOf } from './bench.js';

test('sessions keep their own state', async (t) => {
  const sandbox = sandboxOf(t);
  const one = await sandbox.createSession({ id: 'one', env: { NAME: '1' }, cwd: '/tmp' });
  const two = await sandbox.createSession({ env: { NAME: '2' } });
  assert.ok(one instanceof ExecutionSession);
  await Promise.all([one.exec('export LOCAL=a'), two.exec('cd /')]);
  assert.equal((await one.exec('echo $NAME$LOCAL; pwd')).stdout, '1a\n/tmp\n');
  assert.equal((await two.exec('echo $NAME$LOCAL; pwd')).stdout, '2\n/\n');
});

test('a session is its id wherever a text is wanted', async (t) => {
  const sandbox = sandboxOf(t);
  const session = await sandbox.createSession();
  const stored = JSON.parse(JSON.stringify({ session })) as { session: string };
  assert.equal(stored.session, session.id);
  assert.equal(`${session}`, session.id);
  await sandbox.exec('cd /tmp', { session: stored.session });
  for (const ref of [session, session.id, { id: session.id }]) {
    assert.equal((await sandbox.exec('pwd', { session: ref })).stdout, '/tmp\n');
    assert.equal((await sandbox.exec('pwd', { sessionId: ref })).stdout, '/tmp\n');
  }
});

test('a name is an id, and finds', async (t) => {
  const sandbox = sandboxOf(t);
  const session = await sandbox.createSession({ name: 'temp' });
  await session.exec('export WHO=temp');
  assert.equal((await (await sandbox.getSession('temp')).exec('echo $WHO')).stdout, 'temp\n');
  assert.equal((await sandbox.deleteSession('temp')).success, true);
  assert.equal((await errorFrom(sandbox.deleteSession('temp'))).code, 'SESSION_NOT_FOUND');
  assert.equal((await errorFrom(sandbox.deleteSession('default'))).code, 'VALIDATION_FAILED');
});

test('the directory of a session is made when it is missing', async (t) => {
  const session = await sandboxOf(t).createSession({ cwd: '/workspace/deep/down' });
  assert.equal((await session.exec('pwd')).stdout, '/workspace/deep/down\n');
});

test('relative paths start at the directory of the session', async (t) => {
  const sandbox = sandboxOf(t);
  const session = await sandbox.createSession();
  await session.exec('mkdir -p /workspace/project && cd /workspace/project');
  await session.writeFile('src/index.js', 'x');
  assert.equal((await sandbox.readFile('/workspace/project/src/index.js')).content, 'x');
  await session.renameFile('src/index.js', 'src/main.js');
  assert.deepEqual(await session.readdir('src'), ['main.js']);
  assert.equal((await session.exists('src/main.js')).exists, true);
  await session.mkdir('lib');
  await session.deleteFile('src/main.js');
  assert.deepEqual((await session.listFiles('.', { recursive: true })).files.map((each) => each.relativePath), ['lib', 'src']);
});

test('variables of a session are its own, also before its first use', async (t) => {
  const sandbox = sandboxOf(t);
  const session = await sandbox.getSession('new');
  await session.setEnvVars({ MINE: 'yes' });
  assert.equal((await session.exec('echo $MINE')).stdout, 'yes\n');
  assert.equal((await sandbox.exec('echo ${MINE:-no}')).stdout, 'no\n');
  await session.setEnvVars({ MINE: undefined });
  assert.equal((await session.exec('echo ${MINE-unset}')).stdout, 'unset\n');
});

test('commandTimeoutMs is for commands without a time of their own', async (t) => {
  const session = await sandboxOf(t).createSession({ commandTimeoutMs: 200 });
  assert.match((await errorFrom(session.exec('sleep 60'))).message, /timeout/i);
});

test('a command with a directory of its own moves nobody else', async (t) => {
  const sandbox = sandboxOf(t);
  let arrived: Promise<unknown> | undefined;
  await sandbox.exec('echo begun; while [ ! -e /tmp/go ]; do sleep 0.01; done', {
    cwd: '/',
    onOutput: () => (arrived ??= sandbox.writeFile('here.txt', 'x').then(() => sandbox.writeFile('/tmp/go', ''))),
  });
  await arrived;
  assert.equal((await sandbox.exists('/workspace/here.txt')).exists, true);
  assert.equal((await sandbox.exec('pwd', { cwd: '/tmp' })).stdout, '/tmp\n');
  await sandbox.writeFile('there.txt', 'x');
  assert.equal((await sandbox.exists('/workspace/there.txt')).exists, true);
});
