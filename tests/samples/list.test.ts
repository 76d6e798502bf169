/** That each sample of the documents has its test, which makes the same calls. */

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import test from 'node:test';

interface Sample {
  in: string;
  lines: [number, number];
  /** The title of its test; or the example that it is; or why it is neither. */
  test?: string;
  example?: string;
  why?: string;
  /** What an example has in place of a call. */
  instead?: Record<string, string>;
  /** Digests of its calls; names of them, of one that is an example. */
  calls: string[];
}

type Calls = Map<string, { name: string; call: string }>;

// By its name at run time: it looks for the compiler from where it is.
const { callsOf, testsOf }: { callsOf(text: string): Calls; testsOf(text: string): Map<string, Calls> } = await import(new URL('../calls.mjs', import.meta.url).href);

const { documents, samples }: { documents: Record<string, object>; samples: Sample[] } = JSON.parse(readFileSync('list.json', 'utf8'));
const place = ({ in: document, lines }: Sample) => `${document}, line ${lines[0]}`;

const tests = new Map<string, Calls>();
for (const file of readdirSync('.').filter((name) => name.endsWith('.test.ts'))) {
  for (const [title, calls] of testsOf(readFileSync(file, 'utf8'))) {
    assert.ok(!tests.has(title), `two tests are called '${title}'`);
    tests.set(title, calls);
  }
}

test('each sample has a test that makes its calls, with the same arguments', (t) => {
  let calls = 0;
  const tested = samples.filter((sample) => sample.test !== undefined);
  for (const sample of tested) {
    const made = tests.get(sample.test!);
    assert.ok(made, `${place(sample)}: there is no test '${sample.test}'`);
    assert.deepEqual(sample.calls.filter((call) => !made.has(call)), [], `${place(sample)}: '${sample.test}' makes other calls`);
    calls += sample.calls.length;
  }
  t.diagnostic(`${tested.length} samples with ${calls} calls in ${new Set(tested.map((sample) => sample.test)).size} tests`);
});

test('each tutorial is an example that makes its calls', () => {
  const tutorials = samples.filter((sample) => sample.example !== undefined);
  assert.equal(tutorials.length, 4);
  for (const sample of tutorials) {
    const text = readFileSync(`../../examples/${sample.example}/index.ts`, 'utf8');
    const made = new Set([...callsOf(text).values()].map(({ name }) => name));
    const isMade = (name: string) => made.has(name) || text.includes(sample.instead?.[name] ?? 'nothing instead');
    // What exposes no port has no previews to pass on.
    const without = sample.calls.filter((name) => !isMade(name) && (name !== 'proxyToSandbox' || text.includes('exposePort')));
    assert.deepEqual(without, [], `${place(sample)}: the example ${sample.example} does without`);
  }
});

test('no test is of a sample that is not there, and the rest has a reason', () => {
  const listed = new Set(samples.map((sample) => sample.test));
  assert.deepEqual([...tests.keys()].filter((title) => !listed.has(title)), ['Container runtime, what is installed']);
  for (const sample of samples) {
    assert.ok(sample.in in documents, place(sample));
    assert.equal([sample.test, sample.example, sample.why].filter((each) => each !== undefined).length, 1, place(sample));
  }
  assert.deepEqual(samples.filter((sample) => sample.why !== undefined).map(place), ['docs-0.4, line 5468']);
});
