/** Watching files: what changes, as it changes, or whether anything has changed since last time. */

import { type Abortable, type InSession, type Scope, isoOf, now } from './scope.js';
import { resumed } from './resume.js';
import { eventStream } from './sse.js';
import type * as wire from './wire.js';

/** Options of `watch`. */
export interface WatchOptions extends InSession, Abortable {
  /** Directories below it too; true unless given. */
  recursive?: boolean;
  /** Only what matches one of these patterns. Not together with `exclude`. */
  include?: string[];
  /** All but what matches one of these; `.git`, `node_modules` and `.DS_Store` unless given. */
  exclude?: string[];
}

/** An event of `watch`. */
export type FileWatchSSEEvent =
  | { type: 'watching'; path: string; watchId: string; timestamp: string }
  | {
      type: 'event';
      eventType: 'create' | 'modify' | 'attrib' | 'delete' | 'move_from' | 'move_to';
      path: string;
      isDirectory: boolean;
      timestamp: string;
      /** Of `move_to`: where it was. */
      from?: string;
      /** Of `move_from`: where it is. */
      to?: string;
    }
  | { type: 'overflow'; path: string; timestamp: string }
  | { type: 'error'; error: string; timestamp: string }
  | { type: 'stopped'; reason: string; timestamp: string };

/** Options of `checkChanges`. */
export interface CheckChangesOptions extends WatchOptions {
  /** The `version` of an earlier answer for the same path and patterns. */
  since?: string;
}

/** Whether anything has changed, or that it cannot be told: `resync`. */
export type CheckChangesResult =
  | { success: true; status: 'unchanged' | 'changed'; version: string; timestamp: string }
  | { success: true; status: 'resync'; reason: 'expired' | 'restarted'; version: string; timestamp: string };

/** Names under which the server writes files before they are whole. */
const TEMPORARY = /(^|\/)\.sandbar-[0-9a-f]+$/;

const NAMES = { moveFrom: 'move_from', moveTo: 'move_to' } as const;

function translate(event: wire.WatchEvent): FileWatchSSEEvent | undefined {
  switch (event.type) {
    case 'watching':
      return { type: 'watching', path: event.path, watchId: event.path, timestamp: now() };
    case 'event': {
      const { eventType, path, isDirectory, from, to } = event;
      if (TEMPORARY.test(path)) return undefined;
      // A file that was written whole takes its place by being moved there.
      const written = eventType === 'moveTo' && from && TEMPORARY.test(from);
      if (written) return { type: 'event', eventType: 'modify', path, isDirectory, timestamp: isoOf(event.timestampMs) };
      const name = NAMES[eventType as keyof typeof NAMES] ?? (eventType as 'create');
      const told: FileWatchSSEEvent = { type: 'event', eventType: name, path, isDirectory, timestamp: isoOf(event.timestampMs) };
      if (from) told.from = from;
      if (to) told.to = to;
      return told;
    }
    case 'overflow':
      return { type: 'overflow', path: event.path, timestamp: now() };
    case 'stopped':
      return { type: 'stopped', reason: event.reason, timestamp: now() };
    default:
      return { type: 'error', error: event.error.message, timestamp: now() };
  }
}

function patterns(options: WatchOptions): { include?: string[]; exclude?: string[] } {
  const { include, exclude } = options;
  if (include?.length) return { include };
  return exclude ? { exclude } : {};
}

/** Resolves when the watch is armed: what happens from then on is in the stream. */
export function watch(scope: Scope, path: string, options: WatchOptions = {}): Promise<ReadableStream<Uint8Array>> {
  return eventStream((signal) => armed(scope, path, { ...options, signal }), options.signal);
}

async function armed(scope: Scope, path: string, options: WatchOptions): Promise<AsyncGenerator<FileWatchSSEEvent>> {
  const { include, exclude } = patterns(options);
  const query = {
    path,
    session: scope.sessionOf(options),
    // What is false is left out elsewhere.
    recursive: options.recursive === false ? 'false' : undefined,
    include,
    exclude: exclude && exclude.length === 0 ? [''] : exclude,
  };
  const { signal } = options;
  const attempt = `watch ${path}`;
  const headers = { accept: 'text/event-stream' };
  const open = () => scope.send('GET', '/files:watch', { attempt, query, headers, signal, repeatable: true });
  const isEnd = ({ type }: wire.WatchEvent) => type === 'stopped' || type === 'error';
  const told = events(resumed({ attempt, signal, open, isEnd, resumes: true }, await open()));
  const first = await told.next();
  return (async function* () {
    try {
      if (!first.done) yield first.value;
      yield* told;
    } finally {
      await told.return();
    }
  })();
}

/** What a watch tells. Armed again after its connection broke, it says that something may be missing. */
async function* events(told: AsyncIterable<wire.WatchEvent>): AsyncGenerator<FileWatchSSEEvent, void, undefined> {
  let armed = false;
  for await (const each of told) {
    const event = translate(each);
    if (event?.type === 'watching' && armed) yield { type: 'overflow', path: event.path, timestamp: event.timestamp };
    else if (event) yield event;
    armed = true;
  }
}

export async function checkChanges(scope: Scope, path: string, options: CheckChangesOptions = {}): Promise<CheckChangesResult> {
  const json: wire.CheckChanges = { path, ...patterns(options) };
  const session = scope.sessionOf(options);
  if (session !== undefined && !path.startsWith('/')) json.session = session;
  if (options.recursive !== undefined) json.recursive = options.recursive;
  if (options.since !== undefined) json.since = options.since;
  const call = { attempt: `look for changes in ${path}`, json, signal: options.signal, repeatable: true };
  const { status, version, reason } = await scope.json<wire.Changes>('POST', '/files:changes', call);
  const told = { success: true as const, version, timestamp: now() };
  return status === 'resync' ? { ...told, status, reason: reason ?? 'expired' } : { ...told, status };
}
