/** Sessions: shells that keep their directory, variables and functions between commands. */

import { Operations } from './operations.js';
import { type Abortable, Scope, milliseconds, variables } from './scope.js';
import type { Env } from './exec.js';
import type * as wire from './wire.js';

/** Options of `createSession`. */
export interface SessionOptions extends Abortable {
  /** The id to give it; `name`, or a generated one, unless given. */
  id?: string;
  /** A name for people, by which it is found too. */
  name?: string;
  /** Variables over those of the sandbox. */
  env?: Env;
  /** Where its shell starts; `/workspace` unless given. A directory that is missing is made. */
  cwd?: string;
  /** Accepted and not used: every session is a shell of its own. */
  isolation?: boolean;
  /** The `timeout` of its commands that have none. */
  commandTimeoutMs?: number;
}

/**
 * A session, with everything that a sandbox has, done in it. Where a text is wanted it is its id, so
 * it can be stored and given back as `{ session: id }`.
 */
export class ExecutionSession extends Operations {
  constructor(
    scope: Scope,
    /** Its id. */
    readonly id: string,
  ) {
    super(new Scope(scope.http, scope.sandboxId, id, scope.prepared));
  }

  /** Sets variables of this session; `null` and `undefined` unset. */
  override async setEnvVars(envVars: Env, { signal }: Abortable = {}): Promise<void> {
    const json: wire.ChangeEnv = { env: variables(envVars, true) ?? {} };
    const route = `/sessions/${encodeURIComponent(this.id)}/env`;
    const change = () => this.scope.done('PATCH', route, { attempt: 'set variables', json, signal, repeatable: true });
    try {
      await change();
    } catch (error) {
      if ((error as { code?: string }).code !== 'SESSION_NOT_FOUND') throw error;
      // It was named and never used: it is made by its first use, which this is.
      await create(this.scope, { id: this.id, signal });
      await change();
    }
  }

  /** Its id. */
  override toString(): string {
    return this.id;
  }

  /** Its id. */
  toJSON(): string {
    return this.id;
  }

  [Symbol.toPrimitive](): string {
    return this.id;
  }
}

async function create(scope: Scope, options: SessionOptions): Promise<string> {
  const json: wire.CreateSession = {};
  if (options.id !== undefined) json.id = options.id;
  if (options.name !== undefined) json.name = options.name;
  if (options.cwd !== undefined) json.cwd = options.cwd;
  const env = variables(options.env);
  if (env) json.env = env;
  const timeout = milliseconds(options.commandTimeoutMs);
  if (timeout !== undefined) json.commandTimeoutMs = timeout;
  const make = () => scope.json<wire.Session>('POST', '/sessions', { attempt: 'make a session', json, signal: options.signal });
  try {
    return (await make()).id;
  } catch (error) {
    if ((error as { code?: string }).code !== 'FILE_NOT_FOUND' || options.cwd === undefined) throw error;
    const call = { attempt: 'make the directory of a session', json: { path: options.cwd, recursive: true } };
    await scope.done('POST', '/files:mkdir', { ...call, signal: options.signal, repeatable: true });
    return (await make()).id;
  }
}

export async function createSession(scope: Scope, options: SessionOptions = {}): Promise<ExecutionSession> {
  return new ExecutionSession(scope, await create(scope, options));
}

/** The answer of `deleteSession`. */
export interface SessionDeleteResult {
  success: boolean;
  sessionId: string;
  timestamp: string;
}
