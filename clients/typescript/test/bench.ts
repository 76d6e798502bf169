/** What the tests share. */

import { randomUUID } from 'node:crypto';
import type { TestContext } from 'node:test';
import { type Sandbox, type SandboxOptions, getSandbox, parseSSEStream } from '@sandbar/sandbox';

/** A sandbox of the test's own, which goes with the test. */
export function sandboxOf(t: TestContext, options?: SandboxOptions): Sandbox {
  const sandbox = getSandbox(undefined, `sdk-${randomUUID()}`, options);
  t.after(() => sandbox.destroy());
  return sandbox;
}

/** All events of a stream. */
export async function all<T = any>(stream: ReadableStream<Uint8Array>): Promise<T[]> {
  const events: T[] = [];
  for await (const event of parseSSEStream<T>(stream)) events.push(event);
  return events;
}

/** The error that a promise rejects with. */
export async function errorFrom(promise: Promise<unknown>): Promise<any> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('it was expected to be refused');
}
