/** Ports that are reached from here, without being exposed. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { type IncomingMessage, request as ask } from 'node:http';
import test, { type TestContext } from 'node:test';
import { inspect } from 'node:util';
import { type Sandbox, proxyToSandbox } from '@sandbar/sandbox';
import { serve } from '@sandbar/sandbox/serve';
import { errorFrom, sandboxOf } from './bench.js';

async function echo(t: TestContext): Promise<Sandbox> {
  const sandbox = sandboxOf(t);
  await sandbox.writeFile('/tmp/echo.py', readFileSync('test/echo.py', 'utf8'));
  const process = await sandbox.startProcess('python3 /tmp/echo.py');
  await process.waitForPort(3000, { mode: 'tcp', timeout: 60_000 });
  return sandbox;
}

test('a request reaches what listens, and its answer comes back, however long it is', async (t) => {
  const sandbox = await echo(t);
  const headers = { 'x-mine': 'yes', connection: 'x-mine' };
  const posted = await sandbox.containerFetch(new Request('https://any.example/a%20b?c=d', { method: 'POST', body: 'text', headers }), 3000);
  assert.equal(posted.status, 200);
  assert.equal(posted.headers.get('set-cookie'), 'a=1');
  assert.deepEqual(await posted.json(), ['POST', '/a%20b?c=d', 'localhost:3000', 'yes', 'text']);
  const put = await sandbox.containerFetch('/here', { method: 'PUT', body: new Uint8Array(300_000).fill(65) }, 3000);
  assert.equal(((await put.json()) as string[])[4], 'A'.repeat(300_000));
  assert.equal(await (await sandbox.containerFetch('/chunked', 3000)).text(), `one ${'x'.repeat(200_000)} two`);
  assert.equal(await (await sandbox.containerFetch('/to-its-end', 3000)).text(), 'all of it');
  const head = await sandbox.containerFetch('/', { method: 'HEAD' }, 3000);
  assert.ok(Number(head.headers.get('content-length')) > 0);
  assert.equal(await head.text(), '');
  const none = await sandbox.containerFetch('/205', 3000);
  assert.deepEqual([none.status, await none.text()], [205, '']);
  const redirect = await sandbox.containerFetch('/redirect', 3000);
  assert.deepEqual([redirect.status, redirect.headers.get('location')], [302, '/elsewhere']);
  assert.deepEqual([...(await sandbox.getExposedPorts())], []);
});

test('a download waits for who reads it slowly, whatever its size', async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.exec('truncate -s 200M /tmp/large');
  const server = await sandbox.startProcess('python3 -m http.server 3000 --directory /tmp');
  await server.waitForPort(3000, { mode: 'tcp', timeout: 60_000 });
  const reader = (await sandbox.containerFetch('/large', 3000)).body!.getReader();
  let bytes = (await reader.read()).value!.length;
  for (let turns = 0; turns < 200; turns++) await sandbox.exec('true');
  for (let next = await reader.read(); !next.done; next = await reader.read()) bytes += next.value.length;
  assert.equal(bytes, 200 * 1024 * 1024);
});

test('an answer that is not whole is an error, and so is none', async (t) => {
  const sandbox = await echo(t);
  assert.equal((await errorFrom((await sandbox.containerFetch('/broken', 3000)).text())).code, 'OPERATION_INTERRUPTED');
  assert.equal((await errorFrom(sandbox.containerFetch('/nonsense', 3000))).code, 'OPERATION_INTERRUPTED');
  assert.equal((await errorFrom(sandbox.containerFetch('/', 3001))).code, 'SERVICE_NOT_RESPONDING');
  const abort = new AbortController();
  const never = await sandbox.containerFetch('/never', 3000, { signal: abort.signal });
  const reader = never.body!.getReader();
  assert.equal(new TextDecoder().decode((await reader.read()).value), 'some');
  const rest = errorFrom(reader.read());
  abort.abort(new Error('enough'));
  assert.equal((await rest).message, 'enough');
});

test('a WebSocket is passed on to what listens', { timeout: 60_000 }, async (t) => {
  const sandbox = await echo(t);
  const worker = await serve({ fetch: (request) => sandbox.wsConnect(request, 3000) }, { port: 0 });
  t.after(() => worker.close());
  const told = (path: string, message: string) =>
    new Promise<unknown>((resolve, reject) => {
      const socket = new WebSocket(`${worker.url.replace('http', 'ws')}${path}`);
      socket.onopen = () => socket.send(message);
      socket.onmessage = ({ data }) => {
        socket.close();
        socket.onclose = () => resolve(data);
      };
      socket.onerror = () => reject(new Error('refused'));
    });
  for (const message of ['hello', 'y'.repeat(100_000)]) assert.equal(await told('/ws', message), message);
  assert.equal((await errorFrom(told('/other', 'hello'))).message, 'refused');
  assert.equal((await errorFrom(sandbox.wsConnect(new Request('http://x/'), 3000))).code, 'VALIDATION_FAILED');
});

test('a sandbox is started and its ports are waited for, whoever listens there', { timeout: 60_000 }, async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.start();
  assert.equal((await sandbox.getState()).status, 'healthy');
  const late = (await errorFrom(sandbox.waitForPort({ portToCheck: 8123, retries: 2, waitInterval: 50 }))).code;
  assert.equal(late, 'PROCESS_READY_TIMEOUT');
  const waiting = sandbox.waitForPort({ portToCheck: 8123 });
  await sandbox.startProcess('python3 -m http.server 8123 --directory /etc');
  assert.equal(await waiting, 1);
  await sandbox.startAndWaitForPorts([8123]);
  await sandbox.startAndWaitForPorts({ ports: 8123 });
  await sandbox.stop();
  await sandbox.start();
  assert.equal((await sandbox.info())?.state, 'running');
});

test('`fetch` finds the port in the request', { timeout: 60_000 }, async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.writeFile('/tmp/site/proxy/8123/named', 'by its path');
  await sandbox.startProcess('python3 -m http.server 8123 --directory /tmp/site');
  await sandbox.waitForPort({ portToCheck: 8123 });
  const switched = new Request('http://sandbox/proxy/8123/named', { headers: { 'cf-container-target-port': '8123' } });
  assert.equal(await (await sandbox.fetch(switched)).text(), 'by its path');
  assert.equal(await (await sandbox.fetch(new Request('http://sandbox/proxy/8123/named'))).text(), 'by its path');
  assert.equal((await errorFrom(sandbox.fetch(new Request('http://sandbox/')))).code, 'SERVICE_NOT_RESPONDING');
});

test('a preview is known by its host, with a token or public, and nothing else is one', async () => {
  const passes = async (host: string) => {
    const request = new Request('http://worker.example/', { headers: { host } });
    const passed = await proxyToSandbox(request, { url: 'http://127.0.0.1:1', key: 'none' }).catch((error) => error);
    if (passed !== null) assert.equal(passed.code, 'CONNECTION_FAILED');
    return passed !== null;
  };
  const [id, token] = ['a'.repeat(40), 'a'.repeat(16)];
  for (const label of ['8080-box-tok', '8080-my-box-tok', '8080-8081-a-tok', '8080-a-8081-80', '65535-b_x-a_b', '8080-a-65536', 'box-8080', '8080-box-3000', '1024-box-a', `65535-${id}-${token}`]) {
    assert.equal(await passes(`${label}.example.com`), true, label);
    assert.equal(await passes(`${label}.localhost:8787`), true, label);
    assert.equal(await passes(label), false, label);
  }
  for (const label of ['2024-report', '8080-box', '8080', '8080-', '8080--tok', '8080-box-', '-8080', '08080-box-tok', '80-box-tok', '1023-box-tok', '65536-box-tok', 'box-80', '8080-Box-tok', '8080-box-TOK', '8080--box-tok', '8080-box--tok', '8080-123-tok', '123-8080', 'xn--a-8080', `65535-${id}a-${token}`, `8080-box-${token}a`, '']) {
    assert.equal(await passes(`${label}.example.com`), false, label);
  }
});

/** A Worker that answers for previews, and what a visitor is told under a name of its domain. */
async function previews(t: TestContext): Promise<(label: string, path: string, headers?: Record<string, string>) => Promise<{ headers: IncomingMessage['headers']; text: string }>> {
  const worker = await serve({ fetch: async (request) => (await proxyToSandbox(request)) ?? new Response('none', { status: 404 }) }, { port: 0, config: false });
  t.after(() => worker.close());
  return (label, path, headers) =>
    new Promise((resolve, reject) => {
      const call = ask({ host: '127.0.0.1', port: worker.port, path, headers: { host: `${label}.app.example`, ...headers }, agent: false }, (response) => {
        let text = '';
        response.on('data', (part) => (text += part));
        response.on('end', () => resolve({ headers: response.headers, text }));
      });
      call.on('error', reject).end();
    });
}

const labelOf = (url: string) => new URL(url).hostname.split('.')[0]!;

test('a public preview is reached as one with a token is', { timeout: 60_000 }, async (t) => {
  const sandbox = await echo(t);
  const visit = await previews(t);
  const { url } = await sandbox.exposePort(3000, { public: true });
  assert.equal(JSON.parse((await visit(labelOf(url), '/a')).text)[1], '/a');
});

test('under the name of a Worker a preview leads to itself, and knows its own pages', { timeout: 60_000 }, async (t) => {
  const sandbox = await echo(t);
  const visit = await previews(t);
  const label = labelOf((await sandbox.exposePort(3000, { token: 'tok' })).url);
  for (const [to, expected] of [
    ['http://localhost:3000/there?a=b', '/there?a=b'],
    ['http://localhost:3000', '/'],
    ['http://localhost:3000?a', '/?a'],
    ['http://localhost:3000//two.example', '/.//two.example'],
    ['/there', '/there'],
    ['http://localhost:30001/there', 'http://localhost:30001/there'],
    ['https://other.example/', 'https://other.example/'],
  ] as const) {
    const { headers } = await visit(label, `/to?${to}`);
    assert.deepEqual([headers.location, headers['content-location']], [expected, expected], to);
  }
  const who = async (headers: Record<string, string>) => JSON.parse((await visit(label, '/who', headers)).text);
  for (const scheme of ['http', 'https']) {
    const own = `${scheme}://${label}.app.example`;
    assert.deepEqual(await who({ origin: own, referer: `${own}/a?b`, cookie: 'a=1' }), ['http://localhost:3000', 'http://localhost:3000/a?b', 'a=1']);
  }
  const other = { origin: 'https://other.example', referer: `https://other.example/${label}.app.example/` };
  assert.deepEqual(await who(other), [other.origin, other.referer, null]);
  // A page of another sandbox does not act with the visitor's cookies.
  const [, , cookie] = await who({ origin: 'https://8080-another-tok.app.example', cookie: 'a=1' });
  assert.equal(cookie, null);
});

test('an error does not tell the token of a preview', async () => {
  const binding = { url: 'http://127.0.0.1:1', key: 'none', previewUrl: 'http://preview.invalid:81' };
  const error = await errorFrom(proxyToSandbox(new Request('http://8080-box-secret.app.example/'), binding));
  assert.match(error.message, /preview\.invalid:81 /);
  assert.doesNotMatch(inspect(error, { depth: null, showHidden: true }), /secret/);
});
