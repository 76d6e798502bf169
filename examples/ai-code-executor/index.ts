/** Answers questions by having a model write Python, and running it in a sandbox. */

import Anthropic from '@anthropic-ai/sdk';
import { type Sandbox, getSandbox } from '@sandbar/sandbox';

export { Sandbox } from '@sandbar/sandbox';

interface Env {
  Sandbox: DurableObjectNamespace<Sandbox>;
  ANTHROPIC_API_KEY: string;
}

/** Milliseconds that generated code may take. */
const TIME_MS = 30_000;

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    if (request.method !== 'POST' || new URL(request.url).pathname !== '/execute') {
      return new Response('POST /execute with { "question": "..." }\n', { status: 404 });
    }
    const { question } = (await request.json()) as { question?: string };
    if (!question) return Response.json({ error: 'a question is required' }, { status: 400 });

    const code = await writeCode(question, env);
    // A sandbox for each answer: what one question's code leaves behind is not the next one's.
    await using sandbox = getSandbox(env.Sandbox, `executor-${crypto.randomUUID()}`, { network: 'none' });
    await sandbox.writeFile('/tmp/code.py', code);
    const result = await sandbox.exec('timeout 30 python /tmp/code.py', { timeout: TIME_MS + 5_000 });
    return Response.json({ success: result.success, question, code, output: result.stdout, error: result.stderr });
  },
};

async function writeCode(question: string, env: Env): Promise<string> {
  const anthropic = new Anthropic({ apiKey: env.ANTHROPIC_API_KEY });
  const message = await anthropic.messages.create({
    model: 'claude-sonnet-4-5',
    max_tokens: 1024,
    messages: [
      {
        role: 'user',
        content: `Write Python that prints the answer to: "${question}"\nUse the standard library only. Return the code and nothing else.`,
      },
    ],
  });
  const [first] = message.content;
  if (first?.type !== 'text' || !first.text) throw new Error('the model wrote no code');
  // Models like to wrap code in a fence.
  return first.text.replace(/^```(?:python)?\n([\s\S]*?)\n?```\s*$/, '$1');
}
