//! Every public limit, with its unit and its reason.

/// Characters of a sandbox id: one DNS label (RFC 1035).
pub const SANDBOX_ID_CHARS: usize = 63;

/// Characters of the id of a process or a session: the default session of an SDK is named after its
/// sandbox, with a prefix.
pub const NAME_CHARS: usize = 128;

/// Characters of an image name or tag; as in the OCI distribution specification.
pub const IMAGE_NAME_CHARS: usize = 128;

/// Bytes of a JSON request body. Larger content goes through the file routes, which stream.
pub const JSON_BODY_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of such bodies that the server itself reads at once for one key with a prefix: a few of the
/// largest, or thousands as they are. One more is refused with `TOO_MANY_REQUESTS`.
pub const JSON_BYTES_PER_KEY: usize = 4 * JSON_BODY_BYTES;

/// Bytes of one command, argument list included. The kernel refuses one argument over 128 KiB
/// (`MAX_ARG_STRLEN`, execve(2)); a longer shell text belongs in a file or on stdin.
pub const COMMAND_BYTES: usize = 127 * 1024;

/// Variables in one request's environment.
pub const ENV_VARS: usize = 1024;

/// Bytes of one environment variable, name and value.
pub const ENV_VAR_BYTES: usize = 64 * 1024;

/// Bytes of all variables of a sandbox, names and values: the kernel starts no program with more than
/// 2 MiB of arguments and environment (execve(2)).
pub const ENV_BYTES: usize = 1024 * 1024;

/// Bytes of a path: `PATH_MAX` less its closing zero (limits.h).
pub const PATH_BYTES: usize = 4095;

/// Bytes kept of each of stdout and stderr in a buffered exec result; the rest is counted in
/// `droppedBytes`. A streamed exec has no such limit. Bounds the agent's memory.
pub const EXEC_OUTPUT_BYTES: usize = 16 * 1024 * 1024;

/// Milliseconds an exec may ask for at most: a day. Longer work is a process, not an exec.
pub const EXEC_TIMEOUT_MS: u64 = 24 * 60 * 60 * 1000;

/// Seconds that a command started with an idempotency key waits for its caller to come back before
/// it is killed: time for a server to be replaced, not for a forgotten command to live on.
pub const RESUME_GRACE_SECS: u64 = 60;

/// Bytes of output kept of one process, the newest; older ones are dropped and counted. Many small
/// writes count for more than their bytes.
pub const LOG_BYTES: usize = 8 * 1024 * 1024;

/// Seconds between comments on a quiet event stream, so that proxies and clients can tell a quiet
/// command from a dead connection.
pub const HEARTBEAT_SECS: u64 = 15;

/// Commands that run at once in one sandbox through `exec`.
pub const EXECS_PER_SANDBOX: usize = 256;

/// Processes that run at once in one sandbox, beside the commands of `exec`.
pub const PROCESSES_PER_SANDBOX: usize = 256;

/// Characters shown of a process's command; the rest is left out. A list of processes, and what is
/// remembered of ended ones, then stays small.
pub const COMMAND_SHOWN_CHARS: usize = 4096;

/// Processes remembered after their end; the one that ended first is forgotten first.
pub const ENDED_PROCESSES: usize = 256;

/// Bytes that what is remembered of ended processes may take, logs included; as for their number.
/// The one that ended last is kept whatever it takes.
pub const ENDED_PROCESSES_BYTES: usize = 32 * 1024 * 1024;

/// Seconds that a process is remembered after its end: who started it in the evening finds it in the
/// morning.
pub const ENDED_PROCESS_SECS: u64 = 24 * 60 * 60;

/// Characters of an `Idempotency-Key`: visible ASCII.
pub const IDEMPOTENCY_KEY_CHARS: usize = 255;

/// Answers of `exec` remembered for their idempotency keys; the command that ended first is
/// forgotten first.
pub const KEPT_ANSWERS: usize = 1024;

/// Bytes that those answers may take; as for their number. The newest is kept whatever it takes.
pub const KEPT_ANSWERS_BYTES: usize = 32 * 1024 * 1024;

/// Seconds that the answer to an `exec` with an idempotency key is remembered after the command's
/// end: longer than any client retries.
pub const KEPT_ANSWER_SECS: u64 = 10 * 60;

/// Milliseconds between the signal of a `kill` and SIGKILL, unless the caller says otherwise: what
/// other runtimes give a program to end by itself.
pub const KILL_GRACE_MS: u64 = 5000;

/// Milliseconds of that grace at most.
pub const KILL_GRACE_MOST_MS: u64 = 60 * 1000;

/// Milliseconds that a wait for a process may take at most: a day.
pub const WAIT_TIMEOUT_MS: u64 = EXEC_TIMEOUT_MS;

/// Waits for processes at once in one sandbox. Each may keep two lines and a pattern.
pub const WAITS_PER_SANDBOX: usize = 256;

/// Bytes of a line that a wait for a line of output looks at; a longer line counts as several.
pub const WAIT_LINE_BYTES: usize = 64 * 1024;

/// Bytes of the text or the pattern of such a wait, and of the path of a wait for HTTP.
pub const WAIT_PATTERN_BYTES: usize = 1024;

/// Terminals in one sandbox that run or are remembered; of the latter the oldest make way.
pub const TERMINALS_PER_SANDBOX: usize = 64;

/// Viewers of all terminals of one sandbox together. Bounds the agent's memory: each may be in the
/// middle of a message.
pub const TERMINAL_VIEWERS: usize = 64;

/// Columns and rows of a terminal: no screen has more, and programs keep a cell for each.
pub const TERMINAL_SIDE: u16 = 1000;

/// Bytes of output kept of one terminal, the newest: some screens for who comes back.
pub const TERMINAL_OUTPUT_BYTES: usize = 256 * 1024;

/// Bytes of one message from a viewer: a large paste. A larger one is sent in pieces.
pub const TERMINAL_MESSAGE_BYTES: usize = 1024 * 1024;

/// Seconds that a terminal is remembered after its program has ended.
pub const ENDED_TERMINAL_SECS: u64 = 10 * 60;

/// Sessions of one sandbox, the default one included. Each has a shell of about 2 MiB.
pub const SESSIONS: usize = 64;

/// Commands that wait in one session for the one that runs. More would be answered so late that
/// their callers are gone.
pub const SESSION_QUEUE: usize = 64;

/// Bytes of the end of each output that an error `SESSION_TERMINATED` has.
pub const SESSION_TAIL_BYTES: usize = 16 * 1024;

/// Contexts of the code interpreter in one sandbox. Each has an interpreter, of 15 MiB and more.
pub const CONTEXTS: usize = 64;

/// Modules that a warm start may be asked to import; each takes memory of the machine's.
pub const WARM_IMPORTS: usize = 64;

/// Runs that wait in one context for the one that runs; as for commands of a session.
pub const CONTEXT_QUEUE: usize = 64;

/// Contexts remembered after they were deleted for having been idle, to tell whoever comes back.
pub const EXPIRED_CONTEXTS: usize = 256;

/// Milliseconds that code may run unless somebody says otherwise: as in the Cloudflare SDK.
pub const RUN_TIMEOUT_MS: u64 = 60 * 1000;

/// Milliseconds that interrupted code may take to end before its interpreter is killed: long enough
/// for an exception to pass through handlers, short enough that a caller waits for the answer.
pub const INTERRUPT_GRACE_MS: u64 = 2000;

/// Bytes of one run's code: a very large cell. Data goes through files.
pub const CODE_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of one representation of one result. A page that shows more does not show it well; a
/// picture of 4,000 by 4,000 pixels is smaller.
pub const REPRESENTATION_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of all representations of one result together, as JSON.
pub const RESULT_BYTES: usize = 24 * 1024 * 1024;

/// Bytes kept of the results of one run in a buffered answer; later ones are counted in
/// `droppedBytes`. A streamed run has no such limit.
pub const RUN_RESULTS_BYTES: usize = 32 * 1024 * 1024;

/// Points of one series of a chart in its machine-readable form.
pub const CHART_POINTS: usize = 10_000;

/// Rows of a data frame in its machine-readable form.
pub const TABLE_ROWS: usize = 10_000;

/// Entries in one page of a directory listing, and sandboxes in one page of a list, unless the
/// caller asks for fewer.
pub const PAGE_ENTRIES: usize = 1000;

/// Entries in one page of a directory listing at most. A page is made whole before it is sent: of
/// usual names this is some 3 MiB.
pub const FILE_PAGE_ENTRIES: usize = 10_000;

/// Bytes of content that one JSON answer carries, of one file or of several together. More is read
/// raw, which has no limit. Bounds what a caller that collects answers must hold.
pub const JSON_CONTENT_BYTES: u64 = 32 * 1024 * 1024;

/// Files read or written by one request: as many as pay for the round trip, few enough that it
/// ends soon.
pub const BATCH_FILES: usize = 1000;

/// Labels of one sandbox.
pub const LABELS: usize = 64;

/// Bytes of a label's name or value.
pub const LABEL_BYTES: usize = 256;

/// Events that a node keeps; the oldest goes first. Some hundred sandboxes that freeze and thaw all
/// day make so many.
pub const EVENTS: u64 = 100_000;

/// Bytes that they may take in the node's records: labels are up to 32 KiB of an event.
pub const EVENTS_BYTES: u64 = 64 * 1024 * 1024;

/// Days for which an event is kept: whoever looks once a month misses none.
pub const EVENT_DAYS: u32 = 31;

/// Services of one sandbox: more are one program that starts others.
pub const SERVICES: usize = 16;

/// Webhooks of one node: each has a task, and a connection while something is sent.
pub const WEBHOOKS: usize = 64;

/// Bytes of a webhook's URL.
pub const WEBHOOK_URL_BYTES: usize = 2048;

/// Rules of one sandbox's allow-list: enough to name every host that a build needs, few enough for
/// a first packet to pass all of them.
pub const NETWORK_RULES: usize = 256;

/// Bytes of an image recipe.
pub const RECIPE_BYTES: usize = 256 * 1024;

/// Entries of an archive that is unpacked. Each costs an inode or a name; more is no source tree but
/// an attack on the file system.
pub const ARCHIVE_ENTRIES: u64 = 2_000_000;

/// Directories inside each other in an archive, out and in. The agent holds a descriptor for each;
/// a path has room for some 2,000.
pub const ARCHIVE_DEPTH: usize = 256;

/// Bytes of the headers of one entry besides its own: long names, pax records. A path needs 4 KiB;
/// the rest is for extended attributes, which are read over.
pub const ARCHIVE_HEADER_BYTES: usize = 256 * 1024;

/// Bytes of the window that a compressed archive may ask for: what a zstd decoder must offer
/// (RFC 8878 section 3.1.1.1.2). `zstd --ultra` and `--long` ask for more.
pub const ARCHIVE_WINDOW_BYTES: usize = 8 * 1024 * 1024;

/// Archives packed or unpacked at once in one sandbox. Each takes up to some 4 MiB of the agent's
/// memory, and more with a large window.
pub const ARCHIVES_AT_ONCE: usize = 4;

/// Bytes of files in the export of a checkpoint, holes counted as zeros: more breaks off on its way out
/// and is refused on its way in. Bounds what a few kilobytes of compressed zeros keep busy.
pub const EXPORT_BYTES: u64 = 64 * 1024 * 1024 * 1024;

/// Entries named as left out, and bytes of their paths; the rest is counted. Written as JSON they
/// fit into [`ARCHIVE_HEADER_BYTES`], each byte as six.
pub const ARCHIVE_LEFT_OUT: usize = 100;

/// See [`ARCHIVE_LEFT_OUT`].
pub const ARCHIVE_LEFT_OUT_BYTES: usize = 32 * 1024;

/// Streams of watched files at once in one sandbox. Each takes one of the kernel's 128 (by default)
/// inotify instances of the sandbox, which its own programs share.
pub const WATCHES_PER_SANDBOX: usize = 32;

/// Directories that all watches of a sandbox follow together, each counted once per watch: more
/// than any source tree has without what is built and installed. Bounds the agent's memory (175
/// bytes each with names of a dozen, measured with 60,000: 11 MiB) and leaves the kernel's own limit to the sandbox's programs.
pub const WATCHED_DIRECTORIES: usize = 65_536;

/// Patterns in one `include` or `exclude`: each is held against each name.
pub const PATTERNS: usize = 64;

/// Bytes of one pattern, see [`crate::pattern`].
pub const PATTERN_BYTES: usize = 1024;

/// Versions of `files:changes` with different paths or patterns that one sandbox knows at once; the
/// one that was not asked for for longest gives way. Each takes an inotify instance too.
pub const CHANGES_KEPT: usize = 16;

/// Seconds that a version of `files:changes` stays known after it was last asked for.
pub const CHANGES_KEPT_SECS: u64 = 10 * 60;

/// Milliseconds that a git checkout may take unless its request says otherwise.
pub const GIT_TIMEOUT_MS: u64 = 10 * 60 * 1000;

/// Bytes of a git URL, of a branch's name, and of each part of the credentials: more than any server
/// takes, little enough for an environment variable.
pub const GIT_TEXT_BYTES: usize = 4096;
/// Ports exposed at once in one sandbox.
pub const EXPOSED_PORTS: usize = 64;

/// Ports of one sandbox that were ever exposed: each is remembered, so that its URL stays the same
/// when it is exposed again and none that was rotated away comes back.
pub const REMEMBERED_PORTS: usize = 1024;

/// Characters of the token in a port's URL.
pub const PORT_TOKEN_CHARS: usize = 16;

/// Characters of an exposed port's name.
pub const PORT_NAME_CHARS: usize = 128;

/// Checkpoints of one sandbox. Each keeps what the sandbox has overwritten since.
pub const CHECKPOINTS: usize = 64;

/// Sandboxes that one fork makes.
pub const FORKS: u32 = 64;

/// Listening ports of one sandbox that are listed: the lowest.
pub const LISTENING_PORTS: usize = 4096;

/// Connections from outside to the ports of one sandbox at once, each of which takes two descriptors
/// of the agent's: an application with thousands of open event streams, and no more than the agent can
/// have.
pub const PORT_CONNECTIONS: usize = 8192;

/// Bytes of one message of a WebSocket to a port. Larger ones are sent in pieces: their bounds mean
/// nothing to what listens.
pub const PORT_MESSAGE_BYTES: usize = 1024 * 1024;
/// Keys of one node, beside `local`: each request's key is compared with all of them, which takes
/// microseconds for so many.
pub const KEYS: usize = 1000;

/// Characters of a key's name.
pub const KEY_NAME_CHARS: usize = 64;

/// Characters of the prefix of a key's sandboxes; leaves room for a generated id.
pub const ID_PREFIX_CHARS: usize = 40;

/// Seconds until a key expires, at most: ten years.
pub const KEY_EXPIRY_SECS: u64 = 10 * 365 * 24 * 60 * 60;

/// Sandboxes that are being created or started at once on one node: about five seconds of work on
/// two cores. One more is refused with `CAPACITY_EXCEEDED`.
pub const CREATES_AT_ONCE: usize = 512;

/// Of these, those of one key with a prefix; one more is refused with `TOO_MANY_REQUESTS`.
pub const CREATES_PER_KEY: usize = 128;
