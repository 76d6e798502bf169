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

/// Bytes of one command, argument list included. The kernel refuses one argument over 128 KiB
/// (`MAX_ARG_STRLEN`, execve(2)); a longer shell text belongs in a file or on stdin.
pub const COMMAND_BYTES: usize = 127 * 1024;

/// Variables in one request's environment.
pub const ENV_VARS: usize = 1024;

/// Bytes of one environment variable, name and value.
pub const ENV_VAR_BYTES: usize = 64 * 1024;

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

/// Entries in one page of a directory listing, and sandboxes in one page of a list, unless the
/// caller asks for fewer.
pub const PAGE_ENTRIES: usize = 1000;

/// Labels of one sandbox.
pub const LABELS: usize = 64;

/// Bytes of a label's name or value.
pub const LABEL_BYTES: usize = 256;

/// Bytes of an image recipe.
pub const RECIPE_BYTES: usize = 256 * 1024;

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
