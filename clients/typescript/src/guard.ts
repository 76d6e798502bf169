/** Whether values are what they are taken for. */

import type { ExecResult } from './exec.js';
import type { Process, ProcessStatus } from './process.js';

const has = (value: unknown, name: string, type: string): boolean =>
  typeof value === 'object' && value !== null && typeof (value as Record<string, unknown>)[name] === type;

/** Whether it is what `exec` resolves to. */
export function isExecResult(value: unknown): value is ExecResult {
  return has(value, 'success', 'boolean') && has(value, 'exitCode', 'number') && has(value, 'stdout', 'string') && has(value, 'stderr', 'string');
}

/** Whether it is a process, or what JSON made of one. */
export function isProcess(value: unknown): value is Process {
  return has(value, 'id', 'string') && has(value, 'command', 'string') && has(value, 'status', 'string');
}

/** Whether it is one of the words for where a process is in its life. */
export function isProcessStatus(value: unknown): value is ProcessStatus {
  return ['starting', 'running', 'completed', 'failed', 'killed', 'error'].includes(value as string);
}
