//! Who the server is: a user without rights, to whom root leaves what is the server's.
//!
//! ```text
//! STATE            root, of the server's group, sticky: the server makes files here, and those of others
//!                  it neither removes nor renames
//!   sandbar.db…    the server's: records, keys, endpoint
//!   run/           the server's: sockets of agents
//!   images/        root's, to be read: see the crate `image`
//!   sandboxes/ volumes/ volumes.img site/ launchers      root's alone: see the crate `jail`
//! ```
//!
//! Owns: which files are the server's, and the change of user. A state directory in which everything is
//! root's is taken over as it is.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{
        DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown,
    },
    path::{Path, PathBuf},
};

use jail::Confinement;
use sys::{
    credentials::{self, LAST_CAPABILITY},
    file::{O_NOFOLLOW, O_NONBLOCK},
};

/// What is the server's in its state directory, beside `run`: everything it writes by itself.
const OWN: [&str; 12] = [
    "sandbar.db",
    "sandbar.db-wal",
    "sandbar.db-shm",
    "sandbar.db-journal",
    "sandbar.reserve",
    "key",
    "key.new",
    "secret",
    "secret.new",
    "endpoint",
    "endpoint.new",
    "lock",
];

/// Of the state directory: its group makes files in it, others do not look into it, and nobody removes
/// or renames what is somebody else's.
const STATE_DIR_MODE: u32 = 0o1770;

/// Why the server cannot be another user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// What is the server's cannot be made its own.
    #[error("{} cannot be given to user {user}", path.display())]
    Own {
        /// The file.
        path: PathBuf,
        /// The user.
        user: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel does not let this process be that user.
    #[error(
        "the server cannot be user {user}: this machine, or the container it is, has no such id; set \
         user to one that it has"
    )]
    Become {
        /// The user.
        user: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The state directory is behind one that the user may not enter.
    #[error(
        "user {user}, as which the server runs, cannot get to the state directory {}: let everybody pass \
         the directories above it (chmod o+x), or set state_dir to another", path.display()
    )]
    Unreachable {
        /// The state directory.
        path: PathBuf,
        /// The user.
        user: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel does not take its other rights away.
    #[error("the server cannot be confined")]
    Confine(#[source] io::Error),
}

/// Leaves the server's part of a state directory to `user`.
///
/// # Errors
/// [`UserError::Own`].
pub(crate) fn hand_over(state_dir: &Path, user: u32) -> Result<(), UserError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| UserError::Own { path, user, source }
    };
    let open = || -> io::Result<()> {
        lchown(state_dir, Some(0), Some(user))?;
        fs::set_permissions(state_dir, fs::Permissions::from_mode(STATE_DIR_MODE))
    };
    open().map_err(failed(state_dir))?;
    for path in OWN.map(|name| state_dir.join(name)) {
        give_file(&path, user).map_err(failed(&path))?;
    }
    let run = state_dir.join("run");
    give_sockets(&run, user).map_err(failed(&run))
}

/// Gives a file to `user`, if it is there. One that has another name is left as it is: it may be a file
/// of root's that somebody has linked to.
fn give_file(path: &Path, user: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    // Opened without waiting for whoever writes to a pipe.
    let file = match options.read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let found = file.metadata()?;
    if found.uid() == user {
        return Ok(());
    }
    if !found.is_file() || found.nlink() != 1 {
        let message = "it is not a file with one name, as the server makes them; remove it";
        return Err(io::Error::other(message));
    }
    fchown(&file, Some(user), Some(user))
}

/// Gives the directory of the sockets, and those in it, to `user`.
fn give_sockets(run: &Path, user: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(run) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(run)?;
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    if found.uid() == user {
        return Ok(());
    }
    // It is root's still, so nobody changes names in it meanwhile.
    for entry in fs::read_dir(run)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() {
            lchown(entry.path(), Some(user), Some(user))?;
        }
    }
    lchown(run, Some(user), Some(user))
}

/// Makes this process, which has one thread, that user for ever, and takes from it everything that a
/// server does not need: see [`Confinement`]. Of files it changes those below `state_dir` only.
///
/// # Errors
/// [`UserError`]; what it did not refuse is in force.
pub(crate) fn become_user(user: u32, state_dir: &Path) -> Result<(), UserError> {
    let failed = |source: sys::SysError| UserError::Become { user, source: source.into() };
    let bounds = (0..=LAST_CAPABILITY).try_for_each(credentials::drop_from_bounding_set);
    bounds.map_err(|error| UserError::Confine(error.into()))?;
    credentials::become_user(user, user).map_err(failed)?;
    File::open(state_dir).map_err(|source| {
        let path = state_dir.to_owned();
        UserError::Unreachable { path, user, source }
    })?;
    let confinement = Confinement::prepare(state_dir).map_err(UserError::Confine)?;
    confinement.confine().map_err(UserError::Confine)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const USER: u32 = 1_234_567;

    fn owner(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().uid()
    }

    #[test]
    fn a_state_directory_of_roots_is_taken_over_and_what_is_not_the_servers_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["sandbar.db", "key", "volumes.img"] {
            fs::write(at(name), name).unwrap();
        }
        fs::create_dir_all(at("run")).unwrap();
        fs::create_dir_all(at("sandboxes/1/upper")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(at("run/1.sock")).unwrap());

        for _ in 0..2 {
            hand_over(dir.path(), USER).unwrap();

            for its in ["sandbar.db", "key", "run", "run/1.sock"] {
                assert_eq!(owner(&at(its)), USER, "{its}");
            }
            for roots in ["volumes.img", "sandboxes", "sandboxes/1/upper", ""] {
                assert_eq!(owner(&at(roots)), 0, "{roots}");
            }
            let found = fs::metadata(dir.path()).unwrap();
            assert_eq!((found.gid(), found.mode() & 0o7777), (USER, STATE_DIR_MODE));
        }
    }

    #[test]
    fn files_of_others_are_not_given_away() {
        let outside = tempfile::tempdir().unwrap();
        let precious = outside.path().join("precious");
        fs::write(&precious, "x").unwrap();
        for kind in ["link", "name"] {
            let dir = tempfile::tempdir().unwrap();
            let key = dir.path().join("key");
            match kind {
                "link" => symlink(&precious, &key).unwrap(),
                _ => fs::hard_link(&precious, &key).unwrap(),
            }
            hand_over(dir.path(), USER).unwrap_err();
            assert_eq!(owner(&precious), 0, "{kind}");
        }
        let dir = tempfile::tempdir().unwrap();
        symlink(outside.path(), dir.path().join("run")).unwrap();
        hand_over(dir.path(), USER).unwrap_err();
        assert_eq!(owner(outside.path()), 0);
    }
}
