/** Git repositories, fetched by the sandbox's own git. */

import { type Abortable, type InSession, type Scope, milliseconds, now } from './scope.js';

/** Options of `gitCheckout`. */
export interface GitCheckoutOptions extends InSession, Abortable {
  /** The branch or tag; the remote's own default unless given. */
  branch?: string;
  /** A commit, in place of a branch. */
  commit?: string;
  /** Where to; the repository's name unless given. */
  targetDir?: string;
  /** How many commits of history; all unless given. */
  depth?: number;
  /** Milliseconds until it is given up; ten minutes unless given. */
  cloneTimeoutMs?: number;
  /** The same as `cloneTimeoutMs`. */
  timeout?: number;
  /** What to show to the server. Not stored in the sandbox. */
  auth?: { username?: string; password?: string; header?: { name: string; value: string } };
}

/** What was cloned, and where to. */
export interface GitCheckoutResult {
  success: true;
  /** Without user and password. */
  repoUrl: string;
  branch: string;
  /** The commit that is checked out. */
  commit?: string;
  /** The absolute path of the directory. */
  targetDir: string;
  timestamp: string;
}

export async function checkout(scope: Scope, url: string, options: GitCheckoutOptions | string = {}): Promise<GitCheckoutResult> {
  const { branch, commit, targetDir, depth, cloneTimeoutMs, timeout, auth, signal, ...session } =
    typeof options === 'string' ? { targetDir: options } : options;
  const timeoutMs = milliseconds(cloneTimeoutMs ?? timeout);
  const json = { url, branch, commit, targetDir, depth, timeoutMs, auth, session: scope.sessionOf(session as InSession) };
  const told = await scope.json<{ url: string; branch?: string; commit?: string; targetDir: string }>('POST', '/git/checkout', {
    attempt: 'check out a repository',
    json,
    signal,
  });
  const result: GitCheckoutResult = {
    success: true,
    repoUrl: told.url,
    branch: told.branch ?? branch ?? commit ?? '',
    targetDir: told.targetDir,
    timestamp: now(),
  };
  if (told.commit) result.commit = told.commit;
  return result;
}
