/** A Worker as the documents have one, and what else a Worker does with a sandbox. */

import * as sdk from '@cloudflare/sandbox';
import { type Sandbox, getSandbox, proxyToSandbox } from '@cloudflare/sandbox';
import { steps } from '../../runtimes/steps.mjs';

export { Sandbox } from '@cloudflare/sandbox';

type Env = {
  Sandbox: DurableObjectNamespace<Sandbox>;
  GREETING?: string;
  SECRET?: string;
};

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const proxyResponse = await proxyToSandbox(request, env);
    if (proxyResponse) return proxyResponse;

    const { pathname, searchParams, host } = new URL(request.url);
    const id = searchParams.get('id') ?? 'my-sandbox';
    const sandbox = getSandbox(env.Sandbox, id);
    switch (pathname) {
      case '/run': {
        const result = await sandbox.exec('python3 -c "print(2 + 2)"');
        return Response.json({ output: result.stdout, success: result.success });
      }
      case '/file': {
        await sandbox.writeFile('/workspace/hello.txt', 'Hello, Sandbox!');
        const file = await sandbox.readFile('/workspace/hello.txt');
        return Response.json({ content: file.content });
      }
      case '/vars':
        return Response.json([env.GREETING, env.SECRET, navigator.userAgent]);
      case '/expose':
        return Response.json(await sandbox.exposePort(3000, { hostname: host, token: 'my_token_' }));
      case '/fetch':
        return sandbox.containerFetch('/there', 3000);
      case '/packed':
        return sandbox.containerFetch('/packed', 3000);
      case '/ws':
        return sandbox.wsConnect(request, 3000);
      case '/terminal':
        return sandbox.terminal(request);
      default:
        return Response.json(await steps(sdk, env.Sandbox, `${id}-steps`));
    }
  },

  async scheduled(controller: ScheduledController, env: Env): Promise<void> {
    await getSandbox(env.Sandbox, 'my-sandbox').writeFile('/workspace/scheduled', controller.cron);
  },
};
