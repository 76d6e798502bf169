/** The skill's documents of 0.4.12 and 0.6.3. */

import assert from 'node:assert/strict';
import { type Sandbox, getSandbox } from '@cloudflare/sandbox';
import { serve } from '@cloudflare/sandbox/serve';
import { Store, env, program, repository, sample } from './bench.js';

sample('Skill, first Worker', async () => {
  type Env = { Sandbox: DurableObjectNamespace<Sandbox> };
  const worker = {
    async fetch(request: Request, env: Env): Promise<Response> {
      const sandbox = getSandbox(env.Sandbox, 'my-first-sandbox');
      const result = await sandbox.exec('python3 -c "print(2 + 2)"');
      return Response.json({
        output: result.stdout,
        success: result.success,
        exitCode: result.exitCode,
      });
    },
  };
  await using server = await serve(worker, { port: 0, config: false, env: { Sandbox: env.Sandbox } });
  assert.deepEqual(await (await fetch(server.url)).json(), { output: '4\n', success: true, exitCode: 0 });
});

sample('Skill, important data', async ({ sandbox }) => {
  const worker = { R2: new Store() };
  const content = 'precious';
  await sandbox.writeFile('/workspace/data.txt', content);
  const fileData = await sandbox.readFile('/workspace/data.txt');
  await worker.R2.put('backup/data.txt', fileData);
  await sandbox.destroy();
  const restored = await worker.R2.get('backup/data.txt');
  if (restored) {
    await sandbox.writeFile('/workspace/data.txt', await restored.text());
  }
  assert.equal((await sandbox.readFile('/workspace/data.txt')).content, 'precious');
});

sample('Skill, a chat', async () => {
  const worker = { KV: new Store() };
  const [userId, conversationId] = ['7', 'c1'];
  {
    const sandboxId = `user-${userId}`;
    const sandbox = getSandbox(env.Sandbox, sandboxId);
    const sessionId = await sandbox.createSession();
    await worker.KV.put(`conversation:${conversationId}`, JSON.stringify({
      sandboxId,
      sessionId,
    }));
    await sandbox.exec('git init -q /workspace/project');
  }
  const state = await worker.KV.get(`conversation:${conversationId}`);
  const { sandboxId, sessionId } = JSON.parse(state);
  const sandbox = getSandbox(env.Sandbox, sandboxId);
  await sandbox.exec('cd /workspace/project', { session: sessionId });
  const listed = await sandbox.exec('ls -la', { session: sessionId });
  const status = await sandbox.exec('git status', { session: sessionId });
  assert.match(listed.stdout, /\.git/);
  assert.match(status.stdout, /No commits yet/);
});

sample('Skill, without sessions', async ({ sandbox }) => {
  await sandbox.mkdir('/workspace/project');
  await sandbox.exec('cd /workspace/project');
  // The document says that this is elsewhere; as in every later version, the default session stays.
  const listed = await sandbox.exec('ls');
  assert.deepEqual([listed.stdout, (await sandbox.exec('pwd')).stdout], ['', '/workspace/project\n']);
});

sample('Skill, side by side', async ({ sandbox }) => {
  // Each waits for the other: one after the other they would never end.
  await sandbox.writeFile('train_model.py', 'import os,time\nopen("/tmp/a","w")\nwhile not os.path.exists("/tmp/b"): time.sleep(0.01)\nprint("trained")');
  await sandbox.writeFile('generate_reports.js', 'const fs=require("fs");fs.writeFileSync("/tmp/b","");const wait=()=>fs.existsSync("/tmp/a")?console.log("reported"):setTimeout(wait,10);wait()');
  const session1 = await sandbox.createSession();
  const session2 = await sandbox.createSession();
  const results = await Promise.all([
    sandbox.exec('python train_model.py', { session: session1 }),
    sandbox.exec('node generate_reports.js', { session: session2 }),
  ]);
  assert.deepEqual(results.map((result) => result.stdout), ['trained\n', 'reported\n']);
});

sample('Skill, names per user', async () => {
  const userId = 'ada';
  const sandbox = getSandbox(env.Sandbox, `user-${userId}`);
  assert.ok((await sandbox.exec('true')).success);
});

sample('Skill, names per session', async () => {
  const sandboxId = `session-${Date.now()}-${crypto.randomUUID()}`;
  const sandbox = getSandbox(env.Sandbox, sandboxId);
  assert.ok((await sandbox.exec('true')).success);
  await sandbox.destroy();
});

sample('Skill, names per task', async () => {
  const [repoName, commitSha] = ['app', '0123456789abcdef0123456789abcdef01234567'];
  const sandbox = getSandbox(env.Sandbox, `build-${repoName}-${commitSha}`);
  assert.ok((await sandbox.exec('true')).success);
});

sample('Skill, getting a sandbox', async () => {
  const sandbox = getSandbox(env.Sandbox, 'unique-sandbox-id');
  assert.equal(sandbox.id, 'unique-sandbox-id');
});

sample('Skill, commands', async ({ sandbox, console }) => {
  await sandbox.writeFile('script.py', 'print("out")');
  await sandbox.writeFile('/workspace/project/package.json', '{"scripts": {"install": "echo $NODE_ENV"}}');
  await sandbox.writeFile('/workspace/project/.npmrc', 'foreground-scripts=true\n');
  {
    const result = await sandbox.exec('python3 script.py');
    console.log(result.stdout);
    console.log(result.stderr);
    console.log(result.exitCode);
    console.log(result.success);
  }
  assert.deepEqual(console.lines, ['out\n', '', '0', 'true']);
  const sessionId = await sandbox.createSession();
  const result = await sandbox.exec('npm install', {
    cwd: '/workspace/project',
    timeout: 120000,
    session: sessionId,
    env: { NODE_ENV: 'production' },
  });
  if (!result.success) {
    throw new Error(`Command failed: ${result.stderr}`);
  }
  assert.match(result.stdout, /^production$/m);
});

sample('Skill, files', async ({ sandbox, console }) => {
  await sandbox.writeFile('/workspace/data.txt', 'content');
  const content = await sandbox.readFile('/workspace/data.txt');
  await sandbox.mkdir('/workspace/project', { recursive: true });
  const files = await sandbox.readdir('/workspace');
  console.log(files);
  await sandbox.rm('/workspace/data.txt');
  await sandbox.rm('/workspace/project', { recursive: true });
  assert.equal(String(content), 'content');
  assert.deepEqual(files.sort(), ['data.txt', 'project']);
  assert.deepEqual(await sandbox.readdir('/workspace'), []);
});

sample('Skill, processes', async ({ sandbox, console }) => {
  await sandbox.writeFile('server.py', 'import time; time.sleep(1000)');
  const proc = await sandbox.spawn('python server.py');
  console.log(proc.pid);
  const running = await sandbox.isProcessRunning(proc.pid);
  await sandbox.killProcess(proc.pid);
  assert.equal(running, true);
  assert.equal(await sandbox.isProcessRunning(proc.pid), false);
});

sample('Skill, destroying', async ({ sandbox }) => {
  await sandbox.exec('true');
  await sandbox.destroy();
  assert.equal(await sandbox.info(), undefined);
});

sample('Skill pattern, persistent workspace', async () => {
  const worker = {
    async fetch(request: Request, env: any) {
      const userId = request.headers.get('X-User-ID');
      const { command, sessionId: existingSession } = (await request.json()) as any;
      const sandbox = getSandbox(env.Sandbox, `user-${userId}`);
      let sessionId = existingSession;
      if (!sessionId) {
        sessionId = await sandbox.createSession();
      }
      const result = await sandbox.exec(command, {
        session: sessionId,
        timeout: 30000,
      });
      return Response.json({
        sessionId,
        output: result.stdout,
        error: result.stderr,
        success: result.success,
      });
    },
  };
  await using server = await serve(worker, { port: 0, config: false });
  const ask = async (body: object) => (await (await fetch(server.url, { method: 'POST', headers: { 'X-User-ID': '9' }, body: JSON.stringify(body) })).json()) as any;
  const first = await ask({ command: 'cd /tmp' });
  const second = await ask({ command: 'pwd', sessionId: first.sessionId });
  assert.deepEqual(second, { sessionId: first.sessionId, output: '/tmp\n', error: '', success: true });
});

sample('Skill, failing well', async ({ sandbox, console }) => {
  async function safeSandboxExec(sandbox: Sandbox, cmd: string, options?: any) {
    try {
      const result = await sandbox.exec(cmd, {
        ...options,
        timeout: options?.timeout || 30000,
      });
      if (!result.success) {
        console.error(`Command failed: ${cmd}`, {
          exitCode: result.exitCode,
          stderr: result.stderr,
        });
        return {
          success: false,
          error: result.stderr,
          exitCode: result.exitCode,
        };
      }
      return {
        success: true,
        output: result.stdout,
        exitCode: 0,
      };
    } catch (error: any) {
      console.error(`Sandbox error:`, error);
      return {
        success: false,
        error: error.message,
        exitCode: -1,
      };
    }
  }
  assert.deepEqual(await safeSandboxExec(sandbox, 'echo x'), { success: true, output: 'x\n', exitCode: 0 });
  assert.deepEqual(await safeSandboxExec(sandbox, 'echo why >&2; (exit 4)'), { success: false, error: 'why\n', exitCode: 4 });
  const late = await safeSandboxExec(sandbox, 'sleep 100', { timeout: 100 });
  assert.deepEqual([late.success, late.exitCode], [false, -1]);
});

sample('Skill, checking commands', async ({ sandbox }) => {
  function sanitizeCommand(input: string): string {
    const dangerous = ['rm -rf', '$(', '`', '&&', '||', ';', '|'];
    for (const pattern of dangerous) {
      if (input.includes(pattern)) {
        throw new Error(`Dangerous pattern detected: ${pattern}`);
      }
    }
    return input;
  }
  assert.ok((await sandbox.exec(sanitizeCommand('ls -la'))).success);
  assert.throws(() => sanitizeCommand('ls; rm -rf /'), /Dangerous/);
});

sample('Skill, one per region', async () => {
  const [userId, request] = ['ada', new Request('http://x/') as Request & { cf?: { colo?: string } }];
  const region = request.cf?.colo || 'default';
  const near = getSandbox(env.Sandbox, `user-${userId}-${region}`);
  const single = getSandbox(env.Sandbox, `user-${userId}`);
  assert.deepEqual([(await near.exec('hostname')).stdout, (await single.exec('hostname')).stdout], ['user-ada-default\n', 'user-ada\n']);
});
