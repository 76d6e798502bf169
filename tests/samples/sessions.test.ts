/** Pages "Sessions", "Session management", "Sandbox lifecycle", "Architecture", "Container runtime". */

import assert from 'node:assert/strict';
import { type Sandbox, getSandbox } from '@cloudflare/sandbox';
import { env, program, project, repository, sample } from './bench.js';

// Sessions

sample('Sessions, createSession()', async ({ sandbox }) => {
  const prodSession = await sandbox.createSession({
    id: 'prod',
    env: { NODE_ENV: 'production', API_URL: 'https://api.example.com' },
    cwd: '/workspace/prod',
  });
  const testSession = await sandbox.createSession({
    id: 'test',
    env: { NODE_ENV: 'test', API_URL: 'http://localhost:3000' },
    cwd: '/workspace/test',
  });
  for (const dir of ['prod', 'test']) await sandbox.writeFile(`/workspace/${dir}/package.json`, JSON.stringify({ scripts: { build: 'echo $NODE_ENV $API_URL' } }));
  const [prodResult, testResult] = await Promise.all([
    prodSession.exec('npm run build'),
    testSession.exec('npm run build'),
  ]);
  assert.match(prodResult.stdout, /production https:\/\/api\.example\.com/);
  assert.match(testResult.stdout, /test http:\/\/localhost:3000/);
});

sample('Sessions, getSession()', async ({ sandbox }) => {
  await repository(sandbox, 'repo');
  {
    const session = await sandbox.createSession({ id: 'user-123' });
    await session.exec('git clone https://github.com/user/repo.git');
    await session.exec('cd repo && npm install');
  }
  const session = await sandbox.getSession('user-123');
  // As the document's comment says the directory was kept: the first session is in `repo` already.
  const result = await session.exec('cd repo && npm run build');
  assert.equal(result.exitCode, 1);
  assert.match((await session.exec('pwd && npm run build && ls dist')).stdout, /^\/workspace\/repo\n[^]*out\.js/);
});

sample('Sessions, setEnvVars()', async () => {
  const sandbox = getSandbox(env.Sandbox, 'user-123');
  await sandbox.setEnvVars({
    API_KEY: env.OPENAI_API_KEY,
    DATABASE_URL: env.DATABASE_URL,
    NODE_ENV: 'production',
  });
  await sandbox.writeFile('script.py', 'import os; print(os.environ["API_KEY"], os.environ["NODE_ENV"])');
  const result = await sandbox.exec('python script.py');
  assert.equal(result.stdout, 'sk-openai production\n');
});

sample('Sessions, destroy()', async () => {
  async function executeCode(code: string): Promise<string> {
    const sandbox = getSandbox(env.Sandbox, `temp-${Date.now()}`);
    try {
      await sandbox.writeFile('/tmp/code.py', code);
      const result = await sandbox.exec('python /tmp/code.py');
      return result.stdout;
    } finally {
      await sandbox.destroy();
    }
  }
  assert.equal(await executeCode('print(6 * 7)'), '42\n');
});

// Session management

sample('Session management, default session', async () => {
  const sandbox = getSandbox(env.Sandbox, 'my-sandbox');
  await sandbox.mkdir('/app');
  await sandbox.exec('cd /app');
  assert.equal((await sandbox.exec('pwd')).stdout, '/app\n');
  await sandbox.exec('export MY_VAR=hello');
  assert.equal((await sandbox.exec('echo $MY_VAR')).stdout, 'hello\n');
});

sample('Session management, more sessions', async ({ sandbox }) => {
  const buildSession = await sandbox.createSession({
    name: 'build',
    env: { NODE_ENV: 'production' },
    cwd: '/build',
  });
  const testSession = await sandbox.createSession({
    name: 'test',
    env: { NODE_ENV: 'test' },
    cwd: '/test',
  });
  await project(sandbox, '/build');
  await project(sandbox, '/test');
  const built = await buildSession.exec('npm run build');
  const tested = await testSession.exec('npm test');
  assert.deepEqual([built.success, tested.success], [true, true]);
});

sample('Session management, variables are apart', async ({ sandbox }) => {
  const [session1, session2] = [await sandbox.createSession(), await sandbox.createSession()];
  await session1.exec('export MY_VAR=hello');
  const empty = await session2.exec('echo $MY_VAR');
  assert.equal(empty.stdout, '\n');
});

sample('Session management, directories are apart', async ({ sandbox }) => {
  await sandbox.mkdir('/workspace/project1');
  const [session1, session2] = [await sandbox.createSession(), await sandbox.createSession()];
  await session1.exec('cd /workspace/project1');
  const other = await session2.exec('pwd');
  assert.equal(other.stdout, '/workspace\n');
});

sample('Session management, variables at the beginning', async ({ sandbox }) => {
  const session1 = await sandbox.createSession({
    env: { API_KEY: 'key-1' },
  });
  const session2 = await sandbox.createSession({
    env: { API_KEY: 'key-2' },
  });
  const seen = await Promise.all([session1, session2].map((session) => session.exec('echo $API_KEY')));
  assert.deepEqual(seen.map((each) => each.stdout), ['key-1\n', 'key-2\n']);
});

sample('Session management, files are shared', async ({ sandbox }) => {
  const [session1, session2] = [await sandbox.createSession(), await sandbox.createSession()];
  await session1.writeFile('/workspace/file.txt', 'data');
  const file = await session2.readFile('/workspace/file.txt');
  assert.equal(file.content, 'data');
});

sample('Session management, processes are shared', async ({ sandbox }) => {
  await project(sandbox);
  const [session1, session2] = [await sandbox.createSession(), await sandbox.createSession()];
  await session1.startProcess('node server.js');
  const seen = await session2.listProcesses();
  assert.deepEqual(seen.map((process) => process.command), ['node server.js']);
});

sample('Session management, writing and running apart', async ({ sandbox }) => {
  await project(sandbox);
  await program(sandbox, 'ai-tool', 'echo "asked: $1, key: ${ANTHROPIC_API_KEY:-none}"');
  const devSession = await sandbox.createSession({
    name: 'dev',
    env: { ANTHROPIC_API_KEY: env.ANTHROPIC_API_KEY },
  });
  const asked = await devSession.exec('ai-tool "build a web server"');
  assert.equal(asked.stdout, 'asked: build a web server, key: sk-ant\n');
  const appSession = await sandbox.createSession({
    name: 'app',
    env: { PORT: '3000' },
  });
  await sandbox.writeFile('server.js', 'console.log(process.env.PORT, process.env.ANTHROPIC_API_KEY)');
  const ran = await appSession.exec('node server.js');
  assert.equal(ran.stdout, '3000 undefined\n');
});

sample('Session management, temporary sessions', async ({ sandbox }) => {
  await program(sandbox, 'command', 'echo ran');
  try {
    const session = await sandbox.createSession({ name: 'temp' });
    await session.exec('command');
  } finally {
    await sandbox.deleteSession('temp');
  }
  assert.ok(!(await sandbox.listSessions()).some((session) => session.name === 'temp'));
});

sample('Session management, what is shared is at risk', async ({ sandbox }) => {
  const session = await sandbox.createSession();
  await sandbox.writeFile('/workspace/x', '');
  await session.exec('rm -rf /workspace/*');
  assert.deepEqual(await sandbox.readdir('/workspace'), []);
  const userId = 'user-77';
  const userSandbox = getSandbox(env.Sandbox, userId);
  assert.equal((await userSandbox.exec('ls /workspace')).stdout, '');
});

// Architecture

sample('Architecture, layer 1', async () => {
  const sandbox = getSandbox(env.Sandbox, 'my-sandbox');
  await sandbox.writeFile('script.py', 'print("ran")');
  const result = await sandbox.exec('python script.py');
  assert.equal(result.stdout, 'ran\n');
});

sample('Architecture, a request', async ({ sandbox }) => {
  await sandbox.writeFile('script.py', 'print("ran")');
  assert.ok((await sandbox.exec('python script.py')).success);
});

sample('Architecture, files stay', async ({ sandbox }) => {
  await sandbox.writeFile('/workspace/data.txt', 'hello');
  const later = getSandbox(env.Sandbox, 'my-sandbox');
  const file = await later.readFile('/workspace/data.txt');
  assert.equal(file.content, 'hello');
});

sample('Architecture, processes stay', async ({ sandbox }) => {
  await project(sandbox);
  await sandbox.startProcess('node server.js');
  const processes = await getSandbox(env.Sandbox, 'my-sandbox').listProcesses();
  assert.equal(processes[0]?.status, 'running');
});

// Sandbox lifecycle

sample('Sandbox lifecycle, creation', async () => {
  const sandbox = getSandbox(env.Sandbox, 'user-123');
  assert.equal(await sandbox.info(), undefined);
  await sandbox.exec('echo "Hello"');
  assert.equal((await sandbox.info())?.state, 'running');
});

sample('Sandbox lifecycle, destruction', async ({ sandbox }) => {
  await sandbox.writeFile('/workspace/x', '');
  await sandbox.destroy();
  assert.equal(await sandbox.info(), undefined);
  assert.deepEqual(await sandbox.readdir('/workspace'), []);
});

sample('Sandbox lifecycle, one per user', async () => {
  const userId = 42;
  const sandbox = getSandbox(env.Sandbox, `user-${userId}`);
  assert.ok((await sandbox.exec('true')).success);
});

sample('Sandbox lifecycle, one per session', async () => {
  const sessionId = `session-${Date.now()}-${Math.random()}`;
  const sandbox = getSandbox(env.Sandbox, sessionId);
  assert.ok((await sandbox.exec('true')).success);
  await sandbox.destroy();
});

sample('Sandbox lifecycle, one per task', async () => {
  const [repoName, commit] = ['app', '0a1b2c3d'];
  const sandbox = getSandbox(env.Sandbox, `build-${repoName}-${commit}`);
  assert.ok((await sandbox.exec('true')).success);
});

sample('Sandbox lifecycle, when to destroy', async () => {
  const sessionId = 'session-1a';
  const sandbox = getSandbox(env.Sandbox, sessionId);
  await project(sandbox);
  try {
    await sandbox.exec('npm run build');
  } finally {
    await sandbox.destroy();
  }
  assert.equal(await sandbox.info(), undefined);
});

sample('Sandbox lifecycle, failures', async ({ sandbox }) => {
  await program(sandbox, 'command', 'echo ran');
  // Without a server there is an error that the sample knows.
  const failing: Sandbox = getSandbox('http://:key@127.0.0.1:9' as never, 'x');
  for (const each of [sandbox, failing]) {
    try {
      await each.exec('command');
    } catch (error: any) {
      if (error.message.includes('container') || error.message.includes('connection')) {
        const again = await sandbox.exec('command');
        assert.ok(again.success);
        continue;
      }
      throw error;
    }
  }
});

// Container runtime

sample('Container runtime, files', async ({ sandbox }) => {
  await sandbox.writeFile('/workspace/app.py', 'print("Hello")');
  await sandbox.writeFile('/tmp/cache.json', '{}');
  const listed = await sandbox.exec('ls -la /workspace');
  assert.match(listed.stdout, /app\.py/);
});

sample('Container runtime, commands', async ({ sandbox }) => {
  await project(sandbox);
  const result = await sandbox.exec('npm test');
  assert.match(result.stdout, /tests passed/);
});

sample('Container runtime, processes', async ({ sandbox }) => {
  await project(sandbox);
  const process = await sandbox.startProcess('node server.js');
  assert.equal(process.status, 'running');
});

sample('Container runtime, one sandbox per user', async () => {
  const userId = 'u1';
  const sandbox = getSandbox(env.Sandbox, `user-${userId}`);
  assert.equal((await sandbox.exec('hostname')).stdout, 'user-u1\n');
});

sample('Container runtime, what is installed', async ({ sandbox }) => {
  const programs = 'python3 python pip node npm bun git gcc make vim nano htop curl wget jq ping dig netstat zip unzip';
  const result = await sandbox.exec(`for each in ${programs}; do command -v $each >/dev/null || echo $each; done; python -c 'import numpy, pandas, matplotlib, IPython'`);
  assert.deepEqual([result.stdout, result.stderr, result.exitCode], ['', '', 0]);
});
