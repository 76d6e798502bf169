/** Pages "Code Interpreter" and "Use code interpreter", and what the skill's documents do with it. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type ExecutionResult, type Sandbox, getSandbox } from '@cloudflare/sandbox';
import { serve } from '@cloudflare/sandbox/serve';
import { env, sample } from './bench.js';

sample('Code Interpreter, createCodeContext()', async ({ sandbox }) => {
  const ctx = await sandbox.createCodeContext({
    language: 'python',
    envVars: { API_KEY: env.API_KEY },
  });
  const seen = await sandbox.runCode('import os; os.environ["API_KEY"]', { context: ctx });
  assert.deepEqual([ctx.language, ctx.cwd, ctx.createdAt instanceof Date], ['python', '/workspace', true]);
  assert.equal(seen.results[0]?.text, "'sk-test'");
});

sample('Code Interpreter, runCode() in a context', async ({ sandbox, console }) => {
  const ctx = await sandbox.createCodeContext({ language: 'python' });
  await sandbox.runCode('import math; radius = 5', { context: ctx });
  const result = await sandbox.runCode('math.pi * radius ** 2', { context: ctx });
  console.log(result.results[0]!.text);
  assert.deepEqual(console.lines, ['78.53981633974483']);
});

sample('Code Interpreter, runCode() without a context', async ({ sandbox, console }) => {
  const result = await sandbox.runCode(`
data = [1, 2, 3, 4, 5]
print(f"Sum: {sum(data)}")
sum(data)
`, { language: 'python' });
  console.log(result.logs.stdout);
  console.log(result.results[0]!.text);
  assert.deepEqual(console.lines, ['Sum: 15\n', '15']);
});

sample('Code Interpreter, errors', async ({ sandbox, console }) => {
  const result = await sandbox.runCode('x = 1 / 0', { language: 'python' });
  if (result.error) {
    console.error(result.error.name);
    console.error(result.error.value);
    console.error(result.error.traceback);
  }
  assert.deepEqual(console.lines.slice(0, 2), ['ZeroDivisionError', 'division by zero']);
  assert.match(console.lines[2]!, /x = 1 \/ 0/);
});

sample('Code Interpreter, listCodeContexts()', async ({ sandbox, console }) => {
  await sandbox.createCodeContext();
  const contexts = await sandbox.listCodeContexts();
  console.log(`Found ${contexts.length} contexts`);
  console.has('Found 1 contexts');
});

sample('Code Interpreter, deleteCodeContext()', async ({ sandbox }) => {
  const ctx = await sandbox.createCodeContext({ language: 'python' });
  await sandbox.runCode('print("Hello")', { context: ctx });
  await sandbox.deleteCodeContext(ctx.id);
  assert.deepEqual(await sandbox.listCodeContexts(), []);
  await assert.rejects(sandbox.runCode('1', { context: ctx }), (error: any) => error.code === 'CONTEXT_NOT_FOUND');
});

sample('Code Interpreter, charts', async ({ sandbox }) => {
  const answer = async () => {
    const result = await sandbox.runCode(`
import matplotlib.pyplot as plt
import numpy as np

x = np.linspace(0, 10, 100)
plt.plot(x, np.sin(x))
plt.show()
`, { language: 'python' });
    if (result.results[0]?.png) {
      const imageBuffer = Buffer.from(result.results[0].png, 'base64');
      return new Response(imageBuffer, {
        headers: { 'Content-Type': 'image/png' },
      });
    }
    return new Response(null, { status: 500 });
  };
  const image = Buffer.from(await (await answer()).arrayBuffer());
  assert.equal(image.subarray(1, 4).toString(), 'PNG');
});

sample('Code Interpreter, tables', async ({ sandbox }) => {
  const answer = async () => {
    const result = await sandbox.runCode(`
import pandas as pd
df = pd.DataFrame({'Name': ['Alice', 'Bob'], 'Age': [25, 30]})
df
`, { language: 'python' });
    if (result.results[0]?.html) {
      return new Response(result.results[0].html, {
        headers: { 'Content-Type': 'text/html' },
      });
    }
    return new Response(null, { status: 500 });
  };
  assert.match(await (await answer()).text(), /<table[^]*Alice/);
});

// Use code interpreter

sample('Use code interpreter, contexts', async ({ console }) => {
  const sandbox = getSandbox(env.Sandbox, 'my-sandbox');
  const pythonContext = await sandbox.createCodeContext({
    language: 'python',
  });
  console.log('Context ID:', pythonContext.id);
  console.log('Language:', pythonContext.language);
  const jsContext = await sandbox.createCodeContext({
    language: 'javascript',
  });
  console.has(/^Context ID: \S+$/);
  assert.equal((await sandbox.runCode('[1, 2].map((x) => x * 2)', { context: jsContext })).results[0]?.text, '[ 2, 4 ]');
});

sample('Use code interpreter, execute', async ({ sandbox, console }) => {
  const context = await sandbox.createCodeContext({
    language: 'python',
  });
  const result = await sandbox.runCode(context.id, `
print("Hello from Code Interpreter!")
result = 2 + 2
print(f"2 + 2 = {result}")
`);
  console.log('Output:', result.output);
  console.log('Success:', result.success);
  assert.deepEqual(console.lines, ['Output: Hello from Code Interpreter!\n2 + 2 = 4\n', 'Success: true']);
});

sample('Use code interpreter, state', async ({ sandbox, console }) => {
  const context = await sandbox.createCodeContext({
    language: 'python',
  });
  await sandbox.runCode(context.id, `
import pandas as pd
import numpy as np
data = [1, 2, 3, 4, 5]
print("Data initialized")
`);
  const result = await sandbox.runCode(context.id, `
mean = np.mean(data)
print(f"Mean: {mean}")
`);
  console.log(result.output);
  assert.deepEqual(console.lines, ['Mean: 3.0\n']);
});

sample('Use code interpreter, rich outputs', async ({ sandbox, console }) => {
  const context = await sandbox.createCodeContext();
  const answer = async (result: ExecutionResult) => {
    console.log('Formats:', result.formats);
    if (result.outputs.png) {
      return new Response(atob(result.outputs.png), {
        headers: { 'Content-Type': 'image/png' },
      });
    }
    if (result.outputs.html) {
      return new Response(result.outputs.html, {
        headers: { 'Content-Type': 'text/html' },
      });
    }
    if (result.outputs.json) {
      return Response.json(result.outputs.json);
    }
    return new Response(null, { status: 500 });
  };
  const result = await sandbox.runCode(context.id, `
import matplotlib.pyplot as plt

plt.plot([1, 2, 3], [1, 4, 9])
plt.title('Simple Chart')
plt.show()
`);
  const chart = await answer(result);
  assert.equal(chart.headers.get('content-type'), 'image/png');
  console.has(/Formats: text,png/);
  assert.match(await (await answer(await sandbox.runCode(context.id, 'import pandas as pd; pd.DataFrame({"a": [1]})'))).text(), /<table/);
  assert.deepEqual(await (await answer(await sandbox.runCode(context.id, '{"a": 1}'))).json(), { a: 1 });
});

sample('Use code interpreter, output as it comes', async ({ sandbox, console }) => {
  const context = await sandbox.createCodeContext({
    language: 'python',
  });
  const result = await sandbox.runCode(
    context.id,
    `
import time
for i in range(10):
    print(f"Processing item {i+1}/10...")
    time.sleep(0.5)
print("Done!")
`,
    {
      stream: true,
      onOutput: (data) => {
        console.log('Output:', data);
      },
      onResult: (result) => {
        console.log('Result:', result);
      },
      onError: (error) => {
        console.error('Error:', error);
      },
    },
  );
  assert.ok(result.success && console.lines.length > 5);
  console.has(/Processing item 10\/10/);
});

sample('Use code interpreter, code of a model', async ({ sandbox, console }) => {
  const model = createServer((_request, response) => {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ content: [{ type: 'text', text: 'a, b = 0, 1\nwhile a <= 100:\n    print(a)\n    a, b = b, a + b' }] }));
  });
  model.listen(0, '127.0.0.1');
  await once(model, 'listening');
  const real = globalThis.fetch;
  // The sample asks the service by its name.
  globalThis.fetch = ((input: string, init: RequestInit) => real(input.replace('https://api.anthropic.com', `http://127.0.0.1:${(model.address() as AddressInfo).port}`), init)) as typeof fetch;
  try {
    const response = await fetch('https://api.anthropic.com/v1/messages', {
      method: 'POST',
      headers: {
        'Content-Type': 'application/json',
        'x-api-key': env.ANTHROPIC_API_KEY,
        'anthropic-version': '2023-06-01',
      },
      body: JSON.stringify({
        model: 'claude-3-5-sonnet-20241022',
        max_tokens: 1024,
        messages: [{
          role: 'user',
          content: 'Write Python code to calculate fibonacci sequence up to 100',
        }],
      }),
    });
    const { content } = (await response.json()) as any;
    const code = content[0].text;
    const context = await sandbox.createCodeContext({ language: 'python' });
    const result = await sandbox.runCode(context.id, code);
    console.log('Generated code:', code);
    console.log('Output:', result.output);
    console.log('Success:', result.success);
  } finally {
    globalThis.fetch = real;
    model.close();
  }
  console.has(/Output: 0\n1\n1\n2[^]*89\n$/);
  console.has('Success: true');
});

sample('Use code interpreter, list', async ({ sandbox, console }) => {
  await sandbox.createCodeContext();
  const contexts = await sandbox.listCodeContexts();
  console.log(`${contexts.length} active contexts:`);
  for (const ctx of contexts) {
    console.log(`  ${ctx.id} (${ctx.language})`);
  }
  console.has('1 active contexts:');
  console.has(/^ {2}\S+ \(python\)$/);
});

sample('Use code interpreter, delete', async ({ sandbox, console }) => {
  const context = await sandbox.createCodeContext();
  await sandbox.createCodeContext();
  await sandbox.deleteCodeContext(context.id);
  console.log('Context deleted');
  const contexts = await sandbox.listCodeContexts();
  for (const ctx of contexts) {
    await sandbox.deleteCodeContext(ctx.id);
  }
  console.log('All contexts deleted');
  assert.deepEqual([contexts.length, await sandbox.listCodeContexts()], [1, []]);
});

// The skill's documents

sample('Skill, code interpreter', async ({ sandbox, console }) => {
  const ctx = await sandbox.createCodeContext({ language: 'python' });
  const result = await sandbox.runCode(`
import pandas as pd
df = pd.DataFrame({'a': [1, 2, 3], 'b': [4, 5, 6]})
df['a'].sum() # This value is automatically returned
`, { context: ctx });
  console.log(result.results[0]!.text);
  console.log(result.logs);
  console.log(result.error);
  assert.match(console.lines[0]!, /^(np\.int64\()?6\)?$/);
  assert.equal(console.lines[2], 'undefined');
});

sample('Skill pattern, one shot', async () => {
  const worker = {
    async fetch(request: Request, env: any) {
      const { code, language } = (await request.json()) as any;
      const sandboxId = `exec-${Date.now()}-${crypto.randomUUID()}`;
      const sandbox = getSandbox(env.Sandbox, sandboxId);
      try {
        const ctx = await sandbox.createCodeContext({ language });
        const result = await sandbox.runCode(code, {
          context: ctx,
          timeout: 10000,
        });
        return Response.json({
          result: result.results?.[0]?.text,
          logs: result.logs,
          error: result.error,
        });
      } finally {
        await sandbox.destroy();
      }
    },
  };
  await using server = await serve(worker, { port: 0, config: false });
  const answer = await (await fetch(server.url, { method: 'POST', body: JSON.stringify({ code: 'print("x"); 6 * 7', language: 'python' }) })).json();
  assert.deepEqual(answer, { result: '42', logs: { stdout: ['x\n'], stderr: [] } });
});

sample('Skill, code that nobody trusts', async ({ sandbox }) => {
  async function executeUntrustedCode(code: string, sandbox: Sandbox) {
    const ctx = await sandbox.createCodeContext({ language: 'python' });
    return await sandbox.runCode(code, { context: ctx, timeout: 10000 });
  }
  assert.equal((await executeUntrustedCode('1 + 1', sandbox)).results[0]?.text, '2');
});
