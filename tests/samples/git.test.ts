/** Page "Work with Git", gitCheckout() of "Files", and what the skill's documents do with repositories. */

import assert from 'node:assert/strict';
import { GitRepositoryNotFoundError, type Sandbox, getSandbox } from '@cloudflare/sandbox';
import { type Env, Store, env, program, repository, sample } from './bench.js';

const branchOf = async (sandbox: ReturnType<typeof getSandbox>, dir: string) => (await sandbox.exec(`git -C ${dir} branch --show-current`)).stdout.trim();

sample('Files, gitCheckout()', async ({ sandbox }) => {
  await repository(sandbox);
  await sandbox.gitCheckout('https://github.com/user/repo');
  const result = await sandbox.gitCheckout('https://github.com/user/repo', {
    branch: 'develop',
    targetDir: 'my-project',
  });
  assert.deepEqual([result.success, result.branch, result.targetDir, result.repoUrl], [true, 'develop', '/workspace/my-project', 'https://github.com/user/repo']);
  assert.equal(await branchOf(sandbox, '/workspace/repo'), 'main');
});

sample('Work with Git, clone', async () => {
  const sandbox = getSandbox(env.Sandbox, 'my-sandbox');
  for (const name of ['repo', 'large-repo', 'my-app']) await repository(sandbox, name);
  await sandbox.gitCheckout('https://github.com/user/repo');
  // Where the first is: the document's samples are each for a sandbox of their own.
  await sandbox.rm('/workspace/repo', { recursive: true });
  await sandbox.gitCheckout('https://github.com/user/repo', {
    branch: 'develop',
  });
  await sandbox.gitCheckout('https://github.com/user/large-repo', {
    depth: 1,
  });
  await sandbox.gitCheckout('https://github.com/user/my-app', {
    targetDir: '/workspace/project',
  });
  assert.deepEqual(await Promise.all(['repo', 'large-repo', 'project'].map((dir) => branchOf(sandbox, `/workspace/${dir}`))), ['develop', 'main', 'main']);
});

sample('Work with Git, private repositories', async ({ sandbox }) => {
  await repository(sandbox, 'private-repo');
  const token = env.GITHUB_TOKEN;
  const repoUrl = `https://${token}@github.com/user/private-repo.git`;
  const result = await sandbox.gitCheckout(repoUrl);
  assert.equal(result.targetDir, '/workspace/private-repo');
  const stored = await sandbox.exec('cat private-repo/.git/config');
  assert.ok(!stored.stdout.includes(token) && !result.repoUrl.includes(token));
});

sample('Work with Git, clone and build', async ({ console }) => {
  // That each command begins in /workspace is what the page means; the page on sessions says otherwise.
  const sandbox = getSandbox(env.Sandbox, 'my-sandbox', { enableDefaultSession: false });
  await repository(sandbox, 'my-app');
  await sandbox.gitCheckout('https://github.com/user/my-app');
  const repoName = 'my-app';
  await sandbox.exec(`cd ${repoName} && npm install`);
  const built = await sandbox.exec(`cd ${repoName} && npm run build`);
  console.log('Build complete');
  assert.ok(built.success);
});

sample('Work with Git, branches', async () => {
  const sandbox = getSandbox(env.Sandbox, 'my-sandbox', { enableDefaultSession: false });
  await repository(sandbox);
  await sandbox.gitCheckout('https://github.com/user/repo');
  const switched = await sandbox.exec('cd repo && git checkout feature-branch');
  assert.ok(switched.success, switched.stderr);
  const made = await sandbox.exec('cd repo && git checkout -b new-feature');
  assert.ok(made.success, made.stderr);
  assert.equal(await branchOf(sandbox, '/workspace/repo'), 'new-feature');
});

sample('Work with Git, changes', async () => {
  const sandbox = getSandbox(env.Sandbox, 'my-sandbox', { enableDefaultSession: false });
  await repository(sandbox);
  await sandbox.gitCheckout('https://github.com/user/repo');
  const readme = await sandbox.readFile('/workspace/repo/README.md');
  await sandbox.writeFile('/workspace/repo/README.md', readme.content + '\n\n## New Section');
  await sandbox.exec('cd repo && git config user.name "Sandbox Bot"');
  await sandbox.exec('cd repo && git config user.email "bot@example.com"');
  await sandbox.exec('cd repo && git add README.md');
  const committed = await sandbox.exec('cd repo && git commit -m "Update README"');
  assert.ok(committed.success, committed.stderr);
  assert.match((await sandbox.exec('cd repo && git show')).stdout, /\+## New Section/);
});

sample('Work with Git, authentication fails', async ({ sandbox }) => {
  await repository(sandbox, 'private-repo');
  if (!env.GITHUB_TOKEN) {
    throw new Error('GITHUB_TOKEN not configured');
  }
  const repoUrl = `https://${env.GITHUB_TOKEN}@github.com/user/private-repo.git`;
  await sandbox.gitCheckout(repoUrl);
  assert.ok((await sandbox.exists('/workspace/private-repo/README.md')).exists);
  await assert.rejects(sandbox.gitCheckout('https://github.com/user/none'), GitRepositoryNotFoundError);
});

sample('Work with Git, large repositories', async ({ sandbox }) => {
  await repository(sandbox, 'large-repo');
  await sandbox.gitCheckout('https://github.com/user/large-repo', {
    depth: 1,
  });
  assert.ok((await sandbox.exists('/workspace/large-repo/README.md')).exists);
});

sample('Skill, build artifacts', async ({ sandbox }) => {
  await repository(sandbox, 'project');
  const repoUrl = 'https://github.com/user/project';
  for (const _round of [1, 2]) {
    const exists = await sandbox.readdir('/workspace/project').catch(() => null);
    if (!exists) {
      await sandbox.gitCheckout(repoUrl, '/workspace/project');
      await sandbox.exec('npm install', { cwd: '/workspace/project' });
    }
    const built = await sandbox.exec('npm run build', { cwd: '/workspace/project' });
    assert.ok(built.success);
  }
});

sample('Skill, git', async ({ sandbox }) => {
  await repository(sandbox);
  await sandbox.gitCheckout(
    'https://github.com/user/repo',
    '/workspace/repo',
  );
  const status = await sandbox.exec('git status', { cwd: '/workspace/repo' });
  const diff = await sandbox.exec('git diff', { cwd: '/workspace/repo' });
  assert.match(status.stdout, /working tree clean/);
  assert.equal(diff.stdout, '');
});

sample('Skill pattern, build pipeline', async () => {
  async function runBuild(repoUrl: string, commit: string, env: { Sandbox: DurableObjectNamespace<Sandbox>; R2: Store }) {
    const sandboxId = `build-${repoUrl.split('/').pop()}-${commit}`;
    const sandbox = getSandbox(env.Sandbox, sandboxId);
    try {
      await sandbox.gitCheckout(repoUrl, '/workspace/repo');
      await sandbox.exec(`git checkout ${commit}`, {
        cwd: '/workspace/repo',
      });
      const install = await sandbox.exec('npm install', {
        cwd: '/workspace/repo',
        timeout: 180000,
      });
      if (!install.success) {
        throw new Error(`Install failed: ${install.stderr}`);
      }
      const build = await sandbox.exec('npm run build', {
        cwd: '/workspace/repo',
        timeout: 300000,
      });
      if (!build.success) {
        throw new Error(`Build failed: ${build.stderr}`);
      }
      const dist = await sandbox.exec('tar -czf dist.tar.gz dist', {
        cwd: '/workspace/repo',
      });
      const artifact = await sandbox.readFile('/workspace/repo/dist.tar.gz');
      await env.R2.put(`builds/${commit}.tar.gz`, artifact);
      return { success: true, artifactKey: `builds/${commit}.tar.gz` };
    } finally {
      // Kept.
    }
  }
  const commit = 'develop';
  await repository(getSandbox(env.Sandbox, `build-repo-${commit}`));
  const worker = { Sandbox: env.Sandbox, R2: new Store() };
  const { artifactKey } = await runBuild('https://github.com/user/repo', commit, worker);
  // What is stored is the text of the result: the archive in base64.
  assert.deepEqual([...Buffer.from(worker.R2.entries.get(artifactKey)!, 'base64').subarray(0, 2)], [0x1f, 0x8b]);
});

sample('Skill pattern, an agent in a repository', async () => {
  async function runClaudeCodeOnRepo(repoUrl: string, task: string, env: Env): Promise<{ diff: string; logs: string }> {
    const sandboxId = `claude-${Date.now()}`;
    const sandbox = getSandbox(env.Sandbox, sandboxId);
    await repository(sandbox);
    await program(sandbox, 'claude', '[ "$ANTHROPIC_API_KEY" = sk-ant ] && echo "task: $2" && echo changed >> README.md');
    try {
      await sandbox.gitCheckout(repoUrl, '/workspace/repo');
      await sandbox.exec(`export ANTHROPIC_API_KEY="${env.ANTHROPIC_API_KEY}"`);
      const result = await sandbox.exec(
        `claude -p "${task}" --permission-mode acceptEdits`,
        {
          cwd: '/workspace/repo',
          timeout: 300000,
        },
      );
      const diff = await sandbox.exec('git diff', {
        cwd: '/workspace/repo',
      });
      return {
        diff: diff.stdout,
        logs: result.stdout,
      };
    } finally {
      await sandbox.destroy();
    }
  }
  const { diff, logs } = await runClaudeCodeOnRepo('https://github.com/user/repo', 'say more', env);
  assert.equal(logs, 'task: say more\n');
  assert.match(diff, /\+changed/);
});
