//! Tries what a jail's file system is made of: a user namespace, mounts with shifted ids, an
//! overlay over them. Nothing is attached anywhere, so nothing has to be unmounted.

use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    process,
};

use sys::{
    SysError, credentials, file,
    mount::{self, MountFlags},
    namespace::{self, Namespaces},
    process::Fork,
    socket, wait,
};

/// First host id of the trial's user namespace. Nothing is ever written with it but the trial's
/// own directories.
const UID_BASE: u32 = 0x7000_0000;

/// How a trial went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It worked.
    Works,
    /// The kernel refused; with the call and its answer.
    Fails(String),
    /// It was not tried; with the reason.
    Untried(&'static str),
}

/// What was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trial {
    /// Making a user namespace with a range of ids.
    pub(super) user_namespace: Outcome,
    /// Showing the state directory's files with shifted ids.
    pub(super) shifted_ids: Outcome,
    /// An overlay with both its layers in the state directory, ids shifted.
    pub(super) overlay: Outcome,
    /// Extended attributes that only root sees, by which an overlay marks what was removed.
    pub(super) attributes: Outcome,
}

impl Trial {
    /// None of it.
    pub(super) fn untried(reason: &'static str) -> Self {
        let untried = || Outcome::Untried(reason);
        Self {
            user_namespace: untried(),
            shifted_ids: untried(),
            overlay: untried(),
            attributes: untried(),
        }
    }

    /// Tries all of it in a new directory below `dir`.
    pub(super) fn run(dir: &Path) -> Self {
        let mut trial = Self::untried("the step before it failed");
        let user = match user_namespace() {
            Ok(user) => user,
            Err(error) => {
                trial.user_namespace = Outcome::Fails(error);
                return trial;
            }
        };
        trial.user_namespace = Outcome::Works;
        let ground = match Ground::make(dir) {
            Ok(ground) => ground,
            Err(error) => {
                trial.shifted_ids = Outcome::Fails(format!("{}: {error}", dir.display()));
                return trial;
            }
        };
        trial.attributes = outcome(ground.mark());
        match ground.shifted(user.as_fd()) {
            Ok(tree) => {
                trial.shifted_ids = Outcome::Works;
                trial.overlay = outcome(overlay(&tree));
            }
            Err(error) => trial.shifted_ids = Outcome::Fails(error.to_string()),
        }
        trial
    }
}

fn outcome(result: Result<(), SysError>) -> Outcome {
    result.map_or_else(|error| Outcome::Fails(error.to_string()), |()| Outcome::Works)
}

/// A directory for the trial, removed when dropped.
struct Ground(PathBuf);

impl Ground {
    fn make(dir: &Path) -> io::Result<Self> {
        let ground = Self(dir.join(format!(".sandbar-probe-{}", process::id())));
        for part in ["lower", "upper", "work"] {
            fs::create_dir_all(ground.0.join(part))?;
        }
        Ok(ground)
    }

    fn mark(&self) -> Result<(), SysError> {
        let path = CString::new(self.0.as_os_str().as_encoded_bytes()).unwrap_or_default();
        file::set_attribute(&path, c"trusted.overlay.sandbar", b"y")
    }

    fn shifted(&self, user: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
        let errno = |error: io::Error| error.raw_os_error().unwrap_or(0);
        let dir = fs::File::open(&self.0)
            .map_err(|error| SysError { call: "open", errno: errno(error) })?;
        let tree = mount::clone_mount(dir.as_fd(), c"", false)?;
        mount::map_ids(tree.as_fd(), user)?;
        Ok(tree)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // Nothing better to do about a directory that cannot be removed: its name says whose it is.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Makes an overlay as a jail's root is made: by the root of the jail, who exists in the shifted
/// layers, with the capabilities of the host's root.
fn overlay(tree: &OwnedFd) -> Result<(), SysError> {
    let kept = credentials::capabilities()?;
    credentials::set_file_identity(UID_BASE, UID_BASE);
    let made = credentials::set_capabilities(kept).and_then(|()| make_overlay(tree));
    credentials::set_file_identity(0, 0);
    credentials::set_capabilities(kept).and(made)
}

fn make_overlay(tree: &OwnedFd) -> Result<(), SysError> {
    let context = mount::new_filesystem(c"overlay")?;
    for (option, part) in [(c"lowerdir", "lower"), (c"upperdir", "upper"), (c"workdir", "work")] {
        let path = format!("/proc/self/fd/{}/{part}", tree.as_raw_fd());
        let path = CString::new(path).unwrap_or_default();
        mount::set_option(context.as_fd(), option, &path)?;
    }
    mount::make_mount(context.as_fd(), MountFlags::NO_SUID).map(drop)
}

/// A user namespace with 65,536 ids, kept by its descriptor alone.
fn user_namespace() -> Result<OwnedFd, String> {
    let text = |error: SysError| error.to_string();
    let (ours, theirs) = socket::message_pair().map_err(text)?;
    // The child makes kernel calls only, so threads of this process do not matter.
    match sys::process::fork(None, false).map_err(text)? {
        Fork::Child => {
            drop(ours);
            if namespace::unshare(Namespaces::USER).is_ok()
                && socket::send(theirs.as_fd(), b"y", &[]).is_ok()
            {
                // Returns when the parent has closed its end, having looked.
                drop(socket::receive(theirs.as_fd(), &mut [0]));
            }
            sys::process::exit(0)
        }
        Fork::Parent { pid, pidfd: _ } => {
            drop(theirs);
            let entered = socket::receive(ours.as_fd(), &mut [0]).map_err(text);
            let namespace = entered.and_then(|(bytes, _)| match bytes {
                0 => Err("unshare(CLONE_NEWUSER) was refused".to_owned()),
                _ => map_and_open(pid)
                    .map_err(|error| format!("id maps of a new namespace: {error}")),
            });
            drop(ours);
            wait::child(pid).map_err(text)?;
            namespace
        }
    }
}

fn map_and_open(pid: i32) -> io::Result<OwnedFd> {
    let map = format!("0 {UID_BASE} 65536");
    fs::write(format!("/proc/{pid}/uid_map"), &map)?;
    fs::write(format!("/proc/{pid}/gid_map"), &map)?;
    Ok(fs::File::open(format!("/proc/{pid}/ns/user"))?.into())
}
