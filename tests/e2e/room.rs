//! What df(1) and statfs(2) say in a sandbox of its own files.

use serde_json::json;
use testkit::Server;

use crate::server;

const MIB: u64 = 1 << 20;

/// Another size than that of `/dev/shm`.
const LIMIT: u64 = 320 * MIB;

/// What the file system's own nodes may take beside the bytes of a few files, and may be left out of
/// for a moment: the kernel moves what it counts in two steps.
const OVERHEAD: u64 = 2 * MIB;

async fn limited(server: &Server, id: &str) {
    let body = json!({"id": id, "resources": {"diskBytes": LIMIT}});
    let created = server.post("/v1/sandboxes", &body).await;
    assert_eq!(created.json["resources"]["diskBytes"], LIMIT, "{}", created.text);
}

/// Bytes in all, used, and left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    size: u64,
    used: u64,
    left: u64,
}

/// What df says, after `first` in the same command.
async fn df(server: &Server, id: &str, first: &str) -> Room {
    let command = format!("{first}\ndf -B1 --output=size,used,avail / | tail -n 1");
    let said = server.shell(id, &command).await;
    let numbers: Vec<u64> = said.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let numbers: [u64; 3] = numbers.try_into().expect("df says three numbers");
    let [size, used, left] = numbers;
    Room { size, used, left }
}

#[tokio::test]
async fn df_tells_the_limit_and_what_is_left_of_it_at_once() {
    let server = server();
    limited(&server, "s").await;
    limited(&server, "other").await;

    let empty = df(&server, "s", "").await;
    assert_eq!(empty.size, LIMIT);
    assert!(empty.used < OVERHEAD && empty.used + empty.left == LIMIT, "{empty:?}");

    // Not on disk yet, and on disk.
    for sync in ["", "sync"] {
        let full = df(&server, "s", &format!("head -c 40M /dev/urandom > file; {sync}")).await;
        assert!(full.used.abs_diff(empty.used + 40 * MIB) < OVERHEAD, "{full:?}");
        assert_eq!(full.used + full.left, LIMIT, "{full:?}");
    }
    assert!(df(&server, "s", "rm file; sync").await.used < OVERHEAD);
    let other = df(&server, "other", "").await;
    assert!(other.used < OVERHEAD, "{other:?}");
}

/// Prints what each way of asking says, as `size left` or the error's name.
const EVERY_WAY: &str = r#"
import ctypes, errno, os, platform, shutil

libc = ctypes.CDLL(None, use_errno=True)
STATFS, FSTATFS = {"x86_64": (137, 138), "aarch64": (43, 44)}[platform.machine()]

def call(number, first):
    words = (ctypes.c_uint64 * 15)()
    if libc.syscall(number, first, words):
        raise OSError(ctypes.get_errno(), "")
    return words[2] * words[1], words[4] * words[1]

def vfs(of):
    said = os.statvfs(of)
    return said.f_blocks * said.f_frsize, said.f_bavail * said.f_frsize

def show(name, ask):
    try:
        said = ask()
        print(name, *said)
    except OSError as error:
        print(name, errno.errorcode[error.errno])
"#;

#[tokio::test]
async fn every_way_of_asking_is_told_the_same() {
    let server = server();
    limited(&server, "s").await;
    let ask = r#"
os.makedirs("/workspace/a/b")
os.chdir("/workspace/a")
open("file", "w").close()
os.symlink("/workspace/a/b", "absolute")
os.symlink("../a/b", "relative")
os.mkfifo("pipe")
os.chmod("/workspace/a/b", 0o755)
for path in ["/", "/workspace", ".", "..", "../..", "b", "b/", "file", "absolute", "relative", "pipe",
             "/workspace/a/../a/./b", "/etc/passwd", "/workspace/a/absolute/..", "../../../../.."]:
    show(path, lambda: vfs(path))
for path in ["/", "file", "b"]:
    opened = os.open(path, os.O_RDONLY)
    show("descriptor of " + path, lambda: vfs(opened))
    show("raw descriptor of " + path, lambda: call(FSTATFS, opened))
    show("raw " + path, lambda: call(STATFS, path.encode()))
named_only = os.open("file", os.O_PATH)
show("named only", lambda: vfs(named_only))
gone = os.open("gone", os.O_CREAT | os.O_RDWR)
os.unlink("gone")
show("gone", lambda: vfs(gone))
show("disk_usage", lambda: (lambda said: (said.total, said.free))(shutil.disk_usage("/workspace")))
"#;
    server.put("/v1/sandboxes/s/files/tmp/ask.py", format!("{EVERY_WAY}{ask}")).await;
    let as_user = "setpriv --reuid 1000 --regid 1000 --clear-groups";
    let root = server.shell("s", "python3 /tmp/ask.py").await;
    let again = format!("chmod 777 /workspace; rm -r a; {as_user} python3 /tmp/ask.py");
    let user = server.shell("s", &again).await;
    for said in [root, user] {
        let answers: Vec<&str> = said.lines().collect();
        assert_eq!(answers.len(), 27, "{said}");
        for answer in answers {
            let mut numbers = answer.rsplit(' ').map(|number| number.parse::<u64>().unwrap_or(0));
            let (left, size) = (numbers.next().unwrap(), numbers.next().unwrap());
            assert!(size == LIMIT && (LIMIT - OVERHEAD..=LIMIT).contains(&left), "{answer}");
        }
    }
}

#[tokio::test]
async fn other_file_systems_and_errors_are_the_kernel_s() {
    let server = server();
    limited(&server, "s").await;
    let ask = r#"
os.symlink("loop", "/workspace/loop")
os.mkdir("/workspace/closed", 0o700)
os.mkdir("/workspace/closed/in")
for path in ["/dev/shm", "/proc", "/proc/self", "/dev", "/sys", "/run", "/none/such", "/etc/passwd/x",
             "/workspace/loop", "", "x" * 300, "/".join(["x" * 200] * 30)]:
    show("path", lambda: call(STATFS, path.encode()))
pipe, _ = os.pipe()
for descriptor in [pipe, -1, 999, 2**32 - 1]:
    show("descriptor", lambda: call(FSTATFS, descriptor))
for address in [0, 8, -1, 2**47]:
    show("address", lambda: call(STATFS, ctypes.c_void_p(address)))
opened = os.open("/", os.O_RDONLY)
for address in [0, 8, -1]:
    show("buffer", lambda: print(libc.syscall(STATFS, b"/", ctypes.c_void_p(address)), ctypes.get_errno()) or ())
    show("buffer", lambda: print(libc.syscall(FSTATFS, opened, ctypes.c_void_p(address)), ctypes.get_errno()) or ())
"#;
    server.put("/v1/sandboxes/s/files/tmp/ask.py", format!("{EVERY_WAY}{ask}")).await;
    let said = server.shell("s", "python3 /tmp/ask.py").await;
    let shm = 256 * MIB;
    let memory = 64 * MIB;
    let lines: Vec<String> = said
        .lines()
        .map(|line| line.rsplit_once(' ').filter(|(rest, _)| rest.matches(' ').count() == 1))
        .zip(said.lines())
        .map(|(size, whole)| size.map_or(whole, |(size, _)| size).to_owned())
        .collect();
    let mut expected = vec![format!("path {shm}")];
    expected.extend(["path 0"; 2].map(str::to_owned));
    expected.extend(vec![format!("path {memory}"); 3]);
    for error in ["ENOENT", "ENOTDIR", "ELOOP", "ENOENT", "ENAMETOOLONG", "ENAMETOOLONG"] {
        expected.push(format!("path {error}"));
    }
    expected.push("descriptor 0".to_owned());
    expected.extend(["descriptor EBADF"; 3].map(str::to_owned));
    expected.extend(["address EFAULT"; 4].map(str::to_owned));
    for _ in 0..6 {
        expected.extend(["-1 14", "buffer"].map(str::to_owned));
    }
    assert_eq!(lines, expected, "{said}");

    let closed = "setpriv --reuid 1000 --regid 1000 --clear-groups \
                  stat -f /workspace/closed/in 2>&1 | grep -c 'Permission denied'";
    assert_eq!(server.shell("s", closed).await, "1\n");
}

#[tokio::test]
async fn nothing_is_left_at_the_limit_and_what_is_freed_is() {
    let server = server();
    limited(&server, "s").await;
    let fill = json!({"command": "head -c 600M /dev/urandom > fill"});
    let ended = server.post("/v1/sandboxes/s/exec", &fill).await;
    assert_eq!(ended.json["ending"], json!({"type": "diskFull"}), "{}", ended.text);
    let full = df(&server, "s", "sync").await;
    assert!(full.left < OVERHEAD && full.used > LIMIT - OVERHEAD, "{full:?}");

    let freed = df(&server, "s", "rm fill; sync").await;
    assert!(freed.used < OVERHEAD && freed.used + freed.left == LIMIT, "{freed:?}");
}

#[tokio::test]
async fn a_fork_shows_what_it_inherits_as_used() {
    let mut server = server();
    limited(&server, "s").await;
    let before = df(&server, "s", "head -c 40M /dev/urandom > file; sync").await;
    let made = server.post("/v1/sandboxes/s/checkpoints", &json!({"id": "c"})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let body = json!({"checkpoint": "c", "ids": ["f"]});
    let forked = server.post("/v1/sandboxes/s/fork", &body).await;
    assert_eq!(forked.status, 201, "{}", forked.text);

    let fork = df(&server, "f", "").await;
    assert_eq!((fork.size, fork.used + fork.left), (LIMIT, LIMIT), "{fork:?}");
    assert!(fork.used.abs_diff(before.used) < OVERHEAD, "{fork:?} {before:?}");
    let more = df(&server, "f", "head -c 20M /dev/urandom > more").await;
    assert!(more.used.abs_diff(fork.used + 20 * MIB) < OVERHEAD, "{more:?}");

    // Each life of it is told the same, and so is one that goes back.
    let stopped = server.post("/v1/sandboxes/f/stop", &json!({})).await;
    assert!(stopped.status < 300, "{}", stopped.text);
    assert!(df(&server, "f", "sync").await.used.abs_diff(more.used) < OVERHEAD);
    server.stop();
    server.restart();
    assert!(df(&server, "f", "sync").await.used.abs_diff(more.used) < OVERHEAD);
    let restored = server.post("/v1/sandboxes/s/restore", &json!({"checkpoint": "c"})).await;
    assert_eq!(restored.status, 200, "{}", restored.text);
    let again = df(&server, "s", "").await;
    assert!(again.size == LIMIT && again.used.abs_diff(before.used) < OVERHEAD, "{again:?}");
}

#[tokio::test]
async fn one_that_was_made_ahead_is_told_too() {
    let server = Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &[("POOL", "1")]);
    for id in ["first", "second"] {
        limited(&server, id).await;
    }
    let _log = server.log_until("ahead=1");
    limited(&server, "third").await;
    let seen = df(&server, "third", "head -c 40M /dev/urandom > file").await;
    assert_eq!(seen.size, LIMIT);
    assert!(seen.used.abs_diff(40 * MIB) < OVERHEAD, "{seen:?}");
}

#[tokio::test]
async fn a_program_that_has_changed_its_root_is_told_too() {
    let server = server();
    limited(&server, "s").await;
    let ask = r#"
os.makedirs("/workspace/root/in/deep")
os.symlink("/in", "/workspace/root/link")
os.mkdir("/workspace/root/shm")
os.chroot("/workspace/root")
os.chdir("/in/deep")
for path in ["/", "/link", "/in/deep", "/../../..", "."]:
    show(path, lambda: vfs(path))
show("/workspace", lambda: vfs("/workspace"))
"#;
    server.put("/v1/sandboxes/s/files/tmp/ask.py", format!("{EVERY_WAY}{ask}")).await;
    let said = server.shell("s", "python3 /tmp/ask.py").await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines.len(), lines.last()), (6, Some(&"/workspace ENOENT")), "{said}");
    for line in &lines[..5] {
        assert_eq!(line.split(' ').nth(1), Some(LIMIT.to_string().as_str()), "{said}");
    }
}
