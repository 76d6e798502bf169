//! The power goes right behind an answer: what was acknowledged as stored is there.
//!
//! The state directory is on a file system of its own, which is told to go down as it is (the shutdown
//! of ext4(5), by which its own authors test this): nothing that it has not written yet is written any
//! more, the journal not even what it has in memory. Then everything is killed, the file system is
//! mounted again, and the server started. What a disk does with writes it has taken is the disk's to prove.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, also in its helper functions")]

use std::{
    fs,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sys::loop_device::{self, Backing};
use testkit::Server;

/// Bytes of the disk; it is sparse.
const DISK_BYTES: u64 = 4 << 30;

/// How long the kernel may take to let go of what was mounted.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends a file system without writing anything: `EXT4_IOC_SHUTDOWN`, `EXT4_GOING_FLAGS_NOLOGFLUSH`.
const SHUT_DOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().expect("the program starts");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {complaint}");
}

/// Unmounts what is mounted there, once nobody has it in use.
fn unmount(mount: &Path) {
    until(|| Command::new("umount").arg(mount).output().unwrap().status.success());
}

/// There is no event for "the kernel has let go of a device".
fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it stays in use");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A disk that can lose its power.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
    dir: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("sandbar-power-").tempdir_in("/var/tmp").unwrap();
        // So that a server of another test, which has its own copy of all mounts, lets go of the disk too.
        let shared = dir.path().to_str().unwrap();
        run("mount", &["--bind", shared, shared]);
        run("mount", &["--make-shared", shared]);
        let (image, mount) = (dir.path().join("disk"), dir.path().join("mount"));
        fs::create_dir(&mount).unwrap();
        fs::File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
        let disk = Self { image, mount, dir };
        disk.mount();
        disk
    }

    fn state(&self) -> PathBuf {
        self.mount.join("state")
    }

    fn mount(&self) {
        let (image, mount) = (self.image.to_str().unwrap(), self.mount.to_str().unwrap());
        run("mount", &["-o", "loop", image, mount]);
    }

    /// From here on nothing is written.
    fn cut(&self) {
        run("python3", &["-c", SHUT_DOWN, self.mount.to_str().unwrap()]);
    }

    /// Returns when nobody has it mounted any more: a file system that went down comes back with its
    /// next mount, and not before.
    fn unmount(&self) {
        unmount(&self.mount);
        until(|| !self.is_in_use());
    }

    /// True while a loop device is for it.
    fn is_in_use(&self) -> bool {
        let devices = fs::read_dir("/sys/block").unwrap().flatten();
        let backing = devices.map(|device| device.path().join("loop/backing_file"));
        let mut backing = backing.filter_map(|file| fs::read_to_string(file).ok());
        backing.any(|file| Path::new(file.trim()) == self.image)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for mount in [self.mount.as_path(), self.dir.path()] {
            drop(Command::new("umount").arg("-l").arg(mount).output());
        }
    }
}

/// Kills what runs in the sandboxes of a server.
fn kill_sandboxes(server: &Server) {
    let trees = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let node = format!("sandbar-{}", server.slot().name());
    let jails = trees.iter().filter_map(|tree| fs::read_dir(Path::new(tree).join(&node)).ok());
    for jail in jails.flatten().flatten() {
        // What is no group has no such file.
        fs::write(jail.path().join("cgroup.kill"), "1").unwrap_or_default();
    }
}

fn power_cut(disk: &Disk, server: &mut Server) {
    disk.cut();
    server.kill();
    kill_sandboxes(server);
    disk.unmount();
    disk.mount();
    server.restart();
}

/// The loop devices that this file is behind. The kernel shows its path as seen from its own file system,
/// so it is asked by the file itself.
fn devices_of(file: &Path) -> Vec<PathBuf> {
    let file = fs::metadata(file).unwrap();
    let expected = Some(Backing { device: file.dev(), inode: file.ino() });
    let devices = fs::read_dir("/sys/block").unwrap().flatten();
    let devices = devices.map(|device| Path::new("/dev").join(device.file_name()));
    let opened = devices.filter_map(|path| Some((fs::File::open(&path).ok()?, path)));
    let behind = opened.filter(|(device, _)| {
        loop_device::backing(device.as_fd()).is_ok_and(|behind| behind == expected)
    });
    behind.map(|(_, path)| path).collect()
}

#[tokio::test]
async fn a_server_that_comes_back_finds_the_volumes_of_those_that_run_on_any_disk() {
    let disk = Disk::new();
    let mut server = Server::start_in(env!("CARGO_BIN_EXE_sandbar"), &disk.state(), &[]);
    let image = disk.state().join("volumes.img");
    server.shell("old", "echo before > before").await;
    let made = devices_of(&image);
    assert_eq!(made.len(), 1, "{made:?}");

    // The mounts in which the file was opened go with the server.
    server.kill();
    server.restart();

    assert_eq!(devices_of(&image), made, "a second one would break what the first has");
    server.shell("old", "echo since > since").await;
    server.shell("new", "echo new > new").await;
    post(&server, "/v1/sandboxes/old/stop", json!({})).await;
    assert_eq!(server.shell("old", "cat before since").await, "before\nsince\n");

    drop(server);
    disk.unmount();
}

#[tokio::test]
async fn a_file_system_of_the_operator_s_is_waited_for() {
    let disk = Disk::new();
    let (own, volumes) = (disk.mount.join("own"), disk.state().join("volumes"));
    fs::create_dir_all(&volumes).unwrap();
    fs::File::create(&own).unwrap().set_len(1 << 30).unwrap();
    run("mkfs.btrfs", &["--quiet", own.to_str().unwrap()]);
    run("mount", &["-o", "loop", own.to_str().unwrap(), volumes.to_str().unwrap()]);
    let device = devices_of(&own).pop().unwrap();
    // While it is open the file is behind it, so what is mounted again is the same to the eye.
    let kept = fs::File::open(&device).unwrap();
    let mut server = Server::start_in(env!("CARGO_BIN_EXE_sandbar"), &disk.state(), &[]);
    server.shell("s", "echo kept > file").await;
    let down = server.command(["down"]).output().unwrap();
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    server.wait_for_end();
    unmount(&volumes);

    let complaint = Server::refusal(&mut server.command(["serve"]));

    assert!(complaint.contains("mount it, or remove"), "{complaint}");
    assert!(!disk.state().join("volumes.img").exists());
    run("mount", &[device.to_str().unwrap(), volumes.to_str().unwrap()]);
    server.restart();
    assert_eq!(server.shell("s", "cat file").await, "kept\n");
    drop(server);
    drop(kept);
    unmount(&volumes);
    disk.unmount();
}

async fn post(server: &Server, path: &str, body: Value) -> Value {
    let answer = server.post(path, &body).await;
    assert!(answer.status < 300, "{path}: {}", answer.text);
    answer.json
}

#[tokio::test]
async fn what_was_acknowledged_as_stored_survives_a_power_cut() {
    let disk = Disk::new();
    let mut server = Server::start_in(env!("CARGO_BIN_EXE_sandbar"), &disk.state(), &[]);
    let key = server.key();

    post(&server, "/v1/sandboxes", json!({"id": "s", "labels": {"l": "v"}})).await;
    power_cut(&disk, &mut server);
    assert_eq!(server.key(), key);
    let found = server.get("/v1/sandboxes/s").await;
    assert_eq!(found.json["labels"]["l"], "v", "{}", found.text);

    server.shell("s", "head -c 3M /dev/urandom > big; sha256sum big > sum").await;
    post(&server, "/v1/sandboxes/s/checkpoints", json!({"id": "c"})).await;
    power_cut(&disk, &mut server);
    post(&server, "/v1/sandboxes/s/fork", json!({"checkpoint": "c", "ids": ["f"]})).await;
    assert_eq!(server.shell("f", "sha256sum -c sum").await, "big: OK\n");

    server.shell("s", "echo since > since; rm big").await;
    post(&server, "/v1/sandboxes/s/restore", json!({"checkpoint": "c"})).await;
    power_cut(&disk, &mut server);
    let seen = server.shell("s", "sha256sum -c sum; ls").await;
    assert_eq!(seen, "big: OK\nbig\nsum\n");

    post(&server, "/v1/sandboxes/s/fork", json!({"checkpoint": "c", "ids": ["g"]})).await;
    power_cut(&disk, &mut server);
    assert_eq!(server.shell("g", "sha256sum -c sum").await, "big: OK\n");

    assert_eq!(server.delete("/v1/sandboxes/g").await.status, 204);
    assert_eq!(server.delete("/v1/sandboxes/s/checkpoints/c").await.status, 204);
    power_cut(&disk, &mut server);
    assert_eq!(server.get("/v1/sandboxes/g").await.status, 404);
    assert_eq!(server.get("/v1/sandboxes/s/checkpoints/c").await.status, 404);

    let secret = server.new_key("robot", Some("r-")).await;
    let port = post(&server, "/v1/sandboxes/s/ports", json!({"port": 8080})).await;
    let changed = server.patch("/v1/sandboxes/s", &json!({"labels": {"l": "w"}})).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    power_cut(&disk, &mut server);
    let as_robot = server.request_with(&secret, testkit::reqwest::Method::GET, "/v1/sandboxes/r-1");
    assert_eq!(as_robot.send().await.unwrap().status(), 404);
    let token =
        |port: &Value| port["url"].as_str().unwrap().split(['-', '.']).nth(2).unwrap().to_owned();
    let again = server.get("/v1/sandboxes/s/ports/8080").await;
    assert_eq!(token(&again.json), token(&port), "{}", again.text);
    assert_eq!(server.get("/v1/sandboxes/s").await.json["labels"]["l"], "w");

    // The server's own end needs its disk; what it leaves outside is looked at there.
    drop(server);
    disk.unmount();
}
