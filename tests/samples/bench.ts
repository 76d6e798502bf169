/** What the samples find around them: an environment, a console that remembers, files and programs. */

import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { type Sandbox, getSandbox, listSandboxes } from '@cloudflare/sandbox';

export interface Env {
  Sandbox: DurableObjectNamespace<Sandbox>;
  API_KEY: string;
  OPENAI_API_KEY: string;
  ANTHROPIC_API_KEY: string;
  GITHUB_TOKEN: string;
  DATABASE_URL: string;
  SECRET_KEY: string;
  ENVIRONMENT: string;
}

/** A Worker's environment. The namespace of Durable Objects is one in name only. */
export const env: Env = {
  Sandbox: { idFromName: (name: string) => name, get: () => ({ fetch() {} }) } as never,
  API_KEY: 'sk-test',
  OPENAI_API_KEY: 'sk-openai',
  ANTHROPIC_API_KEY: 'sk-ant',
  GITHUB_TOKEN: 'ghp_test',
  DATABASE_URL: 'postgres://db/app',
  SECRET_KEY: 'secret',
  ENVIRONMENT: 'staging',
};

/** A console whose lines are looked at. */
export class Recorder {
  readonly lines: string[] = [];
  log = (...parts: unknown[]) => void this.lines.push(parts.map(String).join(' '));
  error = this.log;
  has(pattern: RegExp | string): void {
    assert.ok(this.lines.some((line) => (typeof pattern === 'string' ? line.includes(pattern) : pattern.test(line))), `${pattern} in:\n${this.lines.join('\n')}`);
  }
}

export interface Given {
  t: TestContext;
  sandbox: Sandbox;
  console: Recorder;
}

/** One sample of the documents: `title` says which. All sandboxes go when it is over. */
export function sample(title: string, body: (given: Given) => Promise<unknown>): void {
  test(title, { timeout: 120_000 }, async (t) => {
    try {
      await body({ t, sandbox: getSandbox(env.Sandbox, 'my-sandbox'), console: new Recorder() });
    } finally {
      for await (const { id } of listSandboxes()) await getSandbox(env.Sandbox, id).destroy();
    }
  });
}

/** A node project: scripts that print what they do, a server on `PORT`. */
export async function project(sandbox: Sandbox, dir = '/workspace'): Promise<void> {
  const server = `
    const port = process.env.PORT ?? 3000;
    require('node:http').createServer((request, response) => response.end('ok ' + port + request.url)).listen(port, () => {
      console.log('Server listening on port ' + port);
      console.log('Server started');
    });`;
  const scripts = { build: 'echo building; echo warned >&2; mkdir -p dist; echo built > dist/app.js', test: 'echo tests passed', start: 'node -e "console.log(JSON.stringify(process.env))"', dev: 'node server.js' };
  await sandbox.writeFile(`${dir}/package.json`, JSON.stringify({ name: 'app', version: '1.0.0', scripts }));
  for (const name of ['server', 'app', 'api', 'admin', 'api-server']) await sandbox.writeFile(`${dir}/${name}.js`, server);
}

/** A repository that the sandbox's git finds under a URL of a code host, also with a token in it. */
export async function repository(sandbox: Sandbox, name = 'repo', files: Record<string, string> = {}): Promise<void> {
  for (const [path, content] of Object.entries({ 'README.md': '# It\n', 'package.json': JSON.stringify({ name, scripts: { build: 'mkdir -p dist && echo built > dist/out.js', test: 'echo ok' } }), ...files })) {
    await sandbox.writeFile(`/srv/work/${name}/${path}`, content);
  }
  const done = await sandbox.exec(`(set -e; cd /srv/work/${name}
    git init -q -b main; git add .; git -c user.name=t -c user.email=t@t commit -qm first
    for branch in develop feature-branch; do git branch $branch; done
    git clone -q --bare . /srv/git/user/${name}; ln -s ${name} /srv/git/user/${name}.git
    for host in 'https://github.com/' 'https://${env.GITHUB_TOKEN}@github.com/'; do
      git config --global --add url.file:///srv/git/.insteadOf "$host"
    done)`, { cwd: '/' });
  assert.equal(done.exitCode, 0, done.stderr);
}

/** A program of the sandbox. */
export const program = (sandbox: Sandbox, name: string, text: string) => sandbox.writeFile(`/usr/local/bin/${name}`, `#!/bin/bash\n${text}\n`, { mode: 0o755 });

/** A store of objects or pairs, as Workers have them. */
export class Store {
  readonly entries = new Map<string, string>();
  async put(key: string, value: unknown): Promise<void> {
    this.entries.set(key, String(value));
  }
  async get(key: string): Promise<any> {
    const value = this.entries.get(key);
    if (value === undefined) return null;
    return Object.assign(new String(value), { text: async () => value });
  }
}
