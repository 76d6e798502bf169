//! What an operator decides about the node, already checked.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use api::id::ImageRef;
use jail::{Limits, NodeSpec, Volumes};

/// What an operator decides about the node.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// State directory, name and network.
    pub node: NodeSpec,
    /// What holds the sandboxes' own files.
    pub volumes: Volumes,
    /// Image of sandboxes that name none.
    pub default_image: ImageRef,
    /// Limits of sandboxes that ask for none.
    pub default_limits: Limits,
    /// The most a sandbox may ask for.
    pub max_limits: Limits,
    /// Sandboxes that may exist at once.
    pub max_sandboxes: usize,
    /// Sandboxes that are made ahead of the creations that will take them; 0 for none.
    pub pool: usize,
    /// Between two looks whether something is there that is nobody's.
    pub reconcile_every: Duration,
    /// Bytes of the machine's memory that are kept: with less left, none is created or started.
    pub kept_memory: u64,
    /// First host user id of the sandboxes' ranges; slot n gets 65,536 ids from `uid_base + n * 65536`.
    pub uid_base: u32,
    /// DNS servers asked for sandboxes; none means those that the host itself uses.
    pub name_servers: Vec<IpAddr>,
    /// Proxy variables (`http_proxy`, `https_proxy`, `no_proxy`) for the commands of image builds.
    pub proxies: BTreeMap<String, String>,
    /// Names what keeps warm starts in images: those of another agent are of no use to this one's.
    pub warm: String,
}
