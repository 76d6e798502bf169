/** Starts a web server in a sandbox and answers with a URL under which it is reached. */

import { type Sandbox, getSandbox, proxyToSandbox } from '@sandbar/sandbox';

export { Sandbox } from '@sandbar/sandbox';

interface Env {
  Sandbox: DurableObjectNamespace<Sandbox>;
}

const PAGE = '<!doctype html><title>It works</title><h1>Served from a sandbox</h1>';

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    // Requests to previews come here too, where their host leads here.
    const preview = await proxyToSandbox(request, env);
    if (preview) return preview;

    const sandbox = getSandbox(env.Sandbox, 'preview-server');
    const running = (await sandbox.listProcesses()).find((process) => process.id === 'web' && process.status === 'running');
    if (!running) {
      await sandbox.writeFile('/workspace/site/index.html', PAGE);
      const server = await sandbox.startProcess('python -m http.server 8080', { processId: 'web', cwd: '/workspace/site' });
      await server.waitForPort(8080, { timeout: 30_000 });
    }
    const exposed = (await sandbox.getExposedPorts()).find((each) => each.port === 8080) ?? (await sandbox.exposePort(8080, { name: 'site' }));
    return Response.json({ url: exposed.url });
  },
};
