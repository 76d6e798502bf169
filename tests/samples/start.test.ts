/** Page "Getting started", and what streams to a browser. */

import assert from 'node:assert/strict';
import { type Sandbox, getSandbox, proxyToSandbox } from '@cloudflare/sandbox';
import { serve } from '@cloudflare/sandbox/serve';
import { env, project, sample } from './bench.js';

type Env = { Sandbox: DurableObjectNamespace<Sandbox> };

sample('Getting started, the template', async () => {
  const worker = {
    async fetch(request: Request, env: Env): Promise<Response> {
      const proxyResponse = await proxyToSandbox(request, env);
      if (proxyResponse) return proxyResponse;
      const url = new URL(request.url);
      const sandbox = getSandbox(env.Sandbox, 'my-sandbox');
      if (url.pathname === '/run') {
        const result = await sandbox.exec('python -c "print(2 + 2)"');
        return Response.json({
          output: result.stdout,
          success: result.success,
        });
      }
      if (url.pathname === '/file') {
        await sandbox.writeFile('/workspace/hello.txt', 'Hello, Sandbox!');
        const file = await sandbox.readFile('/workspace/hello.txt');
        return Response.json({
          content: file.content,
        });
      }
      return new Response('Try /run or /file');
    },
  };
  await using server = await serve(worker, { port: 0, config: false });
  assert.deepEqual(await (await fetch(`${server.url}/run`)).json(), { output: '4\n', success: true });
  assert.deepEqual(await (await fetch(`${server.url}/file`)).json(), { content: 'Hello, Sandbox!' });
  assert.equal(await (await fetch(server.url)).text(), 'Try /run or /file');
});

sample('API, getting a sandbox', async () => {
  const sandbox = getSandbox(env.Sandbox, 'user-123');
  assert.ok((await sandbox.exec('true')).success);
});

sample('Stream output, to a client, and what the client does', async () => {
  await project(getSandbox(undefined, 'builder'));
  const worker = {
    async fetch(request: Request, env: Env): Promise<Response> {
      const sandbox = getSandbox(env.Sandbox, 'builder');
      const stream = await sandbox.execStream('npm run build');
      return new Response(stream, {
        headers: {
          'Content-Type': 'text/event-stream',
          'Cache-Control': 'no-cache',
        },
      });
    },
  };
  await using server = await serve(worker, { port: 0, config: false });
  const response = await fetch(`${server.url}/build`);
  assert.equal(response.headers.get('content-type'), 'text/event-stream');
  const text = await response.text();
  // An EventSource calls listeners by the names of `event:` lines, with the text of `data:` lines.
  const listeners: Record<string, (event: { data: string }) => void> = {};
  const told: unknown[] = [];
  const eventSource = { addEventListener: (type: string, listener: (event: { data: string }) => void) => (listeners[type] = listener), close: () => told.push('closed') };
  eventSource.addEventListener('stdout', (event) => {
    const data = JSON.parse(event.data);
    told.push(data.data);
  });
  eventSource.addEventListener('complete', (event) => {
    const data = JSON.parse(event.data);
    told.push(data.exitCode);
    eventSource.close();
  });
  for (const block of text.split('\n\n').filter(Boolean)) {
    const lines = Object.fromEntries(block.split('\n').map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)]));
    listeners[lines.event!]?.({ data: lines.data! });
  }
  assert.match(told.join(''), /building\n/);
  assert.deepEqual(told.slice(-2), [0, 'closed']);
});
