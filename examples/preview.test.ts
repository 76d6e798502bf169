/** The example of a preview, as it is. */

import assert from 'node:assert/strict';
import { request } from 'node:http';
import test from 'node:test';
import { getSandbox } from '@sandbar/sandbox';
import previewServer from './preview-server/index.js';
import { RUNTIMES } from './runtime.js';

for (const runtime of RUNTIMES) test(`preview server, ${runtime.name}`, { timeout: 120_000 }, async (t) => {
  const server = await runtime.start('preview-server', previewServer, {});
  t.after(async () => {
    await server.close();
    await getSandbox(undefined, 'preview-server').destroy();
  });
  const [first, second] = [await (await fetch(server.url)).json(), await (await fetch(server.url)).json()] as any[];
  assert.equal(first.url, second.url);
  const { host, port } = new URL(first.url);
  const page = await new Promise<string>((resolve, reject) => {
    request({ host: '127.0.0.1', port, headers: { host } }, (response) => {
      let text = '';
      response.on('data', (chunk) => (text += chunk));
      response.on('end', () => resolve(text));
    })
      .on('error', reject)
      .end();
  });
  assert.match(page, /Served from a sandbox/);
});
