/** A chat that works in a sandbox: each conversation has a session, which is where it was left. */

import { type Sandbox, getSandbox } from '@sandbar/sandbox';

export { Sandbox } from '@sandbar/sandbox';

interface Env {
  Sandbox: DurableObjectNamespace<Sandbox>;
  KV: Pick<KVNamespace, 'get' | 'put'>;
}

interface Conversation {
  sandboxId: string;
  sessionId: string;
}

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const { conversationId, userId, command } = (await request.json()) as Record<string, string>;
    if (!conversationId || !userId || !command) return Response.json({ error: 'conversationId, userId and command are required' }, { status: 400 });

    const stored = await env.KV.get(`conversation:${conversationId}`);
    const { sandboxId, sessionId } = stored ? (JSON.parse(String(stored)) as Conversation) : await begin(conversationId, userId, env);
    const sandbox = getSandbox(env.Sandbox, sandboxId);
    const result = await sandbox.exec(command, { session: sessionId, timeout: 60_000 });
    return Response.json({ output: result.stdout, error: result.stderr, exitCode: result.exitCode });
  },
};

async function begin(conversationId: string, userId: string, env: Env): Promise<Conversation> {
  const sandboxId = `user-${userId}`;
  const session = await getSandbox(env.Sandbox, sandboxId).createSession();
  // A session is written as its id.
  const conversation = { sandboxId, sessionId: session };
  await env.KV.put(`conversation:${conversationId}`, JSON.stringify(conversation));
  return { sandboxId, sessionId: session.id };
}
