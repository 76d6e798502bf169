//! Blanks: jails whose agents run and wait, and which are nobody's yet.
//!
//! ```text
//! prepare ─▶ launch ─▶ blank ─▶ claim: its host name, if it has another, and its configuration ─▶ the agent serves
//! ```
//!
//! Whatever gets a jail gets it as a blank and claims it: a new sandbox, one that is started again,
//! a step of a build. What a jail is, is settled when the blank is made: image, limits, network, user
//! ids, address. Whose it is, it learns with the claim. `pool.rs` makes blanks ahead.
//!
//! Invariant: a blank is claimed once, by taking it. Before, nothing but our agent runs in it, and that
//! waits; nothing that was claimed becomes a blank.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use failpoint::failpoint;
use image::Rootfs;
use jail::{Bind, Hostname, JailFiles, JailId, JailSpec, Launched, Limits, Reach};
use link::{AgentConfig, ConfigSender};

use crate::{
    EngineError, error,
    launch::LaunchError,
    network,
    node::{Guest, Node},
    record::Files,
    resolver::Asker,
    settings::MIN_DISK_BYTES,
    slot::UIDS_PER_SLOT,
    state::AgentIdentity,
};

/// The host name of a jail that is made for nobody yet.
pub(crate) const NOBODYS: &str = "blank";

/// A jail whose agent waits to be told whose it is. Dropping it ends the agent.
#[derive(Debug)]
pub(crate) struct Blank {
    jail: JailId,
    agent: AgentIdentity,
    pidfd: OwnedFd,
    hostname: Hostname,
    config: ConfigSender,
}

/// What goes with a jail's spec, and our end of the way to its agent.
#[derive(Debug)]
pub(crate) struct Prepared {
    listener: OwnedFd,
    channel: OwnedFd,
    config: ConfigSender,
    layers: Vec<File>,
    binds: Vec<(File, String)>,
}

/// The jail of a guest with this host name, these files and limits, which reaches what `asker` may.
pub(crate) fn spec(
    node: &Node,
    (guest, hostname): (&Guest, Hostname),
    asker: &Asker,
    files: Files,
    limits: Limits,
) -> JailSpec {
    // Without anything to reach, it has no link either.
    let network = network::place(node, guest.slot, asker);
    let network = network.filter(|place| place.reach != Reach::Nothing);
    // What is charged to others counts all the same, but a little always goes.
    let left = |limit: u64| limit.saturating_sub(files.inherited_bytes).max(MIN_DISK_BYTES);
    let disk_bytes = limits.disk_bytes.map(left);
    JailSpec {
        jail: guest.jail(),
        volume: Some(files.volume),
        uid_base: node.config.uid_base + guest.slot * UIDS_PER_SLOT,
        network,
        limits: Limits { disk_bytes, ..limits },
        hostname,
        // Filled in with the descriptors, see `launch`.
        binds: Vec::new(),
        views: Vec::new(),
    }
}

/// Opens everything that a launch needs.
pub(crate) async fn prepare(
    node: &Arc<Node>,
    jail: JailId,
    rootfs: Rootfs,
) -> Result<Prepared, EngineError> {
    let run_dir = node.links.run_dir().to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let open = |path: PathBuf| File::open(path);
        let (config, channel) = link::config_channel()?;
        failpoint!("socket.listen")?;
        let listener = link::socket::listen(&run_dir, jail.0)?;
        failpoint!("socket.listen.done")?;
        Ok(Prepared {
            listener,
            channel,
            config,
            layers: rootfs.layers.into_iter().map(open).collect::<Result<_, _>>()?,
            binds: rootfs
                .binds
                .into_iter()
                .map(|(source, target)| Ok((open(source)?, target)))
                .collect::<std::io::Result<_>>()?,
        })
    });
    let failed = |error: std::io::Error| error::state_dir("preparing the sandbox", &error);
    opened.await.map_err(|_panicked| error::internal("preparing the sandbox"))?.map_err(failed)
}

/// Has a launcher build the jail. The descriptors are closed on return: from then on the agent
/// alone listens.
pub(crate) async fn launch(
    node: &Arc<Node>,
    mut spec: JailSpec,
    prepared: Prepared,
) -> Result<Blank, LaunchError> {
    let (jail, hostname) = (spec.jail, spec.hostname.clone());
    let Prepared { listener, channel, config, layers, binds } = prepared;
    spec.binds = binds.iter().map(|(_, target)| Bind { target: target.clone() }).collect();
    let build = move |launcher: &mut jail::Launcher| {
        let layers: Vec<BorrowedFd<'_>> = layers.iter().map(AsFd::as_fd).collect();
        let binds: Vec<BorrowedFd<'_>> = binds.iter().map(|(source, _)| source.as_fd()).collect();
        let files = JailFiles {
            listener: listener.as_fd(),
            config: channel.as_fd(),
            layers: &layers,
            binds: &binds,
        };
        launcher.launch(&spec, &files)
    };
    let undo = move |launcher: &mut jail::Launcher, _: Launched| {
        if let Err(error) = launcher.clear(jail) {
            tracing::error!(%jail, error = &error as &dyn std::error::Error,
                "a jail that came too late cannot be ended; the next start ends it");
        }
    };
    let Launched { pid, start_time, pidfd } = node.launchers.call(build, undo).await?;
    let agent = AgentIdentity { pid, start_time, boot_id: node.boot_id.clone() };
    Ok(Blank { jail, agent, pidfd, hostname, config })
}

impl Blank {
    /// Makes the jail somebody's: its agent serves from now on.
    ///
    /// # Errors
    /// When the agent has ended: the jail is to be ended then, too.
    pub(crate) async fn claim(
        self,
        node: &Node,
        hostname: Hostname,
        config: &AgentConfig,
    ) -> Result<(AgentIdentity, OwnedFd), LaunchError> {
        let Self { jail, agent, pidfd, hostname: known_as, config: sender } = self;
        if hostname != known_as {
            // Not in the queue of those who build: it would wait behind jails that nobody has asked for.
            let name = move |launcher: &mut jail::Launcher| launcher.name(jail, &hostname);
            node.network.call(name, |_, ()| {}).await?;
        }
        sender.send(config).map_err(LaunchError::Claim)?;
        Ok((agent, pidfd))
    }
}
