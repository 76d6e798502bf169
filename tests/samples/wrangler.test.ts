/**
 * A Worker with a configuration of the documents as it is, by `wrangler dev` in workerd, where its
 * containers are left out by a flag, and by `sandbar-worker` on Node. It does what Workers do.
 */

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { type IncomingMessage, request as httpRequest } from 'node:http';
import { createInterface } from 'node:readline';
import test, { type TestContext } from 'node:test';
import { type Sandbox, getSandbox } from '@cloudflare/sandbox';
import { EXPECTED, key, url } from './runtimes/expected.js';

interface Socket {
  send(data: string | Uint8Array): void;
  close(): void;
  onmessage: (data: string | Uint8Array) => void;
  onclose: (error?: Error) => void;
}

// A WebSocket that may name its host, as the ones of Node may not.
const { platform }: { platform: { socket(url: string, headers: Record<string, string>): Promise<Socket> } } = await import(new URL('../../../clients/typescript/dist/esm/platform/node.js', import.meta.url).href);

/** The directory of the Worker. */
const DIR = 'wrangler';

/** Starts `wrangler dev`; resolves to its address. */
async function wranglerDev(t: TestContext): Promise<string> {
  await mkdir('out', { recursive: true });
  const file = `${process.cwd()}/out/wrangler-${process.pid}.vars`;
  await writeFile(file, `SANDBAR_URL="${url}"\nSANDBAR_KEY="${key}"\n`, { mode: 0o600 });
  const args = ['node_modules/wrangler/bin/wrangler.js', 'dev', '--cwd', DIR, '--port', '0', '--ip', '127.0.0.1', '--enable-containers=false', '--show-interactive-dev-session=false', '--env', '', '--env-file', `${process.cwd()}/${DIR}/.dev.vars`, '--env-file', file];
  // It wants to know whose an image of a registry is, also where it leaves it out. Nobody is asked.
  const account = { CLOUDFLARE_ACCOUNT_ID: 'none', CLOUDFLARE_API_TOKEN: 'none' };
  return started(t, /(?<=Ready on )http:\/\/\S+/, process.execPath, args, { ...account, XDG_CONFIG_HOME: `${process.cwd()}/out/config`, WRANGLER_SEND_METRICS: 'false', WRANGLER_WRITE_LOGS: 'false', NO_COLOR: '1', CI: '1' });
}

/** `sandbar-worker` on a runtime: starts it, and resolves to its address. */
const sandbarWorker = (program: string, ...args: string[]) => (t: TestContext): Promise<string> =>
  started(t, /(?<= on )http:\/\/\S+/, program, [...args, '--dir', DIR, '--port', '0'], { SANDBAR_URL: url, SANDBAR_KEY: key });

// Not by its name in `.bin`: npm links no program that is built only after it has installed.
const WORKER = 'node_modules/@cloudflare/sandbox/dist/esm/cli.js';
/** What runs the Worker, and what the runtime says that it is. */
const STARTS: [string, RegExp, (t: TestContext) => Promise<string>][] = [
  ['wrangler dev', /^Cloudflare-Workers/, wranglerDev],
  ['sandbar-worker on Node', /^Node\.js/, sandbarWorker(process.execPath, WORKER)],
  ['sandbar-worker on Bun', /^Bun/, sandbarWorker('node_modules/.bin/bun', WORKER)],
  ['sandbar-worker on Deno', /^Deno/, sandbarWorker('node_modules/@deno/linux-x64-glibc/deno', 'run', '--node-modules-dir=manual', '--no-lock', '--allow-all', WORKER)],
];

async function started(t: TestContext, told: RegExp, program: string, args: string[], env: Record<string, string>): Promise<string> {
  // In a group of its own, with what it starts.
  const child: ChildProcess = spawn(program, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  t.after(async () => {
    if (child.exitCode === null) {
      process.kill(-child.pid!, 'SIGTERM');
      await once(child, 'exit');
    }
  });
  const lines: string[] = [];
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`${program} ended with ${code}:\n${lines.join('\n')}`)));
    for (const stream of [child.stdout!, child.stderr!]) {
      createInterface({ input: stream }).on('line', (line) => {
        lines.push(line);
        const [ready] = told.exec(line) ?? [];
        if (ready) resolve(ready);
      });
    }
  });
}

/** An answer to a request that names another host than it goes to. */
async function ask(origin: string, path: string, host: string): Promise<{ status: number; text: string }> {
  const { hostname, port } = new URL(origin);
  const request = httpRequest({ hostname, port, path, headers: { host } });
  request.end();
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  let text = '';
  for await (const chunk of response) text += chunk;
  return { status: response.statusCode!, text };
}

/** The first text that a WebSocket says of which `isWanted`, after something is said to it. */
function heard(socket: Socket, isWanted: (text: string) => boolean, say: string | Uint8Array): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    socket.onmessage = (data) => {
      text += typeof data === 'string' ? data : new TextDecoder().decode(data);
      if (isWanted(text)) resolve(text);
    };
    socket.onclose = () => reject(new Error(`it was closed after: ${text}`));
    socket.send(say);
  });
}

async function echoServer(sandbox: Sandbox): Promise<void> {
  await sandbox.writeFile('/tmp/echo.py', readFileSync('../../clients/typescript/test/echo.py', 'utf8'));
  const server = await sandbox.startProcess('python3 /tmp/echo.py');
  await server.waitForPort(3000, { mode: 'tcp', timeout: 60_000 });
}

for (const [name, runtime, start] of STARTS) test(`${name} runs a Worker of the documents`, { timeout: 180_000 }, async (t) => {
  const origin = await start(t);
  const id = `${name.toLowerCase().replaceAll(' ', '-')}-${process.pid}`;
  const sandbox = getSandbox(undefined, id);
  t.after(() => sandbox.destroy());
  const get = async (path: string) => {
    const response = await fetch(`${origin}${path}?id=${id}`);
    const text = await response.text();
    assert.equal(response.status, 200, text);
    return JSON.parse(text);
  };

  await t.test('commands, files, variables', async () => {
    assert.deepEqual(await get('/run'), { output: '4\n', success: true });
    assert.deepEqual(await get('/file'), { content: 'Hello, Sandbox!' });
    const [greeting, secret, agent] = await get('/vars');
    assert.deepEqual([greeting, secret], ['hello', 'told']);
    assert.match(agent, runtime);
  });

  await t.test('what is done on every runtime', async () => {
    assert.deepEqual(await get('/'), EXPECTED);
  });

  await t.test('a cron trigger', async () => {
    const response = await fetch(`${origin}/cdn-cgi/handler/scheduled?cron=0+0+*+*+*`);
    assert.equal(response.status, 200, await response.text());
    const scheduled = getSandbox(undefined, 'my-sandbox');
    t.after(() => scheduled.destroy());
    assert.equal((await scheduled.readFile('/workspace/scheduled')).content, '0 0 * * *');
  });

  await t.test('previews, with WebSockets', async () => {
    await echoServer(sandbox);
    assert.equal((await get('/fetch'))[1], '/there');
    const packed = await fetch(`${origin}/packed?id=${id}`);
    assert.deepEqual([packed.headers.get('content-encoding'), await packed.text()], ['gzip', 'unpacked']);
    const preview = new URL((await get('/expose')).url);
    assert.equal(preview.port, new URL(origin).port);
    const { status, text } = await ask(origin, '/asked', preview.host);
    assert.deepEqual([status, JSON.parse(text)[1]], [200, '/asked']);
    // One that is not ours is the Worker's to answer.
    assert.equal((await ask(origin, '/vars', `localhost:${preview.port}`)).status, 200);
    const socket = await platform.socket(`${origin}/ws`, { host: preview.host });
    assert.equal(await heard(socket, (said) => said.length > 4, 'hello'), 'hello');
    socket.close();
  });

  await t.test('WebSockets to a port, and to a terminal', async () => {
    const socket = await platform.socket(`${origin}/ws?id=${id}`, {});
    assert.equal(await heard(socket, (said) => said.length > 4, 'hello'), 'hello');
    socket.close();
    const terminal = await platform.socket(`${origin}/terminal?id=${id}`, {});
    await heard(terminal, (said) => said.includes('it is 42'), new TextEncoder().encode('echo it is $((6 * 7))\n'));
    terminal.close();
  });
});
