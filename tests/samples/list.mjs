// Holds list.json to the documents, which are not ours to keep here:
//
//   node list.mjs NAME=FILE...            fail if the list is not what the documents have
//   node list.mjs --write NAME=FILE...    write digests and calls anew; tests are assigned by hand
//
// NAME is a document of list.json. Every block in TypeScript has to be on the list, or to be the
// signature of a method; every block in JavaScript, to make the calls of the one in TypeScript behind it.
import { readFileSync, writeFileSync } from 'node:fs';
import { callsOf, digestOf } from './calls.mjs';

const path = new URL('list.json', import.meta.url);
const list = JSON.parse(readFileSync(path, 'utf8'));
const args = process.argv.slice(2);
const write = args[0] === '--write';
const faults = [];

/** Blocks of code between fences: language, first line, text. */
function blocksOf(lines) {
  const blocks = [];
  for (let at = 0; at < lines.length; at++) {
    const [, indent, language] = /^(\s*)```(\S*)/.exec(lines[at]) ?? [];
    if (indent === undefined) continue;
    const first = at + 1;
    while (!/^\s*```\s*$/.test(lines[++at]));
    blocks.push({ language, lines: [first + 1, at], text: lines.slice(first, at).map((line) => line.slice(indent.length)).join('\n') });
  }
  return blocks;
}

const isSignature = (text) => text.split('\n').length === 1 && /\): Promise<|\w\??: [\w<>[\], |]+[,)]/.test(text);
const isTypeScript = ({ language }) => language === 'ts' || language === 'typescript';

for (const [name, file] of (write ? args.slice(1) : args).map((arg) => arg.split('='))) {
  const document = list.documents[name];
  const lines = readFileSync(file, 'utf8').split('\n');
  const blocks = blocksOf(lines);
  const found = { blocks: {}, signatures: 0 };
  const listed = new Map(list.samples.filter((sample) => sample.in === name).map((sample) => [sample.lines[0], sample]));
  blocks.forEach((block, at) => {
    const language = block.language || 'none';
    found.blocks[language] = (found.blocks[language] ?? 0) + 1;
    if (isTypeScript(block) && isSignature(block.text)) found.signatures++;
    else if (isTypeScript(block) && !listed.has(block.lines[0])) faults.push(`${name}: the sample in line ${block.lines[0]} is not listed`);
    if (language !== 'js') return;
    const twin = blocks.slice(at + 1).find(isTypeScript);
    const other = [...callsOf(block.text).values()].filter(({ call }) => ![...callsOf(twin.text).values()].some((its) => its.call === call));
    for (const { call } of other) faults.push(`${name}: line ${block.lines[0]} calls ${call}, and line ${twin.lines[0]} does not`);
  });
  for (const sample of listed.values()) {
    const block = blocks.find((each) => each.lines[0] === sample.lines[0]);
    const text = block?.text ?? lines.slice(sample.lines[0] - 1, sample.lines[1]).join('\n');
    const calls = callsOf(text);
    const now = { digest: digestOf(text), calls: sample.example ? [...new Set([...calls.values()].map((call) => call.name))].sort() : [...calls.keys()] };
    if (write) Object.assign(sample, now);
    else if (JSON.stringify(now) !== JSON.stringify({ digest: sample.digest, calls: sample.calls })) faults.push(`${name}: the sample in line ${sample.lines[0]} is another`);
  }
  if (write) Object.assign(document, found);
  else if (JSON.stringify(found) !== JSON.stringify({ blocks: document.blocks, signatures: document.signatures })) faults.push(`${name}: its blocks are others`);
}

if (write) {
  const lines = list.samples.map((sample) => `    ${JSON.stringify(sample)}`);
  writeFileSync(path, `{\n  "documents": ${JSON.stringify(list.documents, null, 2).replaceAll('\n', '\n  ')},\n  "samples": [\n${lines.join(',\n')}\n  ]\n}\n`);
}
for (const fault of faults) console.error(fault);
console.log(`${list.samples.length} samples, ${list.samples.reduce((sum, { calls }) => sum + calls.length, 0)} calls`);
process.exit(faults.length > 0 ? 1 : 0);
