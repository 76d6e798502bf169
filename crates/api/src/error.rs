//! Errors on the wire: a stable code, a sentence, details, the request's id.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong, for programs. Stable: codes are added, never renamed.
///
/// Each code has one HTTP status, see [`ErrorCode::status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The request does not fit the API: malformed JSON, a wrong type, an unknown field, a value
    /// out of range. `details` names the field where there is one.
    ValidationFailed,
    /// The id in the path breaks the rule of [`crate::id::SandboxId`].
    InvalidSandboxId,
    /// The command is empty, too long or holds a NUL byte.
    InvalidCommand,
    /// A path is empty, too long or holds a NUL byte.
    InvalidPath,
    /// The operation needs a file and the path is a directory.
    IsDirectory,
    /// The operation needs a directory and the path is something else.
    NotDirectory,
    /// A component of the path is longer than the file system allows.
    NameTooLong,
    /// The path is a device, a pipe or a socket; only regular files are read and written.
    NotRegularFile,
    /// The path goes through too many symbolic links, or through one of /proc that is no path.
    TooManyLinks,
    /// What was to be unpacked is no archive, breaks off, or names what may not be written.
    InvalidArchive,
    /// The URL is none that git can clone from here.
    InvalidGitUrl,
    /// The port is not one that can be exposed: 1024 to 65535.
    InvalidPort,
    /// No key, or a key this server does not know, or does not know any more.
    Unauthorized,
    /// The key is good, and its scope does not allow this.
    Forbidden,
    /// The key has as many sandboxes as it may have; `details.limit` says how many.
    QuotaExceeded,
    /// The `Host` or `Origin` header names a site that may not call this API.
    HostNotAllowed,
    /// The user inside the sandbox may not do this.
    PermissionDenied,
    /// The git server wants credentials, or refused those it got.
    GitAuthFailed,
    /// The file or its file system is read-only.
    ReadOnly,
    /// No such route.
    RouteNotFound,
    /// No sandbox with this id.
    SandboxNotFound,
    /// No key with this name.
    KeyNotFound,
    /// No image with this name in the store; `sandbar image ls` lists them.
    ImageNotFound,
    /// No such file or directory.
    FileNotFound,
    /// No such program in the sandbox.
    CommandNotFound,
    /// No process with this id; finished ones are forgotten after a while.
    ProcessNotFound,
    /// No session with this id.
    SessionNotFound,
    /// No context with this id.
    ContextNotFound,
    /// No terminal with this id.
    TerminalNotFound,
    /// The sandbox has no checkpoint with this id.
    CheckpointNotFound,
    /// The node has no webhook with this name.
    WebhookNotFound,
    /// The port is not exposed.
    PortNotExposed,
    /// No preview has this URL: its token is wrong, or the port is not exposed.
    InvalidToken,
    /// No such git repository, or none that these credentials may see.
    GitRepositoryNotFound,
    /// The repository has no such branch, tag or commit.
    GitBranchNotFound,
    /// The route exists, with other methods.
    MethodNotAllowed,
    /// The process did not come to the awaited condition in time.
    ProcessReadyTimeout,
    /// A sandbox with this id exists with other settings.
    SandboxExists,
    /// A key with this name is there already.
    KeyExists,
    /// A process with this id is there already.
    ProcessExists,
    /// A session with this id is there already.
    SessionAlreadyExists,
    /// A context with this id is there already.
    ContextExists,
    /// A terminal with this id is there already.
    TerminalExists,
    /// The sandbox has a checkpoint with this id already.
    CheckpointExists,
    /// The export of a checkpoint is of another image than the sandbox; `details` has both digests,
    /// `needs` and `has`.
    ImageMismatch,
    /// A webhook with this name is there already.
    WebhookExists,
    /// The port is exposed already; `details.url` has its URL.
    PortAlreadyExposed,
    /// The idempotency key was used for another request.
    IdempotencyConflict,
    /// The file or directory exists already.
    FileExists,
    /// The directory is not empty.
    DirectoryNotEmpty,
    /// Something else uses the resource now.
    ResourceBusy,
    /// The process has ended: it takes no signal and no input any more.
    ProcessEnded,
    /// The process's stdin is closed, or it was started without one.
    StdinClosed,
    /// The session's shell ended, as `exit` does, while the command ran; `details` has its exit code
    /// and output. The next use of the session gets a fresh shell.
    SessionTerminated,
    /// The session was deleted while the command waited or ran.
    SessionDestroyed,
    /// The preview's URL was right until its port was hidden.
    StalePreviewUrl,
    /// The events after this cursor are gone, or were never there: the node keeps a number of them,
    /// and its records may have been replaced. `details.oldest` is the first that is kept.
    EventsMissed,
    /// The context was not used for its `idleTimeoutMs` and deleted for that.
    ContextExpired,
    /// The context was deleted while the run waited.
    ContextDeleted,
    /// The file does not have the content that `If-Match` names; nothing was changed.
    PreconditionFailed,
    /// The body or a field of it is over its limit.
    PayloadTooLarge,
    /// The file is over the limit of this form of the request; the raw form has none.
    FileTooLarge,
    /// There is more than this may take: directories to watch, names of a directory to compare, bytes of
    /// a checkpoint to export.
    TreeTooLarge,
    /// The connection was encrypted for another host; try again on a new one.
    MisdirectedRequest,
    /// What arrived does not have the checksum that was promised; nothing was changed.
    ChecksumMismatch,
    /// The requested byte range lies outside the file.
    RangeNotSatisfiable,
    /// A body needs `Content-Type: application/json`.
    UnsupportedMediaType,
    /// Too many requests at once; try again after `Retry-After`.
    TooManyRequests,
    /// The server failed. The log has the cause under the request's id.
    InternalError,
    /// The sandbox could not be created or started; `details.step` says where it failed.
    SandboxFailed,
    /// The image could not be built; the build's events say which step failed and why.
    ImageBuildFailed,
    /// The command could not be started.
    CommandExecutionError,
    /// The process ended before it came to the awaited condition.
    ProcessExitedBeforeReady,
    /// git failed for a reason without a code of its own; `details.stderr` has what it said.
    GitCloneFailed,
    /// The image has no bash, which sessions need.
    ShellNotAvailable,
    /// The image has not what the context's language needs; `details.missing` says what.
    InterpreterNotAvailable,
    /// This node, or this sandbox on it, cannot have checkpoints; `sandbar doctor` says why.
    CheckpointsNotAvailable,
    /// The file system refused for a reason without a code of its own; `details.errno` has it.
    FilesystemError,
    /// The sandbox's agent gave no answer, or a wrong one.
    AgentUnreachable,
    /// Nothing listens on the port in the sandbox, or it does not answer as it should.
    ServiceNotResponding,
    /// The git server could not be reached, or the connection broke.
    GitNetworkError,
    /// The node has no room for another sandbox now, is creating too many, or has all its keys.
    CapacityExceeded,
    /// The node is stopping.
    ShuttingDown,
    /// The node was just started and still adopts the sandboxes of its last run; try again.
    Starting,
    /// The operation did not end in its time.
    Timeout,
    /// The sandbox's or the node's disk is full.
    NoSpace,
    /// The request came through this server's previews too often: it goes round in a circle.
    LoopDetected,
}

impl ErrorCode {
    /// The HTTP status that goes with the code.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a table with a line for each code")]
    pub fn status(self) -> u16 {
        match self {
            Self::ValidationFailed
            | Self::InvalidSandboxId
            | Self::InvalidCommand
            | Self::InvalidPath
            | Self::IsDirectory
            | Self::NotDirectory
            | Self::NameTooLong
            | Self::NotRegularFile
            | Self::TooManyLinks
            | Self::InvalidArchive
            | Self::InvalidGitUrl
            | Self::InvalidPort => 400,
            Self::Unauthorized => 401,
            // 401 would speak of the API's own key.
            Self::Forbidden
            | Self::QuotaExceeded
            | Self::HostNotAllowed
            | Self::PermissionDenied
            | Self::ReadOnly
            | Self::GitAuthFailed => 403,
            Self::RouteNotFound
            | Self::SandboxNotFound
            | Self::KeyNotFound
            | Self::ImageNotFound
            | Self::FileNotFound
            | Self::CommandNotFound
            | Self::ProcessNotFound
            | Self::SessionNotFound
            | Self::ContextNotFound
            | Self::TerminalNotFound
            | Self::CheckpointNotFound
            | Self::WebhookNotFound
            | Self::PortNotExposed
            | Self::InvalidToken
            | Self::GitRepositoryNotFound
            | Self::GitBranchNotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::ProcessReadyTimeout => 408,
            Self::SandboxExists
            | Self::KeyExists
            | Self::ProcessExists
            | Self::SessionAlreadyExists
            | Self::TerminalExists
            | Self::CheckpointExists
            | Self::ImageMismatch
            | Self::WebhookExists
            | Self::PortAlreadyExposed
            | Self::ContextExists
            | Self::IdempotencyConflict
            | Self::FileExists
            | Self::DirectoryNotEmpty
            | Self::ResourceBusy
            | Self::ProcessEnded
            | Self::StdinClosed => 409,
            Self::SessionTerminated
            | Self::SessionDestroyed
            | Self::ContextExpired
            | Self::ContextDeleted
            | Self::StalePreviewUrl
            | Self::EventsMissed => 410,
            Self::PreconditionFailed => 412,
            Self::PayloadTooLarge | Self::FileTooLarge | Self::TreeTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::RangeNotSatisfiable => 416,
            Self::MisdirectedRequest => 421,
            Self::ChecksumMismatch => 422,
            Self::TooManyRequests => 429,
            Self::InternalError
            | Self::SandboxFailed
            | Self::ImageBuildFailed
            | Self::CommandExecutionError
            | Self::ProcessExitedBeforeReady
            | Self::GitCloneFailed
            | Self::FilesystemError => 500,
            Self::ShellNotAvailable
            | Self::InterpreterNotAvailable
            | Self::CheckpointsNotAvailable => 501,
            Self::AgentUnreachable | Self::ServiceNotResponding | Self::GitNetworkError => 502,
            Self::CapacityExceeded | Self::ShuttingDown | Self::Starting => 503,
            Self::Timeout => 504,
            Self::NoSpace => 507,
            Self::LoopDetected => 508,
        }
    }
}

/// One error, before it is rendered: what failed, why, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{message}")]
pub struct ApiError {
    /// What went wrong, for programs.
    pub code: ErrorCode,
    /// What was attempted, what went wrong and what to do, for people.
    pub message: String,
    /// Facts of the failure: `path`, `field`, `limit`, `errno`, ...
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[schema(value_type = Object)]
    pub details: serde_json::Map<String, serde_json::Value>,
    /// Finds the request in the server's log. Filled in by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl ApiError {
    /// An error without details.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: serde_json::Map::new(), request_id: None }
    }

    /// Adds one fact.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<serde_json::Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }
}

/// Refuses a JSON body that is not an object. Deserializers would take a list for an object whose
/// fields all have defaults, and what a client meant by one cannot be known.
///
/// # Errors
/// `VALIDATION_FAILED`.
pub fn require_object(body: &[u8]) -> Result<(), ApiError> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if matches!(first, None | Some(b'{')) {
        // An empty body is left to the deserializer, which says so better.
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::ValidationFailed, "the body must be a JSON object, `{...}`"))
}

/// The body of every error response: `{"error": {"code", "message", "details", "requestId"}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}
