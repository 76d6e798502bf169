/** The package in a page of another site, in Chromium, by a server that has been told to trust the page. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { startTestServer } from '@cloudflare/sandbox/testing';

/** Runs in the page, and says what came of it. */
const PAGE = `
import { getSandbox, parseSSEStream, collectFile, listSandboxes } from '@cloudflare/sandbox';

async function steps(binding) {
  const done = {};
  const sandbox = getSandbox(binding, 'page');
  done.exec = (await sandbox.exec('echo $((6 * 7))')).stdout;
  done.lines = [];
  for await (const event of parseSSEStream(await sandbox.execStream('echo one; while [ ! -e /tmp/go ]; do sleep 0.01; done; echo two'))) {
    if (event.type !== 'stdout') continue;
    done.lines.push(event.data);
    if (event.data === 'one\\n') await sandbox.writeFile('/tmp/go', '');
  }
  await sandbox.writeFile('/tmp/a.bin', new Uint8Array([0, 1, 255]));
  await sandbox.writeFile('/tmp/b.bin', new Blob([new Uint8Array([0, 1, 255])]).stream());
  done.bytes = [...(await sandbox.readFile('/tmp/a.bin')).bytes(), ...(await sandbox.readFile('/tmp/b.bin')).bytes()];
  done.collected = (await collectFile(await sandbox.readFileStream('/tmp/a.bin'))).content.length;
  const process = await sandbox.startProcess('echo ready; sleep 1000');
  done.line = (await process.waitForLog('ready')).line;
  await process.kill();
  done.error = await sandbox.readFile('/none').catch((error) => error.name + ' ' + error.code);
  const abort = new AbortController();
  done.aborted = await sandbox.exec('echo begun; sleep 1000', { signal: abort.signal, onOutput: () => abort.abort(new Error('enough')) }).catch((error) => error.message);
  done.left = (await sandbox.exec('pgrep -fx "sleep 1000" || echo none')).stdout;
  done.terminal = await sandbox.openTerminal().catch((error) => error.message);
  await sandbox.destroy();
  done.sandboxes = 0;
  for await (const each of listSandboxes(binding)) done.sandboxes++;
  return done;
}

const told = await steps(BINDING).catch((error) => ({ failed: String(error.stack) }));
await fetch('/told', { method: 'POST', body: JSON.stringify(told) });
`;

/** A site of one page, and what the page says when it is asked to use a server. */
async function site(t: TestContext) {
  const { build } = createRequire(new URL('../../../clients/typescript/', import.meta.url).href)('esbuild');
  let script = '';
  let hear: (text: string) => void;
  const server = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    if (request.method === 'POST') hear(body);
    response.setHeader('content-type', request.url === '/page.js' ? 'text/javascript' : 'text/html');
    response.end(request.url === '/page.js' ? script : '<!doctype html><script type="module" src="/page.js"></script>');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    origin,
    async visit(binding: object): Promise<Record<string, unknown>> {
      const contents = PAGE.replace('BINDING', JSON.stringify(binding));
      const bundle = await build({ stdin: { contents, resolveDir: '.' }, bundle: true, write: false, format: 'esm', platform: 'browser', target: 'chrome120' });
      script = bundle.outputFiles[0].text;
      const told = new Promise<string>((resolve) => (hear = resolve));
      const profile = await mkdtemp(join(tmpdir(), 'sandbar-browser-'));
      const args = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking', '--no-first-run', '--no-proxy-server', '--remote-debugging-port=0', `--user-data-dir=${profile}`, origin];
      const browser = spawn('chromium', args, { stdio: 'ignore' });
      const failed = once(browser, 'error').then(([error]) => Promise.reject(error));
      try {
        return JSON.parse(await Promise.race([told, failed]));
      } finally {
        browser.kill('SIGKILL');
        if (browser.pid !== undefined && browser.exitCode === null) await once(browser, 'exit');
        await rm(profile, { recursive: true, force: true, maxRetries: 10 });
      }
    },
  };
}

test('a page of a trusted origin uses sandboxes', { timeout: 120_000 }, async (t) => {
  const { origin, visit } = await site(t);
  await using server = await startTestServer({ settings: { SANDBAR_ALLOWED_ORIGINS: origin } });
  assert.deepEqual(await visit(server.binding), {
    exec: '42\n',
    lines: ['one\n', 'two\n'],
    bytes: [0, 1, 255, 0, 1, 255],
    collected: 3,
    line: 'ready',
    error: 'FileNotFoundError FILE_NOT_FOUND',
    aborted: 'enough',
    left: 'none\n',
    terminal: 'a browser cannot send the API key with a WebSocket: open terminals from your server',
    sandboxes: 0,
  });
});

test('a page of any other origin is kept out by the browser', { timeout: 120_000 }, async (t) => {
  const { visit } = await site(t);
  await using server = await startTestServer();
  const { failed } = await visit(server.binding);
  assert.match(String(failed), /OperationInterruptedError|ContainerUnavailableError/);
});
