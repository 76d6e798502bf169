/** Agents of the OpenAI Agents SDK with a sandbox as their shell and their files. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import test, { type TestContext } from 'node:test';
import { type Sandbox, getSandbox } from '@sandbar/sandbox';
import { Editor, Shell } from '@sandbar/sandbox/openai';
import { Agent, type Editor as AgentEditor, OpenAIProvider, Runner, type Shell as AgentShell, applyPatchTool, shellTool } from '@openai/agents';

function sandboxOf(t: TestContext): Sandbox {
  const sandbox = getSandbox(undefined, `agent-${crypto.randomUUID()}`);
  t.after(() => sandbox.destroy());
  return sandbox;
}

test('commands keep their shell, and one that is over its time is the last', async (t) => {
  const run = async (timeoutMs: number) => {
    const shell: Shell & AgentShell = new Shell(sandboxOf(t));
    const { output } = await shell.run({ commands: ['cd /tmp', 'pwd; echo no >&2; (exit 3)', 'exit 4', 'echo begun; sleep 1000', 'echo never'], timeoutMs });
    return { shell, output };
  };
  let { shell, output } = await run(300);
  // The first time that was long enough for the others, and for the last to begin, however slow the machine is just now.
  for (let timeoutMs = 600; timeoutMs < 30_000 && !output[3]?.stdout; timeoutMs *= 2) ({ shell, output } = await run(timeoutMs));
  assert.deepEqual(output.map(({ stdout, stderr, outcome }) => [stdout, stderr, outcome]), [
    ['', '', { type: 'exit', exitCode: 0 }],
    ['/tmp\n', 'no\n', { type: 'exit', exitCode: 3 }],
    ['', "Session 'default' shell exited (exit code: 4)\n", { type: 'exit', exitCode: 4 }],
    ['begun\n', '', { type: 'timeout' }],
  ]);
  assert.deepEqual(shell.results.map(({ command, exitCode }) => [command, exitCode]), [['cd /tmp', 0], ['pwd; echo no >&2; (exit 3)', 3], ['exit 4', 4], ['echo begun; sleep 1000', null]]);
});

test('files are made, changed and deleted by diffs, below the root alone', async (t) => {
  const sandbox = sandboxOf(t);
  const editor: Editor & AgentEditor = new Editor(sandbox, '/workspace/app');
  assert.equal((await editor.createFile({ type: 'create_file', path: 'src/a.txt', diff: '+one\n+two' } as never)).status, 'completed');
  assert.equal((await editor.updateFile({ type: 'update_file', path: '/workspace/app/src/a.txt', diff: '@@\n one\n-two\n+three' } as never)).status, 'completed');
  assert.match((await sandbox.readFile('/workspace/app/src/a.txt')).content, /^one\nthree\n?$/);
  const misfit = await editor.updateFile({ path: 'src/a.txt', diff: '@@\n nothing\n-like\n+this' });
  assert.equal(misfit.status, 'failed');
  assert.match((await sandbox.readFile('/workspace/app/src/a.txt')).content, /three/);
  assert.match((await editor.updateFile({ path: 'none.txt', diff: '@@\n-a\n+b' })).output, /there is no file none\.txt/);
  for (const path of ['../out.txt', 'src/../../out.txt', '/workspace/app/../out.txt', '.', '']) {
    assert.equal((await editor.createFile({ path, diff: '+x' })).status, 'failed', path);
  }
  assert.equal((await sandbox.exists('/workspace/out.txt')).exists, false);
  assert.equal((await editor.deleteFile({ path: 'src/a.txt' })).status, 'completed');
  assert.equal((await sandbox.exists('/workspace/app/src/a.txt')).exists, false);
  assert.deepEqual(editor.results.slice(0, 3).map(({ operation, status }) => [operation, status]), [['create', 'completed'], ['update', 'completed'], ['update', 'failed']]);
});

test('an agent uses both', { timeout: 60_000 }, async (t) => {
  const sandbox = sandboxOf(t);
  // A model that patches, runs, and says what came of it.
  const asked: any[] = [];
  const answers = [
    [{ type: 'apply_patch_call', id: 'p1', call_id: 'c1', status: 'completed', operation: { type: 'create_file', path: 'add.py', diff: '+print(2 + 3)' } }],
    [{ type: 'shell_call', id: 's1', call_id: 'c2', status: 'completed', action: { commands: ['python3 /workspace/add.py'] } }],
    [{ type: 'message', id: 'm1', role: 'assistant', status: 'completed', content: [{ type: 'output_text', text: 'It is 5.', annotations: [] }] }],
  ];
  const model = createServer(async (request, response) => {
    let text = '';
    for await (const chunk of request) text += chunk;
    const output = answers[asked.length];
    asked.push(JSON.parse(text));
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ id: `r${asked.length}`, object: 'response', created_at: 0, model: 'gpt-5.1', status: 'completed', output, usage: { input_tokens: 1, output_tokens: 1, total_tokens: 2 } }));
  });
  model.listen(0, '127.0.0.1');
  await once(model, 'listening');
  t.after(() => model.close());
  const modelProvider = new OpenAIProvider({ apiKey: 'sk-test', baseURL: `http://127.0.0.1:${(model.address() as AddressInfo).port}`, useResponses: true });
  const agent = new Agent({ name: 'worker', model: 'gpt-5.1', tools: [shellTool({ shell: new Shell(sandbox) }), applyPatchTool({ editor: new Editor(sandbox) })] });
  const result = await new Runner({ modelProvider, tracingDisabled: true }).run(agent, 'What is 2 + 3?');
  assert.equal(result.finalOutput, 'It is 5.');
  assert.match(JSON.stringify(asked[2]!.input), /"stdout":"5\\n"/);
});
