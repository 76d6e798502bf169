/** Pages "Files", "Manage files", "Work with Git". */

import assert from 'node:assert/strict';
import { getSandbox } from '@cloudflare/sandbox';
import { env, sample } from './bench.js';

const base64Data = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0, 255]).toString('base64');

sample('Files, writeFile()', async ({ sandbox }) => {
  await sandbox.writeFile('/workspace/app.js', `console.log('Hello!');`);
  await sandbox.writeFile('/tmp/image.png', base64Data, { encoding: 'base64' });
  assert.equal((await sandbox.exec('node /workspace/app.js; wc -c < /tmp/image.png')).stdout, 'Hello!\n6\n');
});

sample('Files, readFile()', async ({ sandbox }) => {
  await sandbox.writeFile('/workspace/package.json', '{"name":"it"}');
  await sandbox.writeFile('/tmp/image.png', base64Data, { encoding: 'base64' });
  const file = await sandbox.readFile('/workspace/package.json');
  const pkg = JSON.parse(file.content);
  const image = await sandbox.readFile('/tmp/image.png', { encoding: 'base64' });
  assert.equal(pkg.name, 'it');
  assert.deepEqual([image.content, image.encoding], [base64Data, 'base64']);
});

sample('Files, mkdir()', async ({ sandbox }) => {
  await sandbox.mkdir('/workspace/src');
  await sandbox.mkdir('/workspace/src/components/ui', { recursive: true });
  assert.ok((await sandbox.exists('/workspace/src/components/ui')).exists);
});

sample('Files, deleteFile()', async ({ sandbox }) => {
  await sandbox.writeFile('/workspace/temp.txt', '');
  await sandbox.deleteFile('/workspace/temp.txt');
  assert.ok(!(await sandbox.exists('/workspace/temp.txt')).exists);
});

sample('Files, renameFile()', async ({ sandbox }) => {
  await sandbox.writeFile('/workspace/draft.txt', 'x');
  await sandbox.renameFile('/workspace/draft.txt', '/workspace/final.txt');
  assert.equal((await sandbox.readFile('/workspace/final.txt')).content, 'x');
});

sample('Files, moveFile()', async ({ sandbox }) => {
  await sandbox.writeFile('/tmp/download.txt', 'x');
  await sandbox.moveFile('/tmp/download.txt', '/workspace/data.txt');
  assert.equal((await sandbox.readFile('/workspace/data.txt')).content, 'x');
});

// Manage files

sample('Manage files, paths', async ({ sandbox }) => {
  const code = 'x = 1';
  await sandbox.writeFile('/workspace/app.js', code);
  await sandbox.mkdir('/workspace/my-project');
  const session = await sandbox.createSession();
  await session.exec('cd /workspace/my-project');
  await session.writeFile('app.js', code);
  await session.writeFile('src/index.js', code);
  assert.equal((await sandbox.readFile('/workspace/my-project/app.js')).content, code);
  assert.equal((await sandbox.readFile('/workspace/my-project/src/index.js')).content, code);
});

sample('Manage files, write', async ({ t }) => {
  const imageUrl = `data:image/png;base64,${base64Data}`;
  const sandbox = getSandbox(env.Sandbox, 'my-sandbox');
  await sandbox.writeFile('/workspace/app.js', `console.log('Hello from sandbox!');`);
  const config = { name: 'my-app', version: '1.0.0' };
  await sandbox.writeFile('/workspace/config.json', JSON.stringify(config, null, 2));
  const buffer = await fetch(imageUrl).then((r) => r.arrayBuffer());
  const base64 = btoa(String.fromCharCode(...new Uint8Array(buffer)));
  await sandbox.writeFile('/workspace/image.png', base64, { encoding: 'base64' });
  assert.equal((await sandbox.exec('sha256sum < image.png; node app.js')).stdout.split('\n')[1], 'Hello from sandbox!');
});

sample('Manage files, read', async ({ sandbox, console }) => {
  await sandbox.writeFile('/workspace/app.js', 'let it;');
  await sandbox.writeFile('/workspace/config.json', '{"port": 1}');
  await sandbox.writeFile('/workspace/image.png', base64Data, { encoding: 'base64' });
  const file = await sandbox.readFile('/workspace/app.js');
  console.log(file.content);
  const configFile = await sandbox.readFile('/workspace/config.json');
  const config = JSON.parse(configFile.content);
  const imageFile = await sandbox.readFile('/workspace/image.png', { encoding: 'base64' });
  const response = new Response(atob(imageFile.content), {
    headers: { 'Content-Type': 'image/png' },
  });
  assert.deepEqual([console.lines, config], [['let it;'], { port: 1 }]);
  assert.equal(await response.text(), atob(base64Data));
});

sample('Manage files, organize', async ({ sandbox }) => {
  for (const path of ['/workspace/draft.txt', '/tmp/download.txt', '/workspace/temp.txt']) await sandbox.writeFile(path, path);
  await sandbox.mkdir('/workspace/src', { recursive: true });
  await sandbox.mkdir('/workspace/tests', { recursive: true });
  await sandbox.renameFile('/workspace/draft.txt', '/workspace/final.txt');
  await sandbox.moveFile('/tmp/download.txt', '/workspace/data.txt');
  await sandbox.deleteFile('/workspace/temp.txt');
  assert.deepEqual((await sandbox.readdir('/workspace')).sort(), ['data.txt', 'final.txt', 'src', 'tests']);
});

sample('Manage files, many at once', async ({ sandbox }) => {
  const files = {
    '/workspace/src/app.js': 'console.log("app");',
    '/workspace/src/utils.js': 'console.log("utils");',
    '/workspace/README.md': '# My Project',
  };
  await Promise.all(Object.entries(files).map(([path, content]) => sandbox.writeFile(path, content)));
  for (const [path, content] of Object.entries(files)) assert.equal((await sandbox.readFile(path)).content, content);
});

sample('Manage files, whether one is there', async ({ sandbox, console }) => {
  for (const round of [1, 2]) {
    try {
      await sandbox.readFile('/workspace/config.json');
      console.log('File exists');
    } catch (error: any) {
      if (error.code === 'FILE_NOT_FOUND') {
        await sandbox.writeFile('/workspace/config.json', '{}');
      }
    }
    assert.equal(console.lines.length, round - 1);
  }
});

sample('Manage files, a directory that is missing', async ({ sandbox }) => {
  const content = 'x';
  await sandbox.mkdir('/workspace/data', { recursive: true });
  await sandbox.writeFile('/workspace/data/file.txt', content);
  assert.equal((await sandbox.readFile('/workspace/data/file.txt')).content, 'x');
});

sample('Manage files, bytes', async ({ sandbox }) => {
  await sandbox.writeFile('/workspace/image.png', base64Data, {
    encoding: 'base64',
  });
  const file = await sandbox.readFile('/workspace/image.png', {
    encoding: 'base64',
  });
  assert.equal(file.content, base64Data);
});
