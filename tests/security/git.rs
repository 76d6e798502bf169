//! Git, with hostile URLs, repositories and servers: the sandbox's own git meets them, and what it
//! was given in confidence goes nowhere else.

use std::fs;

use serde_json::{Value, json};
use testkit::Git;

use crate::server;

async fn git() -> Git {
    Git::start(server()).await
}

/// The ways in which credentials are given.
fn ways(git: &Git, path: &str) -> [(String, Value); 3] {
    let url = git.url(path);
    let encoded = git.secret.replace('+', "%2B").replace('/', "%2F");
    let header = json!({"name": "Authorization", "value": format!("Bearer {}", git.secret)});
    [
        (url.replace("http://", &format!("http://user:{encoded}@")), json!({})),
        (url.clone(), json!({"auth": {"username": "user", "password": git.secret}})),
        (url, json!({"auth": {"header": header}})),
    ]
}

fn with(mut object: Value, more: &Value) -> Value {
    let fields = more.as_object().cloned().expect("fields are an object");
    object.as_object_mut().expect("it is an object").extend(fields);
    object
}

/// F27.
#[tokio::test]
async fn urls_that_name_commands_options_or_inner_places_run_nothing() {
    let git = git().await;
    for url in [
        "ext::sh -c 'touch /tmp/ran'",
        "ext::touch% /tmp/ran",
        "-u./x",
        "--upload-pack=touch /tmp/ran",
        "ssh://-oProxyCommand=touch%20/tmp/ran/x",
        "-oProxyCommand=touch:x",
        "fd::3",
        "http::http://127.0.0.1/x",
        "/etc\n",
        "http://h/\u{0}",
        "http://169.254.169.254/",
        "http://h/x\nhost=other",
        &format!("http://h/{}", "x".repeat(10 * 1024)),
    ] {
        let answer = git.ask(url, json!({"timeoutMs": 10_000})).await;
        assert_eq!(answer.code(), "INVALID_GIT_URL", "{url:?}: {}", answer.text);
    }
    // These are URLs; the sandbox's own network and files decide.
    for url in
        ["http://169.254.169.254/x", "git://[::1]:9/x", "file:///etc", "/etc", "/proc/1/root"]
    {
        let answer = git.ask(url, json!({"timeoutMs": 20_000})).await;
        assert!(answer.status >= 400, "{url:?}: {}", answer.text);
    }
    for branch in ["--upload-pack=touch /tmp/ran", "-c", "a b", "x\u{0}"] {
        let answer = git.checkout("open/repo.git", json!({"branch": branch})).await;
        assert_eq!(answer.code(), "VALIDATION_FAILED", "{branch:?}: {}", answer.text);
    }
    let target = git.checkout("open/repo.git", json!({"targetDir": "--template=/tmp"})).await;
    assert_eq!(target.json["targetDir"], "/workspace/--template=/tmp", "{}", target.text);
    assert_eq!(git.shell("ls -d /tmp/ran 2>&1 || true; ls").await.lines().count(), 2);
}

/// F28: trees with names that are git's own, in the shapes of CVE-2014-9390, CVE-2024-32002 and
/// CVE-2025-48384.
#[tokio::test]
async fn a_repository_cannot_bring_hooks_or_leave_its_directory() {
    let git = git().await;
    let make = r#"set -e; mkdir /srv/evil; cd /srv/evil; git init -q .; export HOME=/srv/evil
        git config --global user.name a; git config --global user.email a@b
        printf '#!/bin/sh\ntouch /tmp/ran\n' > hook
        hook=$(git hash-object -w hook); conf=$(printf '[core]\n\tfsmonitor = touch /tmp/ran\n\thooksPath = hooks\n' | git hash-object -w --stdin)
        entry() { printf "$1 $2\0"; printf "$(printf "$3" | sed 's/../\\x&/g')"; }
        tree() { git hash-object -t tree -w --literally --stdin; }
        push() { git push -q ../git/repos/$1.git $(git commit-tree -m x $2):refs/heads/main; }
        new() { git init -q --bare -b main ../git/repos/$1.git; push $1 $2; }
        hooks=$(entry 100755 post-checkout $hook | tree)
        dir=$( { entry 100644 config $conf; entry 40000 hooks $hooks; } | tree)
        new plain $(entry 40000 .git $dir | tree)
        new upper $(entry 40000 .GIT $dir | tree)
        new dots $(entry 40000 .. $(entry 40000 .git $dir | tree) | tree)
        new slash $(entry 100755 ../../tmp/ran $hook | tree)
        new absolute $(entry 100755 /tmp/ran $hook | tree)
        link=$(printf .git | git hash-object -w --stdin); out=$(printf /tmp | git hash-object -w --stdin)
        new link $( { entry 120000 a $link; entry 40000 a $dir; } | tree)
        new out $( { entry 120000 a $out; entry 40000 a $(entry 100755 ran $hook | tree); } | tree)
        mods=$(printf '[submodule "x"]\n\tpath = x\r\n\turl = ext::touch% /tmp/ran\n\tupdate = !touch /tmp/ran\n' | git hash-object -w --stdin)
        new modules $( { entry 100644 .gitmodules $mods; entry 160000 x 1111111111111111111111111111111111111111; } | tree)
        attributes=$(printf '* filter=evil diff=evil\n' | git hash-object -w --stdin)
        new attributes $( { entry 100644 .gitattributes $attributes; entry 100755 file $hook; } | tree)
        ls ../git/repos"#;
    let body = json!({"command": ["bash", "-c", make]});
    let made = git.server.post("/v1/sandboxes/s/exec", &body).await;
    assert_eq!(made.json["exitCode"], 0, "{}", made.text);
    for (name, is_refused) in [
        ("plain", true),
        ("upper", true),
        ("dots", true),
        ("slash", true),
        ("absolute", true),
        // Of two things of one name git takes one.
        ("link", false),
        ("out", false),
        ("modules", false),
        ("attributes", false),
    ] {
        let answer = git.checkout(&format!("open/{name}.git"), json!({})).await;
        if is_refused {
            assert_eq!(answer.code(), "GIT_CLONE_FAILED", "{name}: {}", answer.text);
            assert_eq!(git.shell("ls -A").await, "", "{name}");
        } else {
            assert_eq!(answer.status, 200, "{name}: {}", answer.text);
            let look = format!("ls -A; grep -rl 'touch /tmp/ran' {name}/.git; rm -r {name}");
            assert_eq!(git.shell(&look).await, format!("{name}\n"));
        }
        assert_eq!(git.shell("ls -d /tmp/ran 2>/dev/null || true").await, "", "{name}");
    }
}

/// F29: to another host by a redirect, by a redirect after the password was asked for, and by what
/// the sandbox itself has configured.
#[tokio::test]
async fn credentials_are_not_shown_to_another_host() {
    let git = git().await;
    for path in ["redirect/repo.git", "lure/repo.git"] {
        for (url, auth) in ways(&git, path) {
            let answer = git.ask(&url, auth.clone()).await;
            assert!(answer.status >= 400, "{path} {auth}: {}", answer.text);
            assert!(!answer.text.contains(&git.secret), "{}", answer.text);
        }
    }
    let elsewhere = format!("http://localhost:{}/", git.port);
    let rewrite = format!("git config --global url.{elsewhere}.insteadOf {}", git.url(""));
    git.shell(&format!("export HOME=/root; {rewrite}")).await;
    for (url, auth) in ways(&git, "private/repo.git") {
        let answer = git.ask(&url, auth.clone()).await;
        assert!(answer.status >= 400, "{auth}: {}", answer.text);
    }
    let seen = git.shell("cat /srv/git/seen").await;
    let (there, here): (Vec<_>, Vec<_>) =
        seen.lines().partition(|line| line.starts_with("localhost:"));
    assert!(there.iter().all(|line| line.ends_with(" None None")), "{there:#?}");
    // The redirects were followed without, and the server that was named did get them.
    assert!(!there.is_empty() && here.iter().any(|line| line.contains("Basic ")), "{seen}");
}

/// F29: not in arguments, environments or titles of processes, of the sandbox or of the host; not in
/// answers, the log or files.
#[tokio::test]
async fn credentials_are_nowhere_to_be_read() {
    let git = git().await;
    for (url, auth) in ways(&git, "hold/repo.git") {
        git.shell("rm -f /srv/git/waiting").await;
        let held = json!({"targetDir": "held"});
        let held = git.ask(&url, with(auth.clone(), &held));
        let look = async {
            git.until_held().await;
            let processes = git.server.get("/v1/sandboxes/s/processes").await;
            let secret = git.secret.clone();
            let shown = tokio::task::spawn_blocking(move || shown(&secret)).await;
            let files = "grep -rlF -f /srv/git/secret /workspace /tmp /root /dev/shm /run /home \
                /var/tmp 2>/dev/null || true";
            let files = git.shell(files).await;
            // Only now: whatever was looked at, it ran.
            git.shell("pkill git").await;
            (processes, shown.expect("it looks to its end"), files)
        };
        let (answer, (processes, (git_seen, shown), files)) = tokio::join!(held, look);

        assert!(git_seen, "git runs while it is looked for");
        assert_eq!(shown, Vec::<String>::new(), "{auth}");
        assert_eq!(files, "", "{auth}");
        assert!(!processes.text.contains(&git.secret), "{}", processes.text);
        assert_eq!(answer.code(), "GIT_CLONE_FAILED", "{}", answer.text);
        assert!(!answer.text.contains(&git.secret), "{}", answer.text);
        let brief = json!({"timeoutMs": 1000, "targetDir": "held"});
        let late = git.ask(&url, with(auth, &brief)).await;
        assert_eq!(late.code(), "TIMEOUT", "{}", late.text);
        assert!(!late.text.contains(&git.secret), "{}", late.text);
    }
    // The log tells of the checkouts.
    let log = git.server.log_until("git/checkout");
    assert!(!log.contains(&git.secret), "{log}");
}

/// All processes of the host, and with them all of the sandbox: whether a git that clones is among
/// them, and what shows the secret, plain or as it goes over the wire.
fn shown(secret: &str) -> (bool, Vec<String>) {
    let coded = {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        BASE64_STANDARD.encode(format!("user:{secret}"))
    };
    let encoded = secret.replace('+', "%2B").replace('/', "%2F");
    let mut git_seen = false;
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").expect("/proc is there").flatten() {
        for file in ["cmdline", "environ", "comm"] {
            let path = process.path().join(file);
            let text = fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            git_seen |= text.contains("hold/repo.git");
            if [secret, &coded, &encoded].iter().any(|secret| text.contains(*secret)) {
                found.push(format!("{}: {text}", path.display()));
            }
        }
    }
    (git_seen, found)
}

/// A list of references and a report of progress that never end.
#[tokio::test]
async fn a_server_that_never_ends_its_answer_is_left() {
    let git = git().await;
    for (path, codes) in [
        // Git keeps the list: its memory, or its time, is over.
        ("refs/repo.git", &["TIMEOUT", "GIT_CLONE_FAILED"][..]),
        ("talk/repo.git", &["TIMEOUT"]),
    ] {
        let answer = git.checkout(path, json!({"timeoutMs": 4000})).await;

        assert!(codes.contains(&answer.code()), "{path}: {}", answer.text);
        assert!(answer.text.len() < 64 * 1024, "{path}: {} bytes", answer.text.len());
        assert_eq!(git.shell("ls -A").await, "", "{path}");
        let agent = git.shell("grep RssAnon /proc/1/status").await;
        let resident: Option<u64> =
            agent.split_whitespace().nth(1).and_then(|kib| kib.parse().ok());
        assert!(resident.is_some_and(|kib| kib < 32 * 1024), "{path}: the agent has {agent}");
    }
    let kept = git.checkout("open/repo.git", json!({})).await;
    assert_eq!(kept.status, 200, "{}", kept.text);
}

/// F28: more references than anybody has.
#[tokio::test]
async fn a_hundred_thousand_references_cost_the_sandbox_alone() {
    let git = git().await;
    let make = "cd /srv/git/repos; git clone -q --bare repo.git many.git; cd many.git; \
        id=$(git rev-parse main); { echo '# pack-refs with: peeled fully-peeled sorted '; \
        seq -f \"$id refs/tags/%07.0f\" 100000; } > packed-refs; echo $id > refs/heads/main";
    git.shell(make).await;
    let answer = git.checkout("open/many.git", json!({"timeoutMs": 120_000})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(git.shell("git -C many tag | wc -l").await, "100000\n");
}
