/** The code interpreter as an object of its own, for programs that have it so. */

import type { CodeContext, CreateContextOptions, ExecutionResult, RunCodeOptions } from './interpreter.js';
import type { Operations } from './operations.js';
import type { Abortable } from './scope.js';

export class CodeInterpreter {
  readonly #sandbox: Operations;

  constructor(sandbox: Operations) {
    this.#sandbox = sandbox;
  }

  createCodeContext(options?: CreateContextOptions): Promise<CodeContext> {
    return this.#sandbox.createCodeContext(options);
  }

  runCode(code: string, options?: RunCodeOptions): Promise<ExecutionResult> {
    return this.#sandbox.runCode(code, options);
  }

  runCodeStream(code: string, options?: RunCodeOptions): Promise<ReadableStream<Uint8Array>> {
    return this.#sandbox.runCodeStream(code, options);
  }

  listCodeContexts(options?: Abortable): Promise<CodeContext[]> {
    return this.#sandbox.listCodeContexts(options);
  }

  deleteCodeContext(context: string | { id: string }, options?: Abortable): Promise<void> {
    return this.#sandbox.deleteCodeContext(context, options);
  }
}
