/**
 * Backups of directories. A backup is a fork of the sandbox that never runs but to be read: it is made
 * at once whatever its size, outlives the sandbox, and ends with its time to live.
 */

import * as checkpoints from './checkpoint.js';
import { errorOf, SandboxError } from './error.js';
import * as files from './file.js';
import { type Abortable, Scope } from './scope.js';
import type * as wire from './wire.js';

/** Options of `createBackup`. */
export interface BackupOptions extends Abortable {
  /** The directory: absolute, below /workspace, /home, /tmp, /var/tmp or /app. */
  dir: string;
  /** A name for people, up to 256 characters. */
  name?: string;
  /** Seconds that the backup is kept; three days unless given. */
  ttl?: number;
  /** Leave out what the directory's own .gitignore names. Lines with `!` are refused. */
  gitignore?: boolean;
  /** Leave out what these patterns match. */
  excludes?: string[];
  /** Accepted and not used: nothing is uploaded. */
  localBucket?: boolean;
  /** Accepted and not used: files are shared, not copied. */
  compression?: { format?: 'gzip' | 'lz4' | 'zstd'; threads?: number };
  /** Accepted and not used. */
  multipart?: boolean;
}

/** A backup, which can be stored and given back. */
export interface DirectoryBackup {
  id: string;
  dir: string;
  localBucket?: boolean;
}

/** Which directory has the files of which backup. */
export interface RestoreBackupResult {
  success: boolean;
  dir: string;
  id: string;
}

/** What is written down in the backup itself. */
interface Notes {
  dir: string;
  name?: string;
  ttl: number;
  createdAt: string;
  exclude: string[];
}

/** Where: a file that no directory of a backup holds. */
const NOTES = '/.sandbar-backup.json';

const TTL_SECS = 259_200;
const PLACES = ['/workspace', '/home', '/tmp', '/var/tmp', '/app'];
/** What the server takes for a time, a year. */
const MOST_TTL_SECS = 31_536_000;

function invalid(message: string): Error {
  return errorOf('INVALID_BACKUP_CONFIG', message, { httpStatus: 400, operation: 'make or restore a backup' });
}

function check({ dir, name, ttl, excludes }: BackupOptions): void {
  const isPlain = typeof dir === 'string' && dir.startsWith('/') && !dir.split('/').includes('..') && !dir.includes('\0');
  if (!isPlain) throw invalid(`dir is ${JSON.stringify(dir)}; write an absolute path without '..'`);
  if (!PLACES.some((place) => dir === place || dir.startsWith(`${place}/`))) {
    throw invalid(`dir is ${dir}; it has to be below ${PLACES.join(', ')}`);
  }
  if (name !== undefined && name.length > 256) throw invalid('name has more than 256 characters');
  if (ttl !== undefined && !(ttl > 0 && ttl <= MOST_TTL_SECS)) throw invalid(`ttl is ${ttl}; write seconds up to ${MOST_TTL_SECS}`);
  if (excludes !== undefined && !(Array.isArray(excludes) && excludes.every((one) => typeof one === 'string' && one !== ''))) {
    throw invalid('excludes is a list of patterns');
  }
}

/** A directory that passed, in the one way in which others are named after it. */
const plain = (dir: string): string => `/${dir.split('/').filter((part) => part !== '' && part !== '.').join('/')}`;

const isCode = (error: unknown, code: string): boolean => error instanceof SandboxError && error.code === code;

/** The lines of a .gitignore that are patterns. */
function ignored(text: string): string[] {
  const lines = text.split('\n').map((line) => line.trim()).filter((line) => line !== '' && !line.startsWith('#'));
  const exception = lines.find((line) => line.startsWith('!'));
  if (exception) throw invalid(`.gitignore has the exception ${exception}, which a backup cannot make; use excludes`);
  return lines;
}

const holder = (scope: Scope, id: string): Scope => new Scope(scope.http, id, undefined, () => undefined);

export async function create(scope: Scope, options: BackupOptions): Promise<DirectoryBackup> {
  check(options);
  const { signal } = options;
  const dir = plain(options.dir);
  const exclude = [...(options.excludes ?? [])];
  if (options.gitignore) {
    try {
      exclude.push(...ignored(String((await files.read(scope, `${dir}/.gitignore`, { encoding: 'utf-8', signal })).content)));
    } catch (error) {
      if (!isCode(error, 'FILE_NOT_FOUND')) throw error;
    }
  }
  try {
    // Refused unless it is a directory that is there.
    await scope.done('GET', '/files:list', { attempt: `look at ${dir}`, query: { path: dir, limit: 1 }, signal, repeatable: true });
    const ttl = Math.ceil(options.ttl ?? TTL_SECS);
    const [id] = await checkpoints.fork(scope, { bare: true, labels: { 'sandbar.backup': (options.name ?? dir).slice(0, 60) }, signal });
    const backup = holder(scope, id!);
    try {
      const notes: Notes = { dir, ttl, createdAt: new Date().toISOString(), exclude };
      if (options.name !== undefined) notes.name = options.name;
      await files.write(backup, NOTES, JSON.stringify(notes), { signal });
      // Whatever becomes of the sandbox in time, its backup is kept, at rest, until it expires.
      const idle: wire.IdleSettings = { keepAlive: false, onIdle: 'stop', sleepAfterMs: 60_000, destroyAfterMs: 0 };
      const json: wire.UpdateSandbox = { idle, ttlMs: ttl * 1000 };
      await scope.http.done('PATCH', backup.path(), { attempt: 'keep the backup', json, signal, repeatable: true });
      await backup.done('POST', '/stop', { attempt: 'put the backup to rest', signal, repeatable: true });
    } catch (error) {
      await scope.http.done('DELETE', backup.path(), { attempt: 'remove a failed backup' }).catch(() => undefined);
      throw error;
    }
    return { id: id!, dir, ...(options.localBucket === undefined ? {} : { localBucket: options.localBucket }) };
  } catch (error) {
    throw failed('BACKUP_CREATE_FAILED', 'make a backup', error);
  }
}

export async function restore(scope: Scope, given: DirectoryBackup, { signal }: Abortable = {}): Promise<RestoreBackupResult> {
  const { id } = given;
  if (given.dir !== undefined) check({ dir: given.dir });
  const backup = holder(scope, id);
  let notes: Notes;
  try {
    // Asked for first: a request to a sandbox that is not there would make one.
    await scope.http.json('GET', backup.path(), { attempt: 'look for the backup', signal, repeatable: true });
    notes = JSON.parse(String((await files.read(backup, NOTES, { encoding: 'utf-8', signal })).content)) as Notes;
  } catch (error) {
    if (!isCode(error, 'SANDBOX_NOT_FOUND') && !isCode(error, 'FILE_NOT_FOUND') && !isCode(error, 'INVALID_SANDBOX_ID')) throw error;
    const message = `there is no backup ${id}; it was never made, or its time is over`;
    throw errorOf('BACKUP_NOT_FOUND', message, { httpStatus: 404, operation: 'restore a backup', cause: error });
  }
  if (Date.parse(notes.createdAt) + notes.ttl * 1000 < Date.now()) {
    throw errorOf('BACKUP_EXPIRED', `the time of the backup ${id} is over`, { httpStatus: 400, operation: 'restore a backup' });
  }
  const dir = plain(given.dir ?? notes.dir);
  let isRemoved = false;
  const made = `${dir}.restored-${crypto.randomUUID().slice(0, 8)}`;
  try {
    const archive = await backup.send('GET', '/archive', { attempt: 'read the backup', query: { path: notes.dir, exclude: notes.exclude }, signal });
    // Beside the directory, which is exchanged when all of it is there.
    await scope.done('PUT', '/archive', {
      attempt: 'write the backup',
      query: { path: made, keepOwner: true },
      body: archive.body!,
      headers: { 'content-type': 'application/x-tar' },
      signal,
    });
    // From here on nobody can give up: between the two there is no directory.
    await files.remove(scope, dir, { recursive: true, force: true });
    isRemoved = true;
    await files.move(scope, made, dir, undefined);
  } catch (error) {
    // The only copy there, once the directory is gone.
    if (isRemoved) throw errorOf('BACKUP_RESTORE_FAILED', `${(error as Error).message}; what was restored may be at ${made}`, { httpStatus: 500, operation: 'restore a backup', cause: error });
    await files.remove(scope, made, { recursive: true, force: true }).catch(() => undefined);
    throw failed('BACKUP_RESTORE_FAILED', 'restore a backup', error);
  } finally {
    await backup.done('POST', '/stop', { attempt: 'put the backup to rest', repeatable: true }).catch(() => undefined);
  }
  return { success: true, dir, id };
}

/** The same error, of the class that callers test for, unless it says what is wrong with the call. */
function failed(code: string, operation: string, error: unknown): unknown {
  if (!(error instanceof SandboxError) || error.httpStatus < 500) return error;
  return errorOf(code, error.message, { httpStatus: 500, operation, cause: error });
}
