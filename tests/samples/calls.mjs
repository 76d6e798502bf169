/**
 * The calls that code makes to the package, so that a sample and its test can be compared. A call is its
 * name and its arguments, whole, without comments, spaces, line ends, commas at the end, and the kind of
 * its quotes. What it is called on is left out, because tests name their sandboxes.
 */
import { createHash } from 'node:crypto';
import { createRequire } from 'node:module';

const ts = createRequire(new URL('../../clients/typescript/', import.meta.url))('typescript');
const printer = ts.createPrinter({ removeComments: true });

/** What the documents call. */
const NAMES = new Set([
  ...['getSandbox', 'proxyToSandbox', 'parseSSEStream', 'destroy', 'setEnvVars', 'createSession', 'getSession', 'deleteSession'],
  ...['exec', 'execStream', 'startProcess', 'listProcesses', 'killProcess', 'killAllProcesses', 'getProcessLogs', 'streamProcessLogs', 'spawn', 'isProcessRunning'],
  ...['writeFile', 'readFile', 'mkdir', 'deleteFile', 'renameFile', 'moveFile', 'readdir', 'rm', 'gitCheckout'],
  ...['createCodeContext', 'runCode', 'listCodeContexts', 'deleteCodeContext', 'exposePort', 'unexposePort', 'getExposedPorts'],
]);

export const digestOf = (text) => createHash('sha256').update(text).digest('hex').slice(0, 10);

function plain(node, file) {
  const text = printer.printNode(ts.EmitHint.Unspecified, node, file);
  return text.replace(/["'`]/g, '"').replace(/\s+/g, ' ').replace(/ ?([^\w" ]) ?/g, '$1').replace(/[,;](?=[)\]}])/g, '');
}

function callsBelow(node, file) {
  const calls = new Map();
  const visit = (at) => {
    if (ts.isCallExpression(at)) {
      const { expression } = at;
      const name = ts.isPropertyAccessExpression(expression) ? expression.name.text : ts.isIdentifier(expression) ? expression.text : '';
      if (NAMES.has(name)) {
        const call = `${name}(${at.arguments.map((argument) => plain(argument, file)).join(',')})`;
        calls.set(digestOf(call), { name, call });
      }
    }
    ts.forEachChild(at, visit);
  };
  visit(node);
  return calls;
}

const parse = (text) => ts.createSourceFile('sample.ts', text, ts.ScriptTarget.Latest, true, ts.ScriptKind.TS);

/** The calls of a text, by their digests. */
export function callsOf(text) {
  const file = parse(text);
  return callsBelow(file, file);
}

/** The tests that a file declares by `sample(title, ...)`: their calls, by their titles. */
export function testsOf(text) {
  const file = parse(text);
  const tests = new Map();
  for (const statement of file.statements) {
    const call = ts.isExpressionStatement(statement) && ts.isCallExpression(statement.expression) ? statement.expression : undefined;
    if (call?.expression.getText() === 'sample') tests.set(call.arguments[0].text, callsBelow(call.arguments[1], file));
  }
  return tests;
}
