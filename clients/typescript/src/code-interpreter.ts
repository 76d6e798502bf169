/** The code interpreter as an object of its own, for programs that have it so. */

import type { CodeContext, CreateContextOptions, ExecutionResult, RunCodeOptions } from './interpreter.js';
import type { Operations } from './operations.js';
import type { Abortable } from './scope.js';

/** Contexts of a sandbox, and code that runs in them. */
export class CodeInterpreter {
  readonly #sandbox: Operations;

  constructor(sandbox: Operations) {
    this.#sandbox = sandbox;
  }

  /** Makes a context, which keeps variables from run to run. */
  createCodeContext(options?: CreateContextOptions): Promise<CodeContext> {
    return this.#sandbox.createCodeContext(options);
  }

  /** Runs code in a context. Code that fails is a result: see `result.error`. */
  runCode(code: string, options?: RunCodeOptions): Promise<ExecutionResult> {
    return this.#sandbox.runCode(code, options);
  }

  /** Runs code and streams its events. */
  runCodeStream(code: string, options?: RunCodeOptions): Promise<ReadableStream<Uint8Array>> {
    return this.#sandbox.runCodeStream(code, options);
  }

  /** The contexts there are. */
  listCodeContexts(options?: Abortable): Promise<CodeContext[]> {
    return this.#sandbox.listCodeContexts(options);
  }

  /** Ends a context, with what it keeps. */
  deleteCodeContext(context: string | { id: string }, options?: Abortable): Promise<void> {
    return this.#sandbox.deleteCodeContext(context, options);
  }
}
