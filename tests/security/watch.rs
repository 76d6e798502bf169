//! Watching, turned against the agent that watches.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use testkit::{
    Server,
    api::{
        error::ErrorCode,
        id::SandboxId,
        watch::{FileChangeType, WatchEvent, WatchFiles},
    },
    client::{ClientError, WatchStream},
};

use crate::server;

/// How long an event may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

fn id() -> SandboxId {
    "s".parse().expect("it is an id")
}

async fn watch(server: &Server, path: &str) -> Result<WatchStream, ClientError> {
    server.client().watch_files(&id(), &WatchFiles::new(path)).await
}

async fn next(events: &mut WatchStream) -> Option<Result<WatchEvent, ClientError>> {
    tokio::time::timeout(PATIENCE, events.next()).await.expect("an event comes")
}

fn is_too_large(error: &ClientError) -> bool {
    matches!(error, ClientError::Api { error, .. } if error.code == ErrorCode::TreeTooLarge)
}

async fn python(server: &Server, program: &str) {
    let body = serde_json::json!({"command": ["python3", "-c", program]});
    let answer = server.post("/v1/sandboxes/s/exec", &body).await;
    assert_eq!(answer.json["exitCode"], 0, "{}", answer.text);
}

/// A hundred thousand directories, made before the watch and under it.
#[tokio::test]
async fn more_directories_than_can_be_watched_are_refused_and_cost_nothing() {
    let server = server();
    server.shell("s", "mkdir /dev/shm/before /dev/shm/under /dev/shm/small").await;
    let make = |place: &str| {
        format!(
            "import os\nfor i in range(100):\n os.mkdir(f'/dev/shm/{place}/{{i}}')\n \
             for j in range(1000): os.mkdir(f'/dev/shm/{place}/{{i}}/{{j}}')"
        )
    };
    python(&server, &make("before")).await;

    let refused = watch(&server, "/dev/shm/before").await.unwrap_err();
    assert!(is_too_large(&refused), "{refused}");

    let mut events = watch(&server, "/dev/shm/under").await.unwrap();
    let make = make("under");
    let (end, ()) = tokio::join!(
        async {
            loop {
                match next(&mut events).await.expect("an error ends it") {
                    Ok(event) => assert!(!event.is_final(), "{event:?}"),
                    Err(error) => return error,
                }
            }
        },
        python(&server, &make),
    );
    assert!(is_too_large(&end), "{end}");

    // Everything is given back when the kernel has let go of the watches, which gives no event.
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match watch(&server, "/dev/shm/small").await {
            Ok(events) => {
                drop(events);
                server.shell("s", "true").await;
                return;
            }
            Err(error) => assert!(is_too_large(&error), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the watches were not given back");
}

/// A reader that stops reading, while there is more to tell than any buffer holds.
#[tokio::test]
async fn a_reader_that_stops_costs_no_memory_and_is_told_that_it_missed_something() {
    let server = server();
    server.shell("s", "mkdir /dev/shm/d").await;
    let mut events = watch(&server, "/dev/shm/d").await.unwrap();
    assert!(matches!(next(&mut events).await, Some(Ok(WatchEvent::Watching { .. }))));
    let long = "x".repeat(200);
    let storm = format!(
        "import os\nfor i in range(150000):\n p = f'/dev/shm/d/{{i}}{long}'\n \
         os.close(os.open(p, os.O_CREAT)); os.unlink(p)"
    );

    python(&server, &storm).await;
    let agent = server.shell("s", "grep RssAnon /proc/1/status").await;
    server.shell("s", ": > /dev/shm/d/after").await;

    let resident: u64 = agent.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap();
    assert!(resident < 32 * 1024, "the agent has {resident} KiB");
    let mut overflows = 0;
    loop {
        match next(&mut events).await.expect("it goes on").expect("it goes on") {
            WatchEvent::Overflow { path } => {
                assert_eq!(path, "/dev/shm/d");
                overflows += 1;
                // The reader looks for itself, and hears of what follows; or of another overflow.
                server.shell("s", &format!(": > /dev/shm/d/later-{overflows}")).await;
            }
            WatchEvent::Event(change) if change.path.starts_with("/dev/shm/d/later-") => {
                assert_eq!(change.event_type, FileChangeType::Create);
                break;
            }
            _ => {}
        }
    }
    assert!(overflows > 0);
    drop(events);
    server.shell("s", "true").await;
}

/// Directories that move all the time, and places that are now a directory, now a link out.
#[tokio::test]
async fn a_tree_that_never_rests_neither_stops_the_agent_nor_leads_it_out() {
    let server = server();
    server.shell("s", "mkdir -p /dev/shm/t/a/b/c /dev/shm/t/x /dev/shm/secret").await;
    let mut events = watch(&server, "/dev/shm/t").await.unwrap();
    let swap = "import os, shutil\nos.chdir('/dev/shm/t')\n\
        for i in range(3000):\n os.rename('a', 'x/a'); os.rename('x/a', 'a')\n \
        os.mkdir('n'); os.mkdir('n/m'); os.rename('n/m', 'x/m'); os.rmdir('x/m'); os.rmdir('n')\n \
        os.symlink('/dev/shm/secret', 'n'); os.unlink('n')\n \
        open('/dev/shm/secret/seen', 'w').close(); os.unlink('/dev/shm/secret/seen')";

    let read = async {
        let mut paths = Vec::new();
        loop {
            match next(&mut events).await.expect("it goes on").expect("it goes on") {
                WatchEvent::Event(change) if change.path.ends_with("/end") => return paths,
                WatchEvent::Event(change) => paths.push(change.path),
                _ => {}
            }
        }
    };
    let write = async {
        python(&server, swap).await;
        // What comes with an overflow is not told; the next one is.
        loop {
            server.shell("s", "rm -f /dev/shm/t/a/b/c/end; : > /dev/shm/t/a/b/c/end").await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let seen = tokio::select! {
        seen = read => seen,
        () = write => unreachable!("it goes on until it is seen"),
    };

    assert!(!seen.iter().any(|path| path.contains("seen")), "it looked through a link");
    drop(events);
    server.shell("s", "true").await;
}
