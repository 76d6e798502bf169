import * as sdk from '@cloudflare/sandbox';
import { steps } from './steps.mjs';

export { Sandbox } from '@cloudflare/sandbox';

export default {
  async fetch(request, env) {
    const { pathname, searchParams } = new URL(request.url);
    const preview = await sdk.proxyToSandbox(request, env);
    if (preview) return preview;
    const sandbox = sdk.getSandbox(env.Sandbox, searchParams.get('id'));
    if (pathname === '/ws') return sandbox.wsConnect(request, 3000);
    if (pathname === '/fetch') return sandbox.containerFetch('/there', 3000);
    if (pathname === '/terminal') return sandbox.terminal(request);
    return Response.json(await steps(sdk, env.Sandbox, searchParams.get('id')));
  },
};
