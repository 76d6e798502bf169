// Builds dist: modules for `import` (esm) and `require` (cjs), and the types of both.
import { execFileSync } from 'node:child_process';
import { chmod, cp, rm, writeFile } from 'node:fs/promises';
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = fileURLToPath(new URL('..', import.meta.url));
process.chdir(here);
await rm('dist', { recursive: true, force: true });

execFileSync(process.execPath, [join(dirname(fileURLToPath(import.meta.resolve('typescript'))), 'tsc.js'), '-p', '.'], { stdio: 'inherit' });

const sources = readdirSync('src', { recursive: true }).filter((name) => name.endsWith('.ts')).map((name) => `src/${name}`);
await build({ absWorkingDir: process.cwd(), entryPoints: sources, outdir: 'dist/cjs', outbase: 'src', format: 'cjs', platform: 'node', target: 'node20', logLevel: 'warning' });
// The nearest package.json decides how a file is read, and which platform's file is meant.
await writeFile('dist/cjs/package.json', JSON.stringify({
  type: 'commonjs',
  imports: {
    '#platform': { workerd: './platform/workerd.js', browser: './platform/web.js', default: './platform/node.js' },
  },
}));
// The command line is started as a program.
await chmod('dist/esm/cli.js', 0o755);
for (const name of readdirSync('dist/esm', { recursive: true })) {
  if (name.endsWith('.d.ts')) await cp(`dist/esm/${name}`, `dist/cjs/${name}`);
}
