// One context's JavaScript: V8's own REPL mode, spoken to through a socket.
//
// Frames are a length in four bytes, big-endian, and so many bytes of JSON. What code prints goes
// through descriptors 1 and 2, which are made to block: Node would queue what a pipe does not take. Frames
// are written at once too, so that what was written before a result is in the pipe before the result is
// in the socket.
"use strict";
const fs = require("fs");
const inspector = require("inspector");
const { createRequire } = require("module");
const net = require("net");
const path = require("path");
const vm = require("vm");
const show = load("show");

const nap = new Int32Array(new SharedArrayBuffer(4));
let run = null;
let count = 0;

function writeAll(data) {
  for (let at = 0; at < data.length; ) {
    try {
      at += fs.writeSync(3, data, at, data.length - at);
    } catch (error) {
      if (error.code !== "EAGAIN") process.exit(0);
      Atomics.wait(nap, 0, 0, 1);
    }
  }
}

function send(message) {
  const awaits = message.op === "result" || message.op === "clear";
  const text = Buffer.from(JSON.stringify({ id: run ? run.id : null, awaits, ...message }).toWellFormed());
  const head = Buffer.alloc(4);
  head.writeUInt32BE(text.length);
  writeAll(Buffer.concat([head, text]));
  if (!awaits) return;
  unread += 1;
  waitUntilRead();
}

// What is written after a result comes after it: the agent says when it has read both.
let unread = 0;
const chunk = Buffer.alloc(4096);
function waitUntilRead() {
  while (unread > 0) {
    try {
      const length = fs.readSync(3, chunk, 0, chunk.length);
      if (length === 0) process.exit(0);
      hear(Buffer.from(chunk.subarray(0, length)));
    } catch (error) {
      if (error.code !== "EAGAIN") process.exit(0);
      Atomics.wait(nap, 0, 0, 1);
    }
  }
}

// Takes what the agent says: that it has read something, or what is to be done next.
let said = Buffer.alloc(0);
let turn = Promise.resolve();
function hear(data) {
  said = said.length ? Buffer.concat([said, data]) : data;
  while (said.length >= 4 && said.length >= 4 + said.readUInt32BE(0)) {
    const length = said.readUInt32BE(0);
    const message = JSON.parse(said.subarray(4, 4 + length).toString());
    said = said.subarray(4 + length);
    if (message.op === "read") unread = Math.max(0, unread - 1);
    if (message.op === "run") turn = turn.then(() => execute(message));
  }
}

const session = new inspector.Session();
session.connect();
const typescript = language === "typescript";
const translate = load("translate");
if (typescript) {
  const missing = translate.missing();
  if (missing) {
    send({ op: "missing", what: "typescript", why: missing, version: process.version });
    process.exit(0);
  }
}

// The code's own globals, as in Node's REPL.
const file = path.join(process.cwd(), "cell.js");
globalThis.require = createRequire(file);
globalThis.module = { exports: {}, paths: [], filename: file };
globalThis.exports = globalThis.module.exports;
globalThis.__dirname = process.cwd();
globalThis.__filename = file;
// Of a Node that calls the loader below experimental: nobody who writes `import` wants to know.
const emitWarning = process.emitWarning;
process.emitWarning = (warning, ...rest) => {
  if (!String(warning).includes("USE_MAIN_CONTEXT_DEFAULT_LOADER")) emitWarning(warning, ...rest);
};
const loader = vm.constants && vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER;
const hide = (name, value) => Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
// What `import` in a cell becomes: V8 has no loader for what is evaluated.
hide(
  "__import",
  new vm.Script("(name, options) => (options === undefined ? import(name) : import(name, options))", {
    filename: file,
    importModuleDynamically: loader || ((name) => import(resolve(name))),
  }).runInThisContext(),
);
function resolve(name) {
  if (require("module").isBuiltin(name)) return name;
  return require("url").pathToFileURL(globalThis.require.resolve(name)).href;
}
for (const [name, helper] of Object.entries(show.helpers((bundle) => send({ op: "result", main: false, ...bundle })))) {
  hide(name, helper);
}
globalThis.display.clear = (options) => send({ op: "clear", wait: Boolean(options && options.wait) });

let contextId;
session.on("Runtime.executionContextCreated", ({ params }) => {
  contextId ??= params.context.id;
});
session.post("Runtime.enable");

// An interrupt reaches code that does not come back to the event loop only inside of such a script.
const GATE = {};
const NAME = Symbol.for("sandbar");
Object.defineProperty(globalThis, NAME, { value: GATE });
const guarded = new vm.Script('globalThis[Symbol.for("sandbar")].post()', { filename: "sandbar:gate" });

// What follows the code's first `await` is done in there too, as far as it waits for nothing of the event
// loop; from where it is called there must be nothing else that waits to be done.
function post(method, params, stop) {
  return new Promise((done, failed) => {
    GATE.post = () => {
      session.post(method, params, (error, result) => (error ? failed(error) : done(result)));
      process._tickCallback?.();
    };
    setImmediate(() => {
      // One that came before was for the code before.
      interrupt = stop;
      try {
        guarded.runInThisContext({ breakOnSigint: true });
      } catch (error) {
        if (error?.code !== "ERR_SCRIPT_EXECUTION_INTERRUPTED") throw error;
        failed(error);
      }
    });
  });
}

// Node tells such scripts of an interrupt by a thread of its own. Where that gets to it too late, because
// the interrupt has ended what the script waited for, it ends the next such script: this one.
const LATE_MS = 100;
function meetLateInterrupt() {
  GATE.post = () => Atomics.wait(nap, 0, 0, LATE_MS);
  try {
    guarded.runInThisContext({ breakOnSigint: true });
  } catch {
    // It came.
  }
}

// The object behind the inspector's handle on it.
function valueOf(remote) {
  if (!remote.objectId) {
    return remote.unserializableValue !== undefined ? show.unserialized(remote.unserializableValue) : remote.value;
  }
  session.post("Runtime.callFunctionOn", {
    functionDeclaration: 'function (value) { globalThis[Symbol.for("sandbar")].value = value; }',
    executionContextId: contextId,
    arguments: [{ objectId: remote.objectId }],
  });
  session.post("Runtime.releaseObject", { objectId: remote.objectId });
  const { value } = GATE;
  delete GATE.value;
  return value;
}

class Interrupted extends Error {}

// Not in the code's way: only while it runs, and only for what it leaves to the event loop.
let interrupt = () => {};
process.on("SIGINT", () => interrupt());

function uncaught(error) {
  if (run && !run.uncaught) {
    run.uncaught = { error };
    run.fail?.();
  } else {
    process.stderr.write(`Uncaught ${show.inspect(error)}\n`);
  }
}
process.on("uncaughtException", uncaught);
process.on("unhandledRejection", uncaught);

async function evaluate(name, code) {
  let translated;
  try {
    translated = translate.translate(name, code, typescript);
  } catch (error) {
    return { failed: error };
  }
  let stop;
  const interrupted = new Promise((_, failed) => {
    stop = () => failed(new Interrupted());
  });
  const failed = new Promise((done) => {
    run.fail = () => done(null);
  });
  try {
    const evaluation = post("Runtime.evaluate", {
      expression: `${translated.code}\n//# sourceURL=${name}`,
      replMode: true,
      awaitPromise: true,
      objectGroup: name,
    }, stop);
    const result = await Promise.race([evaluation, interrupted, failed]);
    if (result === null) return { failed: run.uncaught.error };
    if (result.exceptionDetails) {
      const { exception, text } = result.exceptionDetails;
      return { failed: exception ? valueOf(exception) : new Error(text), details: result.exceptionDetails };
    }
    const value = valueOf(result.result);
    return { value, hasValue: value !== undefined && translated.hasValue };
  } catch (error) {
    if (error instanceof Interrupted || error.code === "ERR_SCRIPT_EXECUTION_INTERRUPTED") {
      return { interrupted: true };
    }
    return { failed: error };
  } finally {
    interrupt = () => {};
    run.fail = null;
  }
}

async function execute(message) {
  if (message.after_interrupt) meetLateInterrupt();
  count += 1;
  run = { id: message.id, count };
  const name = `cell-${run.count}.${typescript ? "ts" : "js"}`;
  const saved = {};
  for (const [key, value] of Object.entries(message.env || {})) {
    saved[key] = process.env[key];
    if (value === null) delete process.env[key];
    else process.env[key] = value;
  }
  let outcome;
  try {
    outcome = await evaluate(name, message.code);
    // Rejections that nobody handles are told after the code has come to rest.
    await new Promise((done) => setImmediate(done));
    if (!("failed" in outcome) && !outcome.interrupted && run.uncaught) {
      outcome = { failed: run.uncaught.error };
    }
    if (outcome.hasValue) send({ op: "result", main: true, ...show.bundle(outcome.value) });
  } catch (error) {
    outcome = { failed: error };
  }
  for (const [key, value] of Object.entries(saved)) {
    if (value === undefined) delete process.env[key];
    else process.env[key] = value;
  }
  try {
    if (outcome.interrupted) {
      send({ op: "error", name: "KeyboardInterrupt", value: "", traceback: [] });
    } else if ("failed" in outcome) {
      send({ op: "error", ...show.failure(outcome.failed, outcome.details, name, message.code, translate) });
    }
  } finally {
    // Whatever failed: the agent waits for it.
    send({ op: "end", count: run.count });
    run = null;
  }
}

send({ op: "ready", version: process.version });
// Behind that, because it takes Node 2 ms, and before any code, which is read further on.
for (const stream of [process.stdout, process.stderr]) stream._handle?.setBlocking?.(true);
const socket = new net.Socket({ fd: 3, readable: true, writable: false });
socket.on("data", hear);
socket.on("close", () => process.exit(0));
socket.on("error", () => process.exit(0));
