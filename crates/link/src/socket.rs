//! Where the sockets are: `N.sock` in the run directory, whatever the length of its path.
//!
//! The address of a unix socket holds 108 bytes and state directories can be longer, so addresses
//! here go through a descriptor of the directory: `/proc/self/fd/FD/N.sock`.

use std::{
    fs::{File, Permissions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    path::{Path, PathBuf},
};

/// Binds the socket on which the agent of jail `jail` will listen, with mode 0600, in place of
/// whatever was there. Connections queue from now on; the caller hands the descriptor to the agent
/// and closes its own, so that the socket refuses once the agent is gone.
///
/// # Errors
/// When the directory is missing, full or not ours.
pub fn listen(run_dir: &Path, jail: u64) -> io::Result<OwnedFd> {
    let dir = Address::open(run_dir)?;
    let path = dir.of(jail);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    // The directory is 0700, so nobody can connect between these two lines either.
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener.into())
}

/// Removes the socket of jail `jail`. Safe to repeat.
///
/// # Errors
/// When the directory is not ours.
pub fn unlink(run_dir: &Path, jail: u64) -> io::Result<()> {
    match std::fs::remove_file(run_dir.join(file_name(jail))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The jail whose socket is called `name`; none when it is no socket's name.
#[must_use]
pub fn jail_of(name: &str) -> Option<u64> {
    let jail = name.strip_suffix(".sock")?.parse().ok()?;
    (file_name(jail) == name).then_some(jail)
}

/// An open run directory.
pub(crate) struct Address {
    dir: File,
}

impl Address {
    pub(crate) fn open(run_dir: &Path) -> io::Result<Self> {
        Ok(Self { dir: File::open(run_dir)? })
    }

    /// Valid while `self` is.
    pub(crate) fn of(&self, jail: u64) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{}", self.dir.as_raw_fd(), file_name(jail)))
    }
}

fn file_name(jail: u64) -> String {
    format!("{jail}.sock")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_is_private_and_takes_the_place_of_a_stale_one_below_a_long_path() {
        let root = tempfile::tempdir().unwrap();
        let run_dir = root.path().join("d".repeat(200));
        std::fs::create_dir(&run_dir).unwrap();
        let stale = listen(&run_dir, 7).unwrap();
        let listener = UnixListener::from(listen(&run_dir, 7).unwrap());
        drop(stale);

        let mode = std::fs::metadata(run_dir.join("7.sock")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let _ours = UnixStream::connect(Address::open(&run_dir).unwrap().of(7)).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener.accept().unwrap();

        unlink(&run_dir, 7).unwrap();
        unlink(&run_dir, 7).unwrap();
        assert!(!run_dir.join("7.sock").exists());
    }

    #[test]
    fn only_names_we_print_are_sockets_of_jails() {
        assert_eq!(jail_of("12.sock"), Some(12));
        for other in ["12", ".sock", "012.sock", "+1.sock", "x.sock", "1.sock.sock"] {
            assert_eq!(jail_of(other), None, "{other}");
        }
    }
}
