//! Agent and daemon are killed with -9 during thousands of writes: each file is whole, old or new,
//! and never older than what was acknowledged.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, also in its helper functions")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::{StreamExt, stream};
use sha2::{Digest, Sha256};
use testkit::{
    Server,
    api::{file::WriteFile, id::SandboxId},
    client::Client,
};

use crate::{crash::kill, server};

/// Files that are written again and again.
const FILES: usize = 16;

/// Writes of one round, half of them or so before the kill. A killed agent is started again by the
/// next write; those after the daemon's end fail. So 12,000 or so are written.
const WRITES: usize = 1600;

/// Kills of each kind.
const ROUNDS: usize = 5;

/// Writes at the same time.
const IN_FLIGHT: usize = 8;

fn id() -> SandboxId {
    "s".parse().unwrap()
}

fn path(file: usize) -> String {
    format!("/workspace/d/{file}")
}

/// A content that says what it is: its number, filling of a length of its own, and the hash of both.
/// Most are small, some take several pieces.
fn content(number: u64) -> Vec<u8> {
    let length = if number.is_multiple_of(20) { 700_000 } else { 3000 };
    let mut content = number.to_le_bytes().to_vec();
    let filling = (number % 251) as u8;
    content.resize(8 + length + usize::try_from(number % 977).unwrap(), filling);
    let hash = Sha256::digest(&content);
    content.extend_from_slice(&hash);
    content
}

/// The number of a content that is whole.
fn number(content: &[u8]) -> Option<u64> {
    let (head, hash) = content.split_last_chunk::<32>()?;
    let number = u64::from_le_bytes(*head.first_chunk::<8>()?);
    (Sha256::digest(head)[..] == hash[..]).then_some(number)
}

/// What is known of the files: the numbers last begun and last acknowledged.
#[derive(Default)]
struct Known {
    next: AtomicU64,
    done: AtomicU64,
    acknowledged: [AtomicU64; FILES],
}

/// Writes to all files, each write a new number; ends when the last is answered or has failed.
///
/// The numbers of one file are written one after the other, so that an older one cannot come last.
async fn write(client: Client, known: Arc<Known>) {
    let files = stream::iter(0..FILES).map(|file| {
        let (client, known) = (client.clone(), Arc::clone(&known));
        async move {
            for _ in 0..WRITES / FILES {
                let number = known.next.fetch_add(1, Ordering::Relaxed) + 1;
                let options = WriteFile::default();
                let written = client.write_file(&id(), path(file), &options, content(number)).await;
                if written.is_ok() {
                    known.acknowledged[file].store(number, Ordering::Relaxed);
                }
                known.done.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    files.buffer_unordered(IN_FLIGHT).collect::<()>().await;
}

/// Gives every file its first content.
async fn begin(client: &Client, known: &Known) {
    for file in 0..FILES {
        let number = known.next.fetch_add(1, Ordering::Relaxed) + 1;
        let options = WriteFile::default();
        client.write_file(&id(), path(file), &options, content(number)).await.unwrap();
        known.acknowledged[file].store(number, Ordering::Relaxed);
    }
}

/// Starts writing and returns when a part of the round's writes is done: another part each round.
async fn in_the_middle(
    client: Client,
    known: &Arc<Known>,
    round: usize,
) -> tokio::task::JoinHandle<()> {
    let begin = known.done.load(Ordering::Relaxed);
    let writing = tokio::spawn(write(client, Arc::clone(known)));
    let part = (WRITES * (round + 1) / (ROUNDS + 1)) as u64;
    loop {
        // Looked at before the count, which is whole when they have ended.
        let has_ended = writing.is_finished();
        if known.done.load(Ordering::Relaxed) >= begin + part {
            return writing;
        }
        assert!(!has_ended, "the writes ended before the kill");
        // No event tells how far others have come.
        tokio::task::yield_now().await;
    }
}

async fn check(client: &Client, known: &Known) {
    for (file, acknowledged) in known.acknowledged.iter().enumerate() {
        let read = client.read_file(&id(), path(file)).await.unwrap();
        let found = number(&read);
        let least = acknowledged.load(Ordering::Relaxed);
        let most = known.next.load(Ordering::Relaxed);
        assert!(
            found.is_some_and(|number| (least..=most).contains(&number)),
            "file {file} holds {} bytes, {found:?}, after {least} was acknowledged",
            read.len()
        );
    }
}

/// Names that are there beside the files.
async fn leftovers(server: &Server) -> usize {
    let count = server.shell("s", "ls -A d | grep -vcE '^[0-9]+$' || true").await;
    count.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_during_writes_leaves_each_file_whole() {
    let server = server();
    let known = Arc::new(Known::default());
    let client = server.client();
    begin(&server.client(), &known).await;
    for round in 0..ROUNDS {
        let writing = in_the_middle(client.clone(), &known, round).await;
        kill(server.agent_pid());
        writing.await.unwrap();
        check(&client, &known).await;
        assert!(leftovers(&server).await <= IN_FLIGHT * (round + 1));
    }
    assert_eq!(known.done.load(Ordering::Relaxed), (ROUNDS * (WRITES / FILES) * FILES) as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_killed_during_writes_leaves_each_file_whole_and_nothing_else() {
    let mut server = server();
    let known = Arc::new(Known::default());
    begin(&server.client(), &known).await;
    for round in 0..ROUNDS {
        let writing = in_the_middle(server.client(), &known, round).await;
        server.kill();
        writing.await.unwrap();
        server.restart();
        check(&server.client(), &known).await;
        // The agent sees its connections end and tidies up.
        let tidy = "for i in $(seq 6000); do ls -A d | grep -qvE '^[0-9]+$' || exit 0; sleep 0.01; done; ls -A d; exit 1";
        server.shell("s", tidy).await;
    }
    assert_eq!(known.done.load(Ordering::Relaxed), (ROUNDS * (WRITES / FILES) * FILES) as u64);
}
