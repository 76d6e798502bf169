import * as sdk from '@cloudflare/sandbox';
import { steps } from './steps.mjs';

export { Sandbox } from '@cloudflare/sandbox';

export default {
  async fetch(request, env) {
    const { pathname, searchParams } = new URL(request.url);
    const preview = await sdk.proxyToSandbox(request, env);
    if (preview) return preview;
    if (pathname === '/terminal') return sdk.getSandbox(env.Sandbox, searchParams.get('id')).terminal(request);
    return Response.json(await steps(sdk, env.Sandbox, searchParams.get('id')));
  },
};
