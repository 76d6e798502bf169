/** That docs/sdk/api.md says of each method of the reference, and of each of ours, whether it is here, and tells the truth. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import test from 'node:test';
import * as sdk from '@cloudflare/sandbox';
import * as openai from '@cloudflare/sandbox/openai';
import * as serving from '@cloudflare/sandbox/serve';
import * as testing from '@cloudflare/sandbox/testing';
import * as xterm from '@cloudflare/sandbox/xterm';

const ts = createRequire(new URL('../../../clients/typescript/', import.meta.url).href)('typescript');

type Here = 'yes' | 'accepted' | 'no';

/** What the table says, by name. A name of a class's own has the class before it. */
const table = new Map<string, Here>();
/** Entries of the package, and what each exports. */
const entries = new Map<string, string[]>();
for (const line of readFileSync('../../docs/sdk/api.md', 'utf8').split('\n')) {
  const [, first, since, here, why] = /^\| (.+?) \| (.+?) \| (yes|accepted|no) \|(.*)\|$/.exec(line) ?? [];
  if (!first) continue;
  assert.ok(here === 'yes' || why!.trim() !== '', `${first}: no reason`);
  assert.match(since!, /^(–|(skill )?0\.\d+(\.\d+)?(, 0\.\d+(\.\d+)?)*)$/, first);
  let names = [...first.matchAll(/`([^`]+)`/g)].map(([, name]) => name!);
  if (names[0]?.startsWith('/')) {
    const entry = names.shift()!;
    entries.set(entry, names);
    names = names.map((name) => `${entry}.${name}`);
  }
  for (const name of names) {
    assert.ok(!table.has(name), `${name} is there twice`);
    table.set(name, here as Here);
  }
}

/** Methods and accessors of a class and of those it extends. */
function methodsOf(type: { prototype: object }): string[] {
  const names: string[] = [];
  for (let at = type.prototype; at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    names.push(...Object.getOwnPropertyNames(at).filter((name) => !['constructor', 'toString', 'toJSON'].includes(name)));
  }
  return names;
}

const isError = (name: string) => /^[A-Z]\w*Error$/.test(name);
const operations = new Set([...methodsOf(sdk.Sandbox), ...methodsOf(sdk.ExecutionSession), 'id']);
const ours = new Set([
  ...Object.keys(sdk).filter((name) => !isError(name)),
  ...operations,
  ...methodsOf(sdk.Process).map((name) => `Process.${name}`),
  ...Object.entries({ openai, serve: serving, testing, xterm }).flatMap(([entry, module]) => Object.keys(module).map((name) => `/${entry}.${name}`)),
]);

/** Public names of the reference's declarations: of a module, and of its types. */
function reference(entry: string) {
  const require = createRequire(import.meta.url);
  const main = require.resolve('reference').replace(/index\.js$/, `${entry}index.d.ts`);
  const program = ts.createProgram([main], { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler, skipLibCheck: true, types: [] });
  const checker = program.getTypeChecker();
  const exported = checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(main)));
  const symbolOf = (symbol: any) => (symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol);
  const hidden = ts.ModifierFlags.Private | ts.ModifierFlags.Protected;
  return {
    values: exported.filter((symbol: any) => symbolOf(symbol).flags & ts.SymbolFlags.Value).map((symbol: any) => symbol.name) as string[],
    types: exported.filter((symbol: any) => !(symbolOf(symbol).flags & ts.SymbolFlags.Value)).map((symbol: any) => symbol.name) as string[],
    members(name: string): string[] {
      const type = checker.getDeclaredTypeOfSymbol(symbolOf(exported.find((symbol: any) => symbol.name === name)));
      return type.getProperties().filter((property: any) => !(ts.getCombinedModifierFlags(property.valueDeclaration ?? property.declarations[0]) & hidden)).map((property: any) => property.name);
    },
  };
}

const missing = (names: string[], isListed: (name: string) => boolean) => names.filter((name) => !isListed(name)).sort();

test('all that we export is in the table', () => {
  assert.deepEqual(missing([...ours], (name) => table.has(name)), []);
});

test('what the table has is here, and what it has not is not', () => {
  // They are there to say so.
  const refusing = ['mountBucket', 'unmountBucket'];
  for (const [name, here] of table) {
    if (name.startsWith('SandboxOptions.')) continue;
    const isHere = name.startsWith('Sandbox.') ? operations.has(name.slice('Sandbox.'.length)) : ours.has(name);
    assert.equal(isHere, here !== 'no' || refusing.includes(name), `${name}: ${here}`);
  }
});

test('all of the reference is in the table', () => {
  const theirs = reference('');
  assert.ok(theirs.values.length > 30 && theirs.members('Sandbox').length > 60);
  assert.deepEqual(missing(theirs.values.filter((name) => !isError(name)), (name) => table.has(name)), []);
  for (const type of ['Sandbox', 'ISandbox', 'ExecutionSession', 'CodeInterpreter']) {
    assert.deepEqual(missing(theirs.members(type), (name) => table.has(`Sandbox.${name}`) || table.has(name)), [], type);
  }
  assert.deepEqual(missing(theirs.members('SandboxOptions'), (name) => table.has(`SandboxOptions.${name}`)), []);
  const facts = ['id', 'pid', 'command', 'status', 'startTime', 'endTime', 'exitCode', 'sessionId'];
  assert.deepEqual(missing(theirs.members('Process'), (name) => facts.includes(name) || table.has(`Process.${name}`)), []);
});

test('what a session or a context of the reference can do, one of ours can', () => {
  const theirs = reference('');
  assert.deepEqual(missing(theirs.members('ExecutionSession'), (name) => name === 'id' || methodsOf(sdk.ExecutionSession).includes(name)), []);
  assert.deepEqual(missing(theirs.members('CodeInterpreter'), (name) => methodsOf(sdk.CodeInterpreter).includes(name)), []);
  assert.deepEqual(missing(theirs.members('Process'), (name) => methodsOf(sdk.Process).includes(name) || !/^(kill|get|wait)/.test(name)), []);
});

test('the other entries of the reference are in the table', () => {
  for (const entry of ['/xterm', '/openai', '/opencode', '/bridge']) {
    const listed = entries.get(entry) ?? [];
    assert.deepEqual(missing(reference(`${entry.slice(1)}/`).values.filter((name) => !isError(name)), (name) => listed.includes(name)), [], entry);
  }
});

test('each class of errors is in docs/sdk/errors.md', () => {
  const text = readFileSync('../../docs/sdk/errors.md', 'utf8');
  assert.deepEqual(missing(Object.keys(sdk).filter(isError), (name) => text.includes(`\`${name}\``)), []);
});

test('errors of the reference are errors of ours, under the same names', () => {
  assert.deepEqual(missing(reference('').values.filter(isError), (name) => name in sdk), []);
});

test('types of the reference have the same names here, but for those of what is not here', () => {
  const text = readFileSync('../../clients/typescript/src/index.ts', 'utf8');
  const isOurs = (name: string) => new RegExp(`\\b${name}\\b`).test(text);
  // Of the low-level clients and of what errors of theirs hold.
  const inner = /(Request|Response|Stub|Handler|CleanupResult|InfoResult|KillResult|ListResult|LogsResult|StartResult|ClientOptions|RequestConfig|Context|Reason|Kind|SandboxEnv|ExecutionCallbacks)$/;
  const absent = /Bucket|Tunnel/;
  assert.deepEqual(missing(reference('').types, (name) => isOurs(name) || inner.test(name) || absent.test(name)), []);
});

test('what an editor shows of each method, option and type says what it is', () => {
  const main = '../../clients/typescript/dist/esm/index.d.ts';
  const program = ts.createProgram([main], { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler, skipLibCheck: true, types: [] });
  const checker = program.getTypeChecker();
  const isSilent = (symbol: any) => symbol.getDocumentationComment(checker).length === 0;
  const silent: string[] = [];
  // Errors say it by their names, and docs/sdk/errors.md.
  for (const symbol of checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(main))).filter((each: any) => !isError(each.name))) {
    const target = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
    if (isSilent(target)) silent.push(symbol.name);
    const isClass = (target.flags & ts.SymbolFlags.Class) !== 0;
    if (!isClass && !symbol.name.endsWith('Options')) continue;
    for (const member of checker.getDeclaredTypeOfSymbol(target).getProperties()) {
      const isOurs = member.declarations?.[0].getSourceFile().fileName.includes('/dist/esm/');
      const isMethod = (member.flags & (ts.SymbolFlags.Method | ts.SymbolFlags.Accessor)) !== 0;
      const isInner = member.name.startsWith('__') || ['scope', 'toString', 'toJSON'].includes(member.name);
      if (isOurs && !isInner && (isMethod || !isClass) && isSilent(member)) silent.push(`${symbol.name}.${member.name}`);
    }
  }
  assert.deepEqual(silent, []);
});
