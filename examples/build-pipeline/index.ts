/** Builds a commit of a repository, streams the build, and keeps what it made. */

import { type Sandbox, getSandbox } from '@sandbar/sandbox';

export { Sandbox } from '@sandbar/sandbox';

interface Env {
  Sandbox: DurableObjectNamespace<Sandbox>;
  ARTIFACTS: { put(key: string, value: Uint8Array): Promise<unknown> };
}

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const { repoUrl, commit } = (await request.json()) as { repoUrl: string; commit: string };
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    const writer = writable.getWriter();
    const tell = (line: string) => writer.write(new TextEncoder().encode(line));
    build(repoUrl, commit, env, tell)
      .then((key) => tell(`stored ${key}\n`), (error: Error) => tell(`failed: ${error.message}\n`))
      .finally(() => writer.close())
      .catch(() => {});
    return new Response(readable, { headers: { 'content-type': 'text/plain; charset=utf-8' } });
  },
};

async function build(repoUrl: string, commit: string, env: Env, tell: (line: string) => unknown): Promise<string> {
  const name = repoUrl.split('/').pop()!.replace(/\.git$/, '');
  // The same commit is the same sandbox, so that building it again finds what was installed.
  const sandbox = getSandbox(env.Sandbox, `build-${name}-${commit.slice(0, 12)}`);
  const cwd = '/workspace/repo';
  if (!(await sandbox.exists(cwd)).exists) await sandbox.gitCheckout(repoUrl, { targetDir: cwd, commit });

  const onOutput = (_stream: string, data: string) => void tell(data);
  for (const command of ['npm install', 'npm run build', 'tar -czf /tmp/dist.tar.gz dist']) {
    const result = await sandbox.exec(command, { cwd, timeout: 300_000, onOutput });
    if (!result.success) throw new Error(`${command} ended with ${result.exitCode}`);
  }
  const artifact = await sandbox.readFile('/tmp/dist.tar.gz');
  const key = `builds/${name}/${commit}.tar.gz`;
  await env.ARTIFACTS.put(key, artifact.bytes());
  return key;
}
