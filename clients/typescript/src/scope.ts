/** What every operation needs: the server, the sandbox, the session, and that the sandbox is made. */

import type { Call, Http } from './http.js';

/** A session, as options name one: its id or name, or the object. */
export type SessionRef = string | { readonly id: string };

/** Options of every method that works in a session. */
export interface InSession {
  /** The session; that of the object it is called on unless given. */
  session?: SessionRef;
  /** The same as `session`. */
  sessionId?: SessionRef;
}

/** Options of every method. */
export interface Abortable {
  /** Cancels the operation, also in the sandbox. */
  signal?: AbortSignal;
}

export class Scope {
  constructor(
    readonly http: Http,
    /** The sandbox's id. */
    readonly sandboxId: string,
    /** The session that calls without one use; none for a fresh shell each. */
    readonly session: string | undefined,
    /** Resolves when the sandbox may be used. */
    readonly prepared: () => Promise<void> | undefined,
  ) {}

  /** The path of a route of the sandbox. */
  path(route = ''): string {
    return `/v1/sandboxes/${encodeURIComponent(this.sandboxId)}${route}`;
  }

  /** The session that is meant: by options, by a trailing argument, or the scope's own. */
  sessionOf(options?: InSession | undefined, argument?: SessionRef): string | undefined {
    const ref = argument ?? options?.session ?? options?.sessionId;
    if (ref === undefined || ref === null) return this.session;
    const id = typeof ref === 'string' ? ref : ref.id;
    // What the reference calls its default session.
    return id === `sandbox-${this.sandboxId}` ? 'default' : id;
  }

  async send(method: string, route: string, call: Call): Promise<Response> {
    const preparing = this.prepared();
    if (preparing) await preparing;
    return this.http.send(method, this.path(route), call);
  }

  async json<T>(method: string, route: string, call: Call): Promise<T> {
    const preparing = this.prepared();
    if (preparing) await preparing;
    return this.http.json<T>(method, this.path(route), call);
  }

  async done(method: string, route: string, call: Call): Promise<void> {
    const preparing = this.prepared();
    if (preparing) await preparing;
    return this.http.done(method, this.path(route), call);
  }
}

/** Variables as the API takes them: numbers and booleans as text, and `undefined` left out. */
export function variables(
  env: Record<string, string | number | boolean | null | undefined> | undefined,
  unset = false,
): Record<string, string | null> | undefined {
  if (!env) return undefined;
  const entries = Object.entries(env).flatMap(([name, value]): [string, string | null][] => {
    if (value === undefined || value === null) return unset || value === null ? [[name, null]] : [];
    return [[name, String(value)]];
  });
  return Object.fromEntries(entries);
}

export const now = (): string => new Date().toISOString();

export const isoOf = (ms: number): string => new Date(ms).toISOString();

/** A number of milliseconds as the API takes it; none for what is not a positive number. */
export function milliseconds(value: number | undefined): number | undefined {
  if (value === undefined || value === null || !Number.isFinite(value) || value <= 0) return undefined;
  return Math.min(Math.max(1, Math.round(value)), 86_400_000);
}
