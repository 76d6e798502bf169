// Runs the samples, or the tests of the examples, against the server that the environment names. The
// package is there under the name that the samples import.
//
//   node run.mjs [--examples] [NAME...]      all, or those files whose name has NAME in it
import { spawnSync } from 'node:child_process';
import { readdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';

const args = process.argv.slice(2);
const examples = args[0] === '--examples';
const names = examples ? args.slice(1) : args;
process.chdir(fileURLToPath(new URL(examples ? '../../examples/' : '.', import.meta.url)));
const sdk = fileURLToPath(new URL('../../clients/typescript/', import.meta.url));
const { build } = await import(pathToFileURL(createRequire(sdk).resolve('esbuild')).href).then((module) => module.default ?? module);

const checked = spawnSync(process.execPath, [`${sdk}node_modules/typescript/lib/tsc.js`, '-p', '.'], { stdio: 'inherit' });
if (checked.status !== 0) process.exit(1);

const files = readdirSync('.').filter((name) => name.endsWith('.test.ts') && (names.length === 0 || names.some((part) => name.includes(part))));
rmSync('out', { recursive: true, force: true });
await build({ absWorkingDir: process.cwd(), entryPoints: files, outdir: 'out', format: 'esm', platform: 'node', target: 'node20', bundle: true, packages: 'external', sourcemap: 'inline', outExtension: { '.js': '.mjs' } });
// One file after the other: samples share ids, as programs do.
const tests = ['--enable-source-maps', '--test', '--test-concurrency=1', ...files.map((name) => `out/${name.replace(/\.ts$/, '.mjs')}`)];
process.exit(spawnSync(process.execPath, tests, { stdio: 'inherit' }).status ?? 1);
