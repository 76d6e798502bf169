/** The package on each runtime that it is for. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { promisify } from 'node:util';
import test from 'node:test';
import { getSandbox } from '@cloudflare/sandbox';

const run = promisify(execFile);

const EXPECTED = {
  exec: '42\n',
  lines: ['stderr two', 'stdout one'],
  bytes: true,
  collected: 100_000,
  line: 'ad',
  status: 'killed',
  session: 'it\n',
  error: 'FileNotFoundError FILE_NOT_FOUND 404',
  aborted: 'yes',
  left: 'none\n',
  terminal: [true, 3],
};

const state = process.env.SANDBAR_STATE_DIR ?? '/var/lib/sandbar';
const url = process.env.SANDBAR_URL ?? readFileSync(`${state}/endpoint`, 'utf8').trim();
const key = process.env.SANDBAR_KEY ?? readFileSync(`${state}/key`, 'utf8').trim();

for (const [name, command] of [
  ['Node', [process.execPath, 'runtimes/program.mjs']],
  ['Node, by require', [process.execPath, 'runtimes/program.cjs']],
  ['Bun', ['node_modules/.bin/bun', 'runtimes/program.mjs']],
  ['Deno', ['node_modules/@deno/linux-x64-glibc/deno', 'run', '--node-modules-dir=manual', '--no-lock', '--allow-net', '--allow-env', '--allow-read', 'runtimes/program.mjs']],
] as const) {
  test(name, { timeout: 120_000 }, async () => {
    const [program, ...args] = command;
    const { stdout } = await run(program, [...args, `runtime-${process.pid}`], { env: { ...process.env, SANDBAR_URL: url, SANDBAR_KEY: key } });
    assert.deepEqual(JSON.parse(stdout), EXPECTED);
  });
}

test('workerd, with the Durable Object that configurations name', { timeout: 120_000 }, async (t) => {
  const { Miniflare } = createRequire(import.meta.url)('miniflare');
  const { build } = createRequire(new URL('../../../clients/typescript/', import.meta.url).href)('esbuild');
  const bundle = await build({ entryPoints: ['runtimes/worker.mjs'], bundle: true, write: false, format: 'esm', target: 'es2022', conditions: ['workerd', 'worker', 'browser'], external: ['cloudflare:*'] });
  const worker = new Miniflare({
    modules: true,
    script: bundle.outputFiles[0].text,
    compatibilityDate: '2025-10-15',
    compatibilityFlags: ['nodejs_compat'],
    durableObjects: { Sandbox: { className: 'Sandbox', useSQLite: true } },
    bindings: { SANDBAR_URL: url, SANDBAR_KEY: key },
  });
  t.after(() => worker.dispose());
  const id = `workerd-${process.pid}`;
  const response = await worker.dispatchFetch(`http://worker/?id=${id}`);
  const text = await response.text();
  assert.equal(response.status, 200, text);
  assert.deepEqual(JSON.parse(text), EXPECTED);

  const upgraded = await worker.dispatchFetch(`http://worker/terminal?id=${id}`, { headers: { upgrade: 'websocket' } });
  t.after(() => getSandbox(undefined, id).destroy());
  assert.equal(upgraded.status, 101);
  const socket = upgraded.webSocket;
  const shown = await new Promise<string>((resolve, reject) => {
    let shown = '';
    socket.addEventListener('message', ({ data }: { data: string | ArrayBuffer }) => {
      if (typeof data !== 'string') shown += Buffer.from(data).toString();
      if (shown.includes('is 42')) resolve(shown);
    });
    socket.addEventListener('close', () => reject(new Error(shown)));
    socket.accept();
    socket.send(new TextEncoder().encode('echo it is $((6 * 7))\n'));
  });
  assert.match(shown, /it is 42/);
  socket.close();

  const sandbox = getSandbox(undefined, id);
  await sandbox.writeFile('/tmp/echo.py', readFileSync('../../clients/typescript/test/echo.py', 'utf8'));
  const server = await sandbox.startProcess('python3 /tmp/echo.py');
  await server.waitForPort(3000, { mode: 'tcp', timeout: 20_000 });
  assert.deepEqual((await (await worker.dispatchFetch(`http://worker/fetch?id=${id}`)).json())[1], '/there');
  const passed = await worker.dispatchFetch(`http://worker/ws?id=${id}`, { headers: { upgrade: 'websocket' } });
  assert.equal(passed.status, 101);
  const echoed = await new Promise((resolve) => {
    passed.webSocket.addEventListener('message', ({ data }: { data: unknown }) => resolve(data));
    passed.webSocket.accept();
    passed.webSocket.send('hello');
  });
  assert.equal(echoed, 'hello');
  passed.webSocket.close();
});
