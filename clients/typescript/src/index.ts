/**
 * Run untrusted code in isolated Linux sandboxes on your own machine: the API of `@cloudflare/sandbox`,
 * served by Sandbar.
 *
 * @packageDocumentation
 */

export { Sandbox, getSandbox, listSandboxes } from './sandbox.js';
export type { ListSandboxesOptions, SandboxInfo, SandboxOptions, SandboxState, SandboxTransport, StartAndWaitOptions } from './sandbox.js';
export { createKey, listKeys, removeKey } from './key.js';
export type { ApiKey, CreateKeyOptions, NewApiKey } from './key.js';
export type { NetworkPolicy } from './network.js';
export { events } from './event.js';
export type { EventsOptions, SandboxEvent, SandboxEventKind } from './event.js';
export { configure } from './binding.js';
export type { Binding, BindingOptions } from './binding.js';
export { ExecutionSession } from './session.js';
export type { SessionDeleteResult, SessionOptions } from './session.js';
export { proxyTerminal, proxyToSandbox } from './proxy.js';
export { CodeInterpreter } from './code-interpreter.js';
export { asyncIterableToSSEStream, parseSSEStream, responseToAsyncIterable } from './sse.js';
export { collectFile, streamFile } from './file.js';
export { Process } from './process.js';
export { Terminal } from './terminal.js';
export {
  BackupCreateError,
  BackupExpiredError,
  BackupNotFoundError,
  BackupRestoreError,
  BucketMountError,
  BucketUnmountError,
  CodeExecutionError,
  CommandError,
  CommandNotFoundError,
  ContainerUnavailableError,
  ContextNotFoundError,
  FileExistsError,
  FileNotFoundError,
  FileSystemError,
  FileTooLargeError,
  GitAuthenticationError,
  GitBranchNotFoundError,
  GitCheckoutError,
  GitCloneError,
  GitError,
  GitNetworkError,
  GitRepositoryNotFoundError,
  InterpreterNotReadyError,
  InvalidBackupConfigError,
  InvalidGitUrlError,
  InvalidMountConfigError,
  InvalidPortError,
  MissingCredentialsError,
  OperationInterruptedError,
  PermissionDeniedError,
  PortAlreadyExposedError,
  PortError,
  PortInUseError,
  PortNotExposedError,
  ProcessError,
  ProcessExitedBeforeReadyError,
  ProcessNotFoundError,
  ProcessReadyTimeoutError,
  RPCTransportError,
  S3FSMountError,
  SandboxError,
  SandboxSecurityError,
  ServiceNotRespondingError,
  SessionAlreadyExistsError,
  SessionDestroyedError,
  SessionNotFoundError,
  SessionTerminatedError,
  ValidationFailedError,
  isDurableObjectCodeUpdateReset,
  isPlatformTransientError,
} from './error.js';
export type { ErrorFacts } from './error.js';
export { isExecResult, isProcess, isProcessStatus } from './guard.js';
export type {
  BaseExecOptions,
  Command,
  Ending,
  Env,
  ExecEvent,
  ExecOptions,
  ExecResult,
  ExecuteResponse,
  StreamOptions,
} from './exec.js';
export type {
  LogEvent,
  ProcessLogs,
  ProcessOptions,
  ProcessStatus,
  WaitForExitResult,
  WaitForLogResult,
  WaitForPortOptions,
} from './process.js';
export type {
  FileChunk,
  FileEntry,
  FileExistsResult,
  FileInfo,
  FileInput,
  FileMetadata,
  FileResult,
  FileStreamEvent,
  ListFilesOptions,
  ListFilesResult,
  MkdirResult,
  MoveFileResult,
  ReadFileOptions,
  ReadFileResult,
  ReadFileStreamResult,
  WriteFileOptions,
} from './file.js';
export type { CheckChangesOptions, CheckChangesResult, FileWatchSSEEvent, WatchOptions } from './watch.js';
export type { GitCheckoutOptions, GitCheckoutResult } from './git.js';
export type {
  CodeContext,
  CreateContextOptions,
  Execution,
  ExecutionError,
  ExecutionResult,
  Language,
  OutputMessage,
  Result,
  RunCodeOptions,
  WarmOptions,
  WarmStart,
} from './interpreter.js';
export type { ExposePortOptions, ExposedPort, ExposedPorts, WaitOptions } from './port.js';
export type { PtyOptions, TerminalExit, TerminalInfo, TerminalOptions } from './terminal.js';
export type { BackupOptions, DirectoryBackup, RestoreBackupResult } from './backup.js';
export type { Checkpoint, ForkOptions } from './checkpoint.js';

import type { Operations } from './operations.js';
import type { Process } from './process.js';

/** What a sandbox can do, for programs that take any. */
export type ISandbox = Omit<Operations, 'scope'>;

/** The same as `Process`, as older documents call it. */
export type ProcessInfo = Process;
