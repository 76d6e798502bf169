//! What a sandbox could learn about the host and its neighbours.

use std::fs;

use serde_json::json;
use testkit::reqwest::Method;

use crate::server;

/// I01
#[tokio::test]
async fn files_about_the_host_are_empty() {
    let server = server();
    let look = "for f in cmdline kallsyms config.gz keys key-users timer_list interrupts diskstats slabinfo \
                vmallocinfo kcore sched_debug iomem modules partitions kmsg; do \
                [ \"$(head -c10 /proc/$f 2>/dev/null | wc -c)\" -gt 0 ] && echo $f; done; true";

    assert_eq!(server.shell("s", look).await, "");
}

/// I02
#[tokio::test]
async fn the_environment_of_the_server_stays_outside() {
    let server = testkit::Server::start_with(
        env!("CARGO_BIN_EXE_sandbar"),
        &[("KEY", "sbk_canary_0123456789_0123456789_01234567")],
    );

    let seen =
        server.shell("s", "env; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'").await;

    assert!(!seen.contains("canary") && !seen.contains("SANDBAR"), "{seen}");
}

/// I03
#[tokio::test]
async fn no_path_of_the_host_shows() {
    let server = server();

    let seen = server.shell("s", "cat /proc/self/mountinfo /proc/self/cgroup /proc/mounts").await;

    assert!(!seen.contains(&*server.state_dir().to_string_lossy()), "{seen}");
    assert!(!seen.contains("sandbar"), "{seen}");
}

/// I04, I06, E17, E18
#[tokio::test]
async fn the_machine_is_not_described() {
    let server = server();

    assert_eq!(server.shell("s", "ls -A /sys | wc -l").await, "0\n");
    assert_eq!(server.shell("s", "dmesg 2>/dev/null | wc -l").await, "0\n");
}

/// I05
#[tokio::test]
async fn only_processes_of_the_sandbox_show() {
    let server = server();

    let seen = server.shell("s", "cat /proc/[0-9]*/comm | sort -u | xargs").await;

    for name in seen.split_whitespace() {
        assert!(
            ["bash", "cat", "sort", "xargs", "memfd:sandbar", "sandbar", "sh", "3", "echo"]
                .contains(&name),
            "{seen}"
        );
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
