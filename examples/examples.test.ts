/** Each example as it is, on Node and in workerd, against a live server; models and code hosts are small servers of this file. */

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { type IncomingMessage, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import test, { type TestContext } from 'node:test';
import { getSandbox, listSandboxes } from '@sandbar/sandbox';
import aiCodeExecutor from './ai-code-executor/index.js';
import buildPipeline from './build-pipeline/index.js';
import analyzeData from './analyze-data/index.js';
import chatAgent from './chat-agent/index.js';
import codeReviewBot from './code-review-bot/index.js';
import persistentWorkspace from './persistent-workspace/index.js';
import scheduledJob from './scheduled-job/index.js';
import testingPipeline from './testing-pipeline/index.js';
import { RUNTIMES, type Running, type Runtime } from './runtime.js';

const TOKEN = 'ghp_example';

interface Asked {
  path: string;
  headers: IncomingMessage['headers'];
  body: any;
}

/** A server that answers JSON and remembers what it was asked. */
async function host(t: TestContext, answer: (asked: Asked) => unknown): Promise<{ url: string; asked: Asked[]; until(isEnough: () => boolean): Promise<void> }> {
  const asked: Asked[] = [];
  let wake = () => {};
  const server = createServer(async (request, response) => {
    let text = '';
    for await (const chunk of request) text += chunk;
    const call = { path: `${request.method} ${request.url}`, headers: request.headers, body: text ? JSON.parse(text) : undefined };
    asked.push(call);
    wake();
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(answer(call)));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    async until(isEnough) {
      while (!isEnough()) await new Promise<void>((resolve) => (wake = resolve));
    },
  };
}

/** A model that says one thing. Its client library finds it by the environment. */
async function model(t: TestContext, content: object): Promise<Asked[]> {
  const { url, asked } = await host(t, () => ({
    id: 'msg_1',
    type: 'message',
    role: 'assistant',
    model: 'claude-sonnet-4-5',
    content: [content],
    stop_reason: 'end_turn',
    usage: { input_tokens: 1, output_tokens: 1 },
  }));
  process.env.ANTHROPIC_BASE_URL = url;
  t.after(() => delete process.env.ANTHROPIC_BASE_URL);
  return asked;
}

async function run(t: TestContext, runtime: Runtime, name: string, worker: object, vars: Record<string, string> = {}): Promise<Running> {
  const running = await runtime.start(name, worker, { ANTHROPIC_API_KEY: 'sk-ant', GITHUB_TOKEN: TOKEN, ...vars });
  t.after(async () => {
    await running.close();
    for await (const { id } of listSandboxes()) await getSandbox(undefined, id).destroy();
  });
  return running;
}

/** A test on each runtime. */
function example(title: string, body: (t: TestContext, runtime: Runtime) => Promise<void>): void {
  for (const runtime of RUNTIMES) test(`${title}, ${runtime.name}`, { timeout: 120_000 }, (t) => body(t, runtime));
}

const json = (body: object): RequestInit => ({ method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });

example('AI code executor', async (t, runtime) => {
  const asked = await model(t, { type: 'text', text: '```python\ndef f(n): return n if n < 2 else f(n - 1) + f(n - 2)\nprint(f(10))\n```' });
  const { url } = await run(t, runtime, 'ai-code-executor', aiCodeExecutor);
  const answer = (await (await fetch(`${url}/execute`, json({ question: 'What is the 10th Fibonacci number?' }))).json()) as any;
  assert.deepEqual([answer.success, answer.output, answer.error], [true, '55\n', '']);
  assert.match(asked[0]!.body.messages[0].content, /10th Fibonacci/);
  assert.match(String(asked[0]!.headers['x-api-key'] ?? asked[0]!.headers.authorization), /sk-ant/);
  assert.equal((await fetch(`${url}/execute`, json({}))).status, 400);
  const left = [];
  for await (const sandbox of listSandboxes()) left.push(sandbox.id);
  assert.deepEqual(left, []);
});

example('data analysis with AI', async (t, runtime) => {
  const code = `
import pandas as pd, matplotlib
matplotlib.use('Agg')
table = pd.read_csv('/workspace/data.csv')
print(table.groupby('year').rating.mean().to_string())
table.plot.bar(x='year', y='rating').figure.savefig('/workspace/chart.png')
`;
  const asked = await model(t, { type: 'tool_use', id: 'toolu_1', name: 'generate_python_code', input: { code } });
  const { url } = await run(t, runtime, 'analyze-data', analyzeData);
  const form = new FormData();
  form.set('file', new File(['year,rating,title\n2020,8.5,Movie A\n2021,7.2,Movie B\n2022,9.1,Movie C\n'], 'test.csv'));
  form.set('question', 'What is the average rating by year?');
  const answer = (await (await fetch(url, { method: 'POST', body: form })).json()) as any;
  assert.equal(answer.success, true, JSON.stringify(answer));
  assert.match(answer.output, /2021\s+7\.2/);
  const png = Buffer.from(answer.chart.replace('data:image/png;base64,', ''), 'base64');
  assert.deepEqual([png.subarray(1, 4).toString(), png.length > 1000], ['PNG', true]);
  assert.match(asked[0]!.body.messages[0].content, /Rows: 3[^]*average rating/);
});

example('code review bot', async (t, runtime) => {
  const asked = await model(t, { type: 'text', text: 'There is a bug in `add`.' });
  const hub = await host(t, ({ path }) =>
    path.includes('/compare/') ? { files: [{ filename: 'add.js', status: 'modified', patch: '+return a - b' }, { filename: 'gone.js', status: 'removed' }] } : { id: 1 },
  );
  const server = await run(t, runtime, 'code-review-bot', codeReviewBot, { WEBHOOK_SECRET: 'hush', GITHUB_API_URL: hub.url });
  // The sandbox's git finds the code host's repository in the sandbox.
  const prepared = await getSandbox(undefined, 'review-app-7').exec(`set -e
    mkdir -p /srv/octo/app && cd /srv/octo/app && git init -q -b feature
    echo 'const add = (a, b) => a - b;' > add.js
    git add . && git -c user.name=t -c user.email=t@t commit -qm first && ln -s app ../app.git
    git config --global url.file:///srv/.insteadOf 'https://${TOKEN}@github.com/'`, { cwd: '/' });
  assert.equal(prepared.exitCode, 0, prepared.stderr);
  const body = JSON.stringify({
    action: 'opened',
    pull_request: { number: 7, title: 'Add add', head: { ref: 'feature', sha: 'b'.repeat(40) }, base: { sha: 'a'.repeat(40) } },
    repository: { name: 'app', owner: { login: 'octo' } },
  });
  const signed = (secret: string) => ({ 'x-github-event': 'pull_request', 'x-hub-signature-256': `sha256=${createHmac('sha256', secret).update(body).digest('hex')}` });
  assert.equal((await fetch(`${server.url}/webhook`, { method: 'POST', body, headers: signed('wrong') })).status, 401);
  const response = await fetch(`${server.url}/webhook`, { method: 'POST', body, headers: signed('hush') });
  assert.equal(response.status, 200);
  await response.text();
  const comments = () => hub.asked.filter(({ path }) => path === 'POST /repos/octo/app/issues/7/comments').map(({ body }) => body.body);
  // The Worker goes on after its answer.
  await hub.until(() => comments().length === 2);
  assert.deepEqual(comments(), ['Code review in progress...', '## Code review\n\nThere is a bug in `add`.']);
  assert.match(asked[0]!.body.messages[0].content, /File: add\.js[^]*\+return a - b[^]*const add = \(a, b\) => a - b;/);
  assert.match(String(hub.asked[0]!.headers.authorization), new RegExp(TOKEN));
});

example('chat agent with sessions', async (t, runtime) => {
  const { url, kept } = await run(t, runtime, 'chat-agent', chatAgent);
  const say = async (conversationId: string, command: string) => (await (await fetch(url, json({ conversationId, userId: 'ada', command }))).json()) as any;
  await say('one', 'cd /tmp && export TOPIC=cats');
  assert.deepEqual(await say('one', 'pwd; echo $TOPIC'), { output: '/tmp\ncats\n', error: '', exitCode: 0 });
  assert.equal((await say('two', 'pwd; echo ${TOPIC:-nothing}')).output, '/workspace\nnothing\n');
  assert.equal(typeof JSON.parse(String((await kept('KV')).get('conversation:one'))).sessionId, 'string');
});

example('scheduled job', async (t, runtime) => {
  const { runScheduled, kept } = await run(t, runtime, 'scheduled-job', scheduledJob);
  await runScheduled('0 6 * * *');
  const [report] = (await kept('REPORTS')).values();
  assert.match(JSON.parse(String(report)).python, /^3\./);
});

example('persistent workspace', async (t, runtime) => {
  const { url } = await run(t, runtime, 'persistent-workspace', persistentWorkspace);
  const headers = { 'x-user-id': 'ada' };
  assert.equal((await fetch(`${url}/files/notes/a.txt`, { method: 'PUT', headers, body: 'noted' })).status, 204);
  assert.equal(await (await fetch(`${url}/files/notes/a.txt`, { headers })).text(), 'noted');
  assert.equal((await fetch(`${url}/files/none`, { headers })).status, 404);
  assert.equal((await fetch(url, json({ command: 'ls' }))).status, 401);
  const events = await (await fetch(url, { ...json({ command: 'cat notes/a.txt' }), headers })).text();
  assert.match(events, /event: stdout\ndata: .*"noted"/);
  assert.match(events, /event: complete\n/);
});

/** A repository that is in the sandbox itself; its commit. */
async function repository(id: string, files: Record<string, string>): Promise<string> {
  const sandbox = getSandbox(undefined, id);
  for (const [path, content] of Object.entries(files)) await sandbox.writeFile(`/srv/repo/${path}`, content);
  const made = await sandbox.exec('git init -q -b main && git add . && git -c user.name=t -c user.email=t@t commit -qm first && git rev-parse HEAD', { cwd: '/srv/repo' });
  assert.equal(made.exitCode, 0, made.stderr);
  return made.stdout.trim();
}

example('build pipeline', async (t, runtime) => {
  const { url, kept } = await run(t, runtime, 'build-pipeline', buildPipeline);
  const files = { 'package.json': JSON.stringify({ scripts: { build: 'echo building && mkdir -p dist && echo built > dist/out.js' } }) };
  // The pipeline's sandbox is named after the commit, which is known only when it is made.
  const commit = await repository('made', files);
  const archive = await getSandbox(undefined, 'made').exec('tar -C /srv -czf /tmp/repo.tar.gz repo');
  assert.equal(archive.exitCode, 0);
  const target = getSandbox(undefined, `build-repo-${commit.slice(0, 12)}`);
  await target.writeFile('/tmp/repo.tar.gz', (await getSandbox(undefined, 'made').readFile('/tmp/repo.tar.gz')).bytes());
  await target.exec('mkdir -p /srv && tar -C /srv -xzf /tmp/repo.tar.gz', { cwd: '/' });
  for (const _round of [1, 2]) {
    const told = await (await fetch(url, json({ repoUrl: 'file:///srv/repo', commit }))).text();
    assert.match(told, new RegExp(`building[^]*stored builds/repo/${commit}`));
  }
  assert.deepEqual([...(await kept('ARTIFACTS')).values()][0]!.subarray(0, 2), Buffer.from([0x1f, 0x8b]));
});

example('automated testing pipeline', async (t, runtime) => {
  // The pipeline's sandbox has a random name; this one is known before, so that there is a repository.
  const { url } = await run(t, runtime, 'testing-pipeline', testingPipeline, { UUID: 'known' });
  await repository('test-known', { 'package.json': JSON.stringify({ scripts: { test: 'echo "1 test passed"; echo warned >&2' } }) });
  const report = (await (await fetch(url, json({ repoUrl: 'file:///srv/repo', branch: 'main' }))).json()) as any;
  assert.deepEqual([report.success, report.exitCode, report.projectType], [true, 0, 'nodejs'], JSON.stringify(report));
  assert.match(report.output, /1 test passed/);
  const asked = await fetch(url, json({ repoUrl: 'https://code.invalid/none' }));
  // A repository that cannot be reached is an error of the Worker, and nothing is left.
  assert.equal(asked.status, 500);
  assert.equal((await fetch(url, json({}))).status, 400);
  const left = [];
  for await (const sandbox of listSandboxes()) left.push(sandbox.id);
  assert.deepEqual(left, []);
});
