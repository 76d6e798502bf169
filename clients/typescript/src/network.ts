/** What a sandbox may reach, changed while it runs. */

import type { Abortable, Scope } from './scope.js';
import type * as wire from './wire.js';

/**
 * `internet` for public addresses, `none`, or a list: `{ allow: ['pypi.org:443', '*.example.com', '203.0.113.0/24'] }`.
 * Never, whatever is said: the host, other sandboxes, private ranges.
 */
export type NetworkPolicy = wire.NetworkPolicy;

/** Changes it; connections that it does not allow end. Says whether there is such a sandbox. */
export async function change(scope: Scope, network: NetworkPolicy, { signal }: Abortable = {}): Promise<boolean> {
  try {
    const call = { attempt: 'change what a sandbox may reach', json: { network } satisfies wire.UpdateSandbox, signal, repeatable: true };
    await scope.http.done('PATCH', scope.path(), call);
    return true;
  } catch (error) {
    if ((error as { code?: string }).code !== 'SANDBOX_NOT_FOUND') throw error;
    return false;
  }
}

/** The rules that there are, of a sandbox that may reach what is listed. */
export const rulesOf = (network: NetworkPolicy | undefined): string[] =>
  typeof network === 'object' && network !== null ? network.allow : [];

/** The policy that allows these, in the sense of the reference: no list allows everything. */
export const allowing = (rules: string[]): NetworkPolicy => (rules.length > 0 ? { allow: [...new Set(rules)] } : 'internet');
