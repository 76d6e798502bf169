//! One step of a build, in a sandbox that exists for nothing else.
//!
//! Its jail is on record as one to be buried from before it is made: whenever the engine ends, the
//! next start removes what is left of it.

use std::{sync::Arc, time::Duration};

use api::{
    error::ErrorBody,
    exec::{Command, Ending, ExecEvent, ExecRequest},
};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use image::{ImageError, Rootfs, RunStep, Work};
use jail::{Hostname, JailId, JailNetwork, JailSpec, Reach};
use link::{AgentConfig, Body, Incoming};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::lines::Events;
use crate::{
    EngineError, blank, destroy,
    error::{self, Publish},
    node::{Guest, Node},
    number::Number,
    record::Change,
    resolver::Asker,
    slot::UIDS_PER_SLOT,
};

/// How long one RUN may take: compiling something large on a small machine.
const RUN_TIMEOUT: Duration = Duration::from_secs(4 * 60 * 60);

/// How long the agent may say nothing; it sends a heartbeat four times as often.
const SILENCE: Duration = Duration::from_secs(4 * api::limit::HEARTBEAT_SECS);

/// The host name that commands of a build see.
const HOSTNAME: &str = "build";

/// Bytes of an answer that is no stream.
const ANSWER_BYTES: usize = 64 * 1024;

/// A piece of what a RUN writes.
pub(super) enum Output {
    Stdout(String),
    Stderr(String),
}

/// Why a RUN gave no layer.
enum NoLayer {
    Cancelled,
    /// The command ended like this.
    Ended(Ending),
    /// There is no warm start to be had.
    NotWarm,
    Engine(EngineError),
    /// Its jail could not be ended: what it was given is still in use.
    NotEnded(EngineError),
}

impl From<EngineError> for NoLayer {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// Carries out `run` and returns the number of its sandbox, whose upper layer is the result. What the
/// command writes goes to `output`; behind it, the command waits. Its jail is added to `used`: the caller
/// has its files removed once the layer has been taken.
pub(super) async fn run(
    node: &Arc<Node>,
    run: &RunStep<'_>,
    stop: &CancellationToken,
    output: mpsc::Sender<Output>,
    used: &mut Vec<Number>,
) -> Result<u64, ImageError> {
    let ended = match node.acquire_guest(Asker::of_build) {
        Ok((guest, _asker)) => {
            let ended = in_guest(node, run, stop, output, (&guest, used)).await;
            // Otherwise whoever looks for what is left ends the jail.
            match ended {
                Err(NoLayer::NotEnded(_)) => node.lose(&guest),
                _ => node.release(guest.slot),
            }
            ended.map(|()| guest.jail().0)
        }
        Err(error) => Err(error.into()),
    };
    let at = run.line;
    ended.map_err(|why| match why {
        NoLayer::Cancelled => ImageError::Cancelled,
        NoLayer::Ended(ending) => ImageError::StepFailed { line: at, ending: describe(ending) },
        NoLayer::NotWarm => {
            ImageError::StepFailed { line: at, ending: "keeps no interpreter".to_owned() }
        }
        NoLayer::Engine(error) | NoLayer::NotEnded(error) => {
            ImageError::Sandbox { line: at, source: Box::new(error) }
        }
    })
}

async fn in_guest(
    node: &Arc<Node>,
    run: &RunStep<'_>,
    stop: &CancellationToken,
    output: mpsc::Sender<Output>,
    (guest, used): (&Guest, &mut Vec<Number>),
) -> Result<(), NoLayer> {
    let attempt = "making a sandbox for the step";
    let recorded = node.records.write(Change::Bury(guest.jail())).await;
    recorded.map_err(|error| error.publish(attempt))?;
    used.push(guest.number.clone());
    let rootfs = Rootfs { binds: run.binds.clone(), ..run.rootfs.clone() };
    let config = AgentConfig {
        env: run.env.clone(),
        workdir: run.workdir.to_owned(),
        definitions: None,
        services: Vec::new(),
    };
    let prepared = blank::prepare(node, guest.jail(), rootfs).await?;
    let claimed = async {
        let blank = blank::launch(node, spec(node, guest), prepared).await?;
        blank.claim(node, Hostname::of(HOSTNAME), &config).await
    };
    let ended = match claimed.await {
        Ok(_) => {
            tokio::select! {
                () = stop.cancelled() => Err(NoLayer::Cancelled),
                done = carry_out(node, guest.jail(), run, output) => done,
            }
        }
        Err(error) => Err(error.publish(attempt).into()),
    };
    let killed = destroy::end_jail(node, guest.jail()).await;
    killed.map_err(|error| NoLayer::NotEnded(error.publish("ending the step's sandbox")))?;
    ended
}

/// Everything the node gives to one sandbox, and a network: a build is the operator's.
fn spec(node: &Node, guest: &Guest) -> JailSpec {
    JailSpec {
        jail: guest.jail(),
        // Its upper layer is renamed into the store.
        volume: None,
        inherited_bytes: 0,
        uid_base: node.config.uid_base + guest.slot * UIDS_PER_SLOT,
        network: node
            .config
            .node
            .network
            .and_then(|network| network.address(guest.slot))
            .map(|address| JailNetwork { address, reach: Reach::Internet }),
        limits: node.config.max_limits,
        hostname: Hostname::of(HOSTNAME),
        layers: Vec::new(),
        binds: Vec::new(),
        views: Vec::new(),
    }
}

/// Does the step's work.
async fn carry_out(
    node: &Node,
    jail: JailId,
    run: &RunStep<'_>,
    output: mpsc::Sender<Output>,
) -> Result<(), NoLayer> {
    match run.work {
        Work::Command(command) => {
            let response = ask(node, jail, request(command, run.workdir)?).await?;
            if !response.status().is_success() {
                tracing::warn!(%jail, status = %response.status(), "a build step was refused");
                return Err(unreachable().into());
            }
            follow(response.into_body(), output).await
        }
        Work::Warm => {
            let response = ask(node, jail, post("/contexts:warm", b"{}".to_vec())?).await?;
            let is_kept = response.status().is_success();
            let said = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
            let said = said.map_err(|_too_long| unreachable())?.to_bytes();
            let line = if is_kept {
                "Python starts warm in this image".to_owned()
            } else {
                let why = serde_json::from_slice::<ErrorBody>(&said);
                let why = why.map_or_else(|_| "no answer".to_owned(), |body| body.error.message);
                format!("Python starts cold in this image: {why}")
            };
            drop(output.send(Output::Stdout(format!("{line}\n"))).await);
            if is_kept { Ok(()) } else { Err(NoLayer::NotWarm) }
        }
    }
}

fn unreachable() -> EngineError {
    error::internal("talking to the step's sandbox")
}

/// Sends a request to the step's agent.
async fn ask(
    node: &Node,
    jail: JailId,
    asked: Request<Body>,
) -> Result<Response<Incoming>, NoLayer> {
    let sent = tokio::time::timeout(SILENCE, node.links.send(jail.0, asked)).await;
    let response = sent.map_err(|_elapsed| unreachable())?.map_err(|error| {
        tracing::warn!(%jail, error = &error as &dyn std::error::Error, "a build step");
        unreachable()
    })?;
    Ok(response)
}

/// Passes on what a command writes and waits for its end.
async fn follow(mut body: Incoming, output: mpsc::Sender<Output>) -> Result<(), NoLayer> {
    let mut events = Events::default();
    loop {
        let frame = tokio::time::timeout(SILENCE, body.frame()).await;
        let Ok(Some(Ok(frame))) = frame else { return Err(unreachable().into()) };
        let Ok(data) = frame.into_data() else { continue };
        for event in events.push(&data).map_err(|_not_events| unreachable())? {
            let piece = match event {
                ExecEvent::Start { .. } | ExecEvent::Dropped { .. } => continue,
                ExecEvent::Stdout { data, .. } => Output::Stdout(data),
                ExecEvent::Stderr { data, .. } => Output::Stderr(data),
                ExecEvent::Exit { success: true, .. } => return Ok(()),
                ExecEvent::Exit { ending, .. } => return Err(NoLayer::Ended(ending)),
            };
            // Nobody listens any more: the build is being cancelled, which ends this future.
            drop(output.send(piece).await);
        }
    }
}

fn request(command: &str, workdir: &str) -> Result<Request<Body>, EngineError> {
    let program = ["/bin/sh", "-e", "-c", command].map(str::to_owned).to_vec();
    let mut exec = ExecRequest::new(Command::Program(program));
    exec.cwd = Some(workdir.to_owned());
    exec.timeout_ms = u64::try_from(RUN_TIMEOUT.as_millis()).ok();
    post("/exec", serde_json::to_vec(&exec).map_err(|_unfit| unwritten())?)
}

fn unwritten() -> EngineError {
    error::internal("writing the step's request")
}

fn post(path: &str, json: Vec<u8>) -> Result<Request<Body>, EngineError> {
    Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "text/event-stream")
        .body(Body::new(Full::from(json).map_err(|never| match never {})))
        .map_err(|_unfit| unwritten())
}

/// As in "the command …".
fn describe(ending: Ending) -> String {
    match ending {
        Ending::Exited { code } => format!("exited with code {code}"),
        Ending::Signaled { signal } => format!("was ended by signal {signal}"),
        Ending::Timeout => format!("took longer than {} s", RUN_TIMEOUT.as_secs()),
        Ending::OutOfMemory => "ran out of memory".to_owned(),
        Ending::PidsLimit => "ran out of processes".to_owned(),
        Ending::DiskFull => "filled the disk".to_owned(),
        Ending::Killed { .. } => "was killed".to_owned(),
        Ending::Lost => "was lost with its sandbox".to_owned(),
    }
}
