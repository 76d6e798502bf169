/** A workspace per user: files, processes and the shell are as they were left, whenever they come back. */

import { type Sandbox, getSandbox } from '@sandbar/sandbox';

export { Sandbox } from '@sandbar/sandbox';

interface Env {
  Sandbox: DurableObjectNamespace<Sandbox>;
}

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const userId = request.headers.get('x-user-id');
    if (!userId || !/^[a-z0-9]{1,40}$/.test(userId)) return Response.json({ error: 'x-user-id is required' }, { status: 401 });
    const sandbox = getSandbox(env.Sandbox, `user-${userId}`);
    const path = decodeURIComponent(new URL(request.url).pathname).replace(/^\/files\//, '');

    if (new URL(request.url).pathname.startsWith('/files/')) {
      if (request.method === 'PUT') {
        await sandbox.writeFile(`/workspace/${path}`, request.body ?? '');
        return new Response(null, { status: 204 });
      }
      const file = await sandbox.readFile(`/workspace/${path}`, { encoding: 'none' }).catch((error) => {
        if (error.code === 'FILE_NOT_FOUND') return undefined;
        throw error;
      });
      return file ? new Response(file.content, { headers: { 'content-type': file.mimeType } }) : new Response('no such file\n', { status: 404 });
    }

    const { command, session } = (await request.json()) as { command: string; session?: string };
    // Output as it comes, as server-sent events.
    const stream = await sandbox.execStream(command, { session, signal: request.signal });
    return new Response(stream, { headers: { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' } });
  },
};
