//! Images: lists those of the store, and has it build new ones, each RUN of a recipe carried out
//! in a sandbox of its own.
//!
//! Owns: what ties a build to its listener, and its events to their order. The steps and layers are
//! the image crate's; a RUN is `build/step.rs`.

mod lines;
mod step;

use std::{io, os::fd::OwnedFd, panic::resume_unwind, sync::Arc};

use api::{
    image::{BuildEvent, BuildImage, Image},
    limit::RECIPE_BYTES,
};
use image::{Build, Cancel, Downloads, ImageError, Recipe};
use jail::Keeper;
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::sync::CancellationToken;

use self::{lines::Lines, step::Output};
use crate::{EngineError, error, node::Node, number::Number};

/// Events that may wait for the listener. Behind it, the build waits.
const EVENTS: usize = 256;

/// The images of the store, sorted by name.
pub(crate) async fn images(node: &Arc<Node>) -> Result<Vec<Image>, EngineError> {
    let images = Arc::clone(&node.images);
    tokio::task::spawn_blocking(move || images.list())
        .await
        .map_err(|_panicked| error::internal("listing the images"))?
        .map_err(|error: ImageError| error::of_store(&error))
}

/// Begins a build; the receiver gets its events.
pub(crate) fn build(
    node: &Arc<Node>,
    request: BuildImage,
) -> Result<mpsc::Receiver<BuildEvent>, EngineError> {
    node.check_open()?;
    if request.recipe.len() > RECIPE_BYTES {
        return Err(error::too_large("recipe", RECIPE_BYTES));
    }
    let recipe = Recipe::parse(&request.recipe)
        .map_err(|faults| error::invalid("recipe", &faults.to_string()))?;
    let (events, receiver) = mpsc::channel(EVENTS);
    let owner = Arc::clone(node);
    node.work.spawn(async move {
        let stop = CancellationToken::new();
        let carried_out = {
            let (owner, stop, events) = (Arc::clone(&owner), stop.clone(), events.clone());
            let runtime = Handle::current();
            let work =
                move || carry_out(&owner, &request, &recipe, &Listener { events, stop, runtime });
            tokio::task::spawn_blocking(work)
        };
        let watch = async {
            tokio::select! {
                () = events.closed() => {}
                () = owner.closing.cancelled() => {}
            }
            stop.cancel();
            std::future::pending::<()>().await;
        };
        let built = tokio::select! {
            built = carried_out => built,
            () = watch => return,
        };
        let last = match built {
            Ok(Ok(image)) => BuildEvent::Done { image },
            Ok(Err(error)) => BuildEvent::Failed { message: error::chain(&error) },
            Err(_panicked) => {
                BuildEvent::Failed { message: "the build ended unexpectedly".to_owned() }
            }
        };
        // Nobody listens any more: the build was cancelled.
        drop(events.send(last).await);
    });
    Ok(receiver)
}

/// Who hears of a build, and how it is told to stop.
struct Listener {
    events: mpsc::Sender<BuildEvent>,
    stop: CancellationToken,
    runtime: Handle,
}

/// Passes on what a step writes, line by line, until it has ended. May block.
fn pass_on(mut heard: mpsc::Receiver<Output>, line: &mut dyn FnMut(&str)) {
    let (mut stdout, mut stderr) = (Lines::default(), Lines::default());
    while let Some(piece) = heard.blocking_recv() {
        match piece {
            Output::Stdout(text) => stdout.push(&text, line),
            Output::Stderr(text) => stderr.push(&text, line),
        }
    }
    stdout.finish(line);
    stderr.finish(line);
}

/// Changes of the image store, by processes of the keeper's.
#[derive(Debug)]
pub(crate) struct KeptBuilders(pub(crate) Arc<Keeper>);

impl image::Builders for KeptBuilders {
    fn start(&self) -> io::Result<OwnedFd> {
        self.0.builder().map_err(io::Error::other)
    }
}

/// Builds, on a thread that may block.
fn carry_out(
    node: &Arc<Node>,
    request: &BuildImage,
    recipe: &Recipe,
    listener: &Listener,
) -> Result<Image, ImageError> {
    let Listener { events, stop, runtime } = listener;
    let cancel = Cancel::default();
    // Ends with the build: the token is cancelled below.
    let bridge = {
        let (cancel, stop) = (cancel.clone(), stop.clone());
        runtime.spawn(async move {
            stop.cancelled().await;
            cancel.cancel();
        })
    };
    let downloads = Downloads {
        has_authorities: jail::Bind::Authorities.source().is_some(),
        proxies: node.config.proxies.clone(),
    };
    let build = Build {
        store: &node.images,
        name: &request.name,
        recipe,
        downloads: &downloads,
        cancel: &cancel,
        warm: Some(&node.config.warm),
    };
    let mut used: Vec<Number> = Vec::new();
    let built = build.run(
        &mut |run, line| {
            let used = &mut used;
            std::thread::scope(|scope| {
                let (output, heard) = mpsc::channel(EVENTS);
                let step = step::run(node, run, stop, output, used);
                let step = scope.spawn(move || runtime.block_on(step));
                pass_on(heard, line);
                step.join().unwrap_or_else(|panic| resume_unwind(panic))
            })
        },
        &mut |event| {
            if events.blocking_send(event).is_err() {
                cancel.cancel();
            }
        },
    );
    bridge.abort();
    // The store has taken the layers; the rest goes.
    for volume in used {
        runtime.block_on(node.remover.remove(volume));
    }
    built
}
