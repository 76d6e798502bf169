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
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use failpoint::failpoint;
use image::Rootfs;
use jail::{Bind, Hostname, JailFiles, JailId, JailSpec, Launched, Layer, Limits, Reach, Shelf};
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
    layers: Vec<Layer>,
    binds: Vec<Bind>,
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
        inherited_bytes: files.inherited_bytes,
        uid_base: node.config.uid_base + guest.slot * UIDS_PER_SLOT,
        network,
        limits: Limits { disk_bytes, ..limits },
        hostname,
        // Filled in with what is prepared, see `launch`.
        layers: Vec::new(),
        binds: Vec::new(),
        views: Vec::new(),
    }
}

/// Opens what a launch needs of this process, and names what it needs of root's.
pub(crate) async fn prepare(
    node: &Arc<Node>,
    jail: JailId,
    rootfs: Rootfs,
) -> Result<Prepared, EngineError> {
    let run_dir = node.links.run_dir().to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let (config, channel) = link::config_channel()?;
        failpoint!("socket.listen")?;
        let listener = link::socket::listen(&run_dir, jail.0)?;
        failpoint!("socket.listen.done")?;
        Ok(Prepared {
            listener,
            channel,
            config,
            layers: rootfs.layers.iter().filter_map(layer).collect(),
            binds: rootfs.binds.iter().map(|bind| self::bind(*bind)).collect(),
        })
    });
    let failed = |error: std::io::Error| error::state_dir("preparing the sandbox", &error);
    opened.await.map_err(|_panicked| error::internal("preparing the sandbox"))?.map_err(failed)
}

/// A layer as launchers know it. None never is: both know a key by the same digits.
fn layer(layer: &image::Layer) -> Option<Layer> {
    let shelf = if layer.is_host { Shelf::Host } else { Shelf::Layers };
    Layer::of_digits(shelf, layer.digits())
}

fn bind(bind: image::Bind) -> Bind {
    match bind {
        image::Bind::Usr => Bind::Programs,
        image::Bind::Authorities => Bind::Authorities,
    }
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
    (spec.layers, spec.binds) = (layers, binds);
    let build = move |launcher: &mut jail::Launcher| {
        let files = JailFiles { listener: listener.as_fd(), config: channel.as_fd() };
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The image has a file to bind over where the launcher binds.
    #[test]
    fn images_and_launchers_mean_the_same_places() {
        assert_eq!(Bind::Authorities.target().to_str(), Ok(image::HOST_CA));
        assert_eq!(Bind::Programs.target().to_str(), Ok("usr"));
    }
}
