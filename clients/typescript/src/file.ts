/** Files. Paths are absolute, or start at the current directory of the session. */

import { SandboxError, errorOf } from './error.js';
import type { Call } from './http.js';
import { resumedBody } from './resume.js';
import { type Abortable, type InSession, type Scope, now } from './scope.js';
import { encodeEvent, parseSSEStream } from './sse.js';
import type * as wire from './wire.js';

/** Options of `readFile`. */
export interface ReadFileOptions extends InSession, Abortable {
  /**
   * `utf-8` for text, `base64` for bytes, `none` for a stream of bytes. Unless given, text comes as
   * text and what is none as base64.
   */
  encoding?: 'utf-8' | 'utf8' | 'base64' | 'none' | (string & {});
}

/** A file's content. As a text it is the content. */
export interface ReadFileResult {
  success: true;
  path: string;
  /** The content, in `encoding`. */
  content: string;
  timestamp: string;
  encoding: 'utf-8' | 'base64';
  /** It is no text. */
  isBinary: boolean;
  mimeType: string;
  /** Bytes of the file. */
  size: number;
  /** The content as bytes, whatever `encoding` is. */
  bytes(): Uint8Array<ArrayBuffer>;
  /** The same as an `ArrayBuffer`. */
  arrayBuffer(): ArrayBuffer;
  /** The content as text, whatever `encoding` is. */
  text(): string;
  toString(): string;
}

/** What `readFile` returns, as older documents call it. */
export type FileInfo = ReadFileResult;

/** A file's content as a stream, of `encoding: 'none'`. */
export interface ReadFileStreamResult {
  success: true;
  path: string;
  content: ReadableStream<Uint8Array>;
  timestamp: string;
  mimeType: string;
  size: number;
}

/** Options of `writeFile`. */
export interface WriteFileOptions extends InSession, Abortable {
  /** `base64` when the content is bytes written so; text unless given. */
  encoding?: 'utf-8' | 'utf8' | 'base64' | (string & {});
  /** Permission bits, as `0o755` or `'755'`. */
  mode?: number | string;
}

/** What can be written to a file. */
export type FileInput = string | Uint8Array | ArrayBuffer | Blob | ReadableStream<Uint8Array> | { toString(): string };

/** What was done, to which file. */
export interface FileResult {
  success: true;
  path: string;
  timestamp: string;
}
/** What was moved, and where to. */
export interface MoveFileResult extends FileResult {
  newPath: string;
}
/** Which directory was made. */
export interface MkdirResult extends FileResult {
  recursive: boolean;
}
/** Whether it is there. */
export interface FileExistsResult extends FileResult {
  exists: boolean;
}

/** Options of `listFiles`. */
export interface ListFilesOptions extends InSession, Abortable {
  /** What is in its directories, too. */
  recursive?: boolean;
  /** Names that begin with a dot too. */
  includeHidden?: boolean;
}

/** An entry of a directory. */
export interface FileEntry {
  name: string;
  absolutePath: string;
  /** From the listed directory. */
  relativePath: string;
  type: 'file' | 'directory' | 'symlink' | 'other';
  size: number;
  /** In ISO 8601. */
  modifiedAt: string;
  /** As `rwxr-xr-x`. */
  mode: string;
  /** What its owner may do. */
  permissions: { readable: boolean; writable: boolean; executable: boolean };
}

/** What is in a directory. */
export interface ListFilesResult extends FileResult {
  files: FileEntry[];
  count: number;
}

/** What is known of a streamed file. */
export interface FileMetadata {
  mimeType: string;
  size: number;
  isBinary: boolean;
  encoding: 'utf-8' | 'base64';
}

/** A piece of a streamed file: text of a text, bytes of anything else. */
export type FileChunk = string | Uint8Array;

/** An event of `readFileStream`. */
export type FileStreamEvent =
  | ({ type: 'metadata' } & FileMetadata)
  | { type: 'chunk'; data: string }
  | { type: 'complete'; bytesRead: number }
  | { type: 'error'; error: string };

const encoder = new TextEncoder();

/** A path in a URL: one segment, so that nobody on the way resolves dots or joins slashes. */
function routeOf(path: string): string {
  if (typeof path !== 'string' || path === '') {
    throw errorOf('INVALID_PATH', 'a path is a text that is not empty', { httpStatus: 400, context: { path } });
  }
  return `/files/${encodeURIComponent(path === '.' || path === '..' ? `./${path}` : path)}`;
}

/** Absolute paths need no session, and must not wait for one. */
const place = (scope: Scope, path: string, options?: InSession) => (path.startsWith('/') ? undefined : scope.sessionOf(options));

export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  let binary: string;
  try {
    binary = atob(text.replace(/[\r\n]/g, ''));
  } catch (cause) {
    throw errorOf('VALIDATION_FAILED', 'the content is no base64', { httpStatus: 400, cause });
  }
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at++) bytes[at] = binary.charCodeAt(at);
  return bytes;
}

export function toBase64(bytes: Uint8Array): string {
  let binary = '';
  // Arguments of a call are limited.
  for (let at = 0; at < bytes.length; at += 8192) binary += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(binary);
}

export async function read(scope: Scope, path: string, options: ReadFileOptions = {}): Promise<ReadFileResult | ReadFileStreamResult> {
  const route = routeOf(path);
  const call: Call = { attempt: `read ${path}`, signal: options.signal, repeatable: true };
  const session = place(scope, path, options);
  if (options.encoding === 'none') {
    const asked = { ...call, query: { session } };
    const response = await scope.send('GET', route, asked);
    const mimeType = mimeOf(response);
    const size = Number(response.headers.get('content-length') ?? 0);
    return { success: true, path, content: resumedBody(scope, route, asked, response), timestamp: now(), mimeType, size };
  }
  const encoding = options.encoding === 'base64' ? 'base64' : options.encoding ? 'utf8' : 'auto';
  const file = await scope.json<wire.FileContent>('GET', route, { ...call, query: { session, encoding } });
  const result = {
    success: true as const,
    path,
    content: file.content,
    timestamp: now(),
    encoding: file.encoding === 'base64' ? ('base64' as const) : ('utf-8' as const),
    isBinary: file.isBinary,
    mimeType: file.mimeType,
    size: file.size,
  };
  const bytes = () => (result.encoding === 'base64' ? fromBase64(file.content) : (encoder.encode(file.content) as Uint8Array<ArrayBuffer>));
  const methods = {
    bytes,
    arrayBuffer: () => bytes().buffer,
    text: () => (result.encoding === 'base64' ? new TextDecoder().decode(bytes()) : file.content),
    toString: () => file.content,
  };
  for (const [name, value] of Object.entries(methods)) Object.defineProperty(result, name, { value });
  return result as ReadFileResult;
}

const mimeOf = (response: Response) => (response.headers.get('content-type') ?? 'application/octet-stream').split(';')[0]!.trim();

export async function write(scope: Scope, path: string, content: FileInput, options: WriteFileOptions = {}): Promise<FileResult> {
  const route = routeOf(path);
  let body: string | Uint8Array | ReadableStream<Uint8Array>;
  if (typeof content === 'string') body = options.encoding === 'base64' ? fromBase64(content) : content;
  else if (content instanceof Uint8Array || content instanceof ReadableStream) body = content;
  else if (content instanceof ArrayBuffer) body = new Uint8Array(content);
  else if (content instanceof Blob) body = content.stream();
  else body = String(content);
  const mode = typeof options.mode === 'number' ? options.mode.toString(8) : options.mode;
  await scope.done('PUT', route, {
    attempt: `write ${path}`,
    body,
    query: { session: place(scope, path, options), mode },
    headers: { 'content-type': 'application/octet-stream' },
    signal: options.signal,
    repeatable: true,
  });
  return { success: true, path, timestamp: now() };
}

/** The file as events: what it is, its pieces, its end. */
async function* pieces(response: Response, content: ReadableStream<Uint8Array>): AsyncGenerator<FileStreamEvent> {
  const mimeType = mimeOf(response);
  const size = Number(response.headers.get('content-length') ?? 0);
  const reader = content.getReader();
  let bytesRead = 0;
  let over = false;
  try {
    let { done, value } = await reader.read();
    let decoder: TextDecoder | undefined = isText(mimeType) ? new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }) : undefined;
    let text: string | undefined;
    try {
      text = value && decoder?.decode(value, { stream: true });
    } catch {
      decoder = undefined;
    }
    yield { type: 'metadata', mimeType, size, isBinary: !decoder, encoding: decoder ? 'utf-8' : 'base64' };
    // Pieces of base64 join only where their bytes are a multiple of three.
    let rest: Uint8Array = new Uint8Array(0);
    for (; !done; { done, value } = await reader.read()) {
      bytesRead += value!.length;
      if (decoder) {
        text ??= decoder.decode(value, { stream: true });
        if (text) yield { type: 'chunk', data: text };
        text = undefined;
        continue;
      }
      let bytes = value!;
      if (rest.length > 0) {
        bytes = new Uint8Array(rest.length + value!.length);
        bytes.set(rest);
        bytes.set(value!, rest.length);
      }
      const whole = bytes.length - (bytes.length % 3);
      rest = bytes.subarray(whole);
      if (whole > 0) yield { type: 'chunk', data: toBase64(bytes.subarray(0, whole)) };
    }
    over = true;
    const tail = decoder ? decoder.decode() : toBase64(rest);
    if (tail) yield { type: 'chunk', data: tail };
    yield { type: 'complete', bytesRead };
  } catch (error) {
    yield { type: 'error', error: (error as Error).message };
  } finally {
    if (!over) await reader.cancel().catch(() => {});
  }
}

const isText = (mime: string) => mime.startsWith('text/') || /[/+](json|xml|javascript|typescript|yaml|toml|x-sh|sql|graphql)$/.test(mime);

export async function readStream(scope: Scope, path: string, options: InSession & Abortable = {}): Promise<ReadableStream<Uint8Array>> {
  const query = { session: place(scope, path, options) };
  const call: Call = { attempt: `read ${path}`, query, signal: options.signal, repeatable: true };
  const response = await scope.send('GET', routeOf(path), call);
  const body = resumedBody(scope, routeOf(path), call, response);
  const events = pieces(response, body);
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await events.next();
        if (done) controller.close();
        else controller.enqueue(encodeEvent(value));
      },
      async cancel() {
        await events.return(undefined);
        // Nobody read it yet: what reads it has not begun, and ends without ending it.
        if (!body.locked) await body.cancel();
      },
    },
    { highWaterMark: 0 },
  );
}

/** The pieces of a file that `readFileStream` streams: text of a text, else bytes. Returns what it is. */
export async function* streamFile(stream: ReadableStream<Uint8Array>): AsyncGenerator<FileChunk, FileMetadata, undefined> {
  let metadata: FileMetadata | undefined;
  for await (const event of parseSSEStream<FileStreamEvent>(stream)) {
    switch (event.type) {
      case 'metadata': {
        const { mimeType, size, isBinary, encoding } = event;
        metadata = { mimeType, size, isBinary, encoding };
        break;
      }
      case 'chunk':
        if (!metadata) throw new Error('Received chunk before metadata');
        yield metadata.isBinary && metadata.encoding === 'base64' ? fromBase64(event.data) : event.data;
        break;
      case 'complete':
        if (!metadata) throw new Error('Stream completed without metadata');
        return metadata;
      case 'error':
        throw new Error(`File streaming error: ${event.error}`);
    }
  }
  throw new Error('Stream ended unexpectedly');
}

/** All of a file that `readFileStream` streams. */
export async function collectFile(stream: ReadableStream<Uint8Array>): Promise<{ content: string | Uint8Array; metadata: FileMetadata }> {
  const texts: string[] = [];
  const parts: Uint8Array[] = [];
  const chunks = streamFile(stream);
  for (;;) {
    const { done, value } = await chunks.next();
    if (done) {
      if (!value.isBinary) return { content: texts.join(''), metadata: value };
      const content = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
      let at = 0;
      for (const part of parts) {
        content.set(part, at);
        at += part.length;
      }
      return { content, metadata: value };
    }
    if (typeof value === 'string') texts.push(value);
    else parts.push(value);
  }
}

export async function mkdir(scope: Scope, path: string, options: { recursive?: boolean } & InSession & Abortable = {}): Promise<MkdirResult> {
  const recursive = options.recursive ?? false;
  const json: wire.MakeDirectory = { path, recursive, session: place(scope, path, options) };
  await scope.done('POST', '/files:mkdir', { attempt: `make the directory ${path}`, json, signal: options.signal, repeatable: recursive });
  return { success: true, path, recursive, timestamp: now() };
}

export async function move(scope: Scope, from: string, to: string, options: InSession & Abortable = {}): Promise<MoveFileResult> {
  const json = { from, to, session: scope.sessionOf(options) };
  await scope.done('POST', '/files:move', { attempt: `move ${from}`, json, signal: options.signal });
  return { success: true, path: from, newPath: to, timestamp: now() };
}

export async function remove(scope: Scope, path: string, options: { recursive?: boolean; force?: boolean } & InSession & Abortable = {}): Promise<FileResult> {
  const query = { recursive: options.recursive, session: place(scope, path, options) };
  try {
    await scope.done('DELETE', routeOf(path), { attempt: `delete ${path}`, query, signal: options.signal });
  } catch (error) {
    const missing = error instanceof SandboxError && error.code === 'FILE_NOT_FOUND';
    if (!missing || !options.force) throw error;
  }
  return { success: true, path, timestamp: now() };
}

export async function exists(scope: Scope, path: string, options: InSession & Abortable = {}): Promise<FileExistsResult> {
  const query = { path, follow: true, session: place(scope, path, options) };
  let found = true;
  try {
    await scope.done('GET', '/files:stat', { attempt: `look for ${path}`, query, signal: options.signal, repeatable: true });
  } catch (error) {
    if (!(error instanceof SandboxError) || !['FILE_NOT_FOUND', 'NOT_DIRECTORY'].includes(error.code)) throw error;
    found = false;
  }
  return { success: true, path, exists: found, timestamp: now() };
}

const LETTERS = 'rwxrwxrwx';

function entryOf(entry: wire.FileEntry, base: string): FileEntry {
  const mode = Array.from(LETTERS, (letter, at) => (entry.mode & (1 << (8 - at)) ? letter : '-')).join('');
  return {
    name: entry.name,
    absolutePath: entry.path,
    relativePath: entry.path.startsWith(base) ? entry.path.slice(base.length) : entry.name,
    type: entry.type,
    size: entry.size,
    modifiedAt: new Date(entry.modifiedMs).toISOString(),
    mode,
    permissions: { readable: mode[0] === 'r', writable: mode[1] === 'w', executable: mode[2] === 'x' },
  };
}

export async function list(scope: Scope, path: string, options: ListFilesOptions = {}): Promise<ListFilesResult> {
  const files: FileEntry[] = [];
  let base: string | undefined;
  let cursor: string | undefined;
  do {
    const query = {
      path,
      recursive: options.recursive,
      hidden: options.includeHidden,
      session: place(scope, path, options),
      cursor,
      limit: 10_000,
    };
    const call = { attempt: `list ${path}`, query, signal: options.signal, repeatable: true };
    const page: wire.FileList = await scope.json<wire.FileList>('GET', '/files:list', call);
    for (const entry of page.entries) {
      // The first entry lies in the directory itself: one comes before what is in it.
      base ??= entry.path.slice(0, entry.path.length - entry.name.length);
      files.push(entryOf(entry, base));
    }
    cursor = page.nextCursor ?? undefined;
  } while (cursor !== undefined);
  return { success: true, path, files, count: files.length, timestamp: now() };
}
