//! The file system of a node's volumes: btrfs in a file of the state directory, `volumes.img`, on a
//! loop device, mounted at `volumes`.
//!
//! The mount is in the mount namespace of the daemon and its launchers (see [`own_mounts`]), and
//! the loop device is one that the kernel frees with its last user. So nothing has to be taken
//! down: when the daemon, its launchers and the last sandbox are gone, however they went, mount and
//! device are gone too. A sandbox that outlives the daemon keeps both; the next start finds the
//! device by the file behind it. Of one file there is never a second device: the first holds its lock.
//!
//! An operator may mount a btrfs file system of their own at `volumes`; it is then used instead, and
//! waited for when it is not mounted at a later start.

use std::{
    ffi::{CString, OsStr},
    fs::{self, TryLockError},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use sys::{
    SysError,
    btrfs::{self, Quota},
    errno::{EBUSY, EINVAL, ENOTTY, ENXIO},
    file, file_system,
    loop_device::{self, Backing},
    mount::{self, MountFlags},
    namespace::{self, Namespaces},
};

use super::{STEP, Volumes, is_top_of_btrfs};
use crate::{
    error::{InStep, JailError},
    tool,
};

/// Free bytes below which no file system is made: it would take a good part of them for itself.
const LEAST_FREE: u64 = 2 << 30;

/// Of the free bytes, so many hundredths are the size of the file system. Its file is sparse: it
/// takes what is used.
const SHARE: u64 = 90;

/// Tries to get a loop device: other processes take them too, and one that is being freed is found
/// for some milliseconds more.
const ATTEMPTS: u32 = 200;

/// Between two of them. There is no event for "a loop device is free".
const PAUSE: Duration = Duration::from_millis(10);

/// Seconds after which what was written without fsync(2) is on disk, and a removed volume's bytes
/// begin to come back. The kernel's own is 30.
const COMMIT_SECS: &std::ffi::CStr = c"5";

/// What `volumes.mounted` says to who finds it.
const NOTE: &str =
    "The sandboxes of this node have their files in the file system mounted at volumes.\n";

/// Moves this process, which has one thread, into a mount namespace of its own, in which launchers
/// can mount volumes without anybody else seeing them. What the host mounts still appears in it.
///
/// # Errors
/// Without `CAP_SYS_ADMIN`.
pub fn own_mounts() -> Result<(), JailError> {
    namespace::unshare(Namespaces::MOUNT).in_step(STEP)?;
    let root = super::open(Path::new("/"))?;
    mount::make_dependent(root.as_fd()).in_step(STEP)
}

/// True when `volumes` is a mounted btrfs.
pub(super) fn is_mounted(volumes: &Path) -> bool {
    is_top_of_btrfs(volumes)
}

/// See [`super::NodeVolumes::set_up`].
pub(super) fn set_up(volumes: &Path, image: &Path) -> Result<Volumes, JailError> {
    let operators = image.with_extension("mounted");
    match (is_mounted(volumes), image.exists()) {
        (true, true) => {}
        (true, false) => fs::write(&operators, NOTE)
            .map_err(|error| JailError::io(STEP, "write volumes.mounted", &error))?,
        (false, true) => mount_image(volumes, image)?,
        (false, false) if operators.exists() => return Err(not_mounted(volumes, &operators)),
        (false, false) => {
            if let Err(why) = make(volumes, image) {
                return Ok(Volumes::Plain(why.to_string()));
            }
        }
    }
    let top = super::open(volumes)?;
    match btrfs::count_bytes(top.as_fd(), Quota::Simple) {
        Err(SysError { errno: EINVAL | ENOTTY, .. }) => {
            btrfs::count_bytes(top.as_fd(), Quota::Shared).in_step(STEP)?;
        }
        other => other.in_step(STEP)?,
    }
    Ok(Volumes::Limited)
}

/// Empty volumes in the place of full ones would look like lost files.
fn not_mounted(volumes: &Path, operators: &Path) -> JailError {
    let (volumes, operators) = (volumes.display(), operators.display());
    JailError::Refused(format!(
        "the files of this node's sandboxes are in a file system that was mounted at {volumes} and is \
         not: mount it, or remove {operators} to begin with a new one, in which all of them are empty"
    ))
}

/// Makes the file system and mounts it, or leaves nothing.
fn make(volumes: &Path, image: &Path) -> Result<(), JailError> {
    let new = image.with_extension("new");
    let made = format(&new).and_then(|()| {
        // Renamed when it is whole, and mounted before anything relies on it.
        let renamed = fs::rename(&new, image);
        renamed.map_err(|error| JailError::io(STEP, "rename volumes.new", &error))?;
        mount_image(volumes, image)
    });
    if made.is_err() {
        for file in [&new, &image.to_owned()] {
            drop(fs::remove_file(file));
        }
    }
    made
}

fn format(image: &Path) -> Result<(), JailError> {
    let failed = |call: &str, error: &io::Error| JailError::io(STEP, call, error);
    let dir = image.parent().unwrap_or(Path::new("/"));
    let path = CString::new(dir.as_os_str().as_encoded_bytes()).unwrap_or_default();
    let free = file_system::at(&path).in_step(STEP)?.free_bytes;
    if free < LEAST_FREE {
        let message = format!(
            "the state directory has {} MiB free; volumes need {} MiB",
            free >> 20,
            LEAST_FREE >> 20
        );
        return Err(JailError::Refused(message));
    }
    // What a start that was cut short has left, or a link that is in the way.
    drop(fs::remove_file(image));
    let file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(image)
        .map_err(|error| failed("make volumes.new", &error))?;
    let mebibytes = (free / 100 * SHARE) >> 20;
    file.set_len(mebibytes << 20).map_err(|error| failed("size volumes.new", &error))?;
    // One copy of everything: the disk below decides how safe that is.
    let args = ["--quiet", "--metadata", "single", "--label", "sandbar"].map(Into::into);
    let args: Vec<std::ffi::OsString> = args.into_iter().chain([image.into()]).collect();
    tool::run(STEP, ("mkfs.btrfs", "btrfs-progs"), &args, "")?;
    file.sync_all().map_err(|error| failed("sync volumes.new", &error))
}

fn mount_image(volumes: &Path, image: &Path) -> Result<(), JailError> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let (device, opened) = attach(image)?;
        match mount_device(volumes, &device) {
            Ok(()) => return Ok(()),
            Err(error) => last = Some(error),
        }
        drop(opened);
        // The device that was found may have been on its way out; else the error comes again.
        if !matches!(last, Some(JailError::Step { errno: EBUSY | ENXIO, .. })) {
            break;
        }
        thread::sleep(PAUSE);
    }
    Err(last.unwrap_or_else(|| JailError::Refused("no loop device could be mounted".to_owned())))
}

fn mount_device(volumes: &Path, device: &Path) -> Result<(), JailError> {
    let context = mount::new_filesystem(c"btrfs").in_step(STEP)?;
    let device = CString::new(device.as_os_str().as_encoded_bytes()).unwrap_or_default();
    // `discard` gives what is removed back to the disk below.
    for (name, value) in
        [(c"source", device.as_c_str()), (c"discard", c"async"), (c"commit", COMMIT_SECS)]
    {
        mount::set_option(context.as_fd(), name, value).in_step(STEP)?;
    }
    let mounted = mount::make_mount(context.as_fd(), MountFlags::NO_ACCESS_TIMES).in_step(STEP)?;
    let at = CString::new(volumes.as_os_str().as_encoded_bytes()).unwrap_or_default();
    mount::attach(mounted.as_fd(), file::cwd(), &at).in_step(STEP)
}

/// The loop device that `image` is behind, which may be one of an earlier daemon whose sandboxes
/// still run: a second one over the same file would break it. Open, so that the kernel does not
/// free it.
fn attach(image: &Path) -> Result<(PathBuf, OwnedFd), JailError> {
    let failed = |call: &str, error: &io::Error| JailError::io("loop device", call, error);
    let mut options = fs::File::options();
    let opened = options.read(true).write(true).custom_flags(file::O_NOFOLLOW).open(image);
    let opened = opened.map_err(|error| failed("open volumes.img", &error))?;
    let metadata = opened.metadata().map_err(|error| failed("stat volumes.img", &error))?;
    if metadata.uid() != 0 {
        // A file system that others wrote is not for this kernel to read.
        return Err(JailError::Refused("volumes.img is not root's".to_owned()));
    }
    let backing = Backing { device: metadata.dev(), inode: metadata.ino() };
    let control = fs::File::open("/dev/loop-control")
        .map_err(|error| failed("open /dev/loop-control", &error))?;
    for _ in 0..ATTEMPTS {
        let found = find(backing, image).map_err(|error| failed("look at loop devices", &error))?;
        if let Some(found) = found {
            return Ok(found);
        }
        // The device has the file open as it is opened here, and so its lock, until it has let go of it.
        match opened.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                thread::sleep(PAUSE);
                continue;
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock volumes.img", &error)),
        }
        let number = loop_device::free_number(control.as_fd()).in_step("loop device")?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = fs::File::options().read(true).write(true).open(&path);
        let device = device.map_err(|error| failed(&path.display().to_string(), &error))?;
        match loop_device::configure(device.as_fd(), opened.as_fd()) {
            Ok(()) => return Ok((path, device.into())),
            Err(SysError { errno: EBUSY, .. }) => {}
            Err(error) => return Err(error).in_step("loop device"),
        }
    }
    let text = "no loop device was free, or one that cannot be opened here has volumes.img";
    Err(JailError::Refused(text.to_owned()))
}

/// Looks for the loop device that this file is behind. The kernel says of each by which path its file was
/// opened, from the root of a mount that may be gone with the server that had it: so far only the name
/// tells. Devices of files with other names are not opened, which would keep them from going.
fn find(backing: Backing, image: &Path) -> io::Result<Option<(PathBuf, OwnedFd)>> {
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let behind = fs::read(entry.path().join("loop/backing_file")).unwrap_or_default();
        let behind = Path::new(OsStr::from_bytes(behind.trim_ascii_end()));
        if behind.file_name() != image.file_name() {
            continue;
        }
        let path = Path::new("/dev").join(entry.file_name());
        // One that cannot be opened is being freed, or is another node's.
        let Ok(device) = fs::File::options().read(true).write(true).open(&path) else { continue };
        if loop_device::backing(device.as_fd())? == Some(backing) {
            return Ok(Some((path, device.into())));
        }
    }
    Ok(None)
}
