/**
 * A sandbox as the tools of the OpenAI Agents SDK: `shellTool({ shell: new Shell(sandbox) })` and
 * `applyPatchTool({ editor: new Editor(sandbox) })`. The program that has agents has their package,
 * `@openai/agents`; this one takes nothing of it but how a diff is applied.
 */

import { CommandError, FileNotFoundError, SessionTerminatedError } from './error.js';
import type { ExecResult } from './exec.js';
import type { ExecutionSession } from './session.js';
import type { Sandbox } from './sandbox.js';

/** What an agent wants to run, one after the other. */
export interface ShellAction {
  commands: string[];
  /** Milliseconds that each may take. */
  timeoutMs?: number;
  /** Characters of output that the agent wants to see; what is cut off is its own to cut. */
  maxOutputLength?: number;
}

/** What came of one command. */
export interface ShellOutput {
  stdout: string;
  stderr: string;
  outcome: { type: 'exit'; exitCode: number | null } | { type: 'timeout' };
  [name: string]: unknown;
}

/** What came of an action, as the agent is told. */
export interface ShellResult {
  output: ShellOutput[];
  maxOutputLength?: number;
  providerData?: Record<string, unknown>;
}

/** One command that was run, for the program. */
export interface CommandResult {
  command: string;
  stdout: string;
  stderr: string;
  /** `null` when its time was over. */
  exitCode: number | null;
  /** When it had ended, in milliseconds since 1970-01-01 UTC. */
  timestamp: number;
}

const told = ({ stdout, stderr, exitCode, ending }: ExecResult): ShellOutput => ({
  stdout,
  stderr,
  outcome: ending.type === 'timeout' ? { type: 'timeout' } : { type: 'exit', exitCode },
});

/** Runs an agent's commands in a sandbox, or in a session of one: `cd` and `export` stay. */
export class Shell {
  /** All that was run, in its order. */
  readonly results: CommandResult[] = [];

  constructor(readonly sandbox: Pick<Sandbox | ExecutionSession, 'exec'>) {}

  /** Runs the commands; one that is over its time is the last. */
  async run({ commands, timeoutMs, maxOutputLength }: ShellAction): Promise<ShellResult> {
    const output: ShellOutput[] = [];
    for (const command of commands) {
      const done = await this.#one(command, timeoutMs);
      output.push({ command, ...done });
      const exitCode = done.outcome.type === 'exit' ? done.outcome.exitCode : null;
      this.results.push({ command, stdout: done.stdout, stderr: done.stderr, exitCode, timestamp: Date.now() });
      if (done.outcome.type === 'timeout') break;
    }
    return maxOutputLength === undefined ? { output } : { output, maxOutputLength };
  }

  async #one(command: string, timeout: number | undefined): Promise<ShellOutput> {
    try {
      return told(await this.sandbox.exec(command, timeout === undefined ? {} : { timeout }));
    } catch (error) {
      // `exit` ends the shell; the next command has a fresh one.
      if (error instanceof SessionTerminatedError) {
        return { stdout: '', stderr: `${error.message}\n`, outcome: { type: 'exit', exitCode: error.exitCode ?? null } };
      }
      // In a session a command that is over its time is an error, which holds its result.
      const result = error instanceof CommandError ? (error.context as Partial<ExecResult>) : {};
      if (result.ending?.type !== 'timeout') throw error;
      return told(result as ExecResult);
    }
  }
}

/** A change of a file that an agent wants, as a diff without a head. */
export interface PatchOperation {
  path: string;
  diff?: string;
}

/** What came of a change, as the agent is told. */
export interface PatchResult {
  status: 'completed' | 'failed';
  output: string;
}

/** One change that was made or failed, for the program. */
export interface FileOperationResult extends PatchResult {
  operation: 'create' | 'update' | 'delete';
  path: string;
  error?: string;
  /** When, in milliseconds since 1970-01-01 UTC. */
  timestamp: number;
}

/** Applies an agent's changes to files below a directory of a sandbox. */
export class Editor {
  /** All that was done, in its order. */
  readonly results: FileOperationResult[] = [];

  /** @param root the directory that paths are below; they cannot lead out of it. */
  constructor(
    readonly sandbox: Pick<Sandbox | ExecutionSession, 'readFile' | 'writeFile' | 'deleteFile'>,
    readonly root = '/workspace',
  ) {}

  /** Writes a new file; directories that are missing are made. */
  createFile({ path, diff = '' }: PatchOperation): Promise<PatchResult> {
    return this.#attempt('create', path, async (file) => {
      const { applyDiff } = await import('@openai/agents');
      await this.sandbox.writeFile(file, applyDiff('', diff, 'create'));
    });
  }

  /** Changes a file that is there, or leaves it as it is. */
  updateFile({ path, diff = '' }: PatchOperation): Promise<PatchResult> {
    return this.#attempt('update', path, async (file) => {
      const { applyDiff } = await import('@openai/agents');
      const { content } = await this.sandbox.readFile(file, { encoding: 'utf-8' });
      await this.sandbox.writeFile(file, applyDiff(content, diff));
    });
  }

  /** Deletes a file. */
  deleteFile({ path }: PatchOperation): Promise<PatchResult> {
    return this.#attempt('delete', path, (file) => this.sandbox.deleteFile(file));
  }

  async #attempt(operation: FileOperationResult['operation'], path: string, work: (file: string) => Promise<unknown>): Promise<PatchResult> {
    let result: PatchResult & { error?: string };
    try {
      await work(this.#below(path));
      result = { status: 'completed', output: `${operation}d ${path}` };
    } catch (error) {
      // What an agent asked for and cannot have is for it to know, not the end of its run.
      const why = error instanceof FileNotFoundError ? `there is no file ${path}` : (error as Error).message;
      result = { status: 'failed', output: `could not ${operation} ${path}: ${why}`, error: why };
    }
    this.results.push({ operation, path, timestamp: Date.now(), ...result });
    return { status: result.status, output: result.output };
  }

  #below(path: string): string {
    const root = this.root.replace(/\/+$/, '');
    const parts: string[] = [];
    const relative = path === root || path.startsWith(`${root}/`) ? path.slice(root.length) : path;
    for (const part of relative.split('/')) {
      if (part === '..' && parts.pop() === undefined) throw new RangeError(`${path} leads out of ${root}`);
      if (part !== '' && part !== '.' && part !== '..') parts.push(part);
    }
    if (parts.length === 0) throw new RangeError('a path names a file');
    return `${root}/${parts.join('/')}`;
  }
}
