/** What happened, and what happens, in the lives of sandboxes. */

import type { Binding } from './binding.js';
import { Http } from './http.js';
import { resumed } from './resume.js';
import type { Abortable } from './scope.js';
import type * as wire from './wire.js';

/** One change in the life of a sandbox: `created`, `frozen`, `stopped`, `destroyed`, ..., and why. */
export type SandboxEvent = wire.Event;

/** What happened. */
export type SandboxEventKind = wire.EventKind;

/** Options of `events`. */
export interface EventsOptions extends Abortable {
  /**
   * Begin behind the event with this cursor; 0 for the oldest that is kept. Without it, what follows
   * begins now, and what does not, with the oldest.
   */
  after?: number;
  /** Only those of the sandbox with this id. */
  sandbox?: string;
  /** Only those of sandboxes that had this label, as `name` or `name=value`. */
  label?: string;
  /** Only those of these kinds. */
  kinds?: SandboxEventKind[];
  /** Go on with what happens from now on, which has no end; true unless given. */
  follow?: boolean;
}

/**
 * Events in their order, each once: after a broken connection it goes on where it was, also with
 * another server process. Who stops and comes back later passes the `cursor` of the last as `after`.
 *
 * @throws with the code `EVENTS_MISSED` when what follows is not kept any more.
 */
export async function* events(binding?: Binding, options: EventsOptions = {}): AsyncGenerator<SandboxEvent, void, undefined> {
  const { after, sandbox, label, kinds, follow = true, signal } = options;
  const http = new Http(binding);
  const query = { sandbox, label, kind: kinds?.join(',') };
  const call = { attempt: 'follow events', signal, repeatable: true };
  if (!follow) return yield* pages(http, { ...call, query }, after);
  const open = (last = after?.toString()) => {
    const headers: Record<string, string> = { accept: 'text/event-stream' };
    if (last !== undefined) headers['last-event-id'] = last;
    return http.send('GET', '/v1/events', { ...call, query, headers });
  };
  yield* resumed<SandboxEvent>({ attempt: call.attempt, signal, open, isEnd: () => false, resumes: true });
}

/** Those that are kept, page by page as they are asked for. */
async function* pages(http: Http, call: Parameters<Http['json']>[2], after: number | undefined): AsyncGenerator<SandboxEvent, void, undefined> {
  for (let from = after, more = true; more; ) {
    const page = await http.json<wire.EventList>('GET', '/v1/events', { ...call, query: { ...call.query, after: from } });
    yield* page.events;
    ({ cursor: from, more } = page);
  }
}
