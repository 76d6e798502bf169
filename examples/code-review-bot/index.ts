/** Reviews pull requests: a webhook comes in, the branch is cloned in a sandbox, a comment goes out. */

import Anthropic from '@anthropic-ai/sdk';
import { Octokit } from '@octokit/rest';
import { type Sandbox, getSandbox } from '@sandbar/sandbox';

export { Sandbox } from '@sandbar/sandbox';

interface Env {
  Sandbox: DurableObjectNamespace<Sandbox>;
  GITHUB_TOKEN: string;
  ANTHROPIC_API_KEY: string;
  WEBHOOK_SECRET: string;
  /** The code host's API, where it is not GitHub's own. */
  GITHUB_API_URL?: string;
}

interface PullRequest {
  number: number;
  title: string;
  head: { ref: string; sha: string };
  base: { sha: string };
}

interface Payload {
  action: string;
  pull_request: PullRequest;
  repository: { name: string; owner: { login: string } };
}

/** Files of one review, and characters of each: what a model reads with care. */
const FILES = 5;
const CHARS = 4_000;

export default {
  async fetch(request: Request, env: Env, context: ExecutionContext): Promise<Response> {
    if (request.method !== 'POST' || new URL(request.url).pathname !== '/webhook') {
      return new Response('Point the webhook of a repository at POST /webhook\n', { status: 404 });
    }
    const body = await request.text();
    if (!(await isSigned(body, request.headers.get('x-hub-signature-256'), env.WEBHOOK_SECRET))) {
      return Response.json({ error: 'the signature is not right' }, { status: 401 });
    }
    const payload = JSON.parse(body) as Payload;
    if (request.headers.get('x-github-event') !== 'pull_request' || payload.action !== 'opened') {
      return Response.json({ message: 'nothing to review' });
    }
    // The code host does not wait for long.
    context.waitUntil(review(payload, env));
    return Response.json({ message: 'the review has begun' });
  },
};

/** Compares in constant time, which `===` of texts does not. */
async function isSigned(body: string, signature: string | null, secret: string): Promise<boolean> {
  const hex = /^sha256=([0-9a-f]{64})$/.exec(signature ?? '')?.[1];
  if (!hex) return false;
  const bytes = Uint8Array.from(hex.match(/../g)!, (pair) => parseInt(pair, 16));
  const encoder = new TextEncoder();
  const key = await crypto.subtle.importKey('raw', encoder.encode(secret), { name: 'HMAC', hash: 'SHA-256' }, false, ['verify']);
  return crypto.subtle.verify('HMAC', key, bytes, encoder.encode(body));
}

async function review({ pull_request: pr, repository }: Payload, env: Env): Promise<void> {
  const octokit = new Octokit({ auth: env.GITHUB_TOKEN, ...(env.GITHUB_API_URL ? { baseUrl: env.GITHUB_API_URL } : {}) });
  const [owner, repo] = [repository.owner.login, repository.name];
  const comment = (body: string) => octokit.issues.createComment({ owner, repo, issue_number: pr.number, body });
  await comment('Code review in progress...');

  await using sandbox = getSandbox(env.Sandbox, `review-${repo}-${pr.number}`);
  try {
    const url = `https://${env.GITHUB_TOKEN}@github.com/${owner}/${repo}.git`;
    const cloned = await sandbox.exec(`git clone --depth=1 --branch=${quoted(pr.head.ref)} ${quoted(url)} /workspace/repo`);
    if (!cloned.success) throw new Error('the branch could not be cloned');

    const comparison = await octokit.repos.compareCommits({ owner, repo, base: pr.base.sha, head: pr.head.sha });
    const changed = (comparison.data.files ?? []).filter((file) => file.status !== 'removed').slice(0, FILES);
    const files = await Promise.all(
      changed.map(async (file) => {
        const { content } = await sandbox.readFile(`/workspace/repo/${file.filename}`);
        return `File: ${file.filename}\nDiff:\n${file.patch ?? ''}\n\nContent:\n${content.slice(0, CHARS)}`;
      }),
    );
    await comment(`## Code review\n\n${await ask(pr.title, files, env)}`);
  } catch (error) {
    await comment(`Review failed: ${(error as Error).message.replaceAll(env.GITHUB_TOKEN, '***')}`);
  }
}

/** A text as one word of a shell: names of branches are chosen by strangers. */
const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

async function ask(title: string, files: string[], env: Env): Promise<string> {
  const anthropic = new Anthropic({ apiKey: env.ANTHROPIC_API_KEY });
  const message = await anthropic.messages.create({
    model: 'claude-sonnet-4-5',
    max_tokens: 2048,
    messages: [{ role: 'user', content: `Review this pull request, "${title}". Say briefly what is wrong or unsafe.\n\n${files.join('\n\n')}` }],
  });
  const [first] = message.content;
  return first?.type === 'text' ? first.text : 'There is nothing to say.';
}
