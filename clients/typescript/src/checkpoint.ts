/** Checkpoints: the files of a sandbox at one moment, to go back to and to begin others from. */

import type { Abortable, Scope } from './scope.js';
import type * as wire from './wire.js';

/** A checkpoint. */
export type Checkpoint = wire.Checkpoint;

/** Options of `fork`. */
export interface ForkOptions extends Abortable {
  /** The checkpoint whose files they begin with; those of now unless given. */
  checkpoint?: string;
  /** How many to make, up to 64; one unless given. */
  count?: number;
  /** Their ids; generated unless given. */
  ids?: string[];
  /** Their labels; those of the sandbox unless given. */
  labels?: Record<string, string>;
  /** They start nothing by themselves: neither `onStart` nor services of the sandbox are theirs. */
  bare?: boolean;
}

const named = (id: string): string => `/checkpoints/${encodeURIComponent(id)}`;

export async function create(scope: Scope, id: string | undefined, { signal }: Abortable = {}): Promise<Checkpoint> {
  const json: wire.CreateCheckpoint = id === undefined ? {} : { id };
  const call = { attempt: 'make a checkpoint', json, signal };
  return (await scope.json<wire.CheckpointCreated>('POST', '/checkpoints', call)).checkpoint;
}

export async function list(scope: Scope, { signal }: Abortable = {}): Promise<Checkpoint[]> {
  const call = { attempt: 'list checkpoints', signal, repeatable: true };
  return (await scope.json<wire.CheckpointList>('GET', '/checkpoints', call)).checkpoints;
}

export function remove(scope: Scope, id: string, { signal }: Abortable = {}): Promise<void> {
  return scope.done('DELETE', named(id), { attempt: 'remove a checkpoint', signal });
}

export function restore(scope: Scope, checkpoint: string, { signal }: Abortable = {}): Promise<void> {
  const json: wire.RestoreCheckpoint = { checkpoint };
  return scope.done('POST', '/restore', { attempt: 'restore a checkpoint', json, signal });
}

/** The ids of the forks. */
export async function fork(scope: Scope, { signal, ...json }: ForkOptions): Promise<string[]> {
  const forks = await scope.json<wire.Forks>('POST', '/fork', { attempt: 'fork a sandbox', json: json satisfies wire.ForkSandbox, signal });
  return forks.sandboxes.map((sandbox) => sandbox.id);
}
