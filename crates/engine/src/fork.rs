//! Makes sandboxes that begin with the files of another: of a checkpoint, or as they are now.
//!
//! ```text
//! (seal) ─▶ take ids, places, jail numbers ─▶ each: record it with its origin ─▶ copy ─▶ record that
//!                                                   it has its files, launch ─▶ running
//! ```
//!
//! All of them or none: a fork that fails takes the others with it. One that a crash interrupts before
//! it has its files is buried, see `recover.rs`: nobody was told of it.

use std::sync::Arc;

use api::{
    checkpoint::ForkSandbox,
    error::ErrorCode,
    id::{IdPrefix, SandboxId},
    limit::FORKS,
};
use image::Store;

use crate::{
    EngineError, checkpoint,
    create::{self, New},
    destroy, error,
    event::Cause,
    key::{By, Key, Place, Quota},
    node::{Added, Node},
    record::Origin,
    sandbox::Sandbox,
    settings::{self, Settings},
    state::{Operation, State},
};

/// Forks the sandbox with this id. The forks run at return.
pub(crate) async fn fork(
    node: &Arc<Node>,
    id: &SandboxId,
    request: ForkSandbox,
    by: &Key,
) -> Result<Vec<Arc<Sandbox>>, EngineError> {
    let source = node.find(id).filter(|sandbox| sandbox.is_there());
    let source = source.ok_or_else(|| error::not_found(id))?;
    checkpoint::check_available(node)?;
    node.check_open()?;
    node.capacity.check()?;
    let ids = ids(&request, by)?;
    let mut settings = (*source.settings()).clone();
    if let Some(labels) = request.labels {
        settings::check_labels(&labels)?;
        settings.labels = labels;
    }
    if request.bare {
        settings.on_start = None;
        settings.services = Vec::new();
    }
    let known = request.checkpoint.map(|id| checkpoint::find(&source, &id)).transpose()?;
    let cause = Cause::request(by).forking(&source.id);
    let cause = known.iter().fold(cause, |cause, known| cause.about(&known.id));
    let places = ids.iter().map(|_| By::Key(by).creation(&node.creates));
    let places = places.collect::<Result<Vec<_>, _>>()?;
    let (owner, quota) = (Arc::clone(node), By::Key(by).quota());
    let work = async move {
        if let Some(known) = known {
            let origin = Origin { volume: known.volume, size_bytes: known.size_bytes };
            return make_all(
                &owner,
                Common { source, settings, origin, quota, cause },
                ids,
                places,
            )
            .await;
        }
        let (volume, size_bytes, _pause) = checkpoint::seal(&owner, &source).await?;
        let origin = Origin { volume: volume.id(), size_bytes };
        let forks =
            make_all(&owner, Common { source, settings, origin, quota, cause }, ids, places).await;
        owner.remover.remove(volume).await;
        forks
    };
    node.work.spawn(work).await.map_err(|_panicked| error::internal("forking the sandbox"))?
}

/// The ids of the forks.
fn ids(request: &ForkSandbox, by: &Key) -> Result<Vec<SandboxId>, EngineError> {
    let given = request.ids.as_deref().unwrap_or_default();
    let count = match (request.count, request.ids.as_ref()) {
        (Some(count), Some(ids)) if ids.len() != count as usize => {
            return Err(error::invalid("ids", "ids has not as many ids as count says"));
        }
        (Some(count), _) => count,
        (None, Some(ids)) => u32::try_from(ids.len()).unwrap_or(u32::MAX),
        (None, None) => 1,
    };
    if !(1..=FORKS).contains(&count) {
        return Err(error::invalid("count", &format!("a fork makes 1 to {FORKS} sandboxes")));
    }
    let mut ids = given.to_vec();
    while ids.len() < count as usize {
        let prefix = by.prefix().map_or(create::OWN_PREFIX, IdPrefix::as_str);
        ids.push(create::random_id(prefix)?);
    }
    ids.iter().try_for_each(|id| by.check(id))?;
    Ok(ids)
}

/// What all forks have in common: whose they are, what they are, and where their files come from.
struct Common {
    source: Arc<Sandbox>,
    settings: Settings,
    origin: Origin,
    quota: Option<Quota>,
    cause: Cause,
}

async fn make_all(
    node: &Arc<Node>,
    Common { source, settings, origin, quota, cause }: Common,
    ids: Vec<SandboxId>,
    places: Vec<Place>,
) -> Result<Vec<Arc<Sandbox>>, EngineError> {
    let digest = source.image_digest.clone();
    let read = move |images: &Store| images.by_digest(&digest);
    let rootfs = create::read_image(node, &settings.image, read).await?;
    let mut forks = Vec::new();
    let mut failed = None;
    for (id, place) in ids.iter().zip(places) {
        match node.add(id, &settings, &source.image_digest, (Some(origin), quota.as_ref())) {
            Ok((fork, Added::New(blank))) => {
                let new = New { rootfs: rootfs.clone(), blank };
                create::spawn_start(node, &fork, Some(new), (place, cause.clone()));
                forks.push(fork);
            }
            Ok((_, Added::Known)) => failed = Some(error::exists(id, &["files"])),
            Err(error) => failed = Some(error),
        }
        if failed.is_some() {
            break;
        }
    }
    for fork in &forks {
        match fork.settled().await {
            Ok(State::Running(_)) => {}
            Ok(State::Gone(Some(error))) => failed = Some(*error),
            Ok(State::Failed(failure) | State::Doomed(failure)) => {
                failed = Some(failure.to_error());
            }
            Ok(_) => failed = Some(error::ended_at_once(&fork.id)),
            Err(error) => failed = Some(error),
        }
    }
    let Some(error) = failed else { return Ok(forks) };
    let cause = cause.failing(&error.message);
    for fork in &forks {
        match destroy::end(node, fork, Operation::Destroy, &cause).await {
            Ok(()) => {}
            Err(error) if error.code == ErrorCode::SandboxNotFound => {}
            Err(error) => {
                tracing::error!(sandbox_id = %fork.id, error = %error, "a fork cannot be destroyed");
            }
        }
    }
    Err(error)
}
