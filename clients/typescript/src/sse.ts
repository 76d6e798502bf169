/** Server-sent events, read and written. */

/** One event of a stream. */
export interface ServerEvent {
  event?: string;
  id?: string;
  /** Empty of one that only says from where to go on. */
  data: string;
}

/** Milliseconds without a byte after which a connection counts as dead: the server writes every 15 s. */
const SILENCE_MS = 50_000;

/** The events of a stream of bytes. Ending the iteration early closes the stream. */
export async function* serverEvents(
  stream: ReadableStream<Uint8Array>,
  signal?: AbortSignal,
  silenceMs?: number,
): AsyncGenerator<ServerEvent> {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let over = false;
  const abort = () => void reader.cancel(signal!.reason).catch(() => {});
  signal?.addEventListener('abort', abort, { once: true });
  let rest = '';
  let event: ServerEvent = { data: '' };
  let lines = 0;
  try {
    for (;;) {
      if (signal?.aborted) throw signal.reason;
      const { done, value } = await (silenceMs ? within(reader.read(), silenceMs) : reader.read());
      if (signal?.aborted) throw signal.reason;
      over = done;
      // Of ours, an event without a blank line behind it was cut off; others leave out their last one.
      if (done && silenceMs) return;
      rest += done ? `${decoder.decode()}\n\n` : decoder.decode(value, { stream: true });
      // A line ends with CR, LF or both; of a CR at the very end the rest is not known yet.
      for (let from = 0; ; ) {
        const end = lineEnd(rest, from);
        if (end < 0) {
          rest = rest.slice(from);
          break;
        }
        const line = rest.slice(from, end);
        from = rest[end] === '\r' && rest[end + 1] === '\n' ? end + 2 : end + 1;
        if (line === '') {
          if (lines > 0 || event.id !== undefined) yield event;
          event = { data: '' };
          lines = 0;
        } else if (line[0] !== ':') {
          const colon = line.indexOf(':');
          const name = colon < 0 ? line : line.slice(0, colon);
          const text = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
          if (name === 'data') event.data = lines++ === 0 ? text : `${event.data}\n${text}`;
          else if (name === 'event') event.event = text;
          else if (name === 'id') event.id = text;
        }
      }
      if (done) return;
    }
  } finally {
    signal?.removeEventListener('abort', abort);
    if (!over) await reader.cancel().catch(() => {});
    reader.releaseLock();
  }
}

function lineEnd(text: string, from: number): number {
  const feed = text.indexOf('\n', from);
  const back = text.indexOf('\r', from);
  if (back >= 0 && back === text.length - 1) return feed >= 0 && feed < back ? feed : -1;
  return feed < 0 ? back : back < 0 ? feed : Math.min(feed, back);
}

async function within<T>(promise: Promise<T>, ms: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('the server has gone silent')), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** As `serverEvents`, of a stream of ours, which is never silent while its connection lives. */
export const ownEvents = (stream: ReadableStream<Uint8Array>, signal?: AbortSignal) =>
  serverEvents(stream, signal, SILENCE_MS);

/**
 * The events of a stream as objects: the JSON of each event's data. Blank data, `[DONE]` and what is
 * no JSON is left out.
 *
 * @throws when `signal` is aborted.
 */
export async function* parseSSEStream<T = any>(
  stream: ReadableStream<Uint8Array>,
  signal?: AbortSignal,
): AsyncGenerator<T, void, undefined> {
  if (signal?.aborted) throw new Error('Operation was aborted');
  try {
    for await (const { data } of serverEvents(stream, signal)) {
      if (data.trim() === '' || data === '[DONE]') continue;
      let value: T;
      try {
        value = JSON.parse(data) as T;
      } catch {
        continue;
      }
      yield value;
    }
  } catch (error) {
    if (signal?.aborted) throw new Error('Operation was aborted', { cause: error });
    throw error;
  }
}

/** As `parseSSEStream`, of an HTTP answer. */
export async function* responseToAsyncIterable<T = any>(
  response: Response,
  signal?: AbortSignal,
): AsyncGenerator<T, void, undefined> {
  if (!response.ok) throw new Error(`Response not ok: ${response.status} ${response.statusText}`);
  if (!response.body) throw new Error('No response body');
  yield* parseSSEStream<T>(response.body, signal);
}

const encoder = new TextEncoder();

/** One event as it is written, with its type on an `event:` line too, as `EventSource` wants it. */
export function encodeEvent(value: unknown, type?: string): Uint8Array {
  const name = type ?? (value as { type?: unknown } | null)?.type;
  const head = typeof name === 'string' && !/[\r\n]/.test(name) ? `event: ${name}\n` : '';
  return encoder.encode(`${head}data: ${JSON.stringify(value)}\n\n`);
}

/** Objects as a stream of events, which ends with `[DONE]`. */
export function asyncIterableToSSEStream<T>(
  events: AsyncIterable<T>,
  options: { signal?: AbortSignal; serialize?: (event: T) => string } = {},
): ReadableStream<Uint8Array> {
  const { signal, serialize = JSON.stringify } = options;
  const iterator = events[Symbol.asyncIterator]();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      if (signal?.aborted) {
        await iterator.return?.();
        return controller.error(new Error('Operation was aborted'));
      }
      const { done, value } = await iterator.next();
      controller.enqueue(encoder.encode(`data: ${done ? '[DONE]' : serialize(value)}\n\n`));
      if (done) controller.close();
    },
    async cancel() {
      await iterator.return?.();
    },
  });
}

/**
 * Events as a stream of the reference's form: no `[DONE]`, types on `event:` lines. What they begin with
 * is told the signal that ends them: the caller's, or that nobody reads any more.
 */
export async function eventStream<T>(
  begin: (signal: AbortSignal) => AsyncIterator<T> | Promise<AsyncIterator<T>>,
  signal?: AbortSignal,
): Promise<ReadableStream<Uint8Array>> {
  const left = new AbortController();
  const events = await begin(signal ? AbortSignal.any([signal, left.signal]) : left.signal);
  let begun = false;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        begun = true;
        const { done, value } = await events.next();
        if (done) controller.close();
        else controller.enqueue(encodeEvent(value));
      },
      async cancel() {
        // Not only by ending the iteration: that would wait for the event that is waited for.
        left.abort(new Error('nobody reads the stream any more'));
        // What has not begun would end without what is done at its end.
        if (!begun) void events.next().catch(() => {});
        await events.return?.().catch(() => {});
      },
    },
    { highWaterMark: 0 },
  );
}
