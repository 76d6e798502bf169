//! Images: immutable root file systems.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::ImageRef;

/// An image in the node's store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Its name.
    pub name: ImageRef,
    /// `sha256:` and 64 hexadecimal digits: of the recipe's steps and what they pinned. `host` for
    /// the image made of the machine's own files.
    pub digest: String,
    /// Layers it is stacked from.
    pub layers: usize,
    /// Bytes of its files; 0 for `host`, which stores none.
    pub size_bytes: u64,
    /// Milliseconds since 1970-01-01 UTC.
    pub created_at_ms: i64,
}

/// Answer of `GET /v1/images`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageList {
    /// Sorted by name.
    pub images: Vec<Image>,
}

/// Body of `POST /v1/images:build`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BuildImage {
    /// The name to give the result.
    pub name: ImageRef,
    /// The recipe: a Dockerfile with FROM, RUN, ENV, WORKDIR and LABEL.
    pub recipe: String,
}

/// One event of a build (`text/event-stream`). The stream ends with exactly one `done` or `failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum BuildEvent {
    /// A step of the recipe begins.
    Step {
        /// From 1.
        index: usize,
        /// How many there are.
        total: usize,
        /// The instruction as written.
        instruction: String,
        /// True when its result was in the store already.
        cached: bool,
    },
    /// A line a step wrote.
    Log {
        /// The line, without its end.
        line: String,
    },
    /// The image is in the store.
    Done {
        /// The image.
        image: Image,
    },
    /// A step failed. Steps before it are kept: the next build goes on from there.
    Failed {
        /// Why, and what to do.
        message: String,
    },
}

impl BuildEvent {
    /// The event's name on the `event:` line of the stream.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Step { .. } => "step",
            Self::Log { .. } => "log",
            Self::Done { .. } => "done",
            Self::Failed { .. } => "failed",
        }
    }
}
