import assert from 'node:assert/strict';
import test from 'node:test';
import { BackupNotFoundError, getSandbox, type Sandbox } from '@sandbar/sandbox';
import { errorFrom, sandboxOf } from './bench.js';

test('a sandbox goes back to a checkpoint', async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.writeFile('/workspace/file', 'then');
  const checkpoint = await sandbox.createCheckpoint('before');
  assert.deepEqual([checkpoint.id, checkpoint.sandboxId], ['before', sandbox.id]);
  await sandbox.writeFile('/workspace/file', 'now');
  await sandbox.restoreCheckpoint('before');
  assert.equal((await sandbox.readFile('/workspace/file')).content, 'then');
  assert.deepEqual((await sandbox.listCheckpoints()).map((one) => one.id), ['before']);
  await sandbox.deleteCheckpoint('before');
  assert.deepEqual(await sandbox.listCheckpoints(), []);
  assert.equal((await errorFrom(sandbox.restoreCheckpoint('before'))).code, 'CHECKPOINT_NOT_FOUND');
});

test('forks begin with its files and go their own ways', async (t) => {
  const sandbox = sandboxOf(t);
  await sandbox.exec('echo mine > file');
  const forks: Sandbox[] = await sandbox.fork({ count: 2, labels: { of: 'test' } });
  t.after(() => Promise.all(forks.map((fork) => fork.destroy())));
  assert.equal(forks.length, 2);
  await forks[0]!.exec('echo other > file');
  assert.equal((await forks[0]!.exec('cat file')).stdout, 'other\n');
  assert.equal((await forks[1]!.exec('cat file')).stdout, 'mine\n');
  assert.deepEqual((await forks[1]!.info())?.labels, { of: 'test' });
});

test('a backup outlives its sandbox and is restored in another', async (t) => {
  const sandbox = getSandbox(undefined, `sdk-${crypto.randomUUID()}`, { onStart: 'exec sleep 1000' });
  await sandbox.exec('mkdir -p app/node_modules app/src; echo kept > app/src/file; echo big > app/node_modules/x; echo "*.log" > app/.gitignore; echo no > app/a.log; ln -s src/file app/link; chmod 700 app/src/file');
  const backup = await sandbox.createBackup({ dir: '/workspace/app', name: 'mine', gitignore: true, excludes: ['node_modules/'] });
  t.after(() => getSandbox(undefined, backup.id).destroy());
  assert.equal(backup.dir, '/workspace/app');
  // A plain value, which can be kept.
  const stored = JSON.parse(JSON.stringify(backup));
  await sandbox.exec('echo later > app/src/file');
  await sandbox.destroy();

  const other = sandboxOf(t);
  await other.exec('mkdir app; echo old > app/old');
  const restored = await other.restoreBackup(stored);
  assert.deepEqual(restored, { success: true, dir: '/workspace/app', id: backup.id });
  const seen = await other.exec('cat app/link && ls -A app | sort && stat -c %a app/src/file');
  assert.equal(seen.stdout, 'kept\n.gitignore\nlink\nsrc\n700\n');
  // As often as one likes.
  await other.exec('rm -r app');
  await other.restoreBackup(stored);
  assert.equal((await other.exec('cat app/src/file')).stdout, 'kept\n');
  // However the directory is written.
  for (const dir of ['/workspace/app/', '/workspace//app', '/workspace/./app/.']) {
    await other.exec('echo old > app/src/file');
    assert.equal((await other.restoreBackup({ ...stored, dir })).dir, '/workspace/app');
    assert.equal((await other.exec('cat app/src/file; ls')).stdout, 'kept\napp\n', dir);
  }
  // What the sandbox started by itself is not started once more.
  const info = await getSandbox(undefined, backup.id).info();
  assert.deepEqual([info?.state, info?.onStart], ['stopped', undefined]);
});

test('backups that cannot be made or found say why', async (t) => {
  const sandbox = sandboxOf(t);
  for (const bad of [{ dir: 'workspace' }, { dir: '/etc' }, { dir: '/workspace/../etc' }, { dir: '/tmp', ttl: 0 }, { dir: '/tmp', name: 'x'.repeat(257) }]) {
    const error = await errorFrom(sandbox.createBackup(bad));
    assert.deepEqual([error.code, error.name], ['INVALID_BACKUP_CONFIG', 'InvalidBackupConfigError']);
  }
  assert.equal((await errorFrom(sandbox.createBackup({ dir: '/workspace/none' }))).code, 'FILE_NOT_FOUND');
  const backup = await sandbox.createBackup({ dir: '/workspace' });
  t.after(() => getSandbox(undefined, backup.id).destroy());
  for (const dir of ['workspace', '/', '/etc', '/workspace/../etc']) {
    assert.equal((await errorFrom(sandbox.restoreBackup({ ...backup, dir }))).code, 'INVALID_BACKUP_CONFIG', dir);
  }
  const unknown = await errorFrom(sandbox.restoreBackup({ id: `none-${crypto.randomUUID()}`, dir: '/workspace' }));
  assert.ok(unknown instanceof BackupNotFoundError);
  assert.equal(unknown.code, 'BACKUP_NOT_FOUND');
});
