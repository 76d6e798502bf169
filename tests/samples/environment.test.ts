/** Pages "Configuration", "Wrangler configuration", "Environment variables". */

import assert from 'node:assert/strict';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getSandbox } from '@cloudflare/sandbox';
import { serve } from '@cloudflare/sandbox/serve';
import { env, project, sample } from './bench.js';

sample('Configuration, variables of commands', async () => {
  const sandbox = getSandbox(env.Sandbox, 'my-sandbox');
  await sandbox.writeFile('app.js', 'console.log(process.env.NODE_ENV, process.env.API_KEY, process.env.DATABASE_URL)');
  const result = await sandbox.exec('node app.js', {
    env: {
      NODE_ENV: 'production',
      API_KEY: env.API_KEY,
      DATABASE_URL: env.DATABASE_URL,
    },
  });
  assert.equal(result.stdout, 'production sk-test postgres://db/app\n');
});

async function configured(files: Record<string, string>): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'sample-'));
  for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text);
  return dir;
}

sample('Wrangler configuration, variables', async ({ console }) => {
  const worker = {
    async fetch(request: Request, env: any): Promise<Response> {
      console.log(`Running in ${env.ENVIRONMENT} mode`);
      return new Response('ok');
    },
  };
  for (const files of [
    { 'wrangler.jsonc': '{ // settings\n "vars": { "ENVIRONMENT": "production", "LOG_LEVEL": "info", },\n}', '.dev.vars': 'TOKEN="a b" # secret\n' },
    { 'wrangler.toml': '# settings\n[vars]\nENVIRONMENT = "production"\nLOG_LEVEL = "info"\n\n[[durable_objects.bindings]]\nclass_name = "Sandbox"\nname = "BOX"\n', '.dev.vars': "TOKEN='a b'\n" },
  ]) {
    await using server = await serve(worker, { port: 0, config: await configured({ ...files } as unknown as Record<string, string>) });
    assert.equal(await (await fetch(server.url)).text(), 'ok');
    assert.deepEqual([server.env.LOG_LEVEL, server.env.TOKEN], ['info', 'a b']);
    assert.ok('wrangler.toml' in files ? server.env.BOX : server.env.Sandbox);
  }
  assert.deepEqual(console.lines, ['Running in production mode', 'Running in production mode']);
});

sample('Wrangler configuration, secrets', async () => {
  interface Env {
    Sandbox: DurableObjectNamespace;
    ANTHROPIC_API_KEY: string;
    GITHUB_TOKEN: string;
    DATABASE_URL: string;
  }
  const worker = { fetch: async (_request: Request, env: Env) => Response.json([env.ANTHROPIC_API_KEY, env.GITHUB_TOKEN, env.DATABASE_URL]) };
  const config = await configured({ '.dev.vars': 'ANTHROPIC_API_KEY=a\nGITHUB_TOKEN=g\nDATABASE_URL=d\n' });
  await using server = await serve(worker, { port: 0, config });
  assert.deepEqual(await (await fetch(server.url)).json(), ['a', 'g', 'd']);
});

sample('Wrangler configuration, cron triggers', async () => {
  const worker = {
    async scheduled(event: ScheduledEvent, env: any): Promise<void> {
      const sandbox = getSandbox(env.Sandbox, 'scheduled-task');
      await sandbox.exec('python3 /workspace/daily-report.py');
      await sandbox.destroy();
    },
  };
  const sandbox = getSandbox(env.Sandbox, 'scheduled-task');
  await sandbox.writeFile('/workspace/daily-report.py', 'print("reported")');
  const config = await configured({ 'wrangler.jsonc': '{"triggers": {"crons": ["0 0 * * *"], // Daily at midnight\n}}' });
  await using server = await serve(worker, { port: 0, config });
  await server.runScheduled();
  assert.equal(await sandbox.info(), undefined);
});

// Environment variables

sample('Environment variables, commands and processes', async ({ sandbox }) => {
  await sandbox.writeFile('app.js', 'console.log(process.env.NODE_ENV, process.env.API_KEY, process.env.PORT)');
  await sandbox.writeFile('server.py', 'import os; print(os.environ["DATABASE_URL"], os.environ["SECRET_KEY"], flush=True)');
  const result = await sandbox.exec('node app.js', {
    env: {
      NODE_ENV: 'production',
      API_KEY: env.API_KEY,
      PORT: '3000',
    },
  });
  const process = await sandbox.startProcess('python server.py', {
    env: {
      DATABASE_URL: env.DATABASE_URL,
      SECRET_KEY: env.SECRET_KEY,
    },
  });
  assert.equal(result.stdout, 'production sk-test 3000\n');
  await process.waitForLog('postgres://db/app secret', 20_000);
});

sample('Environment variables, sessions', async ({ sandbox }) => {
  await sandbox.writeFile('migrate.py', 'import os; print(os.environ["DATABASE_URL"])');
  await sandbox.writeFile('seed.py', 'import os; print(os.environ["SECRET_KEY"])');
  const session = await sandbox.createSession();
  await session.setEnvVars({
    DATABASE_URL: env.DATABASE_URL,
    SECRET_KEY: env.SECRET_KEY,
  });
  const migrated = await session.exec('python migrate.py');
  const seeded = await session.exec('python seed.py');
  assert.deepEqual([migrated.stdout, seeded.stdout], ['postgres://db/app\n', 'secret\n']);
});

sample('Environment variables, secrets of a Worker', async ({ sandbox }) => {
  interface Env {
    Sandbox: DurableObjectNamespace;
    OPENAI_API_KEY: string;
    DATABASE_URL: string;
  }
  const worker = {
    async fetch(request: Request, env: Env): Promise<Response> {
      const sandbox = getSandbox(env.Sandbox, 'user-sandbox');
      const result = await sandbox.exec('python analyze.py', {
        env: {
          OPENAI_API_KEY: env.OPENAI_API_KEY,
          DATABASE_URL: env.DATABASE_URL,
        },
      });
      return Response.json({ result });
    },
  };
  await getSandbox(env.Sandbox, 'user-sandbox').writeFile('analyze.py', 'import os; print(os.environ["OPENAI_API_KEY"])');
  await using server = await serve(worker, { port: 0, config: false, env: { ...env } });
  const { result } = (await (await fetch(server.url)).json()) as any;
  assert.deepEqual([result.stdout, result.success, result.exitCode], ['sk-openai\n', true, 0]);
});

sample('Environment variables, defaults', async ({ sandbox }) => {
  await project(sandbox);
  const defaults = {
    NODE_ENV: env.ENVIRONMENT || 'production',
    LOG_LEVEL: 'info',
    TZ: 'UTC',
  };
  const result = await sandbox.exec('npm start', {
    env: {
      ...defaults,
      PORT: '3000',
      API_KEY: env.API_KEY,
    },
  });
  const seen = JSON.parse(result.stdout.slice(result.stdout.lastIndexOf('\n{') + 1));
  assert.deepEqual([seen.NODE_ENV, seen.LOG_LEVEL, seen.TZ, seen.PORT, seen.API_KEY], ['staging', 'info', 'UTC', '3000', 'sk-test']);
});

sample('Environment variables, which goes before which', async ({ sandbox }) => {
  await sandbox.writeFile('app.js', 'console.log(process.env.NODE_ENV)');
  await sandbox.setEnvVars({ NODE_ENV: 'staging' });
  assert.equal((await sandbox.exec('node app.js')).stdout, 'staging\n');
  const result = await sandbox.exec('node app.js', {
    env: { NODE_ENV: 'production' },
  });
  assert.equal(result.stdout, 'production\n');
});

sample('Environment variables, a secret in code', async ({ sandbox }) => {
  await sandbox.writeFile('app.py', 'import os; print(os.environ["API_KEY"])');
  const result = await sandbox.exec('python app.py', {
    env: {
      API_KEY: 'sk-1234567890abcdef',
    },
  });
  assert.equal(result.stdout, 'sk-1234567890abcdef\n');
});

sample('Environment variables, a secret of the Worker', async ({ sandbox }) => {
  await sandbox.writeFile('app.py', 'import os; print(os.environ["API_KEY"])');
  const result = await sandbox.exec('python app.py', {
    env: {
      API_KEY: env.API_KEY,
    },
  });
  assert.equal(result.stdout, 'sk-test\n');
});

sample('Environment variables, all of them', async ({ sandbox, console }) => {
  const result = await sandbox.exec('env');
  console.log(result.stdout);
  console.has(/^PATH=/m);
});

sample('Environment variables, one of them', async ({ sandbox, console }) => {
  await sandbox.setEnvVars({ NODE_ENV: 'test' });
  const result = await sandbox.exec('echo $NODE_ENV');
  console.log('NODE_ENV:', result.stdout.trim());
  console.has('NODE_ENV: test');
});

sample('Environment variables, one that is not set', async ({ sandbox, console }) => {
  console.log('Worker env:', env.API_KEY ? 'Set' : 'Missing');
  const result = await sandbox.exec('env | grep API_KEY', {
    env: { API_KEY: env.API_KEY },
  });
  console.log('Sandbox:', result.stdout);
  assert.deepEqual(console.lines, ['Worker env: Set', 'Sandbox: API_KEY=sk-test\n']);
});

sample('Environment variables, without the shell', async ({ sandbox }) => {
  const result = await sandbox.exec('node -e "console.log(process.env.NODE_ENV)"', {
    env: { NODE_ENV: 'production' },
  });
  assert.equal(result.stdout, 'production\n');
});
