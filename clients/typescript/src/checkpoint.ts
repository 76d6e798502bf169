/** Checkpoints: the files of a sandbox at one moment, to go back to and to begin others from. */

import type { Scope } from './scope.js';
import type * as wire from './wire.js';

/** A checkpoint. */
export type Checkpoint = wire.Checkpoint;

export interface ForkOptions {
  /** The checkpoint whose files they begin with; those of now unless given. */
  checkpoint?: string;
  /** How many to make, up to 64; one unless given. */
  count?: number;
  /** Their ids; generated unless given. */
  ids?: string[];
  /** Their labels; those of the sandbox unless given. */
  labels?: Record<string, string>;
}

const named = (id: string): string => `/checkpoints/${encodeURIComponent(id)}`;

export async function create(scope: Scope, id: string | undefined): Promise<Checkpoint> {
  const json: wire.CreateCheckpoint = id === undefined ? {} : { id };
  const call = { attempt: 'make a checkpoint', json };
  return (await scope.json<wire.CheckpointCreated>('POST', '/checkpoints', call)).checkpoint;
}

export async function list(scope: Scope): Promise<Checkpoint[]> {
  const call = { attempt: 'list checkpoints', repeatable: true };
  return (await scope.json<wire.CheckpointList>('GET', '/checkpoints', call)).checkpoints;
}

export function remove(scope: Scope, id: string): Promise<void> {
  return scope.done('DELETE', named(id), { attempt: 'remove a checkpoint' });
}

export function restore(scope: Scope, checkpoint: string): Promise<void> {
  const json: wire.RestoreCheckpoint = { checkpoint };
  return scope.done('POST', '/restore', { attempt: 'restore a checkpoint', json });
}

/** The ids of the forks. */
export async function fork(scope: Scope, options: ForkOptions): Promise<string[]> {
  const json: wire.ForkSandbox = { ...options };
  const forks = await scope.json<wire.Forks>('POST', '/fork', { attempt: 'fork a sandbox', json });
  return forks.sandboxes.map((sandbox) => sandbox.id);
}
