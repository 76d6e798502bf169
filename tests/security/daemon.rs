//! What the server itself may do, and what it can have root's processes do.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use testkit::{Server, Slot};

use crate::server;

/// Milliseconds until a process of root's has answered: none of these takes one.
const PATIENCE_MS: i32 = 30_000;

/// S01: the process that parses what callers, agents and name servers write is not root, in any thread,
/// and nothing gives it back.
#[tokio::test]
async fn the_server_has_nothing_of_roots() {
    let server = server();
    assert_eq!(server.shell("s", "echo ready").await, "ready\n");
    let user = server.slot().uid_base() - 1;
    let ids = format!("\t{user}\t{user}\t{user}\t{user}\n");

    let threads = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("the server runs");
    let mut looked_at = 0;
    for thread in threads.flatten() {
        // One that has ended meanwhile did nothing that counts.
        let Ok(status) = fs::read_to_string(thread.path().join("status")) else { continue };
        for line in [
            &format!("\nUid:{ids}"),
            &format!("\nGid:{ids}"),
            "\nGroups:\t \n",
            "\nCapInh:\t0000000000000000\n",
            "\nCapPrm:\t0000000000000000\n",
            "\nCapEff:\t0000000000000000\n",
            "\nCapBnd:\t0000000000000000\n",
            "\nCapAmb:\t0000000000000000\n",
            "\nNoNewPrivs:\t1\n",
            "\nSeccomp:\t2\n",
        ] {
            assert!(status.contains(line), "{line:?} is not in\n{status}");
        }
        looked_at += 1;
    }
    // The main one, those of the runtime, the database's, and one for each launcher.
    assert!(looked_at >= 6, "{looked_at} threads");
    let maps = fs::metadata(format!("/proc/{}/mem", server.pid())).expect("the server runs");
    assert_eq!(maps.uid(), 0, "others of the same user could read the server's memory");
}

/// Whether the server's user, where the server is, can do this in a shell.
fn can(server: &Server, script: &str) -> bool {
    let user = fs::metadata(server.state_dir().join("key")).expect("there is a key").uid();
    let mut command = Command::new("nsenter");
    command.arg(format!("--mount=/proc/{}/ns/mnt", server.pid()));
    command.args(["setpriv", "--clear-groups", "--no-new-privs", "--inh-caps=-all"]);
    command.args([format!("--reuid={user}"), format!("--regid={user}")]);
    let script = format!("cd {} && {{ {script}; }}", server.state_dir().display());
    let ended = command.args(["sh", "-c", &script]).output();
    ended.expect("nsenter and setpriv are there").status.success()
}

/// S02: files of root's and of sandboxes are not the server's to read, change, replace or hide.
#[tokio::test]
async fn the_servers_user_gets_to_nothing_that_is_not_its_own() {
    let server = server();
    server.shell("s", "echo theirs > file; cp /bin/true suid; chmod 4755 suid; sync").await;
    let outside = tempfile::Builder::new().prefix("sandbar-root-").tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "root's").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let secret = secret.display();

    // What it has, or the rest would prove nothing.
    for own in [
        "cat key && cat sandbar.db > /dev/null && ls run",
        "echo x > new && mv new newer && rm newer",
        "cat images/host/*/etc/hosts",
    ] {
        assert!(can(&server, own), "{own}");
    }
    for foreign in [
        &format!("cat {secret}"),
        &format!("echo x > {secret}"),
        "cat /etc/shadow",
        "ls volumes",
        "ls sandboxes",
        "cat volumes/*/upper/root/file volumes/1/upper/workspace/file",
        "test -e volumes/1/upper/workspace/suid",
        "head -c 1 volumes.img",
        "echo x > volumes/1/upper/x",
        "mkdir sandboxes/99",
        "mv volumes v",
        "mv volumes.img v",
        "mv sandboxes s",
        "mv images i",
        "mv site s",
        "rm launchers",
        "mkdir images/layers/x",
        "touch images/host/x images/names/x",
        "echo x >> images/host/*/etc/hosts",
        "echo x >> site/etc/hosts",
        "chmod 777 .",
        "echo > /run/sandbar-x.lock",
    ] {
        assert!(!can(&server, foreign), "{foreign}");
    }
}

/// S03: what the server makes root's processes open, it cannot choose.
#[tokio::test]
async fn files_that_the_servers_user_plants_are_not_taken_for_roots_own() {
    let mut server = server();
    server.shell("s", "echo kept > file").await;
    server.stop();
    let outside = tempfile::Builder::new().prefix("sandbar-root-").tempdir_in("/var/tmp").unwrap();
    let precious = outside.path().join("precious");
    fs::write(&precious, "root's").unwrap();
    let endpoint = server.state_dir().join("endpoint.new");
    fs::hard_link(&precious, &endpoint).unwrap();

    let complaint = Server::refusal(&mut server.command(["serve"]));

    assert!(complaint.contains("endpoint.new"), "{complaint}");
    assert_eq!(fs::metadata(&precious).unwrap().uid(), 0);
    fs::remove_file(endpoint).unwrap();
    // What root reads, neither a server that starts nor the command line reads through a link.
    let (key, kept) = (server.state_dir().join("key"), outside.path().join("key"));
    fs::copy(&key, &kept).unwrap();
    fs::remove_file(&key).unwrap();
    fs::write(server.state_dir().join("endpoint"), "http://127.0.0.1:1").unwrap();
    std::os::unix::fs::symlink(&kept, &key).unwrap();
    for command in ["serve", "ps"] {
        let complaint = Server::refusal(&mut server.command([command]));
        assert!(complaint.contains("/key"), "{command}: {complaint}");
    }
    fs::remove_file(&key).unwrap();
    fs::copy(&kept, &key).unwrap();
    server.restart();
    assert_eq!(server.shell("s", "cat file").await, "kept\n");
}

/// A process of root's, spoken to as a server that was taken over would.
struct Privileged {
    process: Child,
    socket: OwnedFd,
    state: tempfile::TempDir,
    slot: Slot,
}

impl Privileged {
    fn start(kind: &str) -> Self {
        let slot = Slot::take();
        let state = tempfile::Builder::new().prefix("sandbar-test-").tempdir_in("/var/tmp");
        let state = state.expect("/var/tmp can be written");
        let (socket, theirs) = sys::socket::message_pair().expect("sockets can be made");
        let process = Command::new(env!("CARGO_BIN_EXE_sandbar"))
            .arg(kind)
            .arg(state.path())
            .args([&slot.name(), "none", "0"])
            .env_clear()
            .stdin(Stdio::from(theirs))
            .spawn()
            .expect("the binary starts");
        let this = Self { process, socket, state, slot };
        // It says when it is ready.
        this.answer();
        this
    }

    fn say(&self, message: &[u8], fds: &[OwnedFd]) -> (Vec<u8>, Option<OwnedFd>) {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        sys::socket::send(self.socket.as_fd(), message, &fds).expect("it listens");
        self.answer()
    }

    fn answer(&self) -> (Vec<u8>, Option<OwnedFd>) {
        let socket = self.socket.as_fd();
        let is_there = sys::poll::wait_readable(socket, PATIENCE_MS).expect("it can be waited for");
        assert!(is_there, "no answer");
        let mut buffer = vec![0; 64 * 1024];
        let (length, fds) = sys::socket::receive(socket, &mut buffer).expect("an answer");
        assert!(length > 0, "it has ended");
        buffer.truncate(length);
        (buffer, fds.into_iter().flatten().next())
    }

    /// Closes its socket, which ends it.
    fn end(self) {
        let Self { mut process, socket, state, slot } = self;
        drop(socket);
        assert!(process.wait().expect("it can be waited for").success());
        drop((state, slot));
    }
}

/// A request to build a jail of these layers, given as shelf and key, and these trees of the host.
fn launch(uid_base: u32, layers: &[(u8, [u8; 32])], binds: &[u8]) -> Vec<u8> {
    let mut message = vec![0];
    message.extend(1_u64.to_le_bytes());
    message.extend(1_u64.to_le_bytes());
    message.extend(0_u64.to_le_bytes());
    message.extend(uid_base.to_le_bytes());
    message.push(0);
    message.extend((1_u64 << 28).to_le_bytes());
    message.extend(64_u32.to_le_bytes());
    message.extend(1000_u32.to_le_bytes());
    message.extend(100_u32.to_le_bytes());
    message.extend(0_u64.to_le_bytes());
    message.extend([1, 0, b'x']);
    message.push(u8::try_from(layers.len()).expect("a few"));
    for (shelf, key) in layers {
        message.push(*shelf);
        message.extend(key);
    }
    message.push(u8::try_from(binds.len()).expect("a few"));
    message.extend(binds);
    message.push(0);
    message
}

/// The two sockets that a jail's agent inherits.
fn sockets(dir: &Path) -> [OwnedFd; 2] {
    let path = dir.join("agent.sock");
    fs::remove_file(&path).unwrap_or_default();
    let listener = UnixListener::bind(path).expect("the directory is ours");
    let (config, _) = sys::socket::message_pair().expect("sockets can be made");
    [listener.into(), config]
}

/// S04: a launcher does what its messages can say, and believes none of it.
#[test]
fn a_launcher_refuses_what_a_server_that_was_taken_over_could_say() {
    /// First bytes of its answers.
    const DONE: u8 = 0;
    const STEP: u8 = 3;
    const REFUSED: u8 = 4;
    let launcher = Privileged::start("__launcher");
    let uid_base = launcher.slot.uid_base();
    let refused = |message: &[u8], fds: &[OwnedFd], kind: u8| {
        let (answer, fd) = launcher.say(message, fds);
        assert_eq!(answer.first(), Some(&kind), "{}", String::from_utf8_lossy(&answer));
        assert!(fd.is_none());
    };
    let state = launcher.state.path();
    let own = |message: &[u8]| refused(message, &sockets(state), REFUSED);

    // No message, and none that is too long, ends it.
    for garbage in [&[200][..], &[0], &[1, 2, 3], &[b'/'; 500], &vec![0; 70_000]] {
        own(garbage);
    }
    // A layer that nobody has made is not there, whatever its name could have been.
    refused(&launch(uid_base, &[(0, [0; 32])], &[]), &sockets(state), STEP);
    refused(&launch(uid_base, &[(1, [0xff; 32])], &[]), &sockets(state), STEP);
    // Nor is a link in a layer's place, or a file.
    let layers = state.join("images/layers");
    fs::create_dir_all(&layers).unwrap();
    std::os::unix::fs::symlink("/", layers.join("11".repeat(32))).unwrap();
    fs::write(layers.join("22".repeat(32)), "").unwrap();
    refused(&launch(uid_base, &[(0, [0x11; 32])], &[]), &sockets(state), STEP);
    refused(&launch(uid_base, &[(0, [0x22; 32])], &[]), &sockets(state), STEP);
    // Places and trees that there are not, none at all, and more than there are.
    own(&launch(uid_base, &[(2, [0; 32])], &[]));
    own(&launch(uid_base, &[(0, [0; 32])], &[2]));
    own(&launch(uid_base, &[], &[]));
    own(&launch(uid_base, &[(0, [0; 32])], &[0; 3]));
    // Ids of the host.
    own(&launch(0, &[(0, [0; 32])], &[]));
    // Other descriptors than the agent's two sockets.
    let message = launch(uid_base, &[(0, [0; 32])], &[]);
    let root = || OwnedFd::from(File::open("/").unwrap());
    let [listener, config] = sockets(state);
    let stream: OwnedFd = UnixStream::pair().unwrap().0.into();
    for fds in [
        vec![],
        vec![root(), root()],
        vec![listener.try_clone().unwrap(), root()],
        vec![root(), config.try_clone().unwrap()],
        vec![stream, config.try_clone().unwrap()],
        vec![config.try_clone().unwrap(), listener.try_clone().unwrap()],
        vec![listener, config, root()],
    ] {
        refused(&message, &fds, REFUSED);
    }
    // It still works, and has made nothing: its cgroups can go.
    refused(&[5], &[], DONE);
    launcher.end();
}

/// S05: a keeper starts what it knows, and ends nobody else's processes.
#[test]
fn a_keeper_refuses_what_a_server_that_was_taken_over_could_say() {
    let keeper = Privileged::start("__keeper");
    let mut bystander = Command::new("sleep").arg("1000").spawn().unwrap();
    let nothing = |message: &[u8]| {
        let (answer, fd) = keeper.say(message, &[]);
        assert!(answer == [0; 4] && fd.is_none(), "{answer:?} to {message:?}");
    };
    for garbage in [&[0][..], &[3], &[9; 5], &[1, 1], b"/bin/sh", &[0; 4096], &vec![1; 70_000]] {
        nothing(garbage);
    }
    // There is none.
    nothing(&[2]);
    // In the place of a process that is none of its own: that goes on.
    let (answer, socket) = keeper.say(&[&[0][..], &bystander.id().to_le_bytes()].concat(), &[]);
    assert!(answer != [0; 4] && socket.is_some());
    assert!(bystander.try_wait().unwrap().is_none());
    // A builder makes no change of which a path is a part.
    let (_, builder) = keeper.say(&[1], &[]);
    let mut builder = UnixStream::from(builder.expect("a stream"));
    let task = br#"{"layer":{"key":"../../../../etc","sandbox":1}}"#;
    builder.write_all(&u32::try_from(task.len()).unwrap().to_le_bytes()).unwrap();
    builder.write_all(task).unwrap();
    let mut said = String::new();
    builder.read_to_string(&mut said).unwrap();
    assert!(said.contains("malformed"), "{said}");

    // And not as many processes of root's as there can be: each of these waits for its task.
    let builders = std::iter::repeat_with(|| keeper.say(&[1], &[]));
    let builders: Vec<_> = builders.take_while(|(answer, _)| *answer != [0; 4]).take(200).collect();
    // With the launcher, and with the builder from before until the kernel has done with it.
    assert!((126..=127).contains(&builders.len()), "{}", builders.len());
    // There is room again once some have ended.
    let pid = i32::from_le_bytes(builders[0].0[..].try_into().unwrap());
    let ended = sys::pidfd::open(pid).unwrap();
    drop(builders);
    assert!(sys::poll::wait_readable(ended.as_fd(), PATIENCE_MS).unwrap());
    assert_ne!(keeper.say(&[1], &[]).0, [0; 4]);

    bystander.kill().unwrap();
    bystander.wait().unwrap();
    // The launcher has made the node's cgroups, and takes them down again.
    let launcher = socket.expect("a launcher has one");
    let hear = || {
        let mut buffer = [0; 64];
        sys::poll::wait_readable(launcher.as_fd(), PATIENCE_MS).unwrap();
        sys::socket::receive(launcher.as_fd(), &mut buffer).unwrap();
        buffer[0]
    };
    assert_eq!(hear(), 0);
    sys::socket::send(launcher.as_fd(), &[5], &[]).unwrap();
    assert_eq!(hear(), 0);
    keeper.end();
}

/// S06: it is root's choice whom the server is, and not to be root.
#[test]
fn a_server_is_no_root_and_nobodys_sandbox() {
    let server = server();
    let free = Slot::take();
    let first = free.uid_base().to_string();
    for (user, complaint) in [
        ("root", "is root"),
        ("0", "is root"),
        ("no-such-account", "no account of this machine"),
        (&first, "is an id of a sandbox"),
    ] {
        let mut command = server.command(["serve"]);
        let state = server.state_dir().join("other");
        let command = command
            .env("SANDBAR_STATE_DIR", &state)
            .env("SANDBAR_NETWORK_SUBNET", free.subnet())
            .env("SANDBAR_UID_BASE", &first)
            .env("SANDBAR_NAME", free.name())
            .env("SANDBAR_USER", user);
        let said = Server::refusal(command);
        assert!(said.contains(complaint), "{user}: {said}");
        assert!(!state.exists());
    }
}
