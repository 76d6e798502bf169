/** Errors: one class per kind of failure, with the code, the facts and what to do. */

/** What every error of a sandbox has. */
export interface ErrorFacts {
  /** Facts of the failure: `path`, `exitCode`, `limit`, ... */
  context?: Record<string, unknown>;
  /** The HTTP status of the answer; 0 when there was none. */
  httpStatus?: number;
  /** What was attempted. */
  operation?: string;
  /** What to do about it, where that is known. */
  suggestion?: string;
  /** Finds the request in the server's log. */
  requestId?: string;
  cause?: unknown;
}

/**
 * A request that failed. Test `error.code`, which is stable, or `instanceof` one of the classes.
 */
export class SandboxError extends Error {
  /** Stable name of the failure, as `FILE_NOT_FOUND`. */
  readonly code: string;
  /** Facts of the failure: `path`, `exitCode`, `limit`, ... */
  readonly context: Record<string, unknown>;
  /** The HTTP status of the answer; 0 when there was none. */
  readonly httpStatus: number;
  /** What was attempted. */
  declare readonly operation?: string;
  /** What to do about it, where that is known. */
  declare readonly suggestion?: string;
  /** When it was noticed, in ISO 8601. */
  readonly timestamp = new Date().toISOString();
  /** Finds the request in the server's log. */
  declare readonly requestId?: string;

  constructor(code: string, message: string, facts: ErrorFacts = {}) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.name = new.target.name;
    this.code = code;
    this.context = facts.context ?? {};
    this.httpStatus = facts.httpStatus ?? 0;
    if (facts.operation) this.operation = facts.operation;
    if (facts.requestId) this.requestId = facts.requestId;
    const suggestion = facts.suggestion ?? SUGGESTIONS[code];
    if (suggestion) this.suggestion = suggestion;
  }

  /** The failure without its stack, for logs and answers. */
  toJSON(): Record<string, unknown> {
    const { name, message, code, context, httpStatus, operation, suggestion, timestamp, requestId } = this;
    return { name, message, code, context, httpStatus, operation, suggestion, timestamp, requestId };
  }
}

/** A value was refused before anything was sent. */
export class SandboxSecurityError extends Error {
  constructor(
    message: string,
    readonly code?: string,
  ) {
    super(message);
    this.name = 'SandboxSecurityError';
  }
}

export class FileNotFoundError extends SandboxError {}
export class FileExistsError extends SandboxError {}
export class FileTooLargeError extends SandboxError {}
export class PermissionDeniedError extends SandboxError {}
export class FileSystemError extends SandboxError {}
export class CommandNotFoundError extends SandboxError {}
export class CommandError extends SandboxError {
  /** The number a shell would give, where the command ran. */
  get exitCode(): number | undefined {
    return this.context.exitCode as number | undefined;
  }
}
export class ProcessNotFoundError extends SandboxError {
  get processId(): string | undefined {
    return this.context.processId as string | undefined;
  }
}
export class ProcessError extends SandboxError {
  get processId(): string | undefined {
    return this.context.processId as string | undefined;
  }
}
/** The process did not come to the awaited condition in time. */
export class ProcessReadyTimeoutError extends SandboxError {
  get processId(): string {
    return this.context.processId as string;
  }
  get command(): string {
    return this.context.command as string;
  }
  get condition(): string {
    return this.context.condition as string;
  }
  get timeout(): number {
    return this.context.timeout as number;
  }
}
/** The process ended before it came to the awaited condition. */
export class ProcessExitedBeforeReadyError extends SandboxError {
  get processId(): string {
    return this.context.processId as string;
  }
  get command(): string {
    return this.context.command as string;
  }
  get condition(): string {
    return this.context.condition as string;
  }
  get exitCode(): number {
    return this.context.exitCode as number;
  }
}
export class SessionAlreadyExistsError extends SandboxError {}
export class SessionNotFoundError extends SandboxError {}
export class SessionDestroyedError extends SandboxError {}
/** The shell of the session ended, as by `exit`. The session's next use gets a fresh one. */
export class SessionTerminatedError extends SandboxError {
  get exitCode(): number | undefined {
    return this.context.exitCode as number | undefined;
  }
}
export class PortAlreadyExposedError extends SandboxError {}
export class PortNotExposedError extends SandboxError {}
export class InvalidPortError extends SandboxError {}
export class ServiceNotRespondingError extends SandboxError {}
export class PortInUseError extends SandboxError {}
export class PortError extends SandboxError {}
export class GitRepositoryNotFoundError extends SandboxError {}
export class GitAuthenticationError extends SandboxError {}
export class GitBranchNotFoundError extends SandboxError {}
export class GitNetworkError extends SandboxError {}
export class GitCloneError extends SandboxError {}
export class GitCheckoutError extends SandboxError {}
export class InvalidGitUrlError extends SandboxError {}
export class GitError extends SandboxError {}
export class InterpreterNotReadyError extends SandboxError {}
export class ContextNotFoundError extends SandboxError {}
export class CodeExecutionError extends SandboxError {}
export class ValidationFailedError extends SandboxError {}
export class BackupCreateError extends SandboxError {}
export class BackupExpiredError extends SandboxError {}
export class BackupNotFoundError extends SandboxError {}
export class BackupRestoreError extends SandboxError {}
export class InvalidBackupConfigError extends SandboxError {}
export class BucketMountError extends SandboxError {}
export class BucketUnmountError extends SandboxError {}
export class InvalidMountConfigError extends SandboxError {}
export class MissingCredentialsError extends SandboxError {}
export class S3FSMountError extends SandboxError {}
/** The server, or the sandbox on it, cannot be reached or has no room now. */
export class ContainerUnavailableError extends SandboxError {}
/** The connection broke, and the operation may or may not have happened. */
export class OperationInterruptedError extends SandboxError {}
/** What the server sent is no answer. */
export class RPCTransportError extends SandboxError {}

type ErrorClass = new (code: string, message: string, facts?: ErrorFacts) => SandboxError;

const CLASSES: [ErrorClass, string][] = [
  [FileNotFoundError, 'FILE_NOT_FOUND'],
  [FileExistsError, 'FILE_EXISTS'],
  [FileTooLargeError, 'FILE_TOO_LARGE'],
  [PermissionDeniedError, 'PERMISSION_DENIED'],
  [
    FileSystemError,
    'IS_DIRECTORY NOT_DIRECTORY NO_SPACE RESOURCE_BUSY READ_ONLY NAME_TOO_LONG TOO_MANY_LINKS FILESYSTEM_ERROR DIRECTORY_NOT_EMPTY NOT_REGULAR_FILE INVALID_PATH',
  ],
  [CommandNotFoundError, 'COMMAND_NOT_FOUND'],
  [CommandError, 'COMMAND_EXECUTION_ERROR INVALID_COMMAND'],
  [ProcessNotFoundError, 'PROCESS_NOT_FOUND'],
  [ProcessError, 'PROCESS_EXISTS PROCESS_ENDED STDIN_CLOSED'],
  [ProcessReadyTimeoutError, 'PROCESS_READY_TIMEOUT'],
  [ProcessExitedBeforeReadyError, 'PROCESS_EXITED_BEFORE_READY'],
  [SessionAlreadyExistsError, 'SESSION_ALREADY_EXISTS'],
  [SessionNotFoundError, 'SESSION_NOT_FOUND'],
  [SessionDestroyedError, 'SESSION_DESTROYED'],
  [SessionTerminatedError, 'SESSION_TERMINATED'],
  [PortAlreadyExposedError, 'PORT_ALREADY_EXPOSED'],
  [PortNotExposedError, 'PORT_NOT_EXPOSED'],
  [InvalidPortError, 'INVALID_PORT'],
  [ServiceNotRespondingError, 'SERVICE_NOT_RESPONDING'],
  [PortInUseError, 'PORT_IN_USE'],
  [PortError, 'PORT_OPERATION_ERROR STALE_PREVIEW_URL INVALID_TOKEN'],
  [GitRepositoryNotFoundError, 'GIT_REPOSITORY_NOT_FOUND'],
  [GitAuthenticationError, 'GIT_AUTH_FAILED'],
  [GitBranchNotFoundError, 'GIT_BRANCH_NOT_FOUND'],
  [GitNetworkError, 'GIT_NETWORK_ERROR'],
  [GitCloneError, 'GIT_CLONE_FAILED'],
  [GitCheckoutError, 'GIT_CHECKOUT_FAILED'],
  [InvalidGitUrlError, 'INVALID_GIT_URL'],
  [GitError, 'GIT_OPERATION_FAILED'],
  [InterpreterNotReadyError, 'INTERPRETER_NOT_READY INTERPRETER_NOT_AVAILABLE'],
  [ContextNotFoundError, 'CONTEXT_NOT_FOUND'],
  [CodeExecutionError, 'CODE_EXECUTION_ERROR'],
  [ValidationFailedError, 'VALIDATION_FAILED'],
  [BackupCreateError, 'BACKUP_CREATE_FAILED'],
  [BackupExpiredError, 'BACKUP_EXPIRED'],
  [BackupNotFoundError, 'BACKUP_NOT_FOUND'],
  [BackupRestoreError, 'BACKUP_RESTORE_FAILED'],
  [InvalidBackupConfigError, 'INVALID_BACKUP_CONFIG'],
  [
    ContainerUnavailableError,
    'CONNECTION_FAILED CAPACITY_EXCEEDED STARTING SHUTTING_DOWN SANDBOX_FAILED AGENT_UNREACHABLE TOO_MANY_REQUESTS',
  ],
  [OperationInterruptedError, 'OPERATION_INTERRUPTED TIMEOUT'],
  [RPCTransportError, 'PROTOCOL_ERROR'],
];

/** What to do about failures whose message does not say. */
const SUGGESTIONS: Record<string, string> = {
  CONNECTION_FAILED: 'Start a server with `sandbar serve`, or set SANDBAR_URL to the one you mean.',
  UNAUTHORIZED: 'Set SANDBAR_KEY to the content of the file `key` in the state directory of the server.',
  FILE_NOT_FOUND: 'List the directory with listFiles(), or test with exists() first.',
  IS_DIRECTORY: 'Use listFiles() for a directory, or rm(path, { recursive: true }) to delete one.',
  FILE_TOO_LARGE: "Read it as a stream: readFile(path, { encoding: 'none' }) or readFileStream(path).",
  COMMAND_NOT_FOUND: 'Check PATH in the sandbox, or use an image that has the program.',
  SESSION_TERMINATED: 'Run the command again: the session has a fresh shell with its first directory and variables.',
  PROCESS_NOT_FOUND: 'listProcesses() shows what runs and what ended a while ago.',
  PORT_ALREADY_EXPOSED: 'getExposedPorts() has its URL; unexposePort() takes it away.',
  GIT_AUTH_FAILED: 'Put a token into the URL, as https://TOKEN@host/owner/repo.git.',
  OPERATION_INTERRUPTED: 'Look whether it happened before doing it again.',
  CAPACITY_EXCEEDED: 'Destroy sandboxes that are not needed, or try again later.',
};

const BY_CODE = new Map<string, ErrorClass>(
  CLASSES.flatMap(([type, codes]) => codes.split(' ').map((code) => [code, type] as const)),
);

/** An error of the class that belongs to `code`. */
export function errorOf(code: string, message: string, facts: ErrorFacts = {}): SandboxError {
  return new (BY_CODE.get(code) ?? SandboxError)(code, message, facts);
}

interface WireError {
  code?: unknown;
  message?: unknown;
  details?: Record<string, unknown>;
  requestId?: string;
}

/** An error as the server writes it, `{"error": {...}}` or what is inside. */
export function errorOfWire(body: unknown, status: number, operation: string): SandboxError {
  const error = ((body as { error?: unknown } | undefined)?.error ?? body) as WireError | undefined;
  if (typeof error?.code !== 'string' || typeof error.message !== 'string') {
    return errorOf('PROTOCOL_ERROR', `the server answered ${status} to the attempt to ${operation}`, {
      httpStatus: status,
      operation,
    });
  }
  return errorOf(error.code, error.message, {
    httpStatus: status,
    operation,
    context: error.details ?? {},
    requestId: error.requestId,
  });
}

/** The class name the reference has for transient failures of its platform. */
export function isPlatformTransientError(error: unknown): boolean {
  return error instanceof ContainerUnavailableError || error instanceof OperationInterruptedError;
}

/** Never: there is no Durable Object whose code could be updated. */
export function isDurableObjectCodeUpdateReset(_error: unknown): boolean {
  return false;
}
