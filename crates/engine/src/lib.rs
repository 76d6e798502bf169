//! The engine: the sandboxes of one node. Knows nothing of the public HTTP API.

#![forbid(unsafe_code)]

use api::{
    id::SandboxId,
    image::{BuildEvent, BuildImage, Image},
    node::ShutdownSandboxes,
    sandbox::{CreateSandbox, ListSandboxes, Sandbox, SandboxList},
};
use jail::{JailId, Launcher, NodeSpec};

/// What an operator decides about the node.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// State directory, name and network.
    pub node: NodeSpec,
    /// Image of sandboxes that name none.
    pub default_image: api::id::ImageRef,
    /// Limits of sandboxes that ask for none.
    pub default_limits: jail::Limits,
    /// The most a sandbox may ask for.
    pub max_limits: jail::Limits,
    /// Sandboxes that may exist at once.
    pub max_sandboxes: usize,
    /// First host user id of the sandboxes' ranges; slot n gets 65,536 ids from `uid_base + n * 65536`.
    pub uid_base: u32,
}

/// The sandboxes of one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {}

/// A running sandbox, held for one request: it will not be stopped for idleness meanwhile.
#[derive(Debug)]
pub struct Active {
    /// Where its agent is reached, see `link::Links::send`.
    pub jail: JailId,
}

/// Why the engine refused or failed. `engine::error` is the only place that gives engine errors
/// their public codes.
pub use api::error::ApiError as EngineError;

#[expect(clippy::unused_async, reason = "being written")]
impl Engine {
    /// Opens the state directory (one engine at a time, by a lock), and recovers: adopts running
    /// sandboxes, finishes or buries what was under way. `launchers` were started before any thread.
    ///
    /// # Errors
    /// When the directory is in use or damaged.
    pub async fn open(
        config: EngineConfig,
        launchers: Vec<Launcher>,
        links: link::Links,
    ) -> Result<Self, EngineError> {
        todo!("{config:?} {launchers:?} {links:?}")
    }

    /// Creates a sandbox, or returns the existing one when the settings agree. `true`: it is new.
    ///
    /// # Errors
    /// `SANDBOX_EXISTS`, `IMAGE_NOT_FOUND`, `VALIDATION_FAILED`, `CAPACITY_EXCEEDED`, `SANDBOX_FAILED`.
    pub async fn create(&self, request: CreateSandbox) -> Result<(Sandbox, bool), EngineError> {
        todo!("{request:?}")
    }

    /// One sandbox, with its usage.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`.
    pub async fn get(&self, id: &SandboxId) -> Result<Sandbox, EngineError> {
        todo!("{id}")
    }

    /// A page of sandboxes.
    ///
    /// # Errors
    /// `VALIDATION_FAILED` for a bad cursor or label filter.
    pub async fn list(&self, query: &ListSandboxes) -> Result<SandboxList, EngineError> {
        todo!("{query:?}")
    }

    /// Finds, creates (with the node's defaults) or starts the sandbox, for one request to it.
    /// The one function that knows where a sandbox lives.
    ///
    /// # Errors
    /// As [`Engine::create`].
    pub async fn activate(&self, id: &SandboxId) -> Result<Active, EngineError> {
        todo!("{id}")
    }

    /// Ends the sandbox and forgets it. At return no process of it is left and the id is free;
    /// its files go in the background.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`.
    pub async fn destroy(&self, id: &SandboxId) -> Result<(), EngineError> {
        todo!("{id}")
    }

    /// Images in the store.
    ///
    /// # Errors
    /// `INTERNAL_ERROR` when the store cannot be read.
    pub async fn images(&self) -> Result<Vec<Image>, EngineError> {
        todo!()
    }

    /// Builds an image; the events end with `done` or `failed`. Dropping the receiver cancels.
    ///
    /// # Errors
    /// `VALIDATION_FAILED` for a recipe that does not parse.
    pub async fn build_image(
        &self,
        request: BuildImage,
    ) -> Result<tokio::sync::mpsc::Receiver<BuildEvent>, EngineError> {
        todo!("{request:?}")
    }

    /// Refuses new work, ends what `sandboxes` says, waits for what is under way.
    ///
    /// # Errors
    /// `INTERNAL_ERROR` naming what could not be ended.
    pub async fn shut_down(&self, sandboxes: ShutdownSandboxes) -> Result<(), EngineError> {
        todo!("{sandboxes:?}")
    }
}
