/** Takes a CSV file and a question, and returns findings and a chart, by code that a model writes. */

import Anthropic from '@anthropic-ai/sdk';
import { type Sandbox, getSandbox, proxyToSandbox } from '@sandbar/sandbox';

export { Sandbox } from '@sandbar/sandbox';

interface Env {
  Sandbox: DurableObjectNamespace<Sandbox>;
  ANTHROPIC_API_KEY: string;
}

const CSV = '/workspace/data.csv';

const LOOK = `
import pandas as pd
table = pd.read_csv('${CSV}')
print('Rows:', len(table))
print(table.dtypes.to_string())
`;

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const preview = await proxyToSandbox(request, env);
    if (preview) return preview;
    if (request.method !== 'POST') return Response.json({ error: 'POST a form with `file` and `question`' }, { status: 405 });

    const form = await request.formData();
    const [file, question] = [form.get('file'), form.get('question')];
    if (!file || typeof file === 'string' || typeof question !== 'string' || !question) {
      return Response.json({ error: '`file` and `question` are required' }, { status: 400 });
    }

    await using sandbox = getSandbox(env.Sandbox, `analysis-${crypto.randomUUID()}`, { network: 'none' });
    await sandbox.writeFile(CSV, new Uint8Array(await file.arrayBuffer()));
    await sandbox.writeFile('/workspace/look.py', LOOK);
    const structure = await sandbox.exec('python /workspace/look.py');
    if (!structure.success) return Response.json({ error: 'the file is no CSV', details: structure.stderr }, { status: 400 });

    const code = await writeAnalysis(question, structure.stdout, env);
    await sandbox.writeFile('/workspace/analyze.py', code);
    const result = await sandbox.exec('python /workspace/analyze.py', { timeout: 120_000 });
    if (!result.success) return Response.json({ error: 'the analysis failed', details: result.stderr, code }, { status: 500 });

    let chart: string | null = null;
    if ((await sandbox.exists('/workspace/chart.png')).exists) {
      // `content` of a file that is no text is base64; `bytes()` would be its bytes.
      const { content } = await sandbox.readFile('/workspace/chart.png', { encoding: 'base64' });
      chart = `data:image/png;base64,${content}`;
    }
    return Response.json({ success: true, output: result.stdout, chart, code });
  },
};

async function writeAnalysis(question: string, structure: string, env: Env): Promise<string> {
  const anthropic = new Anthropic({ apiKey: env.ANTHROPIC_API_KEY });
  const message = await anthropic.messages.create({
    model: 'claude-sonnet-4-5',
    max_tokens: 2048,
    tools: [
      {
        name: 'generate_python_code',
        description: 'The code that answers the question',
        input_schema: { type: 'object', properties: { code: { type: 'string' } }, required: ['code'] },
      },
    ],
    tool_choice: { type: 'tool', name: 'generate_python_code' },
    messages: [
      {
        role: 'user',
        content: `The table in ${CSV}:\n${structure}\nQuestion: ${question}\nAnswer it with pandas, numpy and matplotlib: print findings, and save a chart to /workspace/chart.png where one helps.`,
      },
    ],
  });
  for (const block of message.content) {
    if (block.type === 'tool_use') return (block.input as { code: string }).code;
  }
  throw new Error('the model wrote no code');
}
