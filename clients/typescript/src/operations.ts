/** Everything that can be done in a sandbox, and in a session of it. */

import * as backups from './backup.js';
import * as connections from './connection.js';
import * as commands from './exec.js';
import * as files from './file.js';
import * as git from './git.js';
import * as interpreter from './interpreter.js';
import * as ports from './port.js';
import * as processes from './process.js';
import { errorOf } from './error.js';
import { type Abortable, type InSession, Scope, type SessionRef, variables } from './scope.js';
import * as terminals from './terminal.js';
import * as watches from './watch.js';
import type * as wire from './wire.js';

/** Header in which a request says which port it is for. */
const TARGET_PORT = 'cf-container-target-port';

/** A trailing argument that is a session, or options that may name one. */
type SessionOrOptions<Options> = SessionRef | (Options & InSession);

const named = <Options extends object>(given: SessionOrOptions<Options & InSession> | undefined): Options & InSession =>
  // Sessions have an id, and no options do.
  (typeof given === 'string' || (given && 'id' in given) ? { session: given } : (given ?? {})) as Options & InSession;

export abstract class Operations {
  /** @internal */
  declare readonly scope: Scope;

  protected constructor(scope: Scope) {
    // Not shown, and not written out with the object.
    Object.defineProperty(this, 'scope', { value: scope });
  }

  // Commands

  /**
   * Runs a command to its end: a shell text, or a program and its arguments. A command that fails is
   * a result, not an error. What it does to the shell (`cd`, `export`, functions) stays.
   */
  exec(command: commands.Command, options?: commands.ExecOptions): Promise<commands.ExecResult> {
    return commands.exec(this.scope, command, options);
  }

  /** Starts a command and streams its events; read them with `parseSSEStream<ExecEvent>`. Cancelling the stream ends the command. */
  execStream(command: commands.Command, options?: commands.StreamOptions): Promise<ReadableStream<Uint8Array>> {
    return commands.execStream(this.scope, command, options);
  }

  // Processes

  /** Starts a command that runs on by itself. */
  startProcess(command: commands.Command, options?: processes.ProcessOptions, session?: SessionRef): Promise<processes.Process> {
    return processes.start(this.scope, command, session === undefined ? options : { ...options, session });
  }

  /** The same as `startProcess`. */
  spawn(command: commands.Command, options?: processes.ProcessOptions): Promise<processes.Process> {
    return processes.start(this.scope, command, options);
  }

  /** Processes that run, and those that ended a while ago. They are the sandbox's, whoever asks. */
  listProcesses(options?: SessionOrOptions<Abortable>): Promise<processes.Process[]> {
    return processes.list(this.scope, named<Abortable>(options));
  }

  /** A process by its id, or by its process id in the sandbox. */
  getProcess(id: string | number, options?: SessionOrOptions<Abortable>): Promise<processes.Process | null> {
    return processes.get(this.scope, id, named<Abortable>(options));
  }

  /** Whether a process runs. */
  async isProcessRunning(id: string | number, options?: Abortable): Promise<boolean> {
    return (await processes.get(this.scope, id, options))?.status === 'running';
  }

  /** Asks a process and all it started to end, and ends what is left after five seconds. */
  killProcess(id: string | number, signal?: string | number, options?: SessionOrOptions<Abortable>): Promise<void> {
    return processes.kill(this.scope, id, signal, named<Abortable>(options));
  }

  /** Ends all processes; returns how many ran. */
  killAllProcesses(options?: SessionOrOptions<Abortable>): Promise<number> {
    return processes.killAll(this.scope, named<Abortable>(options));
  }

  /** How many ended processes were forgotten: none, the server forgets them by itself. */
  async cleanupCompletedProcesses(_session?: SessionRef): Promise<number> {
    return 0;
  }

  /** What a process wrote so far. */
  getProcessLogs(id: string | number, options?: SessionOrOptions<Abortable>): Promise<processes.ProcessLogs> {
    return processes.logs(this.scope, id, named<Abortable>(options));
  }

  /** What a process wrote and writes, as events; read them with `parseSSEStream<LogEvent>`. */
  streamProcessLogs(id: string | number, options?: Abortable): Promise<ReadableStream<Uint8Array>> {
    return processes.stream(this.scope, id, options);
  }

  // Files

  /** Writes a file, whole or not at all. Directories that are missing are made. */
  writeFile(path: string, content: files.FileInput, options?: SessionOrOptions<files.WriteFileOptions>): Promise<files.FileResult> {
    return files.write(this.scope, path, content, named<files.WriteFileOptions>(options));
  }

  /** Reads a file. */
  readFile(path: string, options: files.ReadFileOptions & { encoding: 'none' }): Promise<files.ReadFileStreamResult>;
  readFile(path: string, options?: SessionOrOptions<files.ReadFileOptions>): Promise<files.ReadFileResult>;
  readFile(path: string, options?: SessionOrOptions<files.ReadFileOptions>): Promise<files.ReadFileResult | files.ReadFileStreamResult> {
    return files.read(this.scope, path, named<files.ReadFileOptions>(options));
  }

  /** Reads a file as events; see `streamFile` and `collectFile`. */
  readFileStream(path: string, options?: SessionOrOptions<Abortable>): Promise<ReadableStream<Uint8Array>> {
    return files.readStream(this.scope, path, named<Abortable>(options));
  }

  /** Makes a directory. */
  mkdir(path: string, options?: SessionOrOptions<{ recursive?: boolean } & Abortable>): Promise<files.MkdirResult> {
    return files.mkdir(this.scope, path, named<{ recursive?: boolean } & Abortable>(options));
  }

  /** Deletes a file. */
  deleteFile(path: string, options?: SessionOrOptions<Abortable>): Promise<files.FileResult> {
    return files.remove(this.scope, path, named<Abortable>(options));
  }

  /** Deletes a file or, with `recursive`, a directory with everything in it. */
  async rm(path: string, options?: SessionOrOptions<{ recursive?: boolean; force?: boolean } & Abortable>): Promise<void> {
    await files.remove(this.scope, path, named<{ recursive?: boolean; force?: boolean } & Abortable>(options));
  }

  /** Renames a file or a directory. */
  renameFile(oldPath: string, newPath: string, options?: SessionOrOptions<Abortable>): Promise<files.MoveFileResult> {
    return files.move(this.scope, oldPath, newPath, named<Abortable>(options));
  }

  /** Moves a file or a directory. */
  moveFile(sourcePath: string, destinationPath: string, options?: SessionOrOptions<Abortable>): Promise<files.MoveFileResult> {
    return files.move(this.scope, sourcePath, destinationPath, named<Abortable>(options));
  }

  /** What is in a directory. */
  listFiles(path: string, options?: SessionOrOptions<files.ListFilesOptions>): Promise<files.ListFilesResult> {
    return files.list(this.scope, path, named<files.ListFilesOptions>(options));
  }

  /** The names in a directory, hidden ones too. */
  async readdir(path: string, options?: SessionOrOptions<Abortable>): Promise<string[]> {
    const { files: entries } = await files.list(this.scope, path, { includeHidden: true, ...named<Abortable>(options) });
    return entries.map((entry) => entry.name);
  }

  /** Whether a file or a directory is there. */
  exists(path: string, options?: SessionOrOptions<Abortable>): Promise<files.FileExistsResult> {
    return files.exists(this.scope, path, named<Abortable>(options));
  }

  /** What changes in a directory, as events; resolves when nothing is missed any more. */
  watch(path: string, options?: watches.WatchOptions): Promise<ReadableStream<Uint8Array>> {
    return watches.watch(this.scope, path, options);
  }

  /** Whether anything in a directory has changed since `options.since`. */
  checkChanges(path: string, options?: watches.CheckChangesOptions): Promise<watches.CheckChangesResult> {
    return watches.checkChanges(this.scope, path, options);
  }

  // Git

  /** Clones a repository; the second argument may be the directory. */
  gitCheckout(repoUrl: string, options?: git.GitCheckoutOptions | string): Promise<git.GitCheckoutResult> {
    return git.checkout(this.scope, repoUrl, options);
  }

  // Variables

  /** Sets variables for everything that starts later; `null` and `undefined` unset. */
  async setEnvVars(envVars: commands.Env, { signal }: Abortable = {}): Promise<void> {
    const json: wire.ChangeEnv = { env: variables(envVars, true) ?? {} };
    await this.scope.done('PATCH', '/env', { attempt: 'set variables', json, signal, repeatable: true });
  }

  // Interpreter

  /** Makes a context, which keeps variables from run to run. */
  createCodeContext(options?: interpreter.CreateContextOptions): Promise<interpreter.CodeContext> {
    return interpreter.createContext(this.scope, options);
  }

  /** Runs code in a context. Code that fails is a result: see `result.error`. */
  runCode(code: string, options?: interpreter.RunCodeOptions): Promise<interpreter.ExecutionResult>;
  runCode(contextId: string, code: string, options?: interpreter.RunCodeOptions): Promise<interpreter.ExecutionResult>;
  runCode(first: string, second?: interpreter.RunCodeOptions | string, third?: interpreter.RunCodeOptions): Promise<interpreter.ExecutionResult> {
    return interpreter.runCode(this.scope, first, second, third);
  }

  /** Runs code and streams its events. */
  runCodeStream(code: string, options?: interpreter.RunCodeOptions): Promise<ReadableStream<Uint8Array>> {
    return interpreter.runCodeStream(this.scope, code, options);
  }

  /** The contexts there are. */
  listCodeContexts(options?: Abortable): Promise<interpreter.CodeContext[]> {
    return interpreter.listContexts(this.scope, options);
  }

  /** Ends a context, with what it keeps. */
  deleteCodeContext(context: string | { id: string }, options?: Abortable): Promise<void> {
    return interpreter.deleteContext(this.scope, context, options);
  }

  /** Interrupts what a context runs, which keeps what it has; says whether it ran anything. */
  interruptCodeContext(context: string | { id: string }, options?: Abortable): Promise<boolean> {
    return interpreter.interruptContext(this.scope, context, options);
  }

  /** Starts a context afresh, with nothing in it. */
  restartCodeContext(context: string | { id: string }, options?: Abortable): Promise<interpreter.CodeContext> {
    return interpreter.restartContext(this.scope, context, options);
  }

  /** Keeps a started Python, from which contexts that are made from now on go on within milliseconds. */
  warmCodeContexts(options?: interpreter.WarmOptions): Promise<interpreter.WarmStart> {
    return interpreter.warm(this.scope, options);
  }

  // Ports

  /** Makes a port reachable from outside, under a URL that stays the same. */
  exposePort(port: number, options?: ports.ExposePortOptions): Promise<ports.ExposedPort> {
    return ports.expose(this.scope, port, options);
  }

  /** Takes the URL of a port away. */
  unexposePort(port: number, options?: Abortable): Promise<void> {
    return ports.unexpose(this.scope, port, options);
  }

  /** The ports that are reachable from outside, with their URLs. */
  getExposedPorts(hostname?: string, options?: Abortable): Promise<ports.ExposedPorts> {
    return ports.list(this.scope, hostname, options);
  }

  /** Whether a port is reachable from outside. */
  async isPortExposed(port: number, options?: Abortable): Promise<boolean> {
    return (await ports.list(this.scope, undefined, options)).some((each) => each.port === port);
  }

  /** Waits until something listens on a port, started by whomever. */
  waitForPort(options: ports.WaitOptions): Promise<number> {
    return ports.wait(this.scope, options);
  }

  /** Whether `token` is the secret part of the URL of a port. */
  validatePortToken(port: number, token: string, options?: Abortable): Promise<boolean> {
    return ports.validateToken(this.scope, port, token, options);
  }

  /** Answers a request for a WebSocket with one to what listens on a port, which need not be exposed. */
  wsConnect(request: Request, port: number): Promise<Response> {
    return connections.connect(this.scope, request, port);
  }

  /** Sends a request to what listens on a port, which need not be exposed. A redirect is an answer. */
  containerFetch(request: Request | URL | string, port: number, options?: Abortable): Promise<Response>;
  containerFetch(request: Request | URL | string, init: RequestInit, port: number): Promise<Response>;
  containerFetch(request: Request | URL | string, second: number | RequestInit, third?: number | Abortable): Promise<Response> {
    const [port, init, options] = typeof second === 'number' ? [second, undefined, third as Abortable | undefined] : [third as number, second];
    // The host says nothing, so paths will do.
    const url = request instanceof Request ? request : new URL(String(request), 'http://localhost');
    return connections.fetchPort(this.scope, new Request(url as Request, init), port, options);
  }

  /**
   * As `containerFetch`, to the port that `switchPort` of `@cloudflare/containers` has put into the
   * request, else to the one in a path `/proxy/PORT/...`, else to 3000.
   */
  fetch(request: Request): Promise<Response> {
    const port = request.headers.get(TARGET_PORT) ?? /^\/proxy\/(\d+)/.exec(new URL(request.url).pathname)?.[1] ?? 3000;
    return connections.fetchPort(this.scope, request, Number(port));
  }

  // Terminals

  /**
   * Answers a request for a WebSocket with a terminal of this session. Without a request it is
   * `openTerminal`.
   */
  terminal(request: Request, options?: terminals.PtyOptions): Promise<Response> {
    return terminals.answer(this.scope, request, options ?? {}, this.scope.session);
  }

  /** Opens a terminal, or comes back to one by its id. */
  openTerminal(options?: terminals.TerminalOptions): Promise<terminals.Terminal> {
    return terminals.open(this.scope, options);
  }

  /** Terminals that run, and those that ended a while ago. */
  listTerminals(options?: Abortable): Promise<terminals.TerminalInfo[]> {
    return terminals.list(this.scope, options);
  }

  // Storage

  /** Not on this server: it mounts no buckets. Rejects with `NOT_SUPPORTED`. */
  mountBucket(_bucket: string, _mountPath: string, _options?: unknown): Promise<void> {
    return unsupported('mount a bucket', 'Read and write the objects from your program, with writeFile() and readFile().');
  }

  /** As `mountBucket`. */
  unmountBucket(_mountPath: string): Promise<void> {
    return unsupported('unmount a bucket', 'There is none: this server mounts no buckets.');
  }

  // Backups

  /**
   * Keeps a directory as it is now, for three days unless `ttl` says otherwise. It outlives the
   * sandbox, and can be restored in any other of the server.
   */
  createBackup(options: backups.BackupOptions): Promise<backups.DirectoryBackup> {
    return backups.create(this.scope, options);
  }

  /** Gives the directory back what was in it, in place of what is. */
  restoreBackup(backup: backups.DirectoryBackup, options?: Abortable): Promise<backups.RestoreBackupResult> {
    return backups.restore(this.scope, backup, options);
  }
}

async function unsupported(operation: string, suggestion: string): Promise<never> {
  throw errorOf('NOT_SUPPORTED', `this server cannot ${operation}`, { httpStatus: 501, operation, suggestion });
}
