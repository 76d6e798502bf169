/** Pages "Ports", "Expose services", "Preview URLs". */

import assert from 'node:assert/strict';
import { request as ask } from 'node:http';
import { type Sandbox, getSandbox, proxyToSandbox } from '@cloudflare/sandbox';
import { serve } from '@cloudflare/sandbox/serve';
import { env, project, sample } from './bench.js';

/** What a browser gets under a preview's URL, whose host a browser takes for this machine. */
function visit(url: string): Promise<{ status: number; text: string }> {
  const { host, port, pathname } = new URL(url);
  return new Promise((resolve, reject) => {
    ask({ host: '127.0.0.1', port, path: pathname, headers: { host } }, (response) => {
      let text = '';
      response.on('data', (chunk) => (text += chunk));
      response.on('end', () => resolve({ status: response.statusCode!, text }));
    })
      .on('error', reject)
      .end();
  });
}

/** In place of seconds of waiting: until the port answers. */
async function ready(sandbox: Sandbox, ...ports: number[]): Promise<void> {
  const [process] = await sandbox.listProcesses();
  for (const port of ports) await process!.waitForPort(port, { timeout: 60_000 });
}

sample('Ports, exposePort()', async ({ sandbox, console }) => {
  await project(sandbox);
  await sandbox.writeFile('/workspace/package.json', JSON.stringify({ scripts: { dev: 'PORT=5173 node server.js' } }));
  await sandbox.startProcess('python -m http.server 8000');
  const exposed = await sandbox.exposePort(8000);
  console.log('Available at:', exposed.exposedAt);
  await sandbox.startProcess('node api.js');
  const api = await sandbox.exposePort(3000, { name: 'api' });
  await sandbox.startProcess('npm run dev');
  const frontend = await sandbox.exposePort(5173, { name: 'frontend' });
  await ready(sandbox, 8000, 3000, 5173);
  console.has(/^Available at: https?:\/\//);
  assert.match((await visit(exposed.exposedAt)).text, /Directory listing/);
  assert.deepEqual([(await visit(api.url)).text, (await visit(frontend.url)).text], ['ok 3000/', 'ok 5173/']);
  assert.deepEqual([api.name, frontend.port], ['api', 5173]);
});

sample('Ports, unexposePort()', async ({ sandbox }) => {
  const { url } = await sandbox.exposePort(8000);
  await sandbox.unexposePort(8000);
  assert.deepEqual(await sandbox.getExposedPorts(), []);
  assert.ok((await visit(url)).status >= 400);
});

sample('Ports, getExposedPorts()', async ({ sandbox, console }) => {
  await sandbox.exposePort(8080, { name: 'api' });
  await sandbox.exposePort(8081);
  const { ports } = await sandbox.getExposedPorts();
  for (const port of ports) {
    console.log(`${port.name || port.port}: ${port.exposedAt}`);
  }
  assert.match(console.lines[0]!, /^api: http/);
  assert.match(console.lines[1]!, /^8081: http/);
});

// Expose services

sample('Expose services, start, wait, expose, answer', async ({ console }) => {
  const sandbox = getSandbox(env.Sandbox, 'my-sandbox');
  await sandbox.startProcess('python -m http.server 8000');
  await ready(sandbox, 8000);
  const exposed = await sandbox.exposePort(8000);
  console.log('Server accessible at:', exposed.exposedAt);
  const worker = {
    async fetch(request: Request, env: any): Promise<Response> {
      return (await proxyToSandbox(request, env.Sandbox, 'my-sandbox'))!;
    },
  };
  await using server = await serve(worker, { port: 0, config: false });
  const [port] = await sandbox.getExposedPorts(`localhost:${server.port}`);
  assert.equal(new URL(port!.url).port, String(server.port));
  assert.match((await visit(port!.url)).text, /Directory listing/);
  assert.match((await visit(exposed.exposedAt)).text, /Directory listing/);
});

sample('Expose services, names', async ({ sandbox, console }) => {
  await project(sandbox);
  await sandbox.startProcess('node api.js', { env: { PORT: '8080' } });
  await ready(sandbox, 8080);
  const api = await sandbox.exposePort(8080, { name: 'api' });
  await sandbox.startProcess('npm run dev', { env: { PORT: '5173' } });
  await ready(sandbox, 5173);
  const frontend = await sandbox.exposePort(5173, { name: 'frontend' });
  console.log('Services:');
  console.log('- API:', api.exposedAt);
  console.log('- Frontend:', frontend.exposedAt);
  assert.equal((await visit(api.exposedAt)).text, 'ok 8080/');
  assert.equal((await visit(frontend.exposedAt)).text, 'ok 5173/');
});

sample('Expose services, readiness by time', async ({ sandbox }) => {
  await project(sandbox);
  await sandbox.startProcess('npm run dev', { env: { PORT: '8080' } });
  await ready(sandbox, 8080);
  const { url } = await sandbox.exposePort(8080);
  assert.equal((await visit(url)).status, 200);
});

sample('Expose services, readiness by asking', async ({ sandbox }) => {
  await project(sandbox);
  await sandbox.startProcess('node api-server.js', { env: { PORT: '8080' } });
  let asked = 0;
  for (let i = 0; i < 100; i++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    asked++;
    const check = await sandbox.exec('curl -f http://localhost:8080/health || echo "not ready"');
    if (check.stdout.includes('ok')) {
      break;
    }
  }
  await sandbox.exposePort(8080);
  assert.ok(asked < 100);
});

sample('Expose services, several', async ({ sandbox }) => {
  await project(sandbox);
  await sandbox.writeFile('api/server.js', (await sandbox.readFile('server.js')).content);
  await project(sandbox, '/workspace/frontend');
  await sandbox.startProcess('node api/server.js', {
    env: { PORT: '8080' },
  });
  await ready(sandbox, 8080);
  await sandbox.startProcess('npm run dev', {
    cwd: '/workspace/frontend',
    env: { PORT: '5173', API_URL: 'http://localhost:8080' },
  });
  await ready(sandbox, 5173);
  const api = await sandbox.exposePort(8080, { name: 'api' });
  const frontend = await sandbox.exposePort(5173, { name: 'frontend' });
  const response = Response.json({
    api: api.exposedAt,
    frontend: frontend.exposedAt,
  });
  const { api: url } = (await response.json()) as any;
  assert.equal((await visit(url)).text, 'ok 8080/');
});

sample('Expose services, list', async ({ sandbox, console }) => {
  await sandbox.exposePort(8080, { name: 'api' });
  const { ports, count } = await sandbox.getExposedPorts();
  console.log(`${count} ports currently exposed:`);
  for (const port of ports) {
    console.log(`  Port ${port.port}: ${port.exposedAt}`);
    if (port.name) {
      console.log(`    Name: ${port.name}`);
    }
  }
  console.has('1 ports currently exposed:');
  console.has(/^ {2}Port 8080: http/);
  console.has('    Name: api');
});

sample('Expose services, hide', async ({ sandbox }) => {
  for (const port of [8000, 3000, 5173, 8080]) await sandbox.exposePort(port);
  await sandbox.unexposePort(8000);
  for (const port of [3000, 5173, 8080]) {
    await sandbox.unexposePort(port);
  }
  assert.equal((await sandbox.getExposedPorts()).count, 0);
});

sample('Expose services, port 3000', async ({ sandbox }) => {
  await project(sandbox);
  // The document's note does not hold here: nothing of ours listens in the sandbox, and 3000 is a port like any.
  await sandbox.exposePort(3000);
  await sandbox.startProcess('node server.js', { env: { PORT: '8080' } });
  await ready(sandbox, 8080);
  const { url } = await sandbox.exposePort(8080);
  assert.equal((await visit(url)).text, 'ok 8080/');
  await assert.rejects(sandbox.exposePort(22), (error: any) => ['INVALID_PORT', 'VALIDATION_FAILED'].includes(error.code));
});

sample('Expose services, not ready', async ({ sandbox }) => {
  await project(sandbox);
  await sandbox.writeFile('/workspace/package.json', JSON.stringify({ scripts: { dev: 'PORT=8080 node server.js' } }));
  await sandbox.startProcess('npm run dev');
  await ready(sandbox, 8080);
  const { url } = await sandbox.exposePort(8080);
  assert.equal((await visit(url)).status, 200);
});

sample('Expose services, exposed already', async ({ sandbox }) => {
  for (const _round of [1, 2]) {
    const { ports } = await sandbox.getExposedPorts();
    if (!ports.some((p) => p.port === 8080)) {
      await sandbox.exposePort(8080);
    }
  }
  assert.equal((await sandbox.getExposedPorts()).length, 1);
});

// Preview URLs, and what other pages do with ports

sample('Preview URLs, a URL', async ({ sandbox, console }) => {
  await sandbox.startProcess('python -m http.server 8000');
  const exposed = await sandbox.exposePort(8000);
  console.log(exposed.exposedAt);
  await ready(sandbox, 8000);
  const again = (await sandbox.getExposedPorts())[0]!;
  assert.equal(again.url, exposed.exposedAt);
});

sample('Preview URLs, routing', async ({ sandbox }) => {
  await project(sandbox);
  await sandbox.startProcess('node server.js');
  await ready(sandbox, 3000);
  const worker = {
    async fetch(request: Request, env: any) {
      const proxyResponse = await proxyToSandbox(request, env);
      if (proxyResponse) return proxyResponse;
      return new Response('a route of mine');
    },
  };
  await using server = await serve(worker, { port: 0, config: false });
  const { url } = await sandbox.exposePort(3000, { hostname: `localhost:${server.port}` });
  assert.equal((await visit(`${url}page`)).text, 'ok 3000/page');
  assert.equal(await (await fetch(server.url)).text(), 'a route of mine');
});

sample('Preview URLs, several', async ({ sandbox }) => {
  await project(sandbox);
  await sandbox.writeFile('admin.js', (await sandbox.readFile('admin.js')).content.replace('3000', '3001'));
  await sandbox.startProcess('node api.js');
  await sandbox.startProcess('node admin.js');
  await ready(sandbox, 3000, 3001);
  const api = await sandbox.exposePort(3000, { name: 'api' });
  const admin = await sandbox.exposePort(3001, { name: 'admin' });
  assert.deepEqual([(await visit(api.url)).text, (await visit(admin.url)).text], ['ok 3000/', 'ok 3001/']);
});

sample('Preview URLs, one that is not reached', async ({ sandbox }) => {
  await sandbox.startProcess('python -m http.server 3000 --bind 127.0.0.1');
  await ready(sandbox, 3000);
  await sandbox.exposePort(3000);
  const processes = await sandbox.listProcesses();
  const ports = await sandbox.getExposedPorts();
  assert.deepEqual([processes[0]?.status, ports[0]?.status], ['running', 'active']);
  // A service of the loopback is reached too.
  assert.equal((await visit(ports[0]!.url)).status, 200);
});

sample('Container runtime, ports', async ({ sandbox, console }) => {
  await sandbox.startProcess('python -m http.server 8000');
  const exposed = await sandbox.exposePort(8000);
  console.log(exposed.exposedAt);
  console.has(/^http/);
});

sample('Session management, ports are shared', async ({ sandbox }) => {
  const [session1, session2] = [await sandbox.createSession(), await sandbox.createSession()];
  await session1.exposePort(3000);
  const seen = await session2.getExposedPorts();
  assert.deepEqual(seen.map((port) => port.port), [3000]);
});
