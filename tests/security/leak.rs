//! What a sandbox could learn about the host and its neighbours.

use std::{fs, process::Command};

use serde_json::json;
use testkit::{Server, reqwest::Method};

use crate::{
    attack::{self, CANARY, LEAK, facts_of_the_host},
    server,
};

/// Of section I; the ids are in `attacks/leak.py`.
#[tokio::test]
async fn probes_learn_nothing_of_the_host() {
    let server = attack::server();
    let name = format!("sandbar-attack-{}", server.slot().name());
    let of_the_host = HostObjects::make(&name);
    let facts = json!({"host": facts_of_the_host(), "canary": CANARY, "abstract": name});

    let held = attack::in_a_sandbox(&server, LEAK, &facts).await;

    // It shares the host's processes, network and memory, of which it must therefore see something.
    attack::judge("leak", &held, &attack::in_the_control_jail(LEAK, &[], &facts));
    drop(of_the_host);
}

/// What the host has and no sandbox may see: a local socket, shared memory.
struct HostObjects {
    _socket: std::os::unix::net::UnixListener,
    segment: String,
    file: String,
}

impl HostObjects {
    fn make(name: &str) -> Self {
        use std::os::{linux::net::SocketAddrExt, unix::net};
        let address = net::SocketAddr::from_abstract_name(name).expect("it is short");
        let socket = net::UnixListener::bind_addr(&address).expect("nobody else has the name");
        let made = Command::new("ipcmk").args(["-M", "4096"]).output().expect("ipcmk runs").stdout;
        let made = String::from_utf8_lossy(&made).into_owned();
        let segment = made.rsplit(' ').next().unwrap_or_default().trim().to_owned();
        let file = format!("/dev/shm/{name}");
        std::fs::write(&file, "x").expect("/dev/shm can be written");
        Self { _socket: socket, segment, file }
    }
}

impl Drop for HostObjects {
    fn drop(&mut self) {
        drop(Command::new("ipcrm").args(["-m", &self.segment]).status());
        drop(std::fs::remove_file(&self.file));
    }
}

/// E58
#[tokio::test]
async fn sandboxes_of_one_image_share_no_file() {
    let server = server();
    server.shell("a", "touch /tmp/x /dev/shm/x /workspace/x /run/x").await;

    assert_eq!(
        server.shell("b", "ls /tmp /dev/shm /workspace /run | grep -c '^x$' || true").await,
        "0\n"
    );
}

#[tokio::test]
async fn variables_of_sessions_are_in_no_process_title_log_or_error() {
    const SECRET: &str = "canary-7d1f9b";
    let server = server();
    let sessions = "/v1/sandboxes/s/sessions";
    let made = json!({"id": "a", "env": {"A": SECRET}});
    assert_eq!(server.post(sessions, &made).await.status, 201);
    let changes = json!({"env": {"B": SECRET}});
    for path in ["/v1/sandboxes/s/env", "/v1/sandboxes/s/sessions/a/env"] {
        let change = server.request(Method::PATCH, path).json(&changes);
        assert_eq!(change.send().await.expect("a response comes").status(), 204);
        let refused = json!({"env": {"B": SECRET, "C-": SECRET}});
        let refused = server.request(Method::PATCH, path).json(&refused).send().await;
        let refused = testkit::answer(refused.expect("a response comes")).await;
        assert_eq!(refused.status, 400);
        assert!(!refused.text.contains(SECRET), "{}", refused.text);
    }
    let body = json!({"session": "a", "env": {"C": SECRET}, "stdin": SECRET,
        "command": "echo ${#A} ${#B} ${#C}; while [ ! -e /tmp/go ]; do sleep 0.01; done; exit 3"});
    let look = async {
        while server.get(&format!("{sessions}/a")).await.json["busy"] != true {}
        let titles = fs::read_dir("/proc").expect("there is /proc").flatten().filter_map(|entry| {
            let title = fs::read(entry.path().join("cmdline")).ok()?;
            Some(String::from_utf8_lossy(&title).into_owned())
        });
        let titles: Vec<String> = titles.collect();
        server.put("/v1/sandboxes/s/files/tmp/go", "").await;
        titles
    };
    let (ended, titles) = tokio::join!(server.post("/v1/sandboxes/s/exec", &body), look);

    assert_eq!(ended.code(), "SESSION_TERMINATED", "{}", ended.text);
    assert!(!ended.text.contains(SECRET), "{}", ended.text);
    assert_eq!(ended.json["error"]["details"]["stdout"], "13 13 13\n", "they were there");
    assert!(titles.iter().any(|title| title.contains("bash")));
    assert_eq!(titles.iter().find(|title| title.contains(SECRET)), None);
    assert!(!server.log().contains(SECRET));
}

/// What A holds and watches, and B uses. Not of `/usr`: the image `host` shares it.
const SHARED: &str = "['/dev/null', '/dev/zero', '/dev/full', '/dev/random', '/dev/urandom', \
    '/dev/pts/ptmx', '/etc/hosts', '/etc/resolv.conf', '/proc/self/ns/time', '/proc/self/ns/user', \
    '/proc/self/ns/net', '/proc/self/ns/cgroup', '/proc/version', '/']";

/// I12, I13: neither a lock nor a watch tells one sandbox, or the host, of another.
#[tokio::test]
async fn neighbours_feel_neither_locks_nor_watches() {
    let server = server();
    let hold = format!(
        "import fcntl, ctypes, os, time\n\
         paths = {SHARED}\n\
         held = [os.open(p, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY) for p in paths]\n\
         [fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB) for f in held]\n\
         c = ctypes.CDLL(None); w = c.inotify_init1(0o4000)\n\
         [c.inotify_add_watch(w, p.encode(), 0x38) for p in paths if p.startswith(('/dev', '/etc'))]\n\
         print('ready', flush=True)\n\
         while not os.path.exists('/tmp/go'): time.sleep(0.01)\n\
         try: print('events', len(os.read(w, 65536)), flush=True)\n\
         except BlockingIOError: print('events', 0, flush=True)\n"
    );
    server.put("/v1/sandboxes/a/files/tmp/hold.py", hold).await;
    server.start_process("a", "python3 /tmp/hold.py", "ready").await;

    let take = format!(
        "import fcntl, os\n\
         for p in {SHARED}:\n\
         \x20for _ in range(100):\n\
         \x20 f = os.open(p, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)\n\
         \x20 fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n\
         \x20 os.close(f)\n\
         print('free')"
    );
    server.put("/v1/sandboxes/b/files/tmp/take.py", take).await;
    assert_eq!(server.shell("b", "python3 /tmp/take.py").await, "free\n");
    // In its own sandbox it is felt, so the attempt means something.
    server
        .put(
            "/v1/sandboxes/a/files/tmp/take.py",
            "import fcntl, os\n\
        fcntl.flock(os.open('/dev/null', 0), fcntl.LOCK_EX | fcntl.LOCK_NB)",
        )
        .await;
    let own = json!({"command": "python3 /tmp/take.py"});
    let own = server.post("/v1/sandboxes/a/exec", &own).await;
    assert!(own.text.contains("BlockingIOError"), "{}", own.text);

    for _ in 0..100 {
        for path in ["/dev/null", "/dev/zero"] {
            fs::File::open(path).expect("the host has it");
        }
    }
    // Whatever has opened /dev/null in A itself is A's own business, so it is looked at first.
    server.put("/v1/sandboxes/a/files/tmp/go", "").await;
    let wait = json!({"until": {"type": "log", "text": "events"}, "timeoutMs": 60_000});
    let said = server.post("/v1/sandboxes/a/processes/app/wait", &wait).await;
    assert_eq!(said.status, 200, "{}", said.text);
    let logs = server.get("/v1/sandboxes/a/processes/app/logs").await;
    let bytes: usize = logs.text.split("events ").nth(1).map_or(usize::MAX, |rest| {
        rest.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
            .parse()
            .unwrap_or(usize::MAX)
    });
    // An event has 16 bytes. The one command of A's own above opened a few; B and the host hundreds.
    assert!(bytes < 16 * 60, "{bytes} bytes of events");
}

/// I19
#[tokio::test]
async fn errors_tell_nothing_of_the_host() {
    let server = server();
    server.shell("s", "true").await;
    let host = fs::read_to_string("/etc/hostname").unwrap_or_default();
    let paths = [
        "/v1/sandboxes",
        "/v1/sandboxes/s",
        "/v1/sandboxes/S..%2f",
        "/v1/sandboxes/s/exec",
        "/v1/sandboxes/s/processes",
        "/v1/sandboxes/s/processes/1/logs",
        "/v1/sandboxes/s/sessions",
        "/v1/sandboxes/s/sessions/a%00",
        "/v1/sandboxes/s/files/proc/1/mem",
        "/v1/sandboxes/s/files/%00",
        "/v1/sandboxes/s/files/dev/mem",
        "/v1/sandboxes/s/files:move",
        "/v1/sandboxes/s/files:list",
        "/v1/sandboxes/s/ports",
        "/v1/sandboxes/s/ports/99999",
        "/v1/sandboxes/s/terminals/x",
        "/v1/sandboxes/s/git/checkout",
        "/v1/sandboxes/s/contexts",
        "/v1/sandboxes/s/env",
        "/v1/sandboxes/s/archive?path=/proc",
        "/v1/images:build",
        "/v1/keys",
        "/v1/nothing",
        "/%2e%2e/x",
    ];
    let bodies = [
        "{",
        "[]",
        "{\"a\":1}",
        "\u{feff}{}",
        "{\"command\":1e999}",
        "{\"path\":\"\\u0000\"}",
        "{\"command\":\"\"}",
        "{\"id\":\"../x\"}",
        "null",
    ];
    let state = server.state_dir().to_string_lossy().into_owned();
    let secrets =
        [state.as_str(), "/var/lib", "panicked", "src/", ".rs:", "sandbar-t", host.trim()];
    let mut errors = 0;
    for path in paths {
        for body in bodies {
            let request =
                server.request(Method::POST, path).header("content-type", "application/json");
            let answer = request.body(body).send().await.expect("a response comes");
            let answer = testkit::answer(answer).await;
            errors += usize::from(answer.status >= 400);
            assert_ne!(answer.status, 500, "{path} {body}: {}", answer.text);
            for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
                assert!(
                    !answer.text.contains(secret),
                    "{secret:?} in {path} {body}: {}",
                    answer.text
                );
            }
        }
    }
    assert!(errors > 180, "only {errors} were refused");
}

/// I21, I22: a sandbox that gets the place of one that was destroyed finds nothing of it.
#[tokio::test]
async fn storage_and_ids_come_without_a_past() {
    const CANARY: &str = "canary-of-the-one-before-5c1e";
    /// More than the node has.
    const PLACES: usize = 300;
    let server = Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &[("MAX_SANDBOXES", "1")]);
    let leave = format!(
        "for i in $(seq 20000); do echo {CANARY}; done | tee /root/f /tmp/f /dev/shm/f /run/f > /workspace/f; \
         ipcmk -M 4096 >&2; ipcmk -S 1 >&2; ipcmk -Q >&2; chown 1000 /workspace/f; awk '{{print $2}}' /proc/self/uid_map"
    );
    let before = server.shell("a", &leave).await;
    assert_eq!(server.delete("/v1/sandboxes/a").await.status, 204);
    // Places are given out in turn; somebody gets this one again.
    let ids = "awk '{print $2}' /proc/self/uid_map";
    for _ in 0..PLACES {
        if server.shell("b", ids).await == before {
            break;
        }
        assert_eq!(server.delete("/v1/sandboxes/b").await.status, 204);
    }

    let look = format!(
        "awk '{{print $2}}' /proc/self/uid_map; grep -rl {CANARY} /root /tmp /dev/shm /run /workspace /etc /var; \
         cat /proc/sysvipc/shm /proc/sysvipc/sem /proc/sysvipc/msg | grep -vc key; \
         truncate -s 64M /workspace/s; fallocate -l 16M /workspace/t 2>/dev/null; \
         cat /workspace/s /workspace/t | tr -d '\\0' | wc -c"
    );
    assert_eq!(server.shell("b", &look).await, format!("{before}0\n0\n"), "{CANARY}");
}
