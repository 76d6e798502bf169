//! One server per node name, and per network of sandboxes, on a machine.
//!
//! The name is what cgroups, links and the firewall table are told apart by. Two servers that share
//! one would take each other's sandboxes for leftovers and bury them. Of two that share a network the
//! first to end takes the gateway away from the other's sandboxes. So both are claimed before
//! anything is touched: by a lock that dies with the process, on a file that says whose it is.
//! The file outlives a server whose sandboxes go on, and, being in /run, never a reboot, which no
//! sandbox outlives either. A node that comes back with another name or network is told of it: under
//! another name its own sandboxes would be nobody's, in another network they would reach nothing.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io::{self, Read, Seek, Write},
    net::Ipv4Addr,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use jail::NodeSpec;

/// What one node has and no other on its machine may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// Its name.
    Name(String),
    /// The host's address in the network of its sandboxes.
    Gateway(Ipv4Addr),
}

impl Claimed {
    /// All that a node claims, each with its file.
    fn all(node: &NodeSpec) -> impl Iterator<Item = (Self, PathBuf)> {
        let gateway = node.network.map(|network| Self::Gateway(network.gateway()));
        let all = [Self::Name(node.name.clone())].into_iter().chain(gateway);
        all.zip(jail::claim_files(node))
    }

    /// What the node had claimed when it ran last and does not claim now, if there is such a thing: it has
    /// not been taken down since.
    fn left(node: &NodeSpec) -> io::Result<Option<Self>> {
        let ours = jail::claim_files(node);
        let others = jail::all_claim_files()?.into_iter().filter(|(_, path)| !ours.contains(path));
        let mut theirs = others.filter(|(_, path)| {
            // One that goes meanwhile is nobody's.
            let owner = fs::read_to_string(path).unwrap_or_default();
            Path::new(owner.trim()) == node.state_dir
        });
        Ok(theirs.next().map(|(what, _)| match what.parse() {
            Ok(gateway) => Self::Gateway(gateway),
            // No name is an address.
            Err(_) => Self::Name(what),
        }))
    }

    /// What sets it.
    fn setting(&self) -> &'static str {
        match self {
            Self::Name(_) => "name",
            Self::Gateway(_) => "network.subnet",
        }
    }

    /// What another node has to set otherwise.
    fn settings(&self) -> &'static str {
        match self {
            Self::Name(_) => "name and state_dir",
            Self::Gateway(_) => "network.subnet",
        }
    }
}

impl fmt::Display for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "the node name {name}"),
            Self::Gateway(address) => write!(f, "the network of the gateway {address}"),
        }
    }
}

/// Something claimed. Dropping it gives it free for the same state directory only; for everybody, once
/// its file is removed, which a launcher does when it takes the node down.
#[derive(Debug)]
pub(crate) struct Claim {
    what: Claimed,
    file: File,
    path: PathBuf,
    state_dir: PathBuf,
    earlier: PathBuf,
    /// The file says whose it is, and so has to stay.
    is_settled: bool,
}

/// Why something cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// A server that has it runs.
    #[error(
        "{what} is in use on this machine, by {}: end that with `sandbar down`, or set {} to another",
        server_of(state_dir), what.settings()
    )]
    Running {
        /// What it has.
        what: Claimed,
        /// That server's state directory; empty while it begins.
        state_dir: PathBuf,
    },
    /// No server runs, but its sandboxes do.
    #[error(
        "sandboxes of the node in {} run with {what}: end them with `sandbar down --state-dir {}`, \
         or set {} to another", state_dir.display(), state_dir.display(), what.settings()
    )]
    Sandboxes {
        /// What they have.
        what: Claimed,
        /// Their node's state directory.
        state_dir: PathBuf,
    },
    /// The node had something else when it ran, and what runs may still have it.
    #[error(
        "the node in {} has run with {what} and was not taken down since: set {} as it was, or run \
         `sandbar down` with it as it was first", state_dir.display(), what.setting()
    )]
    Left {
        /// What it had.
        what: Claimed,
        /// The node's state directory.
        state_dir: PathBuf,
    },
    /// A file cannot be made or written, or their directory not be read.
    #[error("the claim in {} cannot be looked at or written", path.display())]
    Io {
        /// The file, or the directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn server_of(state_dir: &Path) -> String {
    if state_dir == Path::new("") {
        return "a server that is starting".to_owned();
    }
    format!("the server with the state directory {}", state_dir.display())
}

/// Claims what no other node of the machine may have.
pub(crate) fn take_all(node: &NodeSpec) -> Result<Vec<Claim>, ClaimError> {
    let take = |(what, path)| Claim::take(what, path, &node.state_dir);
    let claims = Claimed::all(node).map(take).collect::<Result<_, _>>()?;
    let failed = |source| ClaimError::Io { path: jail::CLAIMS_DIR.into(), source };
    match Claimed::left(node).map_err(failed)? {
        Some(what) => Err(ClaimError::Left { what, state_dir: node.state_dir.clone() }),
        None => Ok(claims),
    }
}

impl Claim {
    /// Claims `what` for the node in `state_dir`.
    fn take(what: Claimed, path: PathBuf, state_dir: &Path) -> Result<Self, ClaimError> {
        let failed = |source| ClaimError::Io { path: path.clone(), source };
        loop {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let mut file = options.open(&path).map_err(failed)?;
            let is_ours = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            };
            let mut earlier = String::new();
            file.read_to_string(&mut earlier).map_err(failed)?;
            let earlier = PathBuf::from(earlier.trim());
            if !is_ours {
                return Err(ClaimError::Running { what, state_dir: earlier });
            }
            // The file may have been released, and so unlinked, between opening and locking it; a
            // lock on a file that nobody else can find is none.
            if is_at(&file, &path) {
                let (state_dir, is_settled) = (state_dir.to_owned(), earlier != Path::new(""));
                return Ok(Self { what, file, path, state_dir, earlier, is_settled });
            }
        }
    }

    /// Makes it this node's. `has_jails`: sandboxes run under this node's name.
    pub(crate) fn settle(&mut self, has_jails: bool) -> Result<(), ClaimError> {
        let is_foreign = self.earlier != self.state_dir && self.earlier != Path::new("");
        if is_foreign && has_jails && matches!(self.what, Claimed::Name(_)) {
            let (what, state_dir) = (self.what.clone(), self.earlier.clone());
            return Err(ClaimError::Sandboxes { what, state_dir });
        }
        let mut write = || {
            self.file.set_len(0)?;
            self.file.rewind()?;
            writeln!(self.file, "{}", self.state_dir.display())
        };
        write().map_err(|source| ClaimError::Io { path: self.path.clone(), source })?;
        self.is_settled = true;
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // While it is locked: after that the file may be another server's.
        if !self.is_settled
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "a claim could not be removed");
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: fs::Metadata, b: fs::Metadata| a.ino() == b.ino() && a.dev() == b.dev();
    file.metadata().is_ok_and(|here| fs::metadata(path).is_ok_and(|there| same(here, there)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "/one";

    fn take(dir: &Path, state_dir: &str) -> Result<Claim, ClaimError> {
        Claim::take(Claimed::Name("n".to_owned()), dir.join("n"), Path::new(state_dir))
    }

    #[test]
    fn a_name_is_claimed_by_one_server_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = take(dir.path(), ONE).unwrap();
        let early = take(dir.path(), "/two").unwrap_err().to_string();
        assert!(early.contains("by a server that is starting: end that"), "{early}");
        first.settle(false).unwrap();

        let error = take(dir.path(), "/two").unwrap_err();
        assert!(error.to_string().contains("the state directory /one: end that"), "{error}");
        assert!(
            matches!(&error, ClaimError::Running { state_dir, .. } if state_dir == Path::new(ONE))
        );
        let other = Claimed::Name("other".to_owned());
        assert!(Claim::take(other, dir.path().join("other"), Path::new("/two")).is_ok());

        drop(first);
        assert!(take(dir.path(), ONE).is_ok());
    }

    #[test]
    fn sandboxes_that_go_on_keep_their_nodes_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = take(dir.path(), ONE).unwrap();
        first.settle(false).unwrap();
        drop(first);

        let mut stranger = take(dir.path(), "/two").unwrap();
        let error = stranger.settle(true).unwrap_err();
        assert!(error.to_string().contains("sandbar down --state-dir /one"), "{error}");
        drop(stranger);

        let mut again = take(dir.path(), ONE).unwrap();
        again.settle(true).unwrap();
        drop(again);
        // Nothing runs any more, so the name is free.
        take(dir.path(), "/two").unwrap().settle(false).unwrap();
    }

    #[test]
    fn a_start_that_fails_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();

        drop(take(dir.path(), ONE).unwrap());

        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_name_whose_file_was_removed_is_free_for_everybody_and_stays_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let mut claim = take(dir.path(), ONE).unwrap();
        claim.settle(false).unwrap();

        fs::remove_file(dir.path().join("n")).unwrap();
        let mut other = take(dir.path(), "/two").unwrap();
        other.settle(true).unwrap();
        drop(claim);

        assert!(matches!(take(dir.path(), ONE), Err(ClaimError::Running { .. })));
    }

    #[test]
    fn a_network_is_one_node_s_and_not_its_sandboxes() {
        let dir = tempfile::tempdir().unwrap();
        let gateway = || (Claimed::Gateway(Ipv4Addr::new(10, 0, 0, 1)), dir.path().join("g"));
        let take = |state_dir: &str| {
            let (what, path) = gateway();
            Claim::take(what, path, Path::new(state_dir))
        };
        let mut first = take(ONE).unwrap();
        first.settle(false).unwrap();
        let error = take("/two").unwrap_err();
        assert!(error.to_string().contains("set network.subnet to another"), "{error}");
        drop(first);
        let mut second = take("/two").unwrap();
        second.settle(true).unwrap();
    }
}
