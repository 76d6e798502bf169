/** Workers on Node: requests, answers, WebSockets, configuration, cron triggers. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type Socket, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import test from 'node:test';
import { getSandbox, proxyTerminal } from '@sandbar/sandbox';
import { serve } from '@sandbar/sandbox/serve';
import { parseDotenv, parseJsonc, parseToml } from '../src/config.js';
import { cron } from '../src/cron.js';
import { platform } from '../src/platform/node.js';
import { tunnelled } from '../src/platform/tunnel.js';
import { sandboxOf } from './bench.js';

const UPGRADE = 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n';

/** A connection, over which these bytes went. */
async function say(url: string, text: string): Promise<Socket> {
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  await once(socket, 'connect');
  socket.setEncoding('latin1');
  socket.write(text);
  return socket;
}

/** All that is answered, or what is until `end` is said. */
async function heard(socket: Socket, end?: string): Promise<string> {
  let text = '';
  for await (const part of socket.iterator({ destroyOnReturn: false })) {
    text += part;
    if (end !== undefined && text.includes(end)) break;
  }
  return text;
}

/** A body without an end, and its being given up. */
function endless(): { body: ReadableStream<Uint8Array>; left: Promise<void> } {
  let leave = () => {};
  const left = new Promise<void>((resolve) => (leave = resolve));
  const body = new ReadableStream({ start: (controller) => controller.enqueue(new TextEncoder().encode('part\n')), cancel: () => leave() });
  return { body, left };
}

/** A connection whose other end says nothing and leaves by itself never. */
const openEnded = () => new Duplex({ read() {}, write: (_bytes, _encoding, done) => done() });

test('a request and its answer arrive whole', async () => {
  const worker = {
    async fetch(request: Request): Promise<Response> {
      const headers = new Headers({ 'x-method': request.method, 'x-asked': request.headers.get('x-asking') ?? '', 'x-path': new URL(request.url).pathname + new URL(request.url).search });
      headers.append('set-cookie', 'a=1');
      headers.append('set-cookie', 'b=2');
      return new Response(request.body, { status: 201, headers });
    },
  };
  await using server = await serve(worker, { port: 0, config: false });
  const body = new Uint8Array(1_000_000).map((_, at) => at % 251);
  const response = await fetch(`${server.url}/a%20b?c=d`, { method: 'PUT', body, headers: { 'x-asking': 'yes' } });
  assert.equal(response.status, 201);
  assert.deepEqual([response.headers.get('x-method'), response.headers.get('x-asked'), response.headers.get('x-path')], ['PUT', 'yes', '/a%20b?c=d']);
  assert.deepEqual(response.headers.getSetCookie(), ['a=1', 'b=2']);
  assert.deepEqual(new Uint8Array(await response.arrayBuffer()), body);
});

test('a form is read, and a failure is 500 and told', async () => {
  const told: unknown[] = [];
  const worker = {
    async fetch(request: Request): Promise<Response> {
      const form = await request.formData();
      return new Response(`${form.get('name')} ${await (form.get('file') as File).text()}`);
    },
  };
  await using server = await serve(worker, { port: 0, config: false, onError: (error) => told.push(error) });
  const form = new FormData();
  form.set('name', 'it');
  form.set('file', new Blob(['content']), 'a.txt');
  assert.equal(await (await fetch(server.url, { method: 'POST', body: form })).text(), 'it content');
  assert.equal((await fetch(server.url, { method: 'POST', body: 'no form' })).status, 500);
  assert.equal(told.length, 1);
});

test('an answer whose body fails is cut off, and told', async () => {
  const told: unknown[] = [];
  const worker = {
    fetch: () => {
      let parts = 0;
      const body = new ReadableStream({
        pull(controller) {
          if (parts++ < 2) controller.enqueue(new TextEncoder().encode('part\n'));
          else controller.error(new Error('it broke'));
        },
      });
      return new Response(body);
    },
  };
  await using server = await serve(worker, { port: 0, config: false, onError: (error) => told.push(error) });
  await assert.rejects(fetch(server.url).then((response) => response.text()));
  assert.deepEqual(told.map(String), ['Error: it broke']);
});

test('who goes away aborts the request, and with it the command', async (t) => {
  const sandbox = sandboxOf(t);
  const worker = {
    async fetch(request: Request): Promise<Response> {
      const isTold = new URL(request.url).pathname === '/told';
      return new Response(await sandbox.execStream('echo begun; sleep 1000', isTold ? { signal: request.signal } : {}));
    },
  };
  await using server = await serve(worker, { port: 0, config: false });
  for (const path of ['/told', '/not-told']) {
    const abort = new AbortController();
    const response = await fetch(`${server.url}${path}`, { signal: abort.signal });
    const reader = response.body!.getReader();
    let text = '';
    while (!text.includes('begun\\n')) text += new TextDecoder().decode((await reader.read()).value);
    abort.abort();
    assert.equal((await sandbox.exec('pgrep -fx "sleep 1000" || echo none')).stdout, 'none\n', path);
  }
});

test('what is waited for is over when the server is', async () => {
  let done = false;
  const worker = {
    fetch(_request: Request, _env: unknown, context: { waitUntil(promise: Promise<unknown>): void }): Response {
      context.waitUntil(new Promise((resolve) => setTimeout(resolve, 50)).then(() => (done = true)));
      return new Response('ok');
    },
  };
  const server = await serve(worker, { port: 0, config: false });
  await (await fetch(server.url)).text();
  await server.close();
  assert.equal(done, true);
});

test('a terminal is answered to a WebSocket, and refused to what is none', async (t) => {
  const sandbox = sandboxOf(t);
  const worker = { fetch: (request: Request) => proxyTerminal(getSandbox(undefined, sandbox.id), 'shared', request, { cols: 91 }) };
  const told: unknown[] = [];
  await using server = await serve(worker, { port: 0, config: false, onError: (error) => told.push(error) });
  const socket = await platform.socket(server.url, {});
  const shown = await new Promise<string>((resolve, reject) => {
    let shown = '';
    socket.onmessage = (data) => {
      shown += typeof data === 'string' ? data : new TextDecoder().decode(data);
      if (shown.includes('is 42 91')) resolve(shown);
    };
    socket.onclose = () => reject(new Error(shown));
    socket.send(new TextEncoder().encode('echo it is $((6 * 7)) $(stty size | cut -d" " -f2)\n'));
  });
  assert.match(shown, /"type":"ready"/);
  socket.close();
  assert.equal((await fetch(server.url)).status, 500);
  assert.match(String(told[0]), /WebSocket/);
});

test('configuration files', () => {
  assert.deepEqual(parseJsonc('{ // a\n "url": "http://x//y", /* b */ "list": [1, 2,], "text": "/* no */ ,]", }'), { url: 'http://x//y', list: [1, 2], text: '/* no */ ,]' });
  assert.deepEqual(parseToml('name = "x" # y\n[vars]\nA = "a # b"\nN = 1_000\nT = true\nL = [\n "1", # one\n "2",\n]\nI = { a = "1", b = 2 }\n[[durable_objects.bindings]]\nname = \'B\'\n[triggers]\ncrons = ["0 0 * * *"]\n'), {
    name: 'x',
    vars: { A: 'a # b', N: 1000, T: true, L: ['1', '2'], I: { a: '1', b: 2 } },
    durable_objects: { bindings: [{ name: 'B' }] },
    triggers: { crons: ['0 0 * * *'] },
  });
  assert.throws(() => parseToml('what is this'), /line 1/);
  assert.deepEqual(parseDotenv('A=1\n# B=2\nexport C="x\\ny" # z\nD=\'a"b\'\nE= spaced out # not this\n'), { A: '1', C: 'x\ny', D: 'a"b', E: 'spaced out' });
});

test('cron expressions', () => {
  const at = (expression: string, time: string) => cron(expression)(new Date(time));
  for (const [expression, time, expected] of [
    ['0 0 * * *', '2026-01-01T00:00:30Z', true],
    ['0 0 * * *', '2026-01-01T00:01:00Z', false],
    ['*/15 9-17 * * mon-fri', '2026-01-05T09:45:00Z', true],
    ['*/15 9-17 * * mon-fri', '2026-01-04T09:45:00Z', false],
    ['0 0 * * 7', '2026-01-04T00:00:00Z', true],
    ['0 0 1 * 1', '2026-01-05T00:00:00Z', true],
    ['0 0 1 jan,jul *', '2026-07-01T00:00:00Z', true],
    ['5/20 * * * *', '2026-07-01T00:25:00Z', true],
  ] as const) {
    assert.equal(at(expression, time), expected, `${expression} at ${time}`);
  }
  for (const bad of ['* * * *', '60 * * * *', '*/0 * * * *', '5-1 * * * *', 'x * * * *', '* * * 13 *']) assert.throws(() => cron(bad), SyntaxError, bad);
});

test('a cron trigger fires in its minute, once, also when the clock was late', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'sandbar-worker-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  writeFileSync(join(dir, 'wrangler.jsonc'), '{"triggers": {"crons": ["*/2 * * * *", "1 * * * *"]}}');
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: Date.parse('2026-01-01T00:00:30Z') });
  const fired: string[] = [];
  const worker = { scheduled: (event: { cron: string }) => void fired.push(event.cron) };
  const server = await serve(worker, { port: 0, config: dir });
  t.mock.timers.tick(31_000);
  assert.deepEqual(fired, ['1 * * * *']);
  t.mock.timers.tick(60_000);
  assert.deepEqual(fired.slice(1), ['*/2 * * * *']);
  // The machine slept: a timer comes minutes after its time.
  t.mock.timers.setTime(Date.parse('2026-01-01T00:06:10Z'));
  t.mock.timers.tick(60_000);
  assert.deepEqual(fired.slice(2), ['*/2 * * * *', '*/2 * * * *']);
  await server.close();
  t.mock.timers.tick(600_000);
  assert.equal(fired.length, 4);
});

test('the command line serves the Worker that a configuration names', { timeout: 60_000 }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'sandbar-worker-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  writeFileSync(join(dir, 'wrangler.jsonc'), '{"main": "index.mjs", "vars": {"GREETING": "hello"}}');
  writeFileSync(join(dir, '.dev.vars'), 'WHO=you\n');
  writeFileSync(join(dir, 'index.mjs'), 'export default { fetch: (request, env) => new Response(`${env.GREETING} ${env.WHO}`) }');
  const child = execFile(process.execPath, ['dist/esm/cli.js', '--dir', dir, '--port', '0']);
  t.after(() => child.kill());
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout!.on('data', (text: string) => resolve(/http:\S+/.exec(text)![0]));
    child.on('exit', () => reject(new Error('it ended')));
  });
  assert.equal(await (await fetch(url)).text(), 'hello you');
  const ended = new Promise((resolve) => child.on('exit', resolve));
  child.kill('SIGTERM');
  assert.equal(await ended, 0);
});

test('what is no request is refused, and the next one is answered', { timeout: 20_000 }, async () => {
  const told: unknown[] = [];
  await using server = await serve({ fetch: () => new Response('ok') }, { port: 0, config: false, onError: (error) => told.push(error) });
  for (const [method, host, status] of [
    ['GET', 'a b', 400],
    ['GET', 'u:p@x', 400],
    ['GET', 'x/y', 400],
    ['POST', 'x?y', 400],
    ['TRACE', 'x', 405],
    ['GET', 'x', 200],
  ] as const) {
    for (const asking of ['Connection: close\r\n', UPGRADE]) {
      const answer = await heard(await say(server.url, `${method} / HTTP/1.1\r\nHost: ${host}\r\n${asking}\r\n`));
      assert.ok(answer.startsWith(`HTTP/1.1 ${status} `), `${method} ${host}: ${answer}`);
    }
  }
  const nameless = await heard(await say(server.url, 'GET /path HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n'));
  assert.match(nameless, /^HTTP\/1.1 200 /);
  assert.deepEqual(told, []);
});

test('who left before the answer leaves neither its body nor a WebSocket behind', { timeout: 20_000 }, async () => {
  const given = new Map<string, Promise<unknown>>();
  let reach = () => {};
  let aborted: Promise<unknown> | undefined;
  const worker = {
    async fetch(request: Request): Promise<Response> {
      const { pathname } = new URL(request.url);
      aborted = once(request.signal, 'abort');
      reach();
      await aborted;
      if (pathname === '/tunnel') {
        const connection = openEnded();
        given.set(pathname, once(connection, 'close'));
        return tunnelled(new Headers(), connection, new Uint8Array(0));
      }
      const { body, left } = endless();
      given.set(pathname, left);
      return new Response(body);
    },
  };
  const server = await serve(worker, { port: 0, config: false });
  for (const [path, asking] of [['/body', ''], ['/refused', UPGRADE], ['/tunnel', UPGRADE]] as const) {
    const reached = new Promise<void>((resolve) => (reach = resolve));
    const client = await say(server.url, `GET ${path} HTTP/1.1\r\nHost: x\r\n${asking}\r\n`);
    await reached;
    client.destroy();
    await aborted;
  }
  await server.close();
  assert.deepEqual([...given.keys()].sort(), ['/body', '/refused', '/tunnel']);
  await Promise.all(given.values());
});

test('an answer without a WebSocket to who asked for one arrives as it comes, and whole', { timeout: 20_000 }, async () => {
  let go = () => {};
  const seen = new Promise<void>((resolve) => (go = resolve));
  const worker = {
    fetch: () => {
      const body = new ReadableStream({
        async start(controller) {
          controller.enqueue(new TextEncoder().encode('begun'));
          await seen;
          for (let at = 0; at < 50; at++) controller.enqueue(new Uint8Array(100_000).fill(120));
          controller.close();
        },
      });
      return new Response(body, { status: 403 });
    },
  };
  await using server = await serve(worker, { port: 0, config: false });
  const client = await say(server.url, `GET / HTTP/1.1\r\nHost: x\r\n${UPGRADE}\r\n`);
  assert.match(await heard(client, 'begun'), /^HTTP\/1.1 403 /);
  go();
  assert.equal((await heard(client)).match(/x/g)?.length, 5_000_000);
});

test('a server closes while WebSockets are open', { timeout: 20_000 }, async () => {
  const connection = openEnded();
  const worker = { fetch: () => tunnelled(new Headers({ upgrade: 'websocket' }), connection, new Uint8Array(0)) };
  const server = await serve(worker, { port: 0, config: false });
  const client = await say(server.url, `GET / HTTP/1.1\r\nHost: x\r\n${UPGRADE}\r\n`);
  assert.match(await heard(client, '\r\n\r\n'), /^HTTP\/1.1 101 /);
  const over = Promise.all([once(connection, 'close'), once(client, 'close')]);
  client.resume();
  await server.close();
  await over;
});

test('a server that closes cuts off answers that do not come to their end', { timeout: 20_000 }, async (t) => {
  const { body, left } = endless();
  let reach = () => {};
  const reached = new Promise<void>((resolve) => (reach = resolve));
  const worker = {
    async fetch(request: Request): Promise<Response> {
      if (new URL(request.url).pathname === '/stream') return new Response(body);
      reach();
      return new Promise(() => {});
    },
  };
  const server = await serve(worker, { port: 0, config: false });
  const stream = await say(server.url, 'GET /stream HTTP/1.1\r\nHost: x\r\n\r\n');
  await heard(stream, 'part');
  const never = await say(server.url, 'GET /never HTTP/1.1\r\nHost: x\r\n\r\n');
  await reached;
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const closing = server.close();
  t.mock.timers.tick(4_999);
  assert.deepEqual([stream.readableEnded, never.readableEnded], [false, false]);
  t.mock.timers.tick(1);
  await closing;
  await left;
  assert.deepEqual(await Promise.all([heard(stream), heard(never)]), ['', '']);
});

test('who offers another protocol than WebSocket is answered in HTTP, with its body read', { timeout: 20_000 }, async () => {
  await using server = await serve({ fetch: async (request: Request) => new Response(`${await request.text()} came`) }, { port: 0, config: false });
  const offer = 'Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n';
  const answer = await heard(await say(server.url, `POST / HTTP/1.1\r\nHost: x\r\n${offer}Content-Length: 8\r\n\r\nthe body`));
  assert.match(answer, /^HTTP\/1.1 200 [^]*the body came/);
});

test('a Worker is told the address of who asks, last of what is said of it', async () => {
  await using server = await serve({ fetch: (request: Request) => new Response(request.headers.get('x-forwarded-for')) }, { port: 0, config: false });
  assert.equal(await (await fetch(server.url)).text(), '127.0.0.1');
  assert.equal(await (await fetch(server.url, { headers: { 'x-forwarded-for': '9.9.9.9' } })).text(), '9.9.9.9, 127.0.0.1');
});
