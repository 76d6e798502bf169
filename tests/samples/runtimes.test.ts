/** The package on each runtime that it is for, in a fresh folder, from the file that is published. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import test, { before, after } from 'node:test';
import { EXPECTED, key, url } from './runtimes/expected.js';

const run = promisify(execFile);
const env = { ...process.env, SANDBAR_URL: url, SANDBAR_KEY: key };

/** The package as a file, which `npm pack` makes of it. */
let tarball: string;
/** A folder outside of the repository. */
let fresh: string;

before(async () => {
  fresh = await mkdtemp(join(tmpdir(), 'sandbar-fresh-'));
  const { stdout } = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', fresh], { cwd: '../../clients/typescript' });
  const packed = JSON.parse(stdout);
  const [{ filename }] = Array.isArray(packed) ? packed : (Object.values(packed) as [{ filename: string }]);
  tarball = join(fresh, filename.replace('@', '').replace('/', '-'));
});

after(() => rm(fresh, { recursive: true, force: true }));

/** A program's folder, in which an installer has put the package under the name of the reference. */
async function folder(install: [string, ...string[]]): Promise<string> {
  const dir = await mkdtemp(join(fresh, 'program-'));
  await writeFile(join(dir, 'package.json'), JSON.stringify({ private: true, type: 'module', dependencies: { '@cloudflare/sandbox': `file:${tarball}` } }));
  for (const file of ['program.mjs', 'program.cjs', 'steps.mjs']) await copyFile(`runtimes/${file}`, join(dir, file));
  const [program, ...args] = install;
  await run(program, args, { cwd: dir });
  return dir;
}

const bun = resolve('node_modules/.bin/bun');
const deno = resolve('node_modules/@deno/linux-x64-glibc/deno');
const npm: [string, ...string[]] = ['npm', 'install', '--offline', '--no-audit', '--no-fund'];

for (const [name, install, command] of [
  ['Node, installed by npm', npm, [process.execPath, 'program.mjs']],
  ['Node by require, installed by npm', npm, [process.execPath, 'program.cjs']],
  ['Bun, installed by Bun', [bun, 'install', '--no-progress', '--cache-dir=.cache'], [bun, 'program.mjs']],
  ['Deno, installed by npm', npm, [deno, 'run', '--node-modules-dir=manual', '--no-lock', '--allow-net', '--allow-env', '--allow-read', 'program.mjs']],
] as const) {
  test(name, { timeout: 120_000 }, async () => {
    const dir = await folder(install as [string, ...string[]]);
    const [program, ...args] = command;
    const { stdout } = await run(program, [...args, `runtime-${process.pid}`], { cwd: dir, env });
    assert.deepEqual(JSON.parse(stdout), EXPECTED);
  });
}

test('workerd, with the Durable Object that configurations name', { timeout: 120_000 }, async (t) => {
  const { Miniflare } = createRequire(import.meta.url)('miniflare');
  const { build } = createRequire(new URL('../../../clients/typescript/', import.meta.url).href)('esbuild');
  const bundle = await build({ entryPoints: ['wrangler/src/index.ts'], bundle: true, write: false, format: 'esm', target: 'es2022', conditions: ['workerd', 'worker', 'browser'], external: ['cloudflare:*'] });
  const worker = new Miniflare({
    modules: true,
    script: bundle.outputFiles[0].text,
    compatibilityDate: '2025-10-15',
    compatibilityFlags: ['nodejs_compat'],
    durableObjects: { Sandbox: { className: 'Sandbox', useSQLite: true } },
    bindings: { SANDBAR_URL: url, SANDBAR_KEY: key },
  });
  t.after(() => worker.dispose());
  const response = await worker.dispatchFetch(`http://worker/?id=workerd-${process.pid}`);
  const text = await response.text();
  assert.equal(response.status, 200, text);
  assert.deepEqual(JSON.parse(text), EXPECTED);
});
