/** The example of a preview, as it is. */

import assert from 'node:assert/strict';
import { request } from 'node:http';
import { fileURLToPath } from 'node:url';
import test from 'node:test';
import { getSandbox } from '@sandbar/sandbox';
import { serve } from '@sandbar/sandbox/serve';
import previewServer from './preview-server/index.js';

test('preview server', async (t) => {
  const config = fileURLToPath(new URL('../preview-server/', import.meta.url).href);
  await using server = await serve(previewServer, { port: 0, config });
  t.after(() => getSandbox(undefined, 'preview-server').destroy());
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
