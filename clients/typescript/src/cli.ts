#!/usr/bin/env node
/** `sandbar-worker [FILE] [--port N] [--host ADDRESS] [--dir DIR]`: serves the Worker in a directory. */

import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { readConfig } from './config.js';
import { type Worker, serve } from './serve.js';

const USAGE = `usage: sandbar-worker [FILE] [--port 8787] [--host 127.0.0.1] [--dir .]

Serves the Worker in FILE, or the one that "main" of wrangler.jsonc names, with env from
wrangler.jsonc and .dev.vars. TypeScript needs Node 22.18 or later, Bun or Deno.`;

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { port: { type: 'string', default: '8787' }, host: { type: 'string', default: '127.0.0.1' }, dir: { type: 'string', default: '.' }, help: { type: 'boolean' } },
  });
  if (values.help) return console.log(USAGE);
  const dir = resolve(values.dir!);
  const file = positionals[0] ?? (await readConfig(dir)).main;
  if (!file) throw new Error(`no FILE is given, and no configuration in ${dir} names one\n\n${USAGE}`);
  const worker = (await import(pathToFileURL(resolve(dir, file)).href)) as { default: Worker };
  const server = await serve(worker, { port: Number(values.port), hostname: values.host!, config: dir });
  console.log(`Serving ${file} on ${server.url}`);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void server.close().then(() => process.exit(0)));
}

main().catch((error: Error) => {
  console.error(`sandbar-worker: ${error.message}`);
  process.exitCode = 1;
});
