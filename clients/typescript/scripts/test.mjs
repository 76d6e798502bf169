// Builds the package and runs the tests, against the server that the environment names:
//
//   node scripts/test.mjs [NAME...]     all, or those files of test/ whose name has NAME in it
import { execFileSync, spawnSync } from 'node:child_process';
import { readdirSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
const names = process.argv.slice(2);
execFileSync(process.execPath, ['scripts/build.mjs'], { stdio: 'inherit' });
execFileSync(process.execPath, ['scripts/wire.mjs', '--check'], { stdio: 'inherit' });
const typescript = fileURLToPath(import.meta.resolve('typescript'));
execFileSync(process.execPath, [typescript.replace('typescript.js', 'tsc.js'), '-p', 'test'], { stdio: 'inherit' });

rmSync('test/out', { recursive: true, force: true });
const files = readdirSync('test').filter((name) => name.endsWith('.test.ts') && (names.length === 0 || names.some((part) => name.includes(part))));
await build({ absWorkingDir: process.cwd(), entryPoints: files.map((name) => `test/${name}`), outdir: 'test/out', format: 'esm', platform: 'node', target: 'node20', sourcemap: 'inline', bundle: true, packages: 'external', outExtension: { '.js': '.mjs' } });
const tests = files.map((name) => `test/out/${name.replace(/\.ts$/, '.mjs')}`);
const { status } = spawnSync(process.execPath, ['--enable-source-maps', '--test', ...tests], { stdio: 'inherit' });
process.exit(status ?? 1);
