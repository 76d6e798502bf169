//! Why the store or a build refused or failed.

use std::{error::Error, io, path::PathBuf, process::ExitStatus};

use api::id::ImageRef;

use crate::recipe::RecipeError;

/// Why the store or a build refused or failed. The message is for the person who asked; the cause,
/// where there is one, is in `source`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// No image has this name.
    #[error(
        "no image is called {0}; `sandbar image ls` lists them, `sandbar image build` makes one"
    )]
    NotFound(ImageRef),
    /// No image has this digest.
    #[error("no image has the digest {0}")]
    DigestNotFound(String),
    /// The name means something already.
    #[error("the name {name} is taken: {meaning}")]
    Reserved {
        /// The name.
        name: ImageRef,
        /// What it means.
        meaning: &'static str,
    },
    /// FROM names nothing that can be built on.
    #[error("line {line}: cannot build on {base}: {reason}")]
    Base {
        /// Line of FROM in the recipe.
        line: usize,
        /// What it named.
        base: ImageRef,
        /// Why not, and what would do.
        reason: String,
    },
    /// The recipe has faults.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// Another image is being built or layers are being collected.
    #[error("the image store is busy with another build; try again when that has ended")]
    Busy,
    /// The caller cancelled.
    #[error("the build was cancelled; the steps before are kept")]
    Cancelled,
    /// The image would need more layers than overlayfs stacks safely.
    #[error("line {line}: an image has at most {limit} layers; join RUN instructions with &&")]
    TooManyLayers {
        /// Line of the step that would make one too many.
        line: usize,
        /// The limit.
        limit: usize,
    },
    /// The command of a RUN ended badly.
    #[error("line {line}: the command {ending}; the lines above are its last words")]
    StepFailed {
        /// Line of the step in the recipe.
        line: usize,
        /// How it ended, as in "exited with code 2".
        ending: String,
    },
    /// The step could not be carried out at all.
    #[error("line {line}: no sandbox to run the command in")]
    Sandbox {
        /// Line of the step in the recipe.
        line: usize,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A program that makes base layers is not installed.
    #[error("{tool} is not installed; on Debian and Ubuntu: apt-get install {package}")]
    ToolMissing {
        /// The program or file that is missing.
        tool: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The mirror of Debian's packages gave no answer.
    #[error(
        "Debian's packages could not be fetched from {mirror}: is there a network, a working \
         resolver, and does a proxy need to be set (http_proxy)? The last lines were:\n{tail}"
    )]
    MirrorUnreachable {
        /// The mirror.
        mirror: &'static str,
        /// The last lines that mmdebstrap wrote.
        tail: String,
    },
    /// The disk of the state directory is full.
    #[error("the disk of {} is full; the last lines were:\n{tail}", path.display())]
    DiskFull {
        /// Where.
        path: PathBuf,
        /// The last lines of the program that met it.
        tail: String,
    },
    /// mmdebstrap failed for another reason.
    #[error("mmdebstrap failed ({status}); its last lines were:\n{tail}")]
    BootstrapFailed {
        /// How it ended.
        status: ExitStatus,
        /// The last lines it wrote.
        tail: String,
    },
    /// A builder did not make its change, for the reason that it gave.
    #[error("{0}")]
    Builder(String),
    /// The machine keeps /bin and /usr/bin apart.
    #[error(
        "the image host needs a machine whose {path} is a link into /usr (Debian 10 and Ubuntu \
         20.04 or later as installed); here it is not. Use the image default"
    )]
    HostNotMerged {
        /// The directory that is not a link.
        path: &'static str,
    },
    /// A file of the store cannot be understood.
    #[error("{} is damaged; remove it and build the image again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A file operation failed.
    #[error("{attempt} failed")]
    Io {
        /// What was being done, with the path.
        attempt: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Gives an [`io::Result`] the sentence that makes its error worth reading.
pub(crate) trait Attempt<T> {
    /// `attempt` says what was being done, with the path, as in "reading /a/b".
    fn attempt(self, attempt: impl FnOnce() -> String) -> Result<T, ImageError>;
}

impl<T> Attempt<T> for io::Result<T> {
    fn attempt(self, attempt: impl FnOnce() -> String) -> Result<T, ImageError> {
        self.map_err(|source| ImageError::Io { attempt: attempt(), source })
    }
}
