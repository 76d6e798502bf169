// What values and errors show of themselves.
"use strict";
const util = require("util");

// As in the agent, `api::limit`.
const REPRESENTATION_BYTES = 8 * 1024 * 1024;
const VALUE_BYTES = 1024 * 1024;
const VALUE = "application/vnd.sandbar.value+json";
const DISPLAY = Symbol.for("Jupyter.display");

exports.unserialized = (text) => {
  if (text.endsWith("n")) return BigInt(text.slice(0, -1));
  return { "-0": -0, NaN: NaN, Infinity: Infinity, "-Infinity": -Infinity }[text];
};

function isPlain(value) {
  if (typeof value !== "object" || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return Array.isArray(value) || prototype === Object.prototype || prototype === null;
}

// A picture by its first bytes.
function picture(value) {
  if (!(value instanceof Uint8Array)) return null;
  const starts = (...bytes) => bytes.every((byte, at) => value[at] === byte);
  if (starts(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a)) return "image/png";
  if (starts(0xff, 0xd8, 0xff)) return "image/jpeg";
  return null;
}

function isBundle(value) {
  const names = isPlain(value) && !Array.isArray(value) ? Object.keys(value) : [];
  return names.length > 0 && names.every((name) => /^[a-z]+\/[\w.+-]+$/.test(name));
}

function encoded(value) {
  return value instanceof Uint8Array ? Buffer.from(value).toString("base64") : value;
}

// Lines of a stack that are not the code's.
const INTERNAL = /sandbar:|node:internal|node:inspector|node:vm|new Promise \(<anonymous>\)/;

function inspect(value) {
  try {
    const text = util.inspect(value, { depth: 4 });
    return text.includes("sandbar:") ? withoutInternal(text) : text;
  } catch (error) {
    return `<a value that cannot be shown: ${reason(error)}>`;
  }
}

// What is thrown is the code's own too, and what it is asked may throw.
function reason(error) {
  try {
    return String(error && error.message);
  } catch {
    return "and neither can the error";
  }
}

function withoutInternal(text) {
  return text.split("\n").filter((line) => !/^\s+at /.test(line) || !INTERNAL.test(line)).join("\n");
}
exports.inspect = inspect;

exports.bundle = (value) => {
  if (value !== null && typeof value === "object" && typeof value[DISPLAY] === "function") {
    return bounded(value[DISPLAY]());
  }
  if (isBundle(value)) return bounded(value);
  const data = { "text/plain": inspect(value) };
  const kind = picture(value);
  if (kind) data[kind] = value;
  if (isPlain(value)) {
    try {
      const text = JSON.stringify(value);
      const plain = text !== undefined && text.length <= VALUE_BYTES ? JSON.parse(text) : null;
      if (plain !== null && !isDeep(plain)) data[VALUE] = plain;
    } catch {
      // It has a cycle, or numbers that JSON has not.
    }
  }
  return bounded(data);
};

// Whether there are more values in values than the agent reads, which is twice as many.
const DEPTH = 64;
function isDeep(value, depth = 0) {
  if (value === null || typeof value !== "object") return false;
  return depth > DEPTH || Object.values(value).some((one) => isDeep(one, depth + 1));
}

function bounded(data) {
  const kept = {};
  const truncated = [];
  for (const [mime, given] of Object.entries(data)) {
    let value = encoded(given);
    const isText = typeof value === "string";
    const size = Buffer.byteLength(isText ? value : JSON.stringify(value) ?? "");
    if (!isText && isDeep(value)) {
      truncated.push(mime);
      continue;
    }
    if (size > REPRESENTATION_BYTES) {
      truncated.push(mime);
      if (mime !== "text/plain") continue;
      const head = value.slice(0, REPRESENTATION_BYTES / 4);
      value = `${head}\n... [${size} bytes, of which ${Buffer.byteLength(head)} are shown]`;
    }
    kept[mime] = value;
  }
  return { data: kept, truncated };
}

exports.helpers = (send) => {
  const display = (value) => send(exports.bundle(value));
  const types = {
    text: "text/plain",
    html: "text/html",
    markdown: "text/markdown",
    svg: "image/svg+xml",
    png: "image/png",
    jpeg: "image/jpeg",
    pdf: "application/pdf",
    latex: "text/latex",
    json: "application/json",
    javascript: "application/javascript",
  };
  for (const [name, mime] of Object.entries(types)) {
    display[name] = (value) => send(bounded({ [mime]: value }));
  }
  return { display };
};

exports.failure = (...args) => {
  try {
    return failure(...args);
  } catch (error) {
    const value = `an error that cannot be described: ${reason(error).slice(0, 10_000)}`;
    return { name: "Error", value, traceback: [`Error: ${value}`], line: null };
  }
};

// How an error is told: with the lines of the code's own files, and not those of what runs it.
function failure(error, details, name, source, translate) {
  const isError = util.types.isNativeError(error) || error instanceof Error;
  let kind = "Error";
  let value;
  let frames = [];
  if (isError) {
    kind = String(error.name === "Error" && error.constructor ? error.constructor.name : error.name);
    value = String(error.message);
    const lines = String(error.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line));
    frames = lines
      .filter((line) => !INTERNAL.test(line))
      .map((line) => translate.original(line));
  } else {
    kind = "Uncaught";
    value = inspect(error);
  }
  let place = null;
  for (const frame of frames) {
    const match = frame.match(/(cell-\d+\.[jt]s):(\d+):(\d+)/);
    if (match && match[1] === name) {
      place = { line: Number(match[2]), column: Number(match[3]) };
      break;
    }
  }
  if (!place && error && error.place) place = error.place;
  // A syntax error has no frames of its own.
  const isSyntax = kind === "SyntaxError" && frames.length === 0;
  if (!place && details && (details.url === name || isSyntax)) {
    place = translate.place(name, details.lineNumber + 1, details.columnNumber + 1);
  }
  const traceback = [];
  const line = place && source.split("\n")[place.line - 1];
  if (line !== undefined && line !== null) {
    traceback.push(`${name}:${place.line}`, line, `${" ".repeat(Math.max(0, place.column - 1))}^`, "");
  }
  traceback.push(isError ? `${kind}: ${value}` : `Uncaught ${value}`, ...frames.slice(0, 100));
  if (isError && error.cause !== undefined) traceback.push(`[cause]: ${inspect(error.cause)}`);
  return {
    name: kind,
    value: value.slice(0, VALUE_BYTES),
    traceback: traceback.map((text) => text.slice(0, 10_000)),
    line: place ? place.line : null,
  };
}
