/** What becomes of a sandbox that nobody uses, in the words of the reference. */

import { SandboxSecurityError } from './error.js';
import type { SandboxOptions } from './sandbox.js';
import type * as wire from './wire.js';

const UNITS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** A time in the reference's spelling, `"3m"` or seconds, in milliseconds. */
export function sleepAfterMs(sleepAfter: string | number): number {
  const [, digits, unit] = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?$/.exec(String(sleepAfter).trim()) ?? [];
  if (digits === undefined) {
    throw new SandboxSecurityError(`sleepAfter is '${sleepAfter}'; write it as 30s, 3m, 1h, or as seconds`, 'INVALID_SLEEP_AFTER');
  }
  return Math.round(Number(digits) * (UNITS[unit ?? 's'] as number));
}

/** What the options ask about idle time; `undefined` when they ask nothing. */
export function idleOf({ idle, sleepAfter, keepAlive }: SandboxOptions): wire.IdleSettings | undefined {
  if (!idle && sleepAfter === undefined && keepAlive === undefined) return undefined;
  const asked: wire.IdleSettings = { ...idle };
  if (sleepAfter !== undefined) asked.sleepAfterMs = sleepAfterMs(sleepAfter);
  if (keepAlive !== undefined) asked.keepAlive = keepAlive;
  return asked;
}
