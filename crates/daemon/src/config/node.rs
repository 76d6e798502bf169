//! What the node is: its place, its name, how much of everything it hands out.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    thread,
};

use api::id::ImageRef;
use jail::NodeNetwork;

use super::{network, reader::Reader, source::Raw, value};

const DEFAULT_STATE_DIR: &str = "/var/lib/sandbar";

/// Bytes of the state directory's path. `STATE/run/N.sock` must fit the 107 bytes of a unix socket
/// address (unix(7)), with room for the largest N.
const STATE_DIR_BYTES: usize = 80;

/// Characters of the node's name: a network link has 15 in all (`IFNAMSIZ`), the rest is a number.
const NAME_CHARS: usize = 8;

/// An idle sandbox holds a few MiB: a thousand fit a small machine.
const DEFAULT_MAX_SANDBOXES: u32 = 1000;

/// What a small machine needs for the server, the page cache and the growth of what runs.
const DEFAULT_KEPT_MEMORY: u64 = 256 * 1024 * 1024;

/// A thousand TiB: more than any machine has.
const MOST_KEPT_MEMORY: u64 = 1 << 50;

/// Host ids of one sandbox.
const IDS_PER_SANDBOX: u32 = 65_536;

/// 2^30: above what distributions hand out in /etc/subuid and what systemd-nspawn takes
/// (524,288 to 1,879,048,191 is its range for *allocated* containers, checked by it against use).
const DEFAULT_UID_BASE: u32 = 1 << 30;

/// Creates in flight beyond the cores only wait for each other; past 8 the kernel's own locks
/// (cgroups, mounts) are the limit.
const DEFAULT_LAUNCHERS_MAX: usize = 8;

/// A minute: a node that leaks something with every tenth sandbox of a busy second has lost a thousand
/// addresses by then, of many thousands, and a look costs some milliseconds.
const DEFAULT_RECONCILE_SECONDS: u32 = 60;

/// For what people and agents begin at a time; each takes what an idle sandbox does, under a MiB.
const DEFAULT_POOL: usize = 4;

/// What the node is: its place, its name, how much of everything it hands out.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Absolute path of everything the node keeps.
    pub state_dir: PathBuf,
    /// 1 to 8 of `a-z0-9`: sets this node's cgroups, links and tables apart.
    pub name: String,
    /// Image of sandboxes that name none.
    pub default_image: ImageRef,
    /// Sandboxes that may exist at once.
    pub max_sandboxes: usize,
    /// Bytes of the machine's memory that are kept: with less left, no sandbox is created or started.
    pub kept_memory: u64,
    /// First host user id of the sandboxes' ranges, a multiple of 65,536.
    pub uid_base: u32,
    /// User and group id of the server, which is not root.
    pub user: u32,
    /// Launcher processes for creating sandboxes.
    pub launchers: usize,
    /// Sandboxes that are made ahead; 0 for none.
    pub pool: usize,
    /// Seconds between two looks whether something is there that is nobody's.
    pub reconcile_seconds: u32,
    /// Address range of the sandboxes; none means that no sandbox has a network.
    pub network: Option<NodeNetwork>,
    /// DNS servers asked for sandboxes; none means the machine's own.
    pub name_servers: Vec<IpAddr>,
    /// The machine's proxy variables, by their lower-case names: for image builds, which download.
    pub proxies: BTreeMap<String, String>,
}

impl NodeConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let state_dir = reader.read("state_dir", DEFAULT_STATE_DIR.into(), state_dir, |path| {
            path.display().to_string()
        });
        let name = reader.read("name", "sandbar".to_owned(), name, String::clone);
        let default_image = reader.read(
            "default_image",
            "default".parse().expect("`default` is a valid image name"),
            image,
            ImageRef::to_string,
        );
        let uid_base = reader.read("uid_base", DEFAULT_UID_BASE, uid_base, u32::to_string);
        let user = reader.read("user", uid_base - 1, user, u32::to_string);
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let launchers = reader.read(
            "launchers",
            cores.min(DEFAULT_LAUNCHERS_MAX),
            |raw| value::number(raw, &(1..=64)),
            usize::to_string,
        );
        let pool = reader.read(
            "pool",
            DEFAULT_POOL,
            |raw| value::number(raw, &(0..=64)),
            usize::to_string,
        );
        let reconcile_seconds = reader.read(
            "reconcile_seconds",
            DEFAULT_RECONCILE_SECONDS,
            |raw| value::number(raw, &(1..=86_400)),
            u32::to_string,
        );
        let network = network::read(reader);
        let name_servers = network::read_name_servers(reader);
        let max_sandboxes = max_sandboxes(reader, uid_base, network.as_ref());
        let sandboxes = u32::try_from(max_sandboxes).unwrap_or(u32::MAX);
        if (user.checked_sub(uid_base)).is_some_and(|over| over / IDS_PER_SANDBOX < sandboxes) {
            let message = format!("user {user} is an id of a sandbox; write one below uid_base");
            reader.fault("user", message);
        }
        let kept_memory = reader.read(
            "kept_memory",
            DEFAULT_KEPT_MEMORY,
            |raw| value::size(raw, &(0..=MOST_KEPT_MEMORY)),
            value::show_size,
        );
        let proxies = reader.proxies.clone();
        Self {
            state_dir,
            name,
            default_image,
            max_sandboxes,
            kept_memory,
            uid_base,
            user,
            launchers,
            pool,
            reconcile_seconds,
            network,
            name_servers,
            proxies,
        }
    }
}

/// As many as asked for, if there are ids and addresses for them; by default at most so many.
fn max_sandboxes(reader: &mut Reader, uid_base: u32, network: Option<&NodeNetwork>) -> usize {
    // The last id, 2^32 - 1, means "no id" to the kernel, so the last range is not used.
    let ids = (u32::MAX - uid_base) / IDS_PER_SANDBOX;
    let addresses = network.map_or(u32::MAX, network::room);
    let asked = reader.read(
        "max_sandboxes",
        DEFAULT_MAX_SANDBOXES.min(ids).min(addresses),
        |raw| value::number(raw, &(1..=65_533)),
        u32::to_string,
    );
    if asked > ids {
        reader.fault(
            "max_sandboxes",
            format!(
                "max_sandboxes is {asked}, but above uid_base {uid_base} there are user ids for \
                 {ids}; lower one of them"
            ),
        );
    }
    if asked > addresses {
        reader.fault(
            "max_sandboxes",
            format!(
                "max_sandboxes is {asked}, but network.subnet has addresses for {addresses}; \
                 write a larger subnet or fewer sandboxes"
            ),
        );
    }
    asked as usize
}

fn state_dir(raw: &Raw) -> Result<PathBuf, String> {
    let text = value::text(raw)?;
    let path = Path::new(text);
    let is_plain = path.is_absolute() && !path.components().any(|part| part.as_os_str() == "..");
    if !is_plain {
        return Err(format!("is {text:?}; write an absolute path without \"..\""));
    }
    if text.len() > STATE_DIR_BYTES {
        return Err(format!("has {} bytes; write at most {STATE_DIR_BYTES}", text.len()));
    }
    Ok(path.to_owned())
}

fn name(raw: &Raw) -> Result<String, String> {
    let text = value::text(raw)?;
    let in_set = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if (1..=NAME_CHARS).contains(&text.len()) && in_set {
        Ok(text.to_owned())
    } else {
        Err(format!("is {text:?}; write 1 to {NAME_CHARS} lower-case letters and digits"))
    }
}

fn image(raw: &Raw) -> Result<ImageRef, String> {
    let text = value::text(raw)?;
    text.parse().map_err(|error| format!("is {text:?}; {error}"))
}

/// An id, or the name of an account of this machine.
fn user(raw: &Raw) -> Result<u32, String> {
    let number = value::number(raw, &(0..=u32::MAX - 1));
    let id = match value::text(raw) {
        Ok(name) if number.is_err() => id_of(name).ok_or_else(|| {
            format!("is {name:?}, which is no account of this machine; write its name or an id")
        })?,
        _ => number?,
    };
    if id == 0 {
        return Err("is root; the server gives that up: write another account or an id".to_owned());
    }
    Ok(id)
}

/// The id of an account in /etc/passwd, passwd(5).
fn id_of(account: &str) -> Option<u32> {
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(account);
        fields.nth(1).filter(|_| is_it)?.parse().ok()
    })
}

fn uid_base(raw: &Raw) -> Result<u32, String> {
    let highest = u32::MAX - 2 * IDS_PER_SANDBOX;
    let base = value::number(raw, &(IDS_PER_SANDBOX..=highest))?;
    if base.is_multiple_of(IDS_PER_SANDBOX) {
        Ok(base)
    } else {
        Err(format!(
            "is {base}; write a multiple of {IDS_PER_SANDBOX}, such as {}",
            base / IDS_PER_SANDBOX * IDS_PER_SANDBOX
        ))
    }
}
