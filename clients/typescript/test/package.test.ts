/** The package as it is published. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

/** Bytes that the whole package may have in a Worker, compressed. */
const SIZE = 25 * 1024;

async function size(source: string): Promise<number> {
  const { outputFiles } = await build({
    stdin: { contents: source, resolveDir: '.' },
    bundle: true,
    minify: true,
    write: false,
    format: 'esm',
    conditions: ['workerd'],
    external: ['cloudflare:*'],
  });
  return gzipSync(outputFiles[0]!.contents, { level: 9 }).length;
}

test('it is small, and what is not used is left out', async (t) => {
  const all = await size("export * from '@sandbar/sandbox'");
  const part = await size("export { parseSSEStream } from '@sandbar/sandbox'");
  t.diagnostic(`${all} bytes compressed, ${part} of them for parseSSEStream alone`);
  assert.ok(all <= SIZE, `${all} bytes`);
  assert.ok(part < 2048, `${part} bytes`);
});

test('it has no dependencies', () => {
  const { dependencies, peerDependencies, optionalDependencies } = JSON.parse(readFileSync('package.json', 'utf8'));
  assert.deepEqual([dependencies, peerDependencies, optionalDependencies], [undefined, undefined, undefined]);
});

const USE = `
import { getSandbox, type Sandbox, type ExecResult, SandboxError } from '@cloudflare/sandbox';
import { serve } from '@cloudflare/sandbox/serve';
import { createTestSandbox } from '@cloudflare/sandbox/testing';
import { SandboxAddon } from '@cloudflare/sandbox/xterm';
import { Editor, Shell } from '@cloudflare/sandbox/openai';
export const run = async (sandbox: Sandbox): Promise<ExecResult> => sandbox.exec('true');
export const all = [getSandbox, serve, createTestSandbox, SandboxAddon, Editor, Shell, SandboxError];
`;

/** What a Worker's types have to say to it. */
const WORKER = `
import { getSandbox, proxyToSandbox, type Sandbox } from '@cloudflare/sandbox';
export { Sandbox } from '@cloudflare/sandbox';
interface Env { Sandbox: DurableObjectNamespace<Sandbox> }
export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const proxied = await proxyToSandbox(request, env);
    if (proxied) return proxied;
    const sandbox = getSandbox(env.Sandbox, 'x');
    const result = await sandbox.exec('true', { env: { A: '1' } });
    // @ts-expect-error: a result has no such field
    result.nothing;
    // @ts-expect-error: a command is a text or a list of texts
    await sandbox.exec(5);
    const file = await sandbox.readFile('a');
    const text: string = file.content;
    const raw = await sandbox.readFile('a', { encoding: 'none' });
    const stream: ReadableStream<Uint8Array> = raw.content;
    return Response.json({ result, text, stream: stream.locked });
  },
} satisfies ExportedHandler<Env>;
`;

test('it is installed in a fresh folder, under the name of the reference, by import and by require, with types', { timeout: 180_000 }, (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'sandbar-package-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const npm = (...args: string[]) => execFileSync('npm', args, { cwd: dir, stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' });
  const packed = JSON.parse(execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', dir], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }));
  const [{ filename }] = Array.isArray(packed) ? packed : (Object.values(packed) as [{ filename: string }]);
  writeFileSync(join(dir, 'package.json'), JSON.stringify({ private: true, dependencies: { '@cloudflare/sandbox': `file:${filename.replace('@', '').replace('/', '-')}` } }));
  npm('install', '--offline', '--no-audit', '--no-fund');

  const say = "for (const name of ['getSandbox', 'parseSSEStream', 'proxyToSandbox', 'Sandbox', 'FileNotFoundError']) if (typeof sdk[name] !== 'function') throw new Error(name); console.log('found')";
  writeFileSync(join(dir, 'a.mjs'), `import * as sdk from '@cloudflare/sandbox'; ${say}`);
  writeFileSync(join(dir, 'a.cjs'), `const sdk = require('@cloudflare/sandbox'); require('@cloudflare/sandbox/serve'); ${say}`);
  for (const file of ['a.mjs', 'a.cjs']) assert.equal(execFileSync(process.execPath, [file], { cwd: dir, encoding: 'utf8' }), 'found\n');

  mkdirSync(join(dir, 'node_modules/@types'), { recursive: true });
  symlinkSync(join(process.cwd(), 'node_modules/@types/node'), join(dir, 'node_modules/@types/node'));
  symlinkSync(join(process.cwd(), 'node_modules/undici-types'), join(dir, 'node_modules/undici-types'));
  symlinkSync(join(process.cwd(), 'node_modules/@cloudflare/workers-types'), join(dir, 'node_modules/@cloudflare/workers-types'));
  const tsc = join(process.cwd(), 'node_modules/typescript/lib/tsc.js');
  const check = (file: string, text: string, ...options: string[]) => {
    writeFileSync(join(dir, file), text);
    try {
      execFileSync(process.execPath, [tsc, file, '--strict', '--noEmit', '--target', 'es2022', ...options], { cwd: dir, encoding: 'utf8' });
    } catch (error) {
      assert.fail((error as { stdout: string }).stdout);
    }
  };
  const node = ['--types', 'node', '--lib', 'es2023,esnext.disposable'];
  check('use.mts', USE, '--module', 'node16', '--moduleResolution', 'node16', '--skipLibCheck', ...node);
  check('use.cts', USE, '--module', 'node16', '--moduleResolution', 'node16', '--skipLibCheck', ...node);
  // What TypeScript did before it knew `exports`.
  check('old.ts', USE, '--module', 'commonjs', '--moduleResolution', 'node10', '--ignoreDeprecations', '5.0', '--skipLibCheck', ...node);
  check('bundled.ts', USE, '--module', 'esnext', '--moduleResolution', 'bundler', '--skipLibCheck', ...node);
  const worker = ['--types', '@cloudflare/workers-types', '--lib', 'es2023,esnext.disposable', '--module', 'esnext', '--moduleResolution', 'bundler'];
  check('worker.ts', WORKER, '--skipLibCheck', ...worker);
});
