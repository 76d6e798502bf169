//! Readers: jails that are no sandbox's, in which our own agent reads what tenants wrote, or writes what
//! somebody sent. No program of a tenant's ever runs in one.
//!
//! ```text
//! start: take a place, ids, a number ─▶ record a burial ─▶ launch with views ─▶ claim: it serves
//! drop:  end the jail ─▶ give its ids back ─▶ remove its files and the volumes it was lent
//! ```
//!
//! What a tenant wrote is hostile, and reading it is work for somebody who has nothing to lose: not for
//! the daemon, nor for a launcher. A reader's jail is on record as one to be buried from before it is
//! made, and so is each volume that is lent to it, so nothing is left after any crash.
//!
//! Owns: who reads. Does not know what is read.

use std::sync::Arc;

use api::id::CheckpointId;
use image::{Rootfs, Store};
use jail::{Hostname, JailSpec, Limits, View};
use link::AgentConfig;
use tokio::runtime::Handle;

use crate::{
    EngineError,
    blank::{self, Blank},
    checkpoint, create, destroy,
    error::Publish,
    key::{Key, Place},
    node::{Guest, Node},
    number::Number,
    record::Change,
    resolver::Asker,
    sandbox::Sandbox,
    slot::UIDS_PER_SLOT,
};

/// Readers at once. Each may keep a processor and the disk busy; more wait for each other anyway.
pub(crate) const READERS: usize = 4;

/// Of [`READERS`], those that only admin keys get.
pub(crate) const KEPT_READERS: usize = 1;

/// Of [`READERS`], those of one key with a prefix. Each lasts as long as its caller takes for what it is
/// sent, and nobody's are everybody's.
pub(crate) const READERS_PER_KEY: usize = 2;

/// Bytes of memory of a reader: names of two states of a large directory, or some buffers.
const MEMORY_BYTES: u64 = 384 * 1024 * 1024;

/// Threads of an agent, with room.
const PIDS: u32 = 64;

/// The host name of readers.
const HOSTNAME: &str = "reader";

const ATTEMPT: &str = "starting a reader";

/// A jail that reads. Dropping it ends and removes the jail, behind the caller's back.
#[derive(Debug)]
pub struct Reader {
    node: Arc<Node>,
    runtime: Handle,
    guest: Option<Guest>,
    /// What it is shown.
    views: Vec<View>,
    /// Volumes that are there for it alone, on record as ones to be buried.
    volumes: Vec<Number>,
    _place: Place,
}

impl Reader {
    /// The number of its jail, which its agent answers under.
    #[must_use]
    pub fn jail(&self) -> u64 {
        self.guest.as_ref().map_or(0, |guest| guest.jail().0)
    }

    /// A place, which is to be taken before anything is made for a reader.
    ///
    /// # Errors
    /// `TOO_MANY_REQUESTS`, `SHUTTING_DOWN`.
    pub(crate) fn begin(node: &Arc<Node>, by: &Key) -> Result<Self, EngineError> {
        node.check_open()?;
        let place = by.reader(&node.readers)?;
        Ok(Self {
            node: Arc::clone(node),
            runtime: Handle::current(),
            guest: None,
            views: vec![View::Image],
            volumes: Vec::new(),
            _place: place,
        })
    }

    /// Shows it a volume that is there for it alone, on record as one to be buried.
    pub(crate) fn lend(&mut self, volume: Number) {
        self.views.extend([View::Whole(volume.id()), View::Own(volume.id())]);
        self.volumes.push(volume);
    }

    /// Shows it a copy of a checkpoint: it may outlive that.
    pub(crate) async fn lend_copy(
        &mut self,
        sandbox: &Sandbox,
        of: &CheckpointId,
    ) -> Result<(), EngineError> {
        let from = checkpoint::find(sandbox, of)?.volume;
        let volume = self.node.numbers.take();
        let copy = volume.id();
        let recorded = self.node.records.write(Change::Bury(copy)).await;
        recorded.map_err(|error| error.publish("recording a copy of the files"))?;
        self.lend(volume);
        let copied = checkpoint::copy(&self.node, from, copy, true).await;
        // One that was removed meanwhile was perhaps copied while its files went.
        checkpoint::find(sandbox, of).and(copied)
    }

    /// Starts it over the image of `sandbox`. What it writes into its own root, if it writes anything,
    /// is in a volume with its number, within the limit in `writes`. The agent serves at return.
    pub(crate) async fn start(
        mut self,
        sandbox: &Sandbox,
        writes: Option<Option<u64>>,
    ) -> Result<Self, EngineError> {
        let digest = sandbox.image_digest.clone();
        let read = move |images: &Store| images.by_digest(&digest);
        let rootfs = create::read_image(&self.node, &sandbox.settings().image, read).await?;
        let (guest, _asker) = self.node.acquire_guest(Asker::of_build)?;
        self.guest = Some(guest.clone());
        let recorded = self.node.records.write(Change::Bury(guest.jail())).await;
        recorded.map_err(|error| error.publish(ATTEMPT))?;
        // What an image binds is not what a sandbox wrote.
        let rootfs = Rootfs { binds: Vec::new(), ..rootfs };
        let prepared = blank::prepare(&self.node, guest.jail(), rootfs).await?;
        let spec = spec(&self.node, &guest, std::mem::take(&mut self.views), writes);
        let claimed = async {
            let blank: Blank = blank::launch(&self.node, spec, prepared).await?;
            blank.claim(&self.node, Hostname::of(HOSTNAME), &config()).await
        };
        claimed.await.map_err(|error| error.publish(ATTEMPT))?;
        Ok(self)
    }

    /// Ends its jail, so that nothing it wrote changes any more.
    pub(crate) async fn end(&self) -> Result<(), EngineError> {
        let Some(guest) = &self.guest else { return Ok(()) };
        let ended = destroy::end_jail(&self.node, guest.jail()).await;
        ended.map_err(|error| error.publish("ending a reader"))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let (node, guest) = (Arc::clone(&self.node), self.guest.take());
        let volumes = std::mem::take(&mut self.volumes);
        let work = async move {
            if let Some(guest) = guest {
                if let Err(error) = destroy::end_jail(&node, guest.jail()).await {
                    // Whoever looks for what is left ends it, and then what it reads.
                    node.lose(&guest);
                    tracing::error!(jail = %guest.jail(), error = &error as &dyn std::error::Error,
                        "a reader cannot be ended");
                    return;
                }
                node.release(guest.slot);
                node.remover.remove(guest.number).await;
            }
            for volume in volumes {
                node.remover.remove(volume).await;
            }
        };
        self.node.work.spawn_on(work, &self.runtime);
    }
}

/// It reaches nothing.
fn spec(node: &Node, guest: &Guest, views: Vec<View>, writes: Option<Option<u64>>) -> JailSpec {
    let most = node.config.max_limits;
    JailSpec {
        jail: guest.jail(),
        // Without one, its root is an empty directory beside the volumes, for nobody to write to.
        volume: writes.map(|_| guest.jail()),
        inherited_bytes: 0,
        uid_base: node.config.uid_base + guest.slot * UIDS_PER_SLOT,
        network: None,
        limits: Limits {
            memory_bytes: most.memory_bytes.min(MEMORY_BYTES),
            pids: most.pids.min(PIDS),
            cpu_millis: most.cpu_millis,
            cpu_weight: jail::CPU_WEIGHT,
            disk_bytes: writes.flatten(),
        },
        hostname: Hostname::of(HOSTNAME),
        layers: Vec::new(),
        binds: Vec::new(),
        views,
    }
}

fn config() -> AgentConfig {
    AgentConfig {
        env: std::collections::BTreeMap::new(),
        // Nothing is made for it.
        workdir: "/".to_owned(),
        definitions: None,
        services: Vec::new(),
    }
}
