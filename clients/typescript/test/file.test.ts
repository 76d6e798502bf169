import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import test from 'node:test';
import { FileExistsError, FileNotFoundError, FileSystemError, type FileStreamEvent, type FileWatchSSEEvent, collectFile, parseSSEStream, streamFile } from '@sandbar/sandbox';
import { all, errorFrom, sandboxOf } from './bench.js';

test('text is written and read', async (t) => {
  const sandbox = sandboxOf(t);
  const written = await sandbox.writeFile('/workspace/a/b/c.json', '{"ü": "€😀"}');
  assert.deepEqual([written.success, written.path], [true, '/workspace/a/b/c.json']);
  const file = await sandbox.readFile('/workspace/a/b/c.json');
  const { timestamp, ...rest } = file;
  assert.ok(!Number.isNaN(Date.parse(timestamp)));
  assert.deepEqual({ ...rest }, { success: true, path: '/workspace/a/b/c.json', content: '{"ü": "€😀"}', encoding: 'utf-8', isBinary: false, mimeType: 'application/json', size: 17 });
  assert.equal(`${file}`, '{"ü": "€😀"}');
  assert.equal(Buffer.from(file.bytes()).toString(), '{"ü": "€😀"}');
});

test('bytes are written in every form and come back', async (t) => {
  const sandbox = sandboxOf(t);
  const bytes = new Uint8Array(randomBytes(300_001));
  const base64 = Buffer.from(bytes).toString('base64');
  const forms = [bytes, bytes.buffer, new Blob([bytes]), new Blob([bytes]).stream()];
  for (const [at, form] of forms.entries()) {
    await sandbox.writeFile(`/tmp/${at}.bin`, form);
    const file = await sandbox.readFile(`/tmp/${at}.bin`);
    assert.deepEqual([file.encoding, file.isBinary, file.size], ['base64', true, bytes.length]);
    assert.deepEqual(file.bytes(), bytes);
  }
  await sandbox.writeFile('/tmp/image.png', base64, { encoding: 'base64' });
  const image = await sandbox.readFile('/tmp/image.png', { encoding: 'base64' });
  assert.equal(image.content, base64);
  assert.equal(image.mimeType, 'image/png');
  assert.deepEqual(new Uint8Array(image.arrayBuffer()), bytes);
  const raw = await sandbox.readFile('/tmp/image.png', { encoding: 'none' });
  assert.equal(raw.size, bytes.length);
  assert.deepEqual(new Uint8Array(await new Response(raw.content).arrayBuffer()), bytes);
  assert.equal((await errorFrom(sandbox.writeFile('/tmp/x', 'no base64!', { encoding: 'base64' }))).code, 'VALIDATION_FAILED');
});

test('what was read can be written as it is', async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.writeFile('/tmp/one', 'text');
  await sandbox.writeFile('/tmp/two', await sandbox.readFile('/tmp/one'));
  assert.equal((await sandbox.readFile('/tmp/two')).content, 'text');
});

test('a mode is given to a script', async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.writeFile('/tmp/run', '#!/bin/sh\necho ran\n', { mode: 0o755 });
  assert.equal((await sandbox.exec('/tmp/run')).stdout, 'ran\n');
});

test('names that URLs would take apart are names', async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.exec('mkdir -p /workspace/down && cd /workspace/down');
  for (const path of ['/tmp/a b', '/tmp/%2e', '/tmp/ä?#&=+', '/tmp/./x/../y', '/tmp//z', '../up', './here', '..hidden', 'a%2Fb']) {
    await sandbox.writeFile(path, path);
    assert.equal((await sandbox.exec(`cat '${path}'`)).stdout, path);
    assert.equal((await sandbox.readFile(path)).content, path);
  }
  assert.equal((await errorFrom(sandbox.readFile(''))).code, 'INVALID_PATH');
  assert.equal((await errorFrom(sandbox.readFile('..'))).code, 'IS_DIRECTORY');
});

test('directories and their entries', async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.mkdir('/workspace/src');
  assert.ok((await errorFrom(sandbox.mkdir('/workspace/src'))) instanceof FileExistsError);
  assert.ok((await errorFrom(sandbox.mkdir('/workspace/no/such'))) instanceof FileNotFoundError);
  assert.equal((await sandbox.mkdir('/workspace/src/components/ui', { recursive: true })).recursive, true);
  await sandbox.writeFile('/workspace/src/.hidden', '');
  await sandbox.writeFile('/workspace/src/app.js', 'abc', { mode: 0o754 });
  await sandbox.exec('ln -s app.js /workspace/src/link');
  const { files, count } = await sandbox.listFiles('/workspace/src');
  assert.equal(count, 3);
  const app = files.find((each) => each.name === 'app.js')!;
  const { modifiedAt, ...rest } = app;
  assert.ok(!Number.isNaN(Date.parse(modifiedAt)));
  assert.deepEqual(rest, { name: 'app.js', absolutePath: '/workspace/src/app.js', relativePath: 'app.js', type: 'file', size: 3, mode: 'rwxr-xr--', permissions: { readable: true, writable: true, executable: true } });
  assert.deepEqual(files.map((each) => each.type).sort(), ['directory', 'file', 'symlink']);
  const deep = await sandbox.listFiles('/workspace/src', { recursive: true, includeHidden: true });
  assert.deepEqual(deep.files.map((each) => each.relativePath).sort(), ['.hidden', 'app.js', 'components', 'components/ui', 'link']);
  assert.deepEqual((await sandbox.readdir('/workspace')).sort(), ['src']);
  assert.ok((await errorFrom(sandbox.listFiles('/none'))) instanceof FileNotFoundError);
});

test('a directory of many pages is listed whole', async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.exec('mkdir /tmp/many && cd /tmp/many && seq 1 12345 | xargs touch');
  const { files } = await sandbox.listFiles('/tmp/many');
  assert.equal(new Set(files.map((each) => each.name)).size, 12_345);
});

test('files are renamed, moved, found and deleted', async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.writeFile('/workspace/draft.txt', 'x');
  const renamed = await sandbox.renameFile('/workspace/draft.txt', '/workspace/final.txt');
  assert.deepEqual([renamed.path, renamed.newPath], ['/workspace/draft.txt', '/workspace/final.txt']);
  await sandbox.moveFile('/workspace/final.txt', '/tmp/moved.txt');
  assert.equal((await sandbox.exists('/workspace/final.txt')).exists, false);
  assert.equal((await sandbox.exists('/tmp/moved.txt')).exists, true);
  assert.equal((await sandbox.exists('/tmp/moved.txt/below')).exists, false);
  const refused = await errorFrom(sandbox.deleteFile('/tmp'));
  assert.ok(refused instanceof FileSystemError && refused.code === 'IS_DIRECTORY');
  await sandbox.deleteFile('/tmp/moved.txt');
  assert.ok((await errorFrom(sandbox.deleteFile('/tmp/moved.txt'))) instanceof FileNotFoundError);
  await sandbox.rm('/tmp/moved.txt', { force: true });
  await sandbox.mkdir('/tmp/tree/deep', { recursive: true });
  await sandbox.rm('/tmp/tree', { recursive: true });
  assert.equal((await sandbox.exists('/tmp/tree')).exists, false);
});

test('a file is streamed: text as text, bytes as bytes', async (t) => {
  const sandbox = sandboxOf(t);
  const text = 'zeile €\n'.repeat(100_000);
  await sandbox.writeFile('/tmp/long.txt', text);
  const events = await all<FileStreamEvent>(await sandbox.readFileStream('/tmp/long.txt'));
  assert.deepEqual(events[0], { type: 'metadata', mimeType: 'text/plain', size: Buffer.byteLength(text), isBinary: false, encoding: 'utf-8' });
  assert.deepEqual(events.at(-1), { type: 'complete', bytesRead: Buffer.byteLength(text) });
  assert.ok(events.length > 4);
  const collected = await collectFile(await sandbox.readFileStream('/tmp/long.txt'));
  assert.equal(collected.content, text);

  const bytes = new Uint8Array(randomBytes(700_001));
  await sandbox.writeFile('/tmp/data.png', bytes);
  let size = 0;
  for await (const chunk of streamFile(await sandbox.readFileStream('/tmp/data.png'))) {
    assert.ok(chunk instanceof Uint8Array);
    size += chunk.length;
  }
  assert.equal(size, bytes.length);
  assert.deepEqual((await collectFile(await sandbox.readFileStream('/tmp/data.png'))).content, bytes);
  await sandbox.writeFile('/tmp/empty.txt', '');
  assert.equal((await collectFile(await sandbox.readFileStream('/tmp/empty.txt'))).content, '');
  assert.ok((await errorFrom(sandbox.readFileStream('/none'))) instanceof FileNotFoundError);
});

test('a stream that is given up before it is read holds nothing', async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.exec('truncate -s 200M /tmp/large');
  await (await sandbox.readFileStream('/tmp/large')).cancel();
  // It waits for the requests under way.
  await sandbox.freeze();
});

test('a stream that is refused is cancelled', async (t) => {
  const sandbox = sandboxOf(t);
  let cancel = () => {};
  const cancelled = new Promise<void>((resolve) => (cancel = resolve));
  const endless = new ReadableStream<Uint8Array>({ pull: (controller) => controller.enqueue(new Uint8Array(65_536)), cancel });
  const abort = new AbortController();
  const written = errorFrom(sandbox.writeFile('/tmp/endless', endless, { signal: abort.signal }));
  await sandbox.exec('until ls -A /tmp | grep -q .sandbar-; do sleep 0.01; done');
  abort.abort(new Error('enough'));
  assert.equal((await written).message, 'enough');
  await cancelled;
});

test('what calls itself text and is none is streamed as bytes', async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.writeFile('/tmp/wrong.txt', new Uint8Array([0x61, 0xff, 0x62]));
  const { content, metadata } = await collectFile(await sandbox.readFileStream('/tmp/wrong.txt'));
  assert.deepEqual([content, metadata.isBinary], [new Uint8Array([0x61, 0xff, 0x62]), true]);
});

test('a watch tells changes from when it is there', async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.mkdir('/workspace/sub');
  const events: FileWatchSSEEvent[] = [];
  for await (const event of parseSSEStream<FileWatchSSEEvent>(await sandbox.watch('/workspace', { exclude: ['*.log'] }))) {
    events.push(event);
    if (event.type === 'watching') {
      await sandbox.exec('echo x > /workspace/skip.log; mkdir /workspace/more; echo x > /workspace/new.txt; mv /workspace/new.txt /workspace/sub/; rm /workspace/sub/new.txt');
      await sandbox.writeFile('/workspace/last.txt', 'x');
    }
    if (event.type === 'event' && event.path.endsWith('last.txt')) break;
  }
  const told = events.flatMap((event) => (event.type === 'event' ? [`${event.eventType} ${event.path}`] : []));
  assert.equal(events[0]!.type, 'watching');
  for (const each of ['create /workspace/more', 'create /workspace/new.txt', 'move_from /workspace/new.txt', 'move_to /workspace/sub/new.txt', 'delete /workspace/sub/new.txt', 'modify /workspace/last.txt']) {
    assert.ok(told.includes(each), `${each} of ${told.join(', ')}`);
  }
  assert.ok(!told.some((each) => /skip\.log|\.sandbar/.test(each)), told.join());
});

test('whether anything has changed since last time', async (t) => {
  const sandbox = sandboxOf(t);
  const first = await sandbox.checkChanges('/workspace');
  assert.equal(first.status, 'unchanged');
  assert.equal((await sandbox.checkChanges('/workspace', { since: first.version })).status, 'unchanged');
  await sandbox.writeFile('/workspace/x', 'x');
  const changed = await sandbox.checkChanges('/workspace', { since: first.version });
  assert.equal(changed.status, 'changed');
  assert.equal((await errorFrom(sandbox.checkChanges('/workspace', { since: 'unknown' }))).code, 'VALIDATION_FAILED');
});
