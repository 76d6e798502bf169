//! Git checkout, against real servers that run in the sandbox itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, also in its helper functions")]

use std::{
    io::Write,
    process::{Output, Stdio},
};

use futures_util::StreamExt;
use serde_json::{Value, json};
use testkit::{
    Git,
    api::git::{GitCheckout, GitEvent},
};

use crate::server;

const CHECKOUT: &str = "/v1/sandboxes/s/git/checkout";

async fn git() -> Git {
    Git::start(server()).await
}

/// A secret as it stands in a URL.
fn in_url(secret: &str) -> String {
    secret.replace('+', "%2B").replace('/', "%2F")
}

fn sandbar(git: &Git, arguments: &[&str]) -> Output {
    git.server.command(arguments).output().unwrap()
}

#[tokio::test]
async fn a_repository_is_checked_out() {
    let git = git().await;

    let answer = git.checkout("open/repo.git", json!({})).await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    let url = git.url("open/repo.git");
    assert_eq!(
        answer.json,
        json!({"url": url, "branch": "main", "commit": git.commit("main").await,
            "targetDir": "/workspace/repo"})
    );
    let look = "cd repo; cat file; git status --short --branch; git remote get-url origin; \
        git log --oneline | wc -l; git branch -r";
    assert_eq!(
        git.shell(look).await,
        format!(
            "3\n## main...origin/main\n{url}\n3\n  origin/HEAD -> origin/main\n  origin/dev\n  origin/main\n"
        )
    );
}

/// Whoever owns a repository names its branches and tags.
#[tokio::test]
async fn a_name_that_looks_like_another_does_not_take_its_place() {
    let server = server();
    let make = "git init -q -b v1 own && cd own && git config user.name a && git config user.email a@b && \
        git commit -q --allow-empty -m 1 && git commit -q --allow-empty -m 2 && \
        git tag $(git rev-parse --short=7 HEAD~1) HEAD && git tag v1 HEAD~1 && git rev-parse HEAD~1 HEAD";
    let commits = server.shell("s", make).await;
    let [first, second] = commits.lines().collect::<Vec<_>>()[..] else { panic!("{commits}") };

    let url = "/workspace/own";
    let body = json!({"url": url, "commit": first[..7], "targetDir": "a"});
    assert_eq!(server.post(CHECKOUT, &body).await.json["commit"], first);
    let body = json!({"url": url, "branch": "v1", "targetDir": "b"});
    let answer = server.post(CHECKOUT, &body).await;
    assert_eq!((&answer.json["commit"], &answer.json["branch"]), (&second.into(), &"v1".into()));

    // The default branch is the one that a clone makes.
    let long = first.repeat(2)[..64].to_owned();
    for (name, commit) in [(first, Some(first)), (&long, None)] {
        let lead = format!(
            "cd own && git update-ref refs/heads/{name} HEAD && git symbolic-ref HEAD refs/heads/{name}"
        );
        server.shell("s", &lead).await;
        let body = json!({"url": url, "commit": name.to_uppercase(), "targetDir": name});
        let answer = server.post(CHECKOUT, &body).await;
        assert_eq!(answer.json["commit"].as_str(), commit, "{}", answer.text);
        assert!(commit.is_some() || answer.code() == "GIT_BRANCH_NOT_FOUND", "{}", answer.text);
    }
}

#[tokio::test]
async fn branches_tags_commits_and_depth_are_what_was_asked_for() {
    let git = git().await;
    let first = git.commit("dev").await;
    let lost = git.commit("lost").await;
    for (more, branch, commit, content, history) in [
        (json!({"branch": "dev"}), Some("dev"), "dev", "1\n", "1"),
        (json!({"branch": "v1"}), None, "v1", "2\n", "2"),
        (json!({"depth": 1}), Some("main"), "main", "3\n", "1"),
        (json!({"depth": 2, "branch": "v1"}), None, "v1", "2\n", "2"),
        (json!({"commit": first}), None, "dev", "1\n", "1"),
        (json!({"commit": first[..8]}), None, "dev", "1\n", "1"),
        (json!({"commit": first, "depth": 1}), None, "dev", "1\n", "1"),
        // On no branch: asked for by its id.
        (json!({"commit": lost}), None, "lost", "4\n", "4"),
    ] {
        let answer = git.checkout("open/repo.git", more.clone()).await;

        assert_eq!(answer.status, 200, "{more}: {}", answer.text);
        assert_eq!(answer.json["branch"].as_str(), branch, "{more}");
        assert_eq!(answer.json["commit"], git.commit(commit).await, "{more}");
        let look = "cat repo/file; git -C repo log --oneline | wc -l; \
            [ -z \"$(git -C repo status --porcelain)\" ] && rm -r repo";
        assert_eq!(git.shell(look).await, format!("{content}{history}\n"), "{more}");
    }
    let empty = git.checkout("open/empty.git", json!({"targetDir": "e"})).await;
    assert_eq!(empty.json["targetDir"], "/workspace/e", "{}", empty.text);
    assert_eq!((&empty.json["commit"], &empty.json["branch"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn credentials_open_private_repositories_and_are_not_stored() {
    let git = git().await;
    let with_user = git
        .url("private/repo.git")
        .replace("http://", &format!("http://user:{}@", in_url(&git.secret)));
    let header = json!({"name": "Authorization", "value": format!("Bearer {}", git.secret)});
    for (url, auth) in [
        (git.url("private/repo.git"), json!({"username": "user", "password": git.secret})),
        (git.url("private/repo.git"), json!({"username": "user", "token": git.secret})),
        (with_user, Value::Null),
        (git.url("bearer/repo.git"), json!({"header": header})),
    ] {
        let answer = git.ask(&url, json!({"auth": auth})).await;

        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(!answer.text.contains(&git.secret), "{}", answer.text);
        assert_eq!(
            git.shell(&format!(
                "cat repo/file; grep -rFc {} repo/.git | grep -v ':0$'; rm -r repo",
                git.secret
            ))
            .await,
            "3\n"
        );
    }
    for (path, auth) in [
        ("private/repo.git", Value::Null),
        ("private/repo.git", json!({"username": "user", "password": "wrong"})),
        ("private/repo.git", json!({"token": git.secret})),
        ("bearer/repo.git", json!({"username": "user", "password": git.secret})),
    ] {
        let answer = git.checkout(path, json!({"auth": auth})).await;

        assert_eq!(answer.code(), "GIT_AUTH_FAILED", "{}", answer.text);
        assert_eq!(answer.status, 403);
        for secret in [&*git.secret, "wrong"] {
            assert!(!answer.text.contains(secret), "{}", answer.text);
        }
    }
    assert_eq!(git.shell("ls").await, "");
}

#[tokio::test]
async fn other_transports_work() {
    let git = git().await;
    let daemon = "set -e; cd /srv/git; touch repos/repo.git/git-daemon-export-ok; \
        (setsid git daemon --listen=127.0.0.1 --port=9418 --base-path=/srv/git/repos >/dev/null 2>&1 &); \
        for i in $(seq 6000); do (: < /dev/tcp/127.0.0.1/9418) 2>/dev/null && exit; sleep 0.01; done; exit 1";
    git.server.post("/v1/sandboxes/s/exec", &json!({"command": ["bash", "-c", daemon]})).await;
    for url in
        ["git://127.0.0.1/repo.git", "file:///srv/git/repos/repo.git", "/srv/git/repos/repo.git"]
    {
        let answer = git.ask(url, json!({"depth": 1})).await;

        assert_eq!(answer.status, 200, "{url}: {}", answer.text);
        assert_eq!(
            git.shell("git -C repo log --oneline | wc -l; rm -r repo").await,
            "1\n",
            "{url}"
        );
    }
    for (url, code) in [
        ("git://127.0.0.1/none.git", "GIT_REPOSITORY_NOT_FOUND"),
        ("git://127.0.0.1:9/repo.git", "GIT_NETWORK_ERROR"),
        ("/srv/git/none", "GIT_REPOSITORY_NOT_FOUND"),
        ("ssh://127.0.0.1:9/repo", "GIT_NETWORK_ERROR"),
    ] {
        let answer = git.ask(url, json!({})).await;
        assert_eq!(answer.code(), code, "{url}: {}", answer.text);
    }
}

#[tokio::test]
async fn each_failure_has_its_code_and_leaves_nothing() {
    let git = git().await;
    git.shell("mkdir -p full keep real; touch full/x file; ln -s real link").await;
    let before = git.shell("find . | sort").await;
    let unknown = "1234567890".repeat(4);
    for (url, more, code) in [
        (git.url("open/none.git"), json!({}), "GIT_REPOSITORY_NOT_FOUND"),
        (git.url("status/403/x"), json!({}), "GIT_AUTH_FAILED"),
        (git.url("status/500/x"), json!({}), "GIT_NETWORK_ERROR"),
        (git.url("open/repo.git"), json!({"branch": "none"}), "GIT_BRANCH_NOT_FOUND"),
        (git.url("open/repo.git"), json!({"commit": unknown}), "GIT_BRANCH_NOT_FOUND"),
        (git.url("open/repo.git"), json!({"commit": &unknown[..9]}), "GIT_BRANCH_NOT_FOUND"),
        (git.url("open/repo.git"), json!({"commit": unknown, "depth": 1}), "GIT_BRANCH_NOT_FOUND"),
        ("http://127.0.0.1:9/x".to_owned(), json!({}), "GIT_NETWORK_ERROR"),
        ("http://no.such.host.invalid/x".to_owned(), json!({}), "GIT_NETWORK_ERROR"),
        (git.url("silent/x"), json!({"timeoutMs": 500}), "TIMEOUT"),
        (git.url("stalled/repo.git"), json!({"timeoutMs": 2000, "targetDir": "a/b/c"}), "TIMEOUT"),
        (git.url("stalled/repo.git"), json!({"timeoutMs": 2000, "targetDir": "keep"}), "TIMEOUT"),
        (
            git.url("open/repo.git"),
            json!({"commit": &unknown[..9], "targetDir": "link"}),
            "GIT_BRANCH_NOT_FOUND",
        ),
        (git.url("open/repo.git"), json!({"targetDir": "full"}), "DIRECTORY_NOT_EMPTY"),
        (git.url("open/repo.git"), json!({"targetDir": "file"}), "FILE_EXISTS"),
        (git.url("open/repo.git"), json!({"targetDir": "file/x"}), "NOT_DIRECTORY"),
        (git.url("open/repo.git"), json!({"targetDir": "/proc/x"}), "FILE_NOT_FOUND"),
        ("relative".to_owned(), json!({}), "INVALID_GIT_URL"),
        (git.url("open/repo.git"), json!({"branch": "-x"}), "VALIDATION_FAILED"),
        (git.url("open/repo.git"), json!({"branch": "a", "commit": unknown}), "VALIDATION_FAILED"),
        (git.url("open/repo.git"), json!({"commit": "12345"}), "VALIDATION_FAILED"),
        (git.url("open/repo.git"), json!({"depth": 0}), "VALIDATION_FAILED"),
        (git.url("open/repo.git"), json!({"timeoutMs": 0}), "VALIDATION_FAILED"),
        (git.url("open/repo.git"), json!({"timeoutMs": 86_400_001}), "VALIDATION_FAILED"),
        (git.url("open/repo.git"), json!({"targetDir": ""}), "INVALID_PATH"),
        (git.url("open/repo.git"), json!({"dir": "x"}), "VALIDATION_FAILED"),
    ] {
        let answer = git.ask(&url, more.clone()).await;

        assert_eq!(answer.code(), code, "{url} {more}: {}", answer.text);
        assert!(!answer.text.contains("leftOver"), "{}", answer.text);
        assert_eq!(git.shell("find . | sort").await, before, "{url} {more}");
    }
}

#[tokio::test]
async fn the_target_is_where_it_was_asked_for() {
    let git = git().await;
    git.shell("mkdir empty").await;
    for (target, path) in [
        ("empty", "/workspace/empty"),
        ("a/b", "/workspace/a/b"),
        ("/tmp/x/", "/tmp/x"),
        ("sp ace/ü", "/workspace/sp ace/ü"),
    ] {
        let answer = git.checkout("open/repo.git", json!({"targetDir": target})).await;
        assert_eq!(answer.json["targetDir"], path, "{}", answer.text);
        assert_eq!(git.shell(&format!("cat '{path}/file'")).await, "3\n");
    }
}

#[tokio::test]
async fn progress_is_told_while_git_works() {
    let git = git().await;
    let client = git.server.client();
    let id = "s".parse().unwrap();

    let request = GitCheckout::new(git.url("open/repo.git"));
    let events: Vec<GitEvent> = client
        .git_checkout_stream(&id, &request)
        .await
        .unwrap()
        .map(Result::unwrap)
        .collect()
        .await;

    let (last, progress) = events.split_last().unwrap();
    assert!(matches!(last, GitEvent::Done(result) if result.target_dir == "/workspace/repo"));
    let received = progress.iter().any(|event| {
        matches!(event, GitEvent::Progress { phase: Some(phase), percent: Some(100), .. }
            if phase == "Receiving objects")
    });
    assert!(received, "{progress:?}");

    // What is refused before git runs is no stream; what git refuses is its last event.
    let again = client.git_checkout_stream(&id, &request).await.unwrap_err();
    assert!(again.to_string().contains("not empty"), "{again}");
    let missing = GitCheckout::new(git.url("open/none.git"));
    let events: Vec<_> = client.git_checkout_stream(&id, &missing).await.unwrap().collect().await;
    let last = events.last().unwrap().as_ref().unwrap();
    let GitEvent::Failed { error } = last else { panic!("{last:?}") };
    assert_eq!(error.code, testkit::api::error::ErrorCode::GitRepositoryNotFound);
    assert_eq!(error.details["repository"], git.url("open/none.git"));
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_git_and_leaves_nothing() {
    let git = git().await;
    let request = GitCheckout::new(git.url("stalled/repo.git"));
    let events =
        git.server.client().git_checkout_stream(&"s".parse().unwrap(), &request).await.unwrap();
    git.until_held().await;
    assert_eq!(git.shell("ls").await, "repo\n");

    drop(events);

    let gone = "for i in $(seq 6000); do [ -e repo ] || pgrep -f '[g]it clone' || exit 0; \
        sleep 0.01; done; ls; ps ax; exit 1";
    git.shell(gone).await;
    let again = loop {
        let again = git.checkout("open/repo.git", json!({})).await;
        // The directory is given back behind its removal.
        if again.code() != "RESOURCE_BUSY" {
            break again;
        }
    };
    assert_eq!(again.status, 200, "{}", again.text);
}

#[tokio::test]
async fn nothing_of_the_sandbox_s_own_configuration_runs() {
    let git = git().await;
    let hook = "printf '#!/bin/sh\\ntouch /tmp/ran-$(basename $0)\\n'";
    git.shell(&format!(
        "mkdir -p /tmp/hooks /tmp/template/hooks; for name in post-checkout reference-transaction \
         fsmonitor askpass proxy credential; do {hook} > /tmp/hooks/$name; done; \
         {hook} > /tmp/template/hooks/post-checkout; chmod -R +x /tmp/hooks /tmp/template; \
         cd ~; export HOME=/root; for setting in core.hooksPath=/tmp/hooks \
         core.fsmonitor=/tmp/hooks/fsmonitor core.askPass=/tmp/hooks/askpass \
         core.gitProxy=/tmp/hooks/proxy core.sshCommand=/tmp/hooks/proxy \
         credential.helper=/tmp/hooks/credential init.templateDir=/tmp/template \
         credential.http://127.0.0.1:{}.helper=/tmp/hooks/credential protocol.ext.allow=always \
         'url.ext::touch /tmp/ran-ext .insteadOf=http://rewritten/'; do \
         git config --global \"${{setting%%=*}}\" \"${{setting#*=}}\"; done",
        git.port
    ))
    .await;
    let kept = git.shell("cat ~/.gitconfig").await;

    let auth = json!({"auth": {"username": "user", "password": git.secret}});
    assert_eq!(git.checkout("private/repo.git", auth).await.status, 200);
    assert_eq!(
        git.checkout("private/repo.git", json!({"targetDir": "x"})).await.code(),
        "GIT_AUTH_FAILED"
    );
    for url in ["git://127.0.0.1:9/x", "ssh://127.0.0.1:9/x", "http://rewritten/x"] {
        let answer = git.ask(url, json!({})).await;
        assert!(answer.status >= 400, "{url}: {}", answer.text);
    }

    assert_eq!(git.shell("ls -d /tmp/ran* 2>/dev/null || true").await, "");
    assert_eq!(git.shell("cat ~/.gitconfig").await, kept);
}

#[tokio::test]
async fn an_image_without_git_or_ssh_is_told_what_to_do() {
    let server = server();
    let create = json!({"id": "s", "env": {"PATH": "/tmp/bin"}});
    server.post("/v1/sandboxes", &create).await;
    let ask = async |url: &str| server.post(CHECKOUT, &json!({"url": url})).await;

    let no_git = ask("https://host/x").await;
    assert_eq!(no_git.code(), "COMMAND_NOT_FOUND", "{}", no_git.text);
    assert!(no_git.text.contains("apt-get install git"), "{}", no_git.text);

    server.shell("s", "/bin/mkdir /tmp/bin; /bin/ln -s /usr/bin/git /bin/sh /tmp/bin").await;
    let no_ssh = ask("git@host:x").await;
    assert_eq!(no_ssh.code(), "COMMAND_NOT_FOUND", "{}", no_ssh.text);
    assert!(no_ssh.text.contains("openssh-client"), "{}", no_ssh.text);
}

#[tokio::test]
async fn the_command_line_checks_out_and_takes_no_secret_as_an_argument() {
    let git = git().await;
    let out = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let err = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let plain = sandbar(&git, &["git", "s", &git.url("open/repo.git"), "one", "--branch", "dev"]);
    assert!(plain.status.success(), "{}", err(&plain));
    assert_eq!(out(&plain), format!("/workspace/one: dev at {}\n", git.commit("dev").await));
    assert!(err(&plain).contains("Receiving objects: 100%"), "{}", err(&plain));

    let url = git.url("private/repo.git");
    let mut process = git
        .server
        .command(["git", "s", &url, "two", "--username", "user", "--token-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    process.stdin.take().unwrap().write_all(format!("{}\n", git.secret).as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(out(&output).starts_with("/workspace/two: main at "), "{}", out(&output));

    let mut from_environment =
        git.server.command(["git", "s", &url, "three", "--username", "user"]);
    let output = from_environment.env("SANDBAR_GIT_TOKEN", &git.secret).output().unwrap();
    assert!(output.status.success(), "{}", err(&output));

    let refused = sandbar(&git, &["git", "s", &url, "four", "--json"]);
    assert_eq!(refused.status.code(), Some(1));
    let last: Value = serde_json::from_str(out(&refused).lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "GIT_AUTH_FAILED", "{last}");
    let alone = sandbar(&git, &["git", "s", &url, "five", "--username", "user"]);
    assert_eq!(alone.status.code(), Some(2), "{}", err(&alone));

    let empty = sandbar(&git, &["git", "s", &git.url("open/empty.git"), "six"]);
    assert!(empty.status.success(), "{}", err(&empty));
    assert!(!err(&empty).contains("fatal"), "{}", err(&empty));
}

#[tokio::test]
async fn a_directory_belongs_to_one_checkout_at_a_time() {
    let git = git().await;
    let first = git.checkout("stalled/repo.git", json!({}));
    let second = async {
        git.until_held().await;
        let second = git.checkout("open/repo.git", json!({})).await;
        git.release().await;
        second
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.code(), second.code()), ("GIT_NETWORK_ERROR", "RESOURCE_BUSY"));
    assert_eq!(git.checkout("open/repo.git", json!({})).await.status, 200);
}

#[tokio::test]
async fn a_full_disk_is_said_and_what_was_fetched_is_gone() {
    let git = git().await;
    git.shell(
        "set -e; cd /srv/git; head -c 8M /dev/urandom > src/big; cd src; git add big; \
         git -c user.name=a -c user.email=a@b commit -qm big; git clone -q --bare . ../repos/big.git; \
         free=$(df --output=avail -B1M /dev/shm | tail -1); fallocate -l $((free - 4))M /dev/shm/filler",
    )
    .await;
    let answer = git.checkout("open/big.git", json!({"targetDir": "/dev/shm/big"})).await;
    assert_eq!(answer.code(), "NO_SPACE", "{}", answer.text);
    assert_eq!(answer.status, 507);
    assert_eq!(git.shell("ls /dev/shm").await, "filler\n");
}

#[tokio::test]
async fn a_session_s_directory_is_where_relative_targets_start() {
    let git = git().await;
    let go = json!({"command": "mkdir -p /srv/there && cd /srv/there", "session": "w"});
    assert_eq!(git.server.post("/v1/sandboxes/s/exec", &go).await.json["exitCode"], 0);
    let answer = git.checkout("open/repo.git", json!({"session": "w"})).await;
    assert_eq!(answer.json["targetDir"], "/srv/there/repo", "{}", answer.text);
}
