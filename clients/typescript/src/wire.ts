// Written by scripts/wire.mjs from the OpenAPI document. Do not edit.

/** How a sandbox is used, and what will become of it. */
export type Activity = {
  /** When the last use ended: milliseconds since 1970-01-01 UTC. */
  lastUsedAtMs: number;
  next?: 
  | null
  | /** What happens by itself next; absent when nothing will as long as nothing changes. */ NextRung;
  /** Requests under way. While there are any, it is in use. */
  requests: number;
};

/** Answer of `GET /health`. */
export type AgentHealth = {
  /** Always `ok`. */
  status: string;
};

/** One error, before it is rendered: what failed, why, and what to do about it. */
export type ApiError = {
  /** What went wrong, for programs. */
  code: ErrorCode;
  /** Facts of the failure: `path`, `field`, `limit`, `errno`, ... */
  details?: Record<string, unknown>;
  /** What was attempted, what went wrong and what to do, for people. */
  message: string;
  /** Finds the request in the server's log. Filled in by the server. */
  requestId?: string | null;
};

/** One event of a build (`text/event-stream`). The stream ends with exactly one `done` or `failed`. */
export type BuildEvent = 
| /** A step of the recipe begins. */ {
  /** True when its result was in the store already. */
  cached: boolean;
  /** From 1. */
  index: number;
  /** The instruction as written. */
  instruction: string;
  /** How many there are. */
  total: number;
  type: "step";
}
| /** A line a step wrote. */ {
  /** The line, without its end. */
  line: string;
  type: "log";
}
| /** The image is in the store. */ {
  /** The image. */
  image: Image;
  type: "done";
}
| /** A step failed. Steps before it are kept: the next build goes on from there. */ {
  /** Why, and what to do. */
  message: string;
  type: "failed";
};

/** Body of `POST /v1/images:build`. */
export type BuildImage = {
  /** The name to give the result. */
  name: ImageRef;
  /** The recipe: a Dockerfile with FROM, RUN, ENV, WORKDIR and LABEL. */
  recipe: string;
};

/** Body of `PATCH /v1/sandboxes/{id}/env` and `PATCH /v1/sandboxes/{id}/sessions/{sid}/env`. */
export type ChangeEnv = {
  /**
   * Variables to set or, with null, to unset. Names are those of a shell: letters, digits and
   * `_`, not beginning with a digit.
   */
  env: Record<string, string | null>;
};

/** Body of `POST /v1/sandboxes/{id}/files:chmod`. */
export type ChangeMode = {
  /**
   * Permission bits in octal, from `0` to `777`: nothing that lends an identity. Set-user-id,
   * set-group-id and sticky bits are taken away.
   */
  mode: string;
  /** The file or directory; a symbolic link is followed. */
  path: string;
  session?: 
  | null
  | /** Session whose current directory a relative path starts at. */ SessionId;
};

/** What became of a version. */
export type ChangeStatus = "unchanged" | "changed" | "resync";

/** Whether something has changed. */
export type Changes = {
  reason?: 
  | null
  | /** Why, for `resync`. */ ResyncReason;
  /** What became of `since`. */
  status: ChangeStatus;
  /** What to give as `since` next time. Opaque. */
  version: string;
};

/** What a plot shows, for programs. */
export type Chart = {
  /** Its coordinate systems. */
  axes: ChartAxes[];
  /** What drew it: `matplotlib`, ... */
  library: string;
  /** The figure's title, else that of its first axes. */
  title?: string | null;
  /**
   * `line`, `scatter`, `bar`, `pie`, `box`, `histogram`; `mixed` where one has several of these;
   * `unknown` for others. Of the first axes.
   */
  type: string;
};

/** One coordinate system of a plot. */
export type ChartAxes = {
  /** What is drawn in it. */
  series: ChartSeries[];
  /** Its title. */
  title?: string | null;
  /** As [`Chart::kind`]. */
  type: string;
  /** The horizontal axis. */
  x: ChartAxis;
  /** The vertical axis. */
  y: ChartAxis;
};

/** One axis of a coordinate system. */
export type ChartAxis = {
  /** Names of its positions, where it has such. */
  categories?: string[];
  /** What is written at it. */
  label?: string | null;
  /** Its first and last value, where these are numbers. */
  limits?: number[] | null;
  /** `linear`, `log`, `categorical`, `datetime`, ... */
  scale: string;
};

/** One box of a box plot. */
export type ChartBox = {
  /** Lower end of the box. */
  firstQuartile: number;
  /** End of the upper whisker. */
  max: number;
  /** The line in it. */
  median: number;
  /** End of the lower whisker. */
  min: number;
  /** Points beyond the whiskers. */
  outliers?: number[];
  /** Upper end of the box. */
  thirdQuartile: number;
};

/**
 * One series of a plot. Which lists it has depends on its type; those it has are equally long, but
 * for `edges`, which has one more, and `outliers`.
 */
export type ChartSeries = {
  /** `box`: its boxes. */
  boxes?: ChartBox[];
  /** `histogram`: what is in its bins. */
  counts?: number[];
  /** `histogram`: where its bins begin and end. */
  edges?: number[];
  /** `bar`: horizontal ones grow along x. */
  horizontal?: boolean;
  /** Its name in a legend. */
  label?: string | null;
  /** `pie`: names of the parts; `box`: of the boxes. */
  labels?: string[];
  /** `pie`: shares of the circle, of 1. */
  shares?: number[];
  /** Points beyond [`crate::limit::CHART_POINTS`] are not here. */
  truncated?: boolean;
  /** As [`Chart::kind`]. */
  type: string;
  /** `line`, `scatter`, `bar`: horizontal positions; numbers, times (RFC 3339) or categories. */
  x?: Array<Record<string, unknown>>;
  /** `line`, `scatter`, `bar`: vertical positions or heights. */
  y?: Array<Record<string, unknown>>;
};

/** Body of `POST /v1/sandboxes/{id}/files:changes`. */
export type CheckChanges = {
  /**
   * What matches one of these patterns does not count. Without it `.git`, `node_modules` and
   * `.DS_Store` do not; an empty list leaves out nothing.
   */
  exclude?: string[] | null;
  /** Only what matches one of these patterns counts, and directories that move. */
  include?: string[];
  /**
   * The directory, or the file, to look at; relative paths start at the session's directory, else
   * at the sandbox's own. Links are followed once, on the first look.
   */
  path: string;
  /** Look at directories below it too. Links and other mounts are not entered. */
  recursive?: boolean;
  session?: 
  | null
  | /** The session whose directory relative paths start at. */ SessionId;
  /**
   * The `version` of an earlier answer for the same path and patterns. Without it the answer is
   * `unchanged`, and its version the one to come back with.
   */
  since?: string | null;
};

/** A checkpoint. */
export type Checkpoint = {
  /** Milliseconds since 1970-01-01 UTC. */
  createdAtMs: number;
  /** Its id in the sandbox. */
  id: CheckpointId;
  /** Whose files it has. */
  sandboxId: SandboxId;
  /**
   * Bytes on disk of the files that are the sandbox's own, at that moment. They are shared with
   * the sandbox until it overwrites them.
   */
  sizeBytes: number;
};

/** What came of `POST /v1/sandboxes/{id}/checkpoints`. */
export type CheckpointCreated = {
  /** The checkpoint. */
  checkpoint: Checkpoint;
  /** Microseconds that the sandbox's processes stood still; 0 when none ran. */
  pauseUs: number;
};

/**
 * Names a checkpoint of a sandbox. The caller may choose it.
 *
 * 1 to 128 letters, digits, `-`, `_`, `.` and `:`, beginning with a letter or a digit, and
 * not digits alone.
 */
export type CheckpointId = string;

/** Answer of `POST /v1/sandboxes/{id}/checkpoints:import`. */
export type CheckpointImported = {
  /** What was made. */
  checkpoint: Checkpoint;
  /**
   * What came, and what of the first checkpoint did not: what its export left out, and what is not
   * taken from one.
   */
  unpacked: Unpacked;
};

/** All checkpoints of a sandbox, oldest first. */
export type CheckpointList = {
  /** The checkpoints. */
  checkpoints: Checkpoint[];
};

/** How code failed. */
export type CodeError = {
  ending?: 
  | null
  | /** How the interpreter ended, if it did. */ Ending;
  /** Why, for programs. */
  kind: CodeErrorKind;
  /** The line of the run's code in which it was raised, from 1, where that is known. */
  lineNumber?: number | null;
  /** The same as `value`, under the name that the Cloudflare SDK has for it. */
  message: string;
  /**
   * The exception's class, as the language names it: `ZeroDivisionError`; for what is no
   * exception `TimeoutError`, `KeyboardInterrupt`, `ContextExited`, `ContextCrashed`,
   * `OutOfMemory`, `ContextDeleted`.
   */
  name: string;
  /**
   * Where it came from, the way the language shows it; each element one or more lines without
   * their line ends.
   */
  traceback: string[];
  /** What it says. */
  value: string;
};

/** Why code did not end well. */
export type CodeErrorKind = "exception" | "timeout" | "interrupted" | "exited" | "crashed" | "outOfMemory" | "deleted";

/** What to run: a shell text, or a program and its arguments. */
export type Command = 
| /** Run by `bash -c`, or by `sh -c` in an image without bash. */ string
| /** Run as it is, found on `PATH`; no shell, no quoting. */ string[];

/** A context. */
export type Context = {
  /** Code runs in it. */
  busy: boolean;
  /** Milliseconds since 1970-01-01 UTC. */
  createdAtMs: number;
  /** Where its interpreter starts. */
  cwd: string;
  /** Runs that its interpreter has begun. */
  executionCount: number;
  /** Its id. */
  id: ContextId;
  /** Milliseconds without a run after which it is deleted. */
  idleTimeoutMs?: number | null;
  /** What it speaks. */
  language: Language;
  /** When a run last began or ended in it. Milliseconds since 1970-01-01 UTC. */
  lastUsedMs: number;
  /**
   * The process id of its interpreter inside the sandbox; none while it has none, because it was
   * not used yet or ended. Its next run starts one.
   */
  pid?: number | null;
  /** The `timeoutMs` of runs that name none. */
  timeoutMs: number;
  /** Runs that wait for their turn. */
  waiting: number;
};

/**
 * Names a context of the code interpreter. The caller may choose it.
 *
 * 1 to 128 letters, digits, `-`, `_`, `.` and `:`, beginning with a letter or a digit, and
 * not digits alone.
 */
export type ContextId = string;

/** Answer of `GET /v1/sandboxes/{id}/contexts`. */
export type ContextList = {
  /** Sorted by when they were made. */
  contexts: Context[];
};

/** Body of `POST /v1/sandboxes/{id}/files:copy`. */
export type CopyFile = {
  /** Refuse with `FILE_EXISTS` if anything has the name of the copy. */
  exclusive?: boolean;
  /** What is copied. A symbolic link is followed; those in a directory are copied as links. */
  from: string;
  /** Copy a directory with everything in it; without it a directory is refused. */
  recursive?: boolean;
  session?: 
  | null
  | /** Session whose current directory relative paths start at. */ SessionId;
  /**
   * The path of the copy; never a directory to put it into. A file is replaced, a directory is
   * not: it must not exist.
   */
  to: string;
};

/** Body of `POST /v1/sandboxes/{id}/checkpoints`. */
export type CreateCheckpoint = {
  id?: 
  | null
  | /** Its id in the sandbox; generated unless given. */ CheckpointId;
};

/** Body of `POST /v1/sandboxes/{id}/contexts`. */
export type CreateContext = {
  /** Where its interpreter starts; relative paths start at the sandbox's own (`/workspace`). */
  cwd?: string | null;
  /** Variables over those of the sandbox; null leaves one out. */
  env?: Record<string, string | null>;
  id?: 
  | null
  | /** The id to give it; generated unless given. */ ContextId;
  /**
   * Milliseconds without a run after which the context is deleted; whoever uses it after that
   * is told `CONTEXT_EXPIRED`. Without it the context stays.
   */
  idleTimeoutMs?: number | null;
  /** What it speaks; Python unless given. */
  language?: Language;
  /**
   * The `timeoutMs` of runs that name none; without it they have
   * [`crate::limit::RUN_TIMEOUT_MS`].
   */
  timeoutMs?: number | null;
};

/** Body of `POST /v1/keys`. */
export type CreateKey = {
  /** Seconds until it is refused, 1 to 315,360,000 (ten years); without it, it does not expire. */
  expiresInSecs?: number | null;
  /** Its name, which no other key has. */
  name: KeyName;
  /** What its holder may do. */
  scope: KeyScope;
};

/**
 * Body of `POST /v1/sandboxes`. Everything is optional: an empty object makes a sandbox with a
 * generated id and the node's defaults.
 */
export type CreateSandbox = {
  /** Environment of every command, over the image's. */
  env?: Record<string, string>;
  id?: 
  | null
  | /**
   * The id to create; generated unless given. Creating an existing id with the same settings
   * returns it; with other settings it is refused with `SANDBOX_EXISTS`.
   */ SandboxId;
  /** What becomes of it when nobody uses it. */
  idle?: IdleSettings;
  image?: 
  | null
  | /** The image of its files; the node's default unless given. */ ImageRef;
  /** The caller's own names for it, to find it by. */
  labels?: Record<string, string>;
  /** What it may reach. */
  network?: NetworkPolicy;
  onStart?: 
  | null
  | /**
   * Started by itself, as the process `on-start`, whenever the sandbox is started: at its creation,
   * and when it comes back after a stop. Nobody waits for its end.
   */ Command;
  /** What it may use. */
  resources?: Resources;
  /** Programs that it runs whenever it runs, up to 16. */
  services?: Service[];
  /** Destroy it this many milliseconds after its creation, whatever happens; 0 or absent: never. */
  ttlMs?: number | null;
};

/** Body of `POST /v1/sandboxes/{id}/sessions`. */
export type CreateSession = {
  /** The `timeoutMs` of commands that name none; without it they have no limit. */
  commandTimeoutMs?: number | null;
  /** Where its shell starts; relative paths start at the sandbox's own (`/workspace`). */
  cwd?: string | null;
  /** Variables over those of the sandbox; null leaves one out. */
  env?: Record<string, string | null>;
  id?: 
  | null
  | /** The id to give it; else `name` if that is an id nobody has, else generated. */ SessionId;
  /** A name for people. A session is also found by its name, where no session has it as its id. */
  name?: string | null;
};

/** Body of `POST /v1/sandboxes/{id}/terminals`. */
export type CreateTerminal = {
  /** Columns; 80 unless given. */
  cols?: number | null;
  command?: 
  | null
  | /** What to run; an interactive bash, or sh in an image without bash, unless given. */ Command;
  /** Working directory; relative paths start at the session's, else at the sandbox's own. */
  cwd?: string | null;
  /**
   * Variables set (or, with null, unset) for this terminal only. `TERM` is `xterm-256color`
   * unless set here.
   */
  env?: Record<string, string | null>;
  id?: 
  | null
  | /**
   * The id to give it; generated unless given. A running terminal with this id is an error, an
   * ended one makes way.
   */ TerminalId;
  /** Rows; 24 unless given. */
  rows?: number | null;
  session?: 
  | null
  | /**
   * Start with this session's directory and exported variables. What the terminal changes does
   * not come back.
   */ SessionId;
};

/** Body of `POST /v1/webhooks`. */
export type CreateWebhook = {
  /** Only events of these kinds; all, unless given. */
  kinds?: EventKind[];
  /** Only events of sandboxes that had this label, as `name` or `name=value`. */
  label?: string | null;
  /** Its name, which no other webhook has. */
  name: WebhookName;
  prefix?: 
  | null
  | /** Only events of sandboxes whose ids begin with this. */ IdPrefix;
  /**
   * Where events are sent: `http://` or `https://`, without a user in it. Certificates are checked
   * against those that the server's machine trusts.
   */
  url: string;
};

/** One difference. */
export type Difference = {
  /** What differs, of what was there before and is there after. */
  changes?: DifferencePart[];
  /** Only where the path is not UTF-8: its bytes, percent-encoded as `/files/{path}` takes them. */
  encodedPath?: string | null;
  /** What became of it. */
  kind: DifferenceKind;
  /** Absolute path inside the sandbox. */
  path: string;
  /** Bytes; of what is gone, those it had. */
  size: number;
  /** What it is; of what is gone, what it was. */
  type: FileType;
  /**
   * Only on a directory of whose content some is not compared: it lies so deep that no path names
   * it. It is `modified` if nothing else is known to differ.
   */
  unread?: boolean;
};

/** What became of a file. */
export type DifferenceKind = "added" | "modified" | "deleted";

/** What differs between a file before and after. */
export type DifferencePart = "content" | "mode" | "owner" | "time" | "attributes";

/** The same, all filled in. */
export type EffectiveIdle = {
  /** Processes that run by themselves are a use too. */
  countProcesses: boolean;
  /** A request through a preview is a use as long as it, or the WebSocket it became, is open. */
  countVisits: boolean;
  /** Milliseconds stopped after which it is destroyed; 0: never. */
  destroyAfterMs: number;
  /** It is never frozen, stopped or destroyed for being idle. */
  keepAlive: boolean;
  /** What happens first. */
  onIdle: OnIdle;
  /** Milliseconds without use after which that happens. */
  sleepAfterMs: number;
  /** Milliseconds frozen after which it is stopped; 0: never. */
  stopAfterMs: number;
};

/** The limits in force, all filled in. */
export type EffectiveResources = {
  /** Thousandths of a CPU. */
  cpuMillis: number;
  /** Its share of the processors beside the others; most have [`CPU_WEIGHT`]. */
  cpuWeight?: number;
  /** Bytes on disk of its own files; absent where the node cannot limit them. */
  diskBytes?: number | null;
  /** Bytes of memory. */
  memoryBytes: number;
  /** Processes and threads. */
  pids: number;
};

/** How bytes of a program are written in JSON. */
export type Encoding = "utf8" | "base64";

/** How a command ended. */
export type Ending = 
| /** It returned. */ {
  /** 0 to 255. */
  code: number;
  type: "exited";
}
| /** A signal ended it. */ {
  /** Signal number, signal(7). */
  signal: number;
  type: "signaled";
}
| /** Its time was over; its tree was killed. */ {
  type: "timeout";
}
| /** The kernel killed it, or a process of its tree, because the sandbox's memory was used up. */ {
  type: "outOfMemory";
}
| /** It failed and the sandbox had no process ids left. */ {
  type: "pidsLimit";
}
| /** It failed and the sandbox's disk was full. */ {
  type: "diskFull";
}
| /** It was killed on request, or because its caller went away. */ {
  /** The signal that ended it: 15 when it obeyed SIGTERM, 9 when it had to be forced. */
  signal: number;
  type: "killed";
}
| /** The sandbox ended under it; what it did until then is unknown. */ {
  type: "lost";
};

/** Answer of `GET /v1/sandboxes/{id}/env` and `GET /v1/sandboxes/{id}/sessions/{sid}/env`. */
export type Env = {
  /** All that a program started now would get. U+FFFD stands for what is not UTF-8. */
  env: Record<string, string>;
};

/** The body of every error response: `{"error": {"code", "message", "details", "requestId"}}`. */
export type ErrorBody = {
  /** The error. */
  error: ApiError;
};

/**
 * What went wrong, for programs. Stable: codes are added, never renamed.
 *
 * Each code has one HTTP status, see [`ErrorCode::status`].
 */
export type ErrorCode = "VALIDATION_FAILED" | "INVALID_SANDBOX_ID" | "INVALID_COMMAND" | "INVALID_PATH" | "IS_DIRECTORY" | "NOT_DIRECTORY" | "NAME_TOO_LONG" | "NOT_REGULAR_FILE" | "TOO_MANY_LINKS" | "INVALID_ARCHIVE" | "INVALID_GIT_URL" | "INVALID_PORT" | "UNAUTHORIZED" | "FORBIDDEN" | "QUOTA_EXCEEDED" | "HOST_NOT_ALLOWED" | "PERMISSION_DENIED" | "GIT_AUTH_FAILED" | "READ_ONLY" | "ROUTE_NOT_FOUND" | "SANDBOX_NOT_FOUND" | "KEY_NOT_FOUND" | "IMAGE_NOT_FOUND" | "FILE_NOT_FOUND" | "COMMAND_NOT_FOUND" | "PROCESS_NOT_FOUND" | "SESSION_NOT_FOUND" | "CONTEXT_NOT_FOUND" | "TERMINAL_NOT_FOUND" | "CHECKPOINT_NOT_FOUND" | "WEBHOOK_NOT_FOUND" | "PORT_NOT_EXPOSED" | "INVALID_TOKEN" | "GIT_REPOSITORY_NOT_FOUND" | "GIT_BRANCH_NOT_FOUND" | "METHOD_NOT_ALLOWED" | "PROCESS_READY_TIMEOUT" | "SANDBOX_EXISTS" | "KEY_EXISTS" | "PROCESS_EXISTS" | "SESSION_ALREADY_EXISTS" | "CONTEXT_EXISTS" | "TERMINAL_EXISTS" | "CHECKPOINT_EXISTS" | "IMAGE_MISMATCH" | "WEBHOOK_EXISTS" | "PORT_ALREADY_EXPOSED" | "IDEMPOTENCY_CONFLICT" | "FILE_EXISTS" | "DIRECTORY_NOT_EMPTY" | "RESOURCE_BUSY" | "PROCESS_ENDED" | "STDIN_CLOSED" | "SESSION_TERMINATED" | "SESSION_DESTROYED" | "STALE_PREVIEW_URL" | "EVENTS_MISSED" | "CONTEXT_EXPIRED" | "CONTEXT_DELETED" | "PRECONDITION_FAILED" | "PAYLOAD_TOO_LARGE" | "FILE_TOO_LARGE" | "TREE_TOO_LARGE" | "MISDIRECTED_REQUEST" | "CHECKSUM_MISMATCH" | "RANGE_NOT_SATISFIABLE" | "UNSUPPORTED_MEDIA_TYPE" | "TOO_MANY_REQUESTS" | "INTERNAL_ERROR" | "SANDBOX_FAILED" | "IMAGE_BUILD_FAILED" | "COMMAND_EXECUTION_ERROR" | "PROCESS_EXITED_BEFORE_READY" | "GIT_CLONE_FAILED" | "SHELL_NOT_AVAILABLE" | "INTERPRETER_NOT_AVAILABLE" | "CHECKPOINTS_NOT_AVAILABLE" | "FILESYSTEM_ERROR" | "AGENT_UNREACHABLE" | "SERVICE_NOT_RESPONDING" | "GIT_NETWORK_ERROR" | "CAPACITY_EXCEEDED" | "SHUTTING_DOWN" | "STARTING" | "TIMEOUT" | "NO_SPACE" | "LOOP_DETECTED";

/** One change in the life of a sandbox. */
export type Event = {
  /** Milliseconds since 1970-01-01 UTC. */
  atMs: number;
  /** Why. */
  cause: EventCause;
  checkpoint?: 
  | null
  | /** The checkpoint that was made, removed or restored, or that the new sandbox began with. */ CheckpointId;
  /**
   * Its place among the events of the node, from 1 on: a later one has a higher. No other event
   * ever has it.
   */
  cursor: number;
  key?: 
  | null
  | /** In whose name, where it was somebody's with a key. Not told to a key with a prefix. */ KeyName;
  /** What happened. */
  kind: EventKind;
  /** Its labels at that time. */
  labels?: Record<string, string>;
  /** For people: why it failed, or how much of it happened. */
  message?: string | null;
  sandboxId?: 
  | null
  | /** To which sandbox: always there but with `remainsFound` and `networkRestored`. */ SandboxId;
  source?: 
  | null
  | /**
   * The sandbox whose files the new one began with. Not told, nor its checkpoint, to a key whose
   * prefix it does not have.
   */ SandboxId;
};

/** Why it happened. */
export type EventCause = "request" | "use" | "preview" | "idle" | "ttl" | "agentEnded" | "outOfMemory" | "failure" | "shutdown" | "recovery" | "reconcile" | "reboot";

/** What happened. */
export type EventKind = "created" | "started" | "frozen" | "thawed" | "stopped" | "outOfMemory" | "failed" | "changed" | "checkpointCreated" | "checkpointRemoved" | "restored" | "destroyed" | "remainsFound" | "networkRestored";

/** Some of the events, oldest first. */
export type EventList = {
  /** Where to go on: `after` of the next request, now or later. */
  cursor: number;
  /** The events; also none, when none of those that were looked at was asked for. */
  events: Event[];
  /** There are more now. */
  more: boolean;
};

/**
 * One event of a streamed exec or of a followed log (`text/event-stream`).
 *
 * Each event of output has an `id:` line, its cursor: a stream that breaks is resumed after it by
 * sending it as `Last-Event-ID`. A stream of an exec begins with one `start`, unless it goes on after
 * a `Last-Event-ID`; a stream that follows to the end ends, unless the connection breaks, with
 * exactly one `exit`, or with one `error` (an [`crate::error::ErrorBody`]) when the command ended its
 * session or the session was deleted.
 */
export type ExecEvent = 
| /** The command runs. */ {
  /** Its process id inside the sandbox; the shell's for an exec in a session. */
  pid: number;
  /** Its id among the sandbox's processes. */
  processId: ProcessId;
  type: "start";
}
| /** It wrote to stdout. */ {
  /** The bytes, in the request's encoding. */
  data: string;
  /** Milliseconds since 1970-01-01 UTC. */
  timeMs: number;
  type: "stdout";
}
| /** It wrote to stderr. */ {
  /** The bytes, in the request's encoding. */
  data: string;
  /** Milliseconds since 1970-01-01 UTC. */
  timeMs: number;
  type: "stderr";
}
| /** Output that was to come here is not kept any more. */ {
  /** How much. */
  bytes: number;
  type: "dropped";
}
| /** It ended. */ {
  /** Milliseconds from start to end. */
  durationMs: number;
  /** How it ended. */
  ending: Ending;
  /** The number a shell would give. */
  exitCode: number;
  refused?: 
  | null
  | /**
   * What the network policy refused meanwhile. Absent when it refused nothing, and for a
   * command that returned 0.
   */ Refused;
  /** The session's shell had to be killed with the command. Absent unless true. */
  sessionReset?: boolean;
  /** True when it returned 0. */
  success: boolean;
  type: "exit";
  /** What it used. */
  usage: ExecUsage;
};

/** Body of `POST /v1/sandboxes/{id}/exec`. */
export type ExecRequest = {
  /** What to run. */
  command: Command;
  /**
   * Working directory, for this command only; relative paths start at the session's, else at
   * the sandbox's own (`/workspace`).
   */
  cwd?: string | null;
  /** How `stdin` is written in this request, and the output in the reply. */
  encoding?: Encoding;
  /** Variables set (or, with null, unset) for this command only. */
  env?: Record<string, string | null>;
  /** What becomes of the command when the caller's connection closes before its end. */
  onDisconnect?: OnDisconnect;
  session?: 
  | null
  | /**
   * Run it in this session's shell, which keeps what the command changes, after the commands
   * that the session has already. The session is made when it does not exist. Without it the
   * command has a shell of its own.
   */ SessionId;
  /** What the command reads; nothing (`/dev/null`) unless given. */
  stdin?: string | null;
  /**
   * Milliseconds until the command's whole process tree is killed; none means the session's
   * `commandTimeoutMs`, else no limit. Time that the command waits for its session's turn does
   * not count. A session's shell outlives this, see `sessionReset`.
   */
  timeoutMs?: number | null;
};

/** A finished command. Exit codes other than 0 are results, not errors. */
export type ExecResult = {
  /** Bytes of stdout and stderr past the limit of a buffered result; 0 means nothing is missing. */
  droppedBytes: number;
  /** Milliseconds from start to end. */
  durationMs: number;
  /** How it ended. */
  ending: Ending;
  /** The number a shell would give, see `ending` for the truth. */
  exitCode: number;
  /** The id it had, and keeps as long as its idempotency key is remembered. */
  processId: ProcessId;
  refused?: 
  | null
  | /**
   * What the network policy refused meanwhile. Absent when it refused nothing, and for a command
   * that returned 0.
   */ Refused;
  /**
   * The session's shell had to be killed with the command, so what the session kept is lost; its
   * next use gets a fresh shell. Absent unless true.
   */
  sessionReset?: boolean;
  /** What it wrote to stderr, in the request's encoding. */
  stderr: string;
  /** What it wrote to stdout, in the request's encoding. */
  stdout: string;
  /** True when the command returned 0. */
  success: boolean;
  /** What it used. */
  usage: ExecUsage;
};

/**
 * What a command used, its children included. Of a command in a session, whose shell lives on, the
 * memory is not known and 0, and `cpuMs` counts in steps of 10.
 */
export type ExecUsage = {
  /** Milliseconds on a CPU, user and system. */
  cpuMs: number;
  /**
   * Largest resident set of one process of the tree, in bytes (`ru_maxrss`, getrusage(2)). The kernel
   * counts what a process touched before it became the command: some 7 MB of the agent's program.
   */
  peakMemoryBytes: number;
};

/** Body of `POST /v1/sandboxes/{id}/ports`. */
export type ExposePort = {
  /**
   * A name for people, at most [`crate::limit::PORT_NAME_CHARS`] characters without control
   * characters.
   */
  name?: string | null;
  /** The TCP port inside the sandbox. */
  port: number;
  /** The URL has no token: whoever can reach the server and guess the sandbox's id may use it. */
  public?: boolean;
  token?: 
  | null
  | /** The URL's token, instead of the generated one: see [`PortToken`]. */ PortToken;
};

/** An exposed port. */
export type ExposedPort = {
  /** Milliseconds since 1970-01-01 UTC. */
  exposedAtMs: number;
  /** The name it was given. */
  name?: string | null;
  /** The TCP port inside the sandbox. */
  port: number;
  /** Its URL has no token. */
  public: boolean;
  /** Whether something listens there now. */
  status: PortStatus;
  /** Where it is reached, with a slash at its end. */
  url: string;
};

/** One change of one file or directory. */
export type FileChange = {
  /**
   * Only where the path is not UTF-8: its bytes, percent-encoded as `/files/{path}` takes them.
   * Such bytes are U+FFFD in all other paths of the event.
   */
  encodedPath?: string | null;
  /** What happened. */
  eventType: FileChangeType;
  /** Of `moveTo`: where it was. The `moveFrom` with this path came before. */
  from?: string | null;
  /** True for a directory. */
  isDirectory: boolean;
  /** Where: below the path of the request, as the request has it. */
  path: string;
  /** When it was seen: milliseconds since 1970-01-01 UTC. */
  timestampMs: number;
  /** Of `moveFrom`: where it is. The `moveTo` with this path follows. */
  to?: string | null;
};

/** What happened to a file or a directory. */
export type FileChangeType = "create" | "modify" | "attrib" | "delete" | "moveFrom" | "moveTo";

/** The content of a file, and what is said about it. */
export type FileContent = {
  /** The content. */
  content: string;
  /** How `content` is written. */
  encoding: Encoding;
  /** Names this content, for `If-Match` and `If-None-Match`. */
  etag: string;
  /** False where the MIME type is one of text and all of the content is UTF-8. */
  isBinary: boolean;
  /** By the name's extension, or for want of a known one by the content. */
  mimeType: string;
  /** Permission bits. */
  mode: number;
  /** Milliseconds since 1970-01-01 UTC of the last change of the content. */
  modifiedMs: number;
  /** Absolute path inside the sandbox. */
  path: string;
  /** Bytes of the content, before any encoding. */
  size: number;
};

/** Contents of several files, in the order in which they were asked for. */
export type FileContents = {
  /** One result per path. */
  files: FileResult_FileContent[];
};

/**
 * One page of the differences.
 *
 * Sorted by path, component by component, so a directory comes right before what is in it. A
 * directory that is gone is one difference, and so is what was in it; one that is new has a
 * difference for everything in it. A name that has moved is gone here and new there. Where one thing
 * has been replaced by another of another type, the old one is gone and the new one is new, in this
 * order.
 */
export type FileDiff = {
  /** The differences. */
  differences: Difference[];
  /** Where the next page starts; absent on the last. */
  nextCursor?: string | null;
};

/** One file, as lstat(2) sees it. */
export type FileEntry = {
  /** The same of the last read, as far as the file system keeps it. */
  accessedMs?: number;
  /** The same of the last change of content, name, mode or owner. */
  changedMs?: number;
  /**
   * Only where the path is not UTF-8: its bytes, percent-encoded as `/files/{path}` takes them
   * (without the leading slash). `name` and `path` then hold U+FFFD in place of such bytes.
   */
  encodedPath?: string | null;
  /**
   * Only of a regular file that was looked at or written: names this content, for `If-Match` and
   * `If-None-Match`. As exact as the file system's clock.
   */
  etag?: string | null;
  /** Id of the group. */
  gid?: number;
  /** Where a symbolic link points. */
  linkTarget?: string | null;
  /** Permission bits, as `0644` in decimal is 420. */
  mode: number;
  /** Milliseconds since 1970-01-01 UTC of the last change of the content. */
  modifiedMs: number;
  /** Last component of the path. */
  name: string;
  /** Absolute path inside the sandbox. */
  path: string;
  /** Bytes. */
  size: number;
  /** What it is. */
  type: FileType;
  /** Id of the owner. */
  uid?: number;
  /**
   * Only in a recursive list, on a directory whose content is left out: it may not be read, or
   * lies so deep that no path names what is in it.
   */
  unlisted?: boolean;
};

/**
 * One page of a directory.
 *
 * Within a page entries are sorted by path, component by component, so a directory comes right
 * before what is in it; a directory that fits in one page is sorted whole. Pages follow each other
 * in the order of the file system, which costs the same for each page of any directory.
 *
 * What is there unchanged while the pages are read is in one of them, and in one only unless the
 * entry that ended a page was removed meanwhile. What is made, changed or removed may be missing.
 */
export type FileList = {
  /** The entries. */
  entries: FileEntry[];
  /** Where the next page starts; absent on the last. */
  nextCursor?: string | null;
};

/**
 * What became of one file of several: an object with `error` and the path as it was asked for, or
 * the same object as for a file alone.
 */
export type FileResult_FileContent = 
| /** It was refused; the others were not affected. */ {
  /** Why. */
  error: ApiError;
  /** The path as it was asked for. */
  path: string;
}
| /** The content of a file, and what is said about it. */ {
  /** The content. */
  content: string;
  /** How `content` is written. */
  encoding: Encoding;
  /** Names this content, for `If-Match` and `If-None-Match`. */
  etag: string;
  /** False where the MIME type is one of text and all of the content is UTF-8. */
  isBinary: boolean;
  /** By the name's extension, or for want of a known one by the content. */
  mimeType: string;
  /** Permission bits. */
  mode: number;
  /** Milliseconds since 1970-01-01 UTC of the last change of the content. */
  modifiedMs: number;
  /** Absolute path inside the sandbox. */
  path: string;
  /** Bytes of the content, before any encoding. */
  size: number;
};

/**
 * What became of one file of several: an object with `error` and the path as it was asked for, or
 * the same object as for a file alone.
 */
export type FileResult_FileEntry = 
| /** It was refused; the others were not affected. */ {
  /** Why. */
  error: ApiError;
  /** The path as it was asked for. */
  path: string;
}
| /** One file, as lstat(2) sees it. */ {
  /** The same of the last read, as far as the file system keeps it. */
  accessedMs?: number;
  /** The same of the last change of content, name, mode or owner. */
  changedMs?: number;
  /**
   * Only where the path is not UTF-8: its bytes, percent-encoded as `/files/{path}` takes them
   * (without the leading slash). `name` and `path` then hold U+FFFD in place of such bytes.
   */
  encodedPath?: string | null;
  /**
   * Only of a regular file that was looked at or written: names this content, for `If-Match` and
   * `If-None-Match`. As exact as the file system's clock.
   */
  etag?: string | null;
  /** Id of the group. */
  gid?: number;
  /** Where a symbolic link points. */
  linkTarget?: string | null;
  /** Permission bits, as `0644` in decimal is 420. */
  mode: number;
  /** Milliseconds since 1970-01-01 UTC of the last change of the content. */
  modifiedMs: number;
  /** Last component of the path. */
  name: string;
  /** Absolute path inside the sandbox. */
  path: string;
  /** Bytes. */
  size: number;
  /** What it is. */
  type: FileType;
  /** Id of the owner. */
  uid?: number;
  /**
   * Only in a recursive list, on a directory whose content is left out: it may not be read, or
   * lies so deep that no path names what is in it.
   */
  unlisted?: boolean;
};

/** What a directory entry is. */
export type FileType = "file" | "directory" | "symlink" | "other";

/** What was written, in the order in which it was asked for. */
export type FilesWritten = {
  /** One result per file. */
  files: FileResult_FileEntry[];
};

/** Body of `POST /v1/sandboxes/{id}/fork`. */
export type ForkSandbox = {
  /** They start nothing by themselves: neither `onStart` nor services of this sandbox are theirs. */
  bare?: boolean;
  checkpoint?: 
  | null
  | /** The checkpoint of this sandbox to begin from; its files as they are now unless given. */ CheckpointId;
  /** How many sandboxes to make, 1 to 64; as many as `ids`, or one, unless given. */
  count?: number | null;
  /** Their ids, none of which exists; generated unless given. */
  ids?: SandboxId[] | null;
  /** Their labels; those of this sandbox unless given. */
  labels?: Record<string, string> | null;
};

/** The sandboxes that a fork made. They run, with files and no processes. */
export type Forks = {
  /** The sandboxes, in the order of `ids`. */
  sandboxes: Sandbox[];
};

/** Credentials: a user and a password, or a header. */
export type GitAuth = {
  header?: 
  | null
  | /**
   * A header for every request, for servers that want another form than a user and a password.
   * Redirects are then not followed.
   */ GitHeader;
  /** The password or token. May be written `token` as well. */
  password?: string | null;
  /** The user; `x-access-token` unless given, which servers that look at the token only take. */
  username?: string | null;
};

/** Body of `POST /v1/sandboxes/{id}/git/checkout`. */
export type GitCheckout = {
  auth?: 
  | null
  | /**
   * What to show to a server of `http://` or `https://`, and to no other one: not after a
   * redirect, and not when a configuration in the sandbox leads elsewhere. It is not stored.
   */ GitAuth;
  /** The branch or tag to check out; the remote's own default unless given. */
  branch?: string | null;
  /**
   * The commit to check out, in place of a branch: 7 to 64 hexadecimal digits; with `depth` all
   * of them. No branch is current then.
   */
  commit?: string | null;
  /** How many commits of history to fetch, and that of one branch only; all unless given. */
  depth?: number | null;
  session?: 
  | null
  | /** The session whose directory relative paths start at. */ SessionId;
  /**
   * Where to: a directory that does not exist or is empty; relative paths start at the session's
   * directory, else at the sandbox's own. The repository's name unless given.
   */
  targetDir?: string | null;
  /** Milliseconds until git is killed and what it has made is deleted; ten minutes unless given. */
  timeoutMs?: number | null;
  /**
   * The repository: `https://`, `http://`, `git://`, `ssh://`, `user@host:path`, or in the sandbox
   * itself `file://` or an absolute path. A user and password in it are taken out before git
   * sees it, and used as `auth`.
   */
  url: string;
};

/** A finished checkout. */
export type GitCheckoutResult = {
  /**
   * The branch that is current; absent after a checkout of a tag or commit, and in an empty
   * repository.
   */
  branch?: string | null;
  /** The commit that is checked out; absent in an empty repository. */
  commit?: string | null;
  /** The absolute path of the directory. */
  targetDir: string;
  /**
   * Where it came from, without user and password of `http://` and `https://`: what is stored as
   * the remote `origin`.
   */
  url: string;
};

/**
 * One event of a checkout (`text/event-stream`). The stream ends with exactly one `done` or
 * `failed`.
 */
export type GitEvent = 
| /** Git, or the server through it, says how far it is. */ {
  /** The line, without its end. */
  line: string;
  /** How much of it is done, 0 to 100; absent where that is not known. */
  percent?: number | null;
  /** What is under way, as `Receiving objects`; absent where the line is about something else. */
  phase?: string | null;
  type: "progress";
}
| /** The files are there. */ GitCheckoutResult & {
  type: "done";
}
| /**
 * They are not. Nothing is left of the attempt, unless the error's details say otherwise
 * (`leftOver`).
 */ {
  /** Why, and what to do. */
  error: ApiError;
  type: "failed";
};

/** One header. */
export type GitHeader = {
  /** Its name, as `Authorization`. */
  name: string;
  /** Its value, as `Bearer TOKEN`. */
  value: string;
};

/** Answer of `GET /healthz`. */
export type Health = {
  /** `ok`, or `recovering` while sandboxes of an earlier run are being adopted. */
  status: string;
  /** Version of the server. */
  version: string;
};

/** A GET, and the statuses by which a server counts as ready. */
export type HttpCheck = {
  /** The path and query to ask for. */
  path?: string;
  /** Highest status that counts. */
  statusMax?: number;
  /** Lowest status that counts. */
  statusMin?: number;
};

/**
 * What the ids of a key's sandboxes begin with: `ci-`, `team.a.`.
 *
 * 2 to 40 letters, digits, `-`, `_` and `.`, beginning with a letter or a digit and ending with `-`,
 * `_` or `.`: without an end of its own, `team1` would cover the sandboxes of `team10` as well.
 */
export type IdPrefix = string;

/**
 * What should become of a sandbox that nobody uses. Absent values are the defaults at a creation,
 * and stay as they are at a change.
 */
export type IdleSettings = {
  /** Processes that run by themselves are a use too. Default false. */
  countProcesses?: boolean | null;
  /**
   * A request through a preview is a use as long as it, or the WebSocket it became, is open. Default
   * true; else only in the moment it comes, and one that is open when the sandbox is frozen goes on
   * when that is over.
   */
  countVisits?: boolean | null;
  /** A sandbox that has been stopped this many milliseconds is destroyed; 0: never. Default never. */
  destroyAfterMs?: number | null;
  /** Never freeze, stop or destroy it for being idle. Default false. */
  keepAlive?: boolean | null;
  onIdle?: 
  | null
  | /** What happens first. Default `freeze`. */ OnIdle;
  /** After this many milliseconds without use that happens. Default ten minutes. */
  sleepAfterMs?: number | null;
  /** A sandbox that has been frozen this many milliseconds is stopped; 0: never. Default a day. */
  stopAfterMs?: number | null;
};

/** An image in the node's store. */
export type Image = {
  /** Milliseconds since 1970-01-01 UTC. */
  createdAtMs: number;
  /**
   * `sha256:` and 64 hexadecimal digits: of the recipe's steps and what they pinned. `host` for
   * the image made of the machine's own files.
   */
  digest: string;
  /** Layers it is stacked from. */
  layers: number;
  /** Its name. */
  name: ImageRef;
  /** Bytes of its files; 0 for `host`, which stores none. */
  sizeBytes: number;
};

/** Answer of `GET /v1/images`. */
export type ImageList = {
  /** Sorted by name. */
  images: Image[];
};

/**
 * Names an image in the store of a node: `default`, `host`, `my-app` or `my-app:v2`.
 *
 * A name of 1 to 128 lower-case letters, digits, `-`, `_`, `.`, `/` beginning and ending with a letter or a digit, and
 * optionally `:` and a tag of the same form. Without a tag, `latest` is meant.
 */
export type ImageRef = string;

/** Answer of `POST /v1/sandboxes/{id}/contexts/{cid}/interrupt`. */
export type Interrupted = {
  /** False when nothing ran. */
  interrupted: boolean;
};

/** A key, as its owner knows it. The secret is told once, in [`NewKey`]. */
export type Key = {
  /** Milliseconds since 1970-01-01 UTC. */
  createdAtMs: number;
  /** From when on it is refused, in milliseconds since 1970-01-01 UTC; absent: never. */
  expiresAtMs?: number | null;
  /**
   * The beginning of the hour in which it was last used, in milliseconds since 1970-01-01 UTC;
   * absent: not yet. Of `local`, since the server's start.
   */
  lastUsedAtMs?: number | null;
  /** Its name. `local` is the key in the file `key` of the node's state directory. */
  name: KeyName;
  /** What its holder may do. */
  scope: KeyScope;
};

/** Answer of `GET /v1/keys`. */
export type KeyList = {
  /** Sorted by name. */
  keys: Key[];
};

/**
 * Names a key. Not secret: it stands in lists and in the log.
 *
 * 1 to 64 letters, digits, `-`, `_` and `.`, beginning with a letter or a digit.
 */
export type KeyName = string;

/** What the holder of a key may do. */
export type KeyScope = 
| /** Everything the API offers. */ {
  type: "admin";
}
| /**
 * Create, list, use and destroy the sandboxes whose id begins with a prefix, and list the
 * images. No other sandbox exists for its holder.
 */ {
  /**
   * How many of them there may be at once, whoever made them; absent: as many as the node
   * takes. One more is refused with `QUOTA_EXCEEDED`.
   */
  maxSandboxes?: number | null;
  /** What their ids begin with. */
  prefix: IdPrefix;
  type: "sandboxes";
};

/** Body of `POST /v1/sandboxes/{id}/processes/{pid}/kill` and of `POST .../processes:kill`. */
export type KillProcess = {
  /** Milliseconds that the tree may take to end of it before SIGKILL. */
  graceMs?: number;
  /** What the whole tree gets first. */
  signal?: Signal;
};

/** Answer of `POST /v1/sandboxes/{id}/processes:kill`. */
export type KilledProcesses = {
  /** How many processes ran and do so no more. */
  killed: number;
};

/** What a context speaks. */
export type Language = "python" | "javascript" | "typescript" | "bash";

/**
 * What is not in an archive, or was not taken from one, and why.
 *
 * Of an archive from a sandbox it is the value of the pax record `comment`, in JSON, of a second
 * entry for the top directory, the last of the archive; absent when nothing is to be said.
 */
export type LeftOut = {
  /** The first of them, up to [`ARCHIVE_LEFT_OUT`]. */
  leftOut?: LeftOutEntry[];
  /** How many there were. */
  leftOutCount?: number;
  /**
   * Something among them is missing, or not as it was: unreadable, too deep, changed. Otherwise
   * they are what no archive holds.
   */
  partial?: boolean;
};

/** One entry that is not there, or not as it should be. */
export type LeftOutEntry = {
  /** Its path below the top, with U+FFFD for what is not UTF-8. */
  path: string;
  /** Why. */
  reason: LeftOutReason;
};

/** Why an entry is not there, or not as it should be. */
export type LeftOutReason = "special" | "mount" | "unreadable" | "tooDeep" | "changed" | "severalNames" | "attributes" | "reserved";

/** A TCP port on which a program in the sandbox listens. */
export type ListeningPort = {
  /** The address it is bound to: `127.0.0.1`, `0.0.0.0`, `::`, ... */
  address: string;
  /** The port. */
  port: number;
};

/** What the agent answers about listening ports. */
export type ListeningPorts = {
  /** Sorted by port, then address; at most [`crate::limit::LISTENING_PORTS`]. */
  listening: ListeningPort[];
};

/** A line of output that was waited for. */
export type LogMatch = {
  /**
   * What the pattern matched, then what each of its groups did, null for one that took no part;
   * for a text, the text.
   */
  groups: Array<string | null>;
  /** Where it was written. */
  stream: OutputStream;
  /** The line, without its end; bytes that are not UTF-8 are U+FFFD. */
  text: string;
};

/** A piece of a process's output. */
export type LogRecord = {
  /** Cursor after it. */
  cursor: number;
  /** The bytes, in the request's encoding. */
  data: string;
  /** Where it was written. */
  stream: OutputStream;
  /** Milliseconds since 1970-01-01 UTC when its first byte was read. */
  timeMs: number;
};

/**
 * What there is of a process's output. A cursor counts the bytes of both outputs that come before
 * it, so it is a position that stays true whoever reads, and however often.
 */
export type LogState = {
  /** Bytes that were dropped because the log was full. */
  droppedBytes: number;
  /** Cursor of the oldest byte that is kept. */
  firstCursor: number;
  /** Cursor of the next byte to come. */
  nextCursor: number;
};

/** Body of `POST /v1/sandboxes/{id}/files:mkdir`. */
export type MakeDirectory = {
  /** The new directory. */
  path: string;
  /** Make missing parents, and do not mind if the directory exists. */
  recursive?: boolean;
  session?: 
  | null
  | /** Session whose current directory a relative path starts at. */ SessionId;
};

/** Body of `POST /v1/sandboxes/{id}/files:symlink`. */
export type MakeSymlink = {
  /** The new link. */
  path: string;
  /** Replace a file or link that has the name; without it that is `FILE_EXISTS`. */
  replace?: boolean;
  session?: 
  | null
  | /** Session whose current directory a relative `path` starts at. */ SessionId;
  /** Where it points, byte for byte; it need not exist. */
  target: string;
};

/** Body of `POST /v1/sandboxes/{id}/files:move`. */
export type MoveFile = {
  /**
   * Refuse with `FILE_EXISTS` if anything has the new name. Without it a file replaces a file,
   * and a directory an empty one.
   */
  exclusive?: boolean;
  /** What is moved: a file, a symbolic link itself, or a directory with everything in it. */
  from: string;
  session?: 
  | null
  | /** Session whose current directory relative paths start at. */ SessionId;
  /** Its new path; never a directory to put it into. */
  to: string;
};

/** What a sandbox may reach. Never, whatever is said here: the host, other sandboxes, private, link-local, metadata, multicast and reserved ranges, IPv6, and mail servers (port 25). */
export type NetworkPolicy = 
| /** Public addresses, or nothing. */ "internet" | "none"
| /** Everything that a sandbox may reach. */ {
  /**
   * Up to 256 rules, each written `TARGET`, `TARGET:PORT` or `TARGET:PORT/PROTOCOL`.
   *
   * TARGET is a host name (`pypi.org`), all names below one (`*.example.com`, which is not
   * `example.com` itself), or IPv4 addresses (`203.0.113.7`, `203.0.113.0/24`). Without a port
   * everything there is allowed, also ping; without `tcp` or `udp` both are. A name stands for the
   * addresses that the node's resolver has told the sandbox for it, for as long as the answer says
   * (at least a minute, at most an hour). Names that no rule allows do not exist in the sandbox.
   */
  allow: string[];
};

/** What a running sandbox was refused by its network policy since it was started. */
export type NetworkUsage = {
  /**
   * Those names, the newest first, each once, at most 8; in lower case, what is no letter, digit,
   * `-` or `_` as `\DDD`. Absent when there are none.
   */
  newestRefusedNames?: string[];
  /** Questions for names that its allow-list does not hold. */
  refusedNames: number;
  /**
   * Packets to where it may not go. An attempt to open a TCP connection is one packet, because
   * it is refused at once.
   */
  refusedPackets: number;
};

/** One file to be written; as the query of `PUT /v1/sandboxes/{id}/files/{path}`. */
export type NewFile = {
  /** Add to the end of the file. */
  append?: boolean;
  /** The content. */
  content: string;
  /** How `content` is written. */
  encoding?: Encoding;
  /** Refuse with `FILE_EXISTS` if anything has this name. */
  exclusive?: boolean;
  /** Write only if the file has this `etag`, else `PRECONDITION_FAILED`. */
  ifMatch?: string | null;
  /** Permission bits in octal. */
  mode?: string | null;
  /** The file. */
  path: string;
  /** SHA-256 of the decoded content in hexadecimal. */
  sha256?: string | null;
};

/**
 * A key that was just made, with its secret. The server keeps a digest alone, so this is the only
 * time it can be read.
 */
export type NewKey = {
  /** The key. */
  key: Key;
  /** What goes after `Authorization: Bearer`. Begins with `sbk_`. */
  secret: string;
};

/** A webhook that was just made, with its secret, which is told this once. */
export type NewWebhook = {
  /** What its deliveries are signed with. Begins with `whsec_`. */
  secret: string;
  /** The webhook. */
  webhook: Webhook;
};

/** What will happen to a sandbox by itself next, unless somebody uses it. */
export type NextRung = {
  /** When: milliseconds since 1970-01-01 UTC. */
  atMs: number;
  /** Why. */
  reason: RungReason;
  /** What. */
  rung: Rung;
};

/** What becomes of a command whose caller goes away. */
export type OnDisconnect = "kill" | "keep";

/** What happens first to a sandbox that nobody uses. */
export type OnIdle = "freeze" | "stop" | "destroy";

/** Which of its two outputs a process wrote to. */
export type OutputStream = "stdout" | "stderr";

/** Answer of `GET /v1/sandboxes/{id}/ports`. */
export type PortList = {
  /** What listens inside, exposed or not, sorted by port; nothing while the sandbox does not run. */
  listening: ListeningPort[];
  /** The exposed ports, sorted; at most [`crate::limit::EXPOSED_PORTS`]. */
  ports: ExposedPort[];
};

/** Answer of `POST /v1/sandboxes/{id}/ports/{port}/wait`. */
export type PortReady = {
  /** The port. */
  port: number;
  /** The status of the HTTP answer, when that was waited for. */
  status?: number | null;
};

/** Whether something listens on an exposed port. */
export type PortStatus = "active" | "inactive";

/**
 * A port's part of its URL that nobody else knows.
 *
 * 1 to 16 of `a-z`, `0-9` and `_`, and not a port number, by which a URL without a token is known.
 * A short one can be guessed: leave it out to get one of 80 random bits.
 */
export type PortToken = string;

/** Answer of `POST /v1/sandboxes/{id}/ports/{port}/validate-token`. */
export type PortTokenValidity = {
  /** The port is exposed and this is its token. */
  valid: boolean;
};

/** A process. */
export type Process = {
  /**
   * The shell text, or the arguments with blanks between; its first
   * [`crate::limit::COMMAND_SHOWN_CHARS`] characters.
   */
  command: string;
  /** Milliseconds since 1970-01-01 UTC. */
  endedAtMs?: number | null;
  ending?: 
  | null
  | /** How it ended. */ Ending;
  /** The number a shell would give for that. */
  exitCode?: number | null;
  /** Its id. */
  id: ProcessId;
  /** How it came to be. */
  kind: ProcessKind;
  /** Its output so far. */
  log: LogState;
  /** Its process id inside the sandbox; the shell's for an exec in a session. */
  pid: number;
  refused?: 
  | null
  | /** What the network policy refused while it ran, if it failed. Absent when that is nothing. */ Refused;
  /** False once it has ended. */
  running: boolean;
  session?: 
  | null
  | /** The session it was started in. */ SessionId;
  /** Milliseconds since 1970-01-01 UTC. */
  startedAtMs: number;
  usage?: 
  | null
  | /** What it used, once it has ended. */ ExecUsage;
};

/**
 * Names a process of a sandbox. The caller may choose it.
 *
 * 1 to 128 letters, digits, `-`, `_`, `.` and `:`, beginning with a letter or a digit, and
 * not digits alone.
 */
export type ProcessId = string;

/** How a process came to be. */
export type ProcessKind = "process" | "exec" | "run";

/** Answer of `GET /v1/sandboxes/{id}/processes`. */
export type ProcessList = {
  /** Oldest first. */
  processes: Process[];
};

/** Answer of `GET /v1/sandboxes/{id}/processes/{pid}/logs` as JSON. */
export type ProcessLogs = {
  /** Bytes from the asked cursor on that are not kept any more. */
  droppedBytes: number;
  /** Where the next read begins. */
  nextCursor: number;
  /** What is kept from the asked cursor on, in the order it was read. */
  records: LogRecord[];
  /** False once the process has ended, so nothing follows. */
  running: boolean;
};

/** Answer of `POST /v1/sandboxes/{id}/processes/{pid}/wait`: what was waited for is so. */
export type ProcessReady = {
  line?: 
  | null
  | /** The line of output that was waited for, without its end. */ LogMatch;
  /** The process, as it is now. */
  process: Process;
  /** The status that was answered, of a wait for HTTP. */
  status?: number | null;
};

/** What a process reads. */
export type ProcessStdin = "closed" | "open";

/** How content is asked for in JSON. */
export type ReadEncoding = "auto" | "utf8" | "base64";

/** Body of `POST /v1/sandboxes/{id}/files:read`. */
export type ReadFiles = {
  /** How their contents are written. */
  encoding?: ReadEncoding;
  /** The files, 1 to 1000. */
  paths: string[];
  session?: 
  | null
  | /** Session whose current directory relative paths start at. */ SessionId;
};

/**
 * What the network policy refused to a sandbox while a command ran that failed. It is the sandbox's:
 * what other commands tried at the same time counts too.
 */
export type Refused = {
  /**
   * Attempts to connect, datagrams and other packets; at least this many, when there were more than
   * a few dozen at once.
   */
  connections: number;
  /**
   * Where they were to go, the newest first, each once, at most 8: `ADDRESS:PORT/PROTOCOL`, or
   * `ADDRESS/PROTOCOL` of a protocol without ports.
   */
  destinations: string[];
  /**
   * Names that were asked for and that no rule allows, the newest first, each once, at most 8; in
   * lower case, what is no letter, digit, `-` or `_` as `\DDD`. Absent when there are none.
   */
  names?: string[];
};

/**
 * What a sandbox may use. Absent values come from the node's configuration; values over the
 * node's ceiling are refused.
 */
export type Resources = {
  /** CPU time per second of wall time, in thousandths of one CPU: 1500 is one and a half. */
  cpuMillis?: number | null;
  /**
   * Its share of the processors where all together want more than there are, beside the others: with
   * 200 it gets twice what one with 100 gets. Where nobody else wants it, it gets all of `cpuMillis`.
   */
  cpuWeight?: number | null;
  /**
   * Bytes on disk of its own files: what it wrote over its image, with the file system's own
   * bookkeeping. A fork's begin at zero. Refused where the node cannot limit them.
   */
  diskBytes?: number | null;
  /** Bytes of memory for all its processes and their page cache. */
  memoryBytes?: number | null;
  /** Processes and threads at once. */
  pids?: number | null;
};

/** When a service is started again. */
export type Restart = "always" | "onFailure" | "never";

/** Body of `POST /v1/sandboxes/{id}/restore`. */
export type RestoreCheckpoint = {
  /** The checkpoint of this sandbox to go back to. */
  checkpoint: CheckpointId;
};

/** Why a version is not known any more. */
export type ResyncReason = "expired" | "restarted";

/** Body of `POST /v1/sandboxes/{id}/ports/{port}/rotate`. */
export type RotatePort = {
  token?: 
  | null
  | /** The new token; a generated one unless given. */ PortToken;
};

/** Body of `POST /v1/sandboxes/{id}/run` and of `POST /v1/sandboxes/{id}/contexts/{cid}/run`. */
export type RunCode = {
  /** What to run, as in one cell of a notebook. */
  code: string;
  /** Colours in tracebacks, as ANSI escapes. */
  color?: boolean;
  /** Variables set (or, with null, unset) for this run only. */
  env?: Record<string, string | null>;
  language?: 
  | null
  | /**
   * Without a context in the path: the language whose default context is meant (its id is
   * `default-python`, ...), which is made when it does not exist; Python unless given. With one,
   * it must be that context's.
   */ Language;
  /**
   * What becomes of the run when the caller's connection closes before its end: it is interrupted
   * as if its time were over, or it runs on.
   */
  onDisconnect?: OnDisconnect;
  /**
   * Milliseconds until the code is interrupted; none means the context's. What does not obey
   * within [`crate::limit::INTERRUPT_GRACE_MS`] is killed with the context's interpreter, see
   * `contextReset`. Time that the run waits for its turn does not count.
   */
  timeoutMs?: number | null;
};

/**
 * One event of a streamed run (`text/event-stream`).
 *
 * A stream begins with one `start`, unless it goes on after a `Last-Event-ID`, and ends with exactly
 * one `end`, unless the connection breaks. There is at most one `error`, before the `end`. Each event
 * has an `id:` line, its cursor, for `Last-Event-ID`.
 */
export type RunEvent = 
| /** The run's turn has come. */ {
  /** Where it runs. */
  contextId: ContextId;
  /** Its id among the sandbox's processes. */
  processId: ProcessId;
  type: "start";
}
| /** It wrote to stdout. */ {
  /** What; U+FFFD stands for what is not UTF-8. */
  data: string;
  /** Milliseconds since 1970-01-01 UTC. */
  timeMs: number;
  type: "stdout";
}
| /** It wrote to stderr. */ {
  /** What; U+FFFD stands for what is not UTF-8. */
  data: string;
  /** Milliseconds since 1970-01-01 UTC. */
  timeMs: number;
  type: "stderr";
}
| /** It showed something. */ RunOutput & {
  type: "result";
}
| /** What was shown before is to be cleared (`clear_output()`). */ {
  type: "clear";
  /** Only when the next output comes. */
  wait: boolean;
}
| /** It failed. */ CodeError & {
  type: "error";
}
| /** Events that were to come here are not kept any more. */ {
  /** How much, in bytes of the events. */
  bytes: number;
  type: "dropped";
}
| /** It is over. */ {
  /** The context's interpreter ended with this run. Absent unless true. */
  contextReset?: boolean;
  /** Milliseconds from when its turn came to its end. */
  durationMs: number;
  /** Its number among the runs of the context's interpreter, from 1. */
  executionCount: number;
  refused?: 
  | null
  | /**
   * What the network policy refused meanwhile. Absent when it refused nothing, and for code that
   * did not fail.
   */ Refused;
  /** True when there was no `error`. */
  success: boolean;
  type: "end";
};

/**
 * What code wrote, as written. Each element ends with a line end, but perhaps the last; put together
 * they are what was written. U+FFFD stands for what is not UTF-8.
 */
export type RunLogs = {
  /** To descriptor 2. */
  stderr: string[];
  /** To descriptor 1, by it or by programs it started. */
  stdout: string[];
};

/**
 * One thing that code showed: the value of its last expression, or what it displayed. It has every
 * representation that the object offers.
 */
export type RunOutput = {
  chart?: 
  | null
  | /** What a plot shows. */ Chart;
  data?: 
  | null
  | /** The records of a data frame. */ TableData;
  /** Names an output that is shown once and changed later (`display(..., display_id=...)`). */
  displayId?: string | null;
  /** Representations of other MIME types, by type; binary ones are base64. */
  extra?: Record<string, unknown>;
  /** `text/html`. */
  html?: string | null;
  /** True for the value of the last expression. */
  isMain?: boolean;
  /** It takes the place of the output of the same `displayId` that was shown before. */
  isUpdate?: boolean;
  /** `application/javascript`. */
  javascript?: string | null;
  /** `image/jpeg`, base64. */
  jpeg?: string | null;
  /** `application/json`; also of lists, dictionaries and plain objects. */
  json?: Record<string, unknown> | null;
  /** `text/latex`. */
  latex?: string | null;
  /** `text/markdown`. */
  markdown?: string | null;
  /** What the object says of its representations, by MIME type, as the width of an image. */
  metadata?: Record<string, unknown>;
  /** `application/pdf`, base64. */
  pdf?: string | null;
  /** `image/png`, base64. */
  png?: string | null;
  /** `image/svg+xml`. */
  svg?: string | null;
  /** `text/plain`. */
  text?: string | null;
  /**
   * MIME types whose representation was over [`crate::limit::REPRESENTATION_BYTES`]: a text has
   * its beginning and a mark, others are left out.
   */
  truncated?: string[];
};

/** Answer of `POST .../run` as JSON. */
export type RunResult = {
  /** Where it ran. */
  contextId: ContextId;
  /**
   * The context's interpreter ended with this run, so what the context kept is lost; its next run
   * starts a fresh one. Absent unless true.
   */
  contextReset?: boolean;
  /**
   * Bytes of output and of results past the limit of a buffered answer; 0 means nothing is
   * missing.
   */
  droppedBytes: number;
  /** Milliseconds from when its turn came to its end. */
  durationMs: number;
  error?: 
  | null
  | /** How it failed. */ CodeError;
  /** Its number among the runs of the context's interpreter, from 1. */
  executionCount: number;
  /** What it wrote. */
  logs: RunLogs;
  /**
   * Its id among the sandbox's processes, while it runs and as long as its idempotency key is
   * remembered.
   */
  processId: ProcessId;
  refused?: 
  | null
  | /**
   * What the network policy refused meanwhile. Absent when it refused nothing, and for code that did
   * not fail.
   */ Refused;
  /** What it showed, in that order. */
  results: RunOutput[];
  /** True when there is no `error`. */
  success: boolean;
};

/** What will happen to a sandbox by itself. */
export type Rung = "freeze" | "reclaim" | "stop" | "destroy";

/** Why something will happen to a sandbox by itself. */
export type RungReason = "idle" | "ttl";

/** A sandbox. */
export type Sandbox = {
  /** How it is used, and what will become of it. */
  activity?: Activity;
  /** Milliseconds since 1970-01-01 UTC. */
  createdAtMs: number;
  /** Environment of every command. */
  env: Record<string, string>;
  /** Why it failed, in the state `failed`. */
  failure?: string | null;
  /** Its id. */
  id: SandboxId;
  /** What becomes of it when nobody uses it. */
  idle?: EffectiveIdle;
  /** The image it was made from. */
  image: ImageRef;
  /** The caller's own names for it. */
  labels: Record<string, string>;
  /** What it may reach. */
  network: NetworkPolicy;
  onStart?: 
  | null
  | /** What is started by itself, as the process `on-start`, whenever it is started. */ Command;
  /** The limits in force. */
  resources: EffectiveResources;
  /** Programs that it runs whenever it runs; where each is, `GET .../services` says. */
  services?: Service[];
  /** Where it is in its life. */
  state: SandboxState;
  /** Milliseconds from its creation to its destruction; 0: as long as it is wanted. */
  ttlMs?: number;
  usage?: 
  | null
  | /** What it uses now; absent unless it has processes. */ SandboxUsage;
};

/**
 * Names a sandbox. The caller chooses it; the same id is always the same sandbox.
 *
 * 1 to 63 characters, letters, digits, `-`, `_` and `.`, beginning and ending with a letter or a
 * digit, and not digits alone. Case matters. The rule keeps ids usable as one URL path segment,
 * as a file name and, where they hold no `_` or `.`, as a DNS label.
 */
export type SandboxId = string;

/** One page of sandboxes, sorted by id, without `usage`. */
export type SandboxList = {
  /** Where the next page starts; absent on the last. */
  nextCursor?: string | null;
  /** The sandboxes. */
  sandboxes: Sandbox[];
};

/** Where a sandbox is in its life. */
export type SandboxState = "creating" | "running" | "frozen" | "stopped" | "failed";

/** What a running sandbox uses now. */
export type SandboxUsage = {
  /** Milliseconds of CPU since it started. */
  cpuMs: number;
  /**
   * Bytes on disk of its own files, some seconds ago at most; absent where the node does not
   * count them.
   */
  diskBytes?: number | null;
  /** Bytes charged to it, page cache included. */
  memoryBytes: number;
  /** What it was refused. */
  network?: NetworkUsage;
  /** Times the kernel killed one of its processes for want of memory. */
  oomKills: number;
  /** Processes and threads. */
  pids: number;
};

/** A service, as it is defined. */
export type Service = {
  /** What runs, with the variables and in the directory of the sandbox. */
  command: Command;
  /** Its name, which no other service of the sandbox has: the id of its process. */
  name: ProcessId;
  /** It is ready when something listens on this port; without one, when it runs. */
  port?: number | null;
  /** When it is started again. */
  restart?: Restart;
};

/** The services of a sandbox. */
export type ServiceList = {
  /** In the order of their definition. */
  services: ServiceStatus[];
};

/** Where a service is. */
export type ServiceState = "starting" | "ready" | "waiting" | "ended";

/** A service of a running sandbox. */
export type ServiceStatus = {
  ending?: 
  | null
  | /** How it ended last. */ Ending;
  /** Why it could not be started last. */
  message?: string | null;
  /** When it is started again, in milliseconds since 1970-01-01 UTC, while it waits. */
  nextStartAtMs?: number | null;
  /** Of its process inside the sandbox, while it runs. */
  pid?: number | null;
  /** How often it was started again since the sandbox was started. */
  restarts: number;
  /**
   * As it is defined. A definition that was changed since is in force from the sandbox's next
   * start on.
   */
  service: Service;
  /** Where it is. */
  state: ServiceState;
};

/** A session. */
export type Session = {
  /** A command runs in it. */
  busy: boolean;
  /** The `timeoutMs` of commands that name none. */
  commandTimeoutMs?: number | null;
  /** Milliseconds since 1970-01-01 UTC. */
  createdAtMs: number;
  /**
   * The current directory of its shell; where the shell will start while there is none. U+FFFD
   * stands for what is not UTF-8.
   */
  cwd: string;
  /** Its id. */
  id: SessionId;
  /** When a command last began or ended in it. Milliseconds since 1970-01-01 UTC. */
  lastUsedMs: number;
  /** The name it was given. */
  name?: string | null;
  /**
   * The process id of its shell inside the sandbox; none until it is used, and again after its
   * shell has ended.
   */
  pid?: number | null;
  /** Commands that wait for their turn. */
  waiting: number;
};

/**
 * Names a session of a sandbox. The caller chooses it; `default` is there from the beginning.
 *
 * 1 to 128 letters, digits, `-`, `_`, `.` and `:`, beginning with a letter or a digit, and
 * not digits alone.
 */
export type SessionId = string;

/** Answer of `GET /v1/sandboxes/{id}/sessions`. */
export type SessionList = {
  /** Sorted by id. */
  sessions: Session[];
};

/** Body of `POST /v1/node:shutdown`. */
export type Shutdown = {
  /** What becomes of the sandboxes. */
  sandboxes?: ShutdownSandboxes;
};

/** What a shutdown does to the sandboxes. */
export type ShutdownSandboxes = "keep" | "stop" | "destroy";

/** A signal of signal(7): a name, with or without `SIG`, or a number from 1 to 64. */
export type Signal = string;

/** Body of `POST /v1/sandboxes/{id}/processes/{pid}/signal`. */
export type SignalProcess = {
  /** The signal that every process of the tree gets. */
  signal: Signal;
};

/** Body of `POST /v1/sandboxes/{id}/processes`. */
export type StartProcess = {
  /** Forget the process and its log as soon as it has ended and nobody follows it. */
  autoCleanup?: boolean;
  /** What to run. */
  command: Command;
  /** Working directory; relative paths start at the session's, else at the sandbox's own. */
  cwd?: string | null;
  /** Variables set (or, with null, unset) for this process only. */
  env?: Record<string, string | null>;
  id?: 
  | null
  | /**
   * The id to give it; generated unless given. A running or remembered process with this id is
   * an error.
   */ ProcessId;
  session?: 
  | null
  | /**
   * Start with this session's directory and exported variables; waits until the session is
   * idle. What the process changes does not come back.
   */ SessionId;
  /** What it reads. */
  stdin?: ProcessStdin;
  /** Milliseconds until its whole process tree is killed; none means no limit. */
  timeoutMs?: number | null;
};

/** Answer of `POST /v1/sandboxes/{id}/processes/{pid}/stdin`. */
export type StdinWritten = {
  /** Bytes that the pipe to the process took: all of the body. */
  writtenBytes: number;
};

/** The content of a data frame or of a series. */
export type TableData = {
  /** Names of the columns, in their order. */
  columns: string[];
  /** Names of the rows. */
  index: Array<Record<string, unknown>>;
  /** One object per row, by column. Times are RFC 3339, what is missing is null. */
  records: Array<Record<string, unknown>>;
  /** Rows that there are. */
  totalRows: number;
  /** Rows beyond [`crate::limit::TABLE_ROWS`] or their bytes are not in `records`. */
  truncated?: boolean;
  /** Types of the columns as the library names them. */
  types: string[];
};

/** A terminal. */
export type Terminal = {
  /** Columns. */
  cols: number;
  /** The shell text, or the arguments with blanks between. */
  command: string;
  /** Milliseconds since 1970-01-01 UTC. */
  createdAtMs: number;
  /** Milliseconds since 1970-01-01 UTC. */
  endedAtMs?: number | null;
  ending?: 
  | null
  | /** How it ended. */ Ending;
  /** The number a shell would give for that. */
  exitCode?: number | null;
  /** Cursor of the oldest byte of output that is kept. */
  firstCursor: number;
  /** Its id. */
  id: TerminalId;
  /** Cursor of the next byte to come. */
  nextCursor: number;
  /** Process id, inside the sandbox, of the program it was made for. */
  pid: number;
  /** Rows. */
  rows: number;
  /** False once the program has ended. */
  running: boolean;
  session?: 
  | null
  | /** The session it was started in. */ SessionId;
  /** Viewers connected now. */
  viewers: number;
};

/**
 * Names a terminal of a sandbox. The caller may choose it.
 *
 * 1 to 128 letters, digits, `-`, `_`, `.` and `:`, beginning with a letter or a digit, and
 * not digits alone.
 */
export type TerminalId = string;

/** Answer of `GET /v1/sandboxes/{id}/terminals`. */
export type TerminalList = {
  /** Oldest first. */
  terminals: Terminal[];
};

/** What has been unpacked. */
export type Unpacked = LeftOut & {
  /** Bytes of the files' content. */
  bytes: number;
  /** Directories named by the archive, made or there already. */
  directories: number;
  /** Regular files, further names of one file not counted. */
  files: number;
  /** Further names of files. */
  hardLinks: number;
  /** Symbolic links. */
  symlinks: number;
};

/** Body of `PATCH /v1/sandboxes/{id}`: what is to change; the rest stays. */
export type UpdateSandbox = {
  idle?: 
  | null
  | /** What becomes of it when nobody uses it; what is not given stays. */ IdleSettings;
  /** The caller's own names for it, all of them. */
  labels?: Record<string, string> | null;
  network?: 
  | null
  | /** What it may reach from now on. Connections that this does not allow end. */ NetworkPolicy;
  onStart?: 
  | null
  | /** What is started by itself whenever it is started; an empty text: nothing. */ Command;
  /** Programs that it runs whenever it runs, all of them: in force from its next start on. */
  services?: Service[] | null;
  /** Milliseconds from its creation to its destruction; 0: as long as it is wanted. */
  ttlMs?: number | null;
};

/** Body of `POST /v1/sandboxes/{id}/ports/{port}/validate-token`. */
export type ValidatePortToken = {
  /** What may be the port's token; any text. */
  token: string;
};

/** Body of `POST /v1/sandboxes/{id}/ports/{port}/wait`. */
export type WaitPort = {
  http?: 
  | null
  | /** What an HTTP server there has to answer; else it is enough that connections are accepted. */ HttpCheck;
  /** Milliseconds to wait; a day unless given. */
  timeoutMs?: number | null;
};

/** Body of `POST /v1/sandboxes/{id}/processes/{pid}/wait`. */
export type WaitProcess = {
  /** Milliseconds to wait; a day unless given. */
  timeoutMs?: number | null;
  /** What to wait for. */
  until: WaitUntil;
};

/** What a wait waits for. */
export type WaitUntil = 
| /** The end of the process. */ {
  type: "exit";
}
| /**
 * A line of its output, also one that it wrote before the wait as far as the log has it. Give
 * `text` or `pattern`. A line longer than [`crate::limit::WAIT_LINE_BYTES`] counts as several.
 */ {
  /**
   * The line matches this regular expression, somewhere. Its syntax is that of Rust's crate
   * `regex-lite`: that of JavaScript and Python without look-around and back-references;
   * `(?i)` ignores case, classes as `\w` are ASCII's. A match takes linear time.
   */
  pattern?: string | null;
  stream?: 
  | null
  | /** Only this output; both unless given. */ OutputStream;
  /** The line holds this text; seen also in a line that has no end yet. */
  text?: string | null;
  type: "log";
}
| /** Something accepts TCP connections on this port of the sandbox's loopback, IPv4 or IPv6. */ {
  /** The port. */
  port: number;
  type: "port";
}
| /** An HTTP server on this port of the sandbox's loopback answers a GET. */ {
  /** The path and query to ask for. */
  path?: string;
  /** The port. */
  port: number;
  /** The highest status that counts. */
  statusMax?: number;
  /** The lowest status that counts. */
  statusMin?: number;
  type: "http";
};

/** Body of `POST /v1/sandboxes/{id}/contexts:warm`. */
export type WarmContexts = {
  /**
   * Modules of Python to import beside the usual ones, at most
   * [`crate::limit::WARM_IMPORTS`].
   */
  imports?: string[];
};

/** Answer of `POST /v1/sandboxes/{id}/contexts:warm`. */
export type WarmStart = {
  /** Bytes on disk. */
  bytes: number;
  /** Milliseconds that it took. */
  durationMs: number;
};

/** Why nothing more can happen in what was watched. */
export type WatchEnd = "deleted" | "moved";

/**
 * One event of a watch. The stream begins with `watching` and ends, unless the caller goes, with
 * `stopped` or `error`.
 */
export type WatchEvent = 
| /** What happens from here on is reported. */ {
  /** Directories that are watched now. */
  directories: number;
  /** The absolute path that is watched. */
  path: string;
  type: "watching";
}
| /** Something changed. */ FileChange & {
  type: "event";
}
| /**
 * More changed than could be kept, and some of it is not reported. List `path` to know what is
 * there; what happens from here on is reported again.
 */ {
  /** The path that is watched. */
  path: string;
  type: "overflow";
}
| /** Nothing more can happen there. */ {
  /** Why. */
  reason: WatchEnd;
  type: "stopped";
}
| /** The watch cannot go on. */ {
  /** Why, and what to do. */
  error: ApiError;
  type: "error";
};

/** A webhook, without its secret. */
export type Webhook = {
  /** Milliseconds since 1970-01-01 UTC. */
  createdAtMs: number;
  /** The last event that was taken, or the last there was when it was created. */
  cursor: number;
  failure?: 
  | null
  | /** Why the event after that is not taken, while it is not. */ WebhookFailure;
  /** Only events of these kinds; all, if empty. */
  kinds?: EventKind[];
  /** Only events of sandboxes that had this label. */
  label?: string | null;
  /** Its name. */
  name: WebhookName;
  prefix?: 
  | null
  | /** Only events of sandboxes whose ids begin with this. */ IdPrefix;
  /** Where events are sent. */
  url: string;
};

/** Why an event is not taken. */
export type WebhookFailure = {
  /** How often it was sent, since the server's start. */
  attempts: number;
  /** What went wrong last. */
  message: string;
  /** When it is sent again, in milliseconds since 1970-01-01 UTC. */
  nextAttemptAtMs: number;
};

/** All webhooks of a node. */
export type WebhookList = {
  /** Sorted by name. */
  webhooks: Webhook[];
};

/**
 * Names a webhook of a node. The caller chooses it.
 *
 * 1 to 128 letters, digits, `-`, `_`, `.` and `:`, beginning with a letter or a digit, and
 * not digits alone.
 */
export type WebhookName = string;

/** What came of `POST /v1/webhooks/{name}/test`. */
export type WebhookTested = {
  /** Why not. */
  message?: string | null;
  /** It was answered with a 2xx. */
  taken: boolean;
};

/** Body of `POST /v1/sandboxes/{id}/files:write`. */
export type WriteFiles = {
  /** The files, 1 to 1000. They are written one after the other; each is whole or unchanged. */
  files: NewFile[];
  session?: 
  | null
  | /** Session whose current directory relative paths start at. */ SessionId;
};
