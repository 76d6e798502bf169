/** Clones a repository, installs what it needs, runs its tests and reports. */

import { type Sandbox, getSandbox } from '@sandbar/sandbox';

export { Sandbox } from '@sandbar/sandbox';

interface Env {
  Sandbox: DurableObjectNamespace<Sandbox>;
  GITHUB_TOKEN?: string;
}

/** By the file that tells what a project is: how to install and how to test it. */
const KINDS = [
  { kind: 'nodejs', file: 'package.json', install: 'npm install', test: 'npm test' },
  { kind: 'python', file: 'requirements.txt', install: 'pip install -r requirements.txt', test: 'python -m pytest || python -m unittest discover' },
  { kind: 'go', file: 'go.mod', install: 'go mod download', test: 'go test ./...' },
];

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    if (request.method !== 'POST') return new Response('POST { "repoUrl": "https://github.com/owner/repo", "branch": "main" }\n', { status: 405 });
    const { repoUrl, branch } = (await request.json()) as { repoUrl?: string; branch?: string };
    if (!repoUrl) return Response.json({ error: 'repoUrl is required' }, { status: 400 });

    await using sandbox = getSandbox(env.Sandbox, `test-${crypto.randomUUID()}`);
    const auth = env.GITHUB_TOKEN && new URL(repoUrl).hostname === 'github.com' ? { password: env.GITHUB_TOKEN } : undefined;
    await sandbox.gitCheckout(repoUrl, { branch, depth: 1, targetDir: '/workspace/repo', ...(auth ? { auth } : {}) });

    const cwd = '/workspace/repo';
    const found = await Promise.all(KINDS.map(({ file }) => sandbox.exists(`${cwd}/${file}`)));
    const project = KINDS.find((_kind, at) => found[at]!.exists);
    if (!project) return Response.json({ success: false, error: 'what kind of project this is cannot be told' }, { status: 422 });

    const installed = await sandbox.exec(project.install, { cwd, timeout: 300_000 });
    if (!installed.success) return Response.json({ success: false, error: 'the installation failed', output: installed.stderr });
    const tested = await sandbox.exec(project.test, { cwd, timeout: 600_000 });
    return Response.json({
      success: tested.success,
      exitCode: tested.exitCode,
      projectType: project.kind,
      output: tested.stdout,
      errors: tested.stderr,
      duration: tested.duration,
    });
  },
};
