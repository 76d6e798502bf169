/** Streams of the server's that go on by themselves when their connection breaks. */

import { errorOfWire } from './error.js';
import { type Call, broken, sleep } from './http.js';
import type { Scope } from './scope.js';
import { ownEvents } from './sse.js';
import type * as wire from './wire.js';

/** Milliseconds of coming back to a stream whose connection broke: the server waits half of that. */
export const COME_BACK_MS = 60_000;

/** Milliseconds before coming back. */
const PAUSE_MS = 100;

/** How a stream of events is opened, and when it is whole. */
export interface Resumable<Event> {
  attempt: string;
  signal?: AbortSignal | undefined;
  /** Opens it after the event with this id, or from its beginning. */
  open(after: string | undefined): Promise<Response>;
  /** Nothing comes after this event. */
  isEnd(event: Event): boolean;
  /** It can be opened again; else the end of its connection is its end, and an error. */
  resumes: boolean;
}

/** The events of a stream, to its end. An error that the server tells in it is thrown. */
export async function* resumed<Event extends object>(
  { attempt, signal, open, isEnd, resumes }: Resumable<Event>,
  first?: Response,
): AsyncGenerator<Event, void, undefined> {
  let after: string | undefined;
  let response = first;
  for (let brokenAt: number | undefined; ; response = undefined) {
    response ??= await open(after);
    let told: Error | undefined;
    try {
      for await (const { data, id } of ownEvents(response.body!, signal)) {
        const event = data === '' ? undefined : (JSON.parse(data) as Event | wire.ErrorBody);
        // An event that tells an error of its own has a type.
        if (event && 'error' in event && !('type' in event)) throw (told = errorOfWire(event, 410, attempt));
        brokenAt = undefined;
        if (id !== undefined) after = id;
        if (!event) continue;
        yield event as Event;
        if (isEnd(event as Event)) return;
      }
      throw new Error('it ended early');
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (told) throw told;
      brokenAt ??= Date.now();
      if (!resumes || Date.now() - brokenAt > COME_BACK_MS) throw broken(attempt, 'the server', error);
      await sleep(PAUSE_MS, signal);
    }
  }
}

/** A file's bytes. When the connection breaks they go on, or fail when the file is another by then. */
export function resumedBody(scope: Scope, route: string, call: Call, first: Response): ReadableStream<Uint8Array> {
  const { signal } = call;
  const etag = first.headers.get('etag');
  let reader = first.body?.getReader();
  let at = 0;
  let brokenAt: number | undefined;
  let cancelled = false;
  const next = async (): Promise<Uint8Array | undefined> => {
    for (;;) {
      try {
        const { done, value } = (await reader?.read()) ?? { done: true };
        if (done) return undefined;
        brokenAt = undefined;
        at += value!.length;
        return value;
      } catch (error) {
        if (signal?.aborted) throw signal.reason;
        brokenAt ??= Date.now();
        if (!etag || Date.now() - brokenAt > COME_BACK_MS) throw broken(call.attempt, 'the server', error);
        await sleep(PAUSE_MS, signal);
        const headers = { ...call.headers, range: `bytes=${at}-`, 'if-match': etag };
        reader = (await scope.send('GET', route, { ...call, headers })).body?.getReader();
        if (cancelled) await reader?.cancel();
      }
    }
  };
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const bytes = await next();
        if (bytes) controller.enqueue(bytes);
        else controller.close();
      },
      async cancel(reason) {
        cancelled = true;
        await reader?.cancel(reason);
      },
    },
    { highWaterMark: 0 },
  );
}
