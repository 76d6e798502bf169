//! Large and deep trees.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, also in its helper functions")]

use std::collections::BTreeSet;

use api::{
    error::ErrorCode,
    file::{DeleteFile, FileEntry, ListFiles, MoveFile},
    id::SandboxId,
};
use testkit::client::{Client, ClientError};

use crate::server;

fn id() -> SandboxId {
    "s".parse().unwrap()
}

/// All pages of a listing; `between` runs after each but the last. After every other page another list
/// is asked for, so that the next one has only its cursor to go by.
async fn pages(
    client: &Client,
    mut query: ListFiles,
    mut between: impl AsyncFnMut(&[FileEntry]),
) -> Vec<FileEntry> {
    let (mut entries, mut number) = (Vec::new(), 0);
    loop {
        let page = client.list_files(&id(), &query).await.unwrap();
        entries.extend(page.entries.iter().cloned());
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            return entries;
        }
        between(&page.entries).await;
        number += 1;
        if number % 2 == 0 {
            let other =
                ListFiles { path: "/usr".to_owned(), limit: Some(1), ..ListFiles::default() };
            assert!(client.list_files(&id(), &other).await.unwrap().next_cursor.is_some());
        }
    }
}

fn query(path: &str, limit: usize) -> ListFiles {
    ListFiles {
        path: path.to_owned(),
        hidden: true,
        recursive: true,
        limit: Some(limit),
        ..ListFiles::default()
    }
}

#[tokio::test]
async fn pages_stay_together_while_the_directory_changes() {
    let server = server();
    let client = server.client();
    server.shell("s", "mkdir d; cd d; seq 1 1000 | sed 's/^/stays-/' | xargs touch; seq 1 1000 | sed 's/^/goes-/' | xargs touch").await;
    let mut round = 0;

    // Each page's last entry may be among what goes.
    let seen = pages(&client, query("d", 50), async |_page| {
        round += 1;
        let change = format!(
            "cd d; seq {0} {1} | sed 's/^/goes-/' | xargs rm -f; touch new-{0}",
            round * 20,
            round * 20 + 19
        );
        server.shell("s", &change).await;
    })
    .await;

    let stays: Vec<&str> =
        seen.iter().map(|entry| &*entry.name).filter(|name| name.starts_with("stays-")).collect();
    assert_eq!(stays.iter().collect::<BTreeSet<_>>().len(), 1000);
}

#[tokio::test]
async fn a_list_of_what_is_deleted_page_by_page_misses_nothing() {
    let server = server();
    let client = server.client();
    // In a directory that image and sandbox have in common, and in one of the sandbox's own.
    server.shell("s", "mkdir own; cd own; seq 1 1500 | xargs touch; cd /etc; seq 1 1500 | sed 's/^/x-/' | xargs touch").await;
    for (dir, is_ours) in [("/workspace/own", ""), ("/etc", "x-")] {
        let gone =
            pages(&client, ListFiles { recursive: false, ..query(dir, 100) }, async |page| {
                let ours = page.iter().filter(|entry| entry.name.starts_with(is_ours));
                let names: Vec<&str> = ours.map(|entry| &*entry.name).collect();
                server.shell("s", &format!("cd {dir}; rm -f {}", names.join(" "))).await;
            })
            .await;
        let names: BTreeSet<_> =
            gone.iter().filter(|entry| entry.name.starts_with(is_ours)).map(|e| &e.name).collect();
        assert_eq!(names.len(), 1500, "{dir}");
    }
}

#[tokio::test]
async fn a_tree_deeper_than_any_path_is_listed_moved_and_deleted() {
    const DEPTH: usize = 20_000;
    let server = server();
    let client = server.client();
    let make = format!(
        "import os\nos.mkdir('t'); os.chdir('t')\nfor i in range({DEPTH}):\n  os.mkdir('d'); os.chdir('d')"
    );
    server.shell("s", &format!("python3 -c \"{make}\"")).await;

    let listed = pages(&client, query("t", 1000), async |_page| {}).await;

    // As deep as paths go, and the deepest says that there is more.
    let deepest = listed.last().unwrap();
    assert!(listed.len() > 1800 && deepest.path.len() > 3800, "{}", listed.len());
    assert!(deepest.unlisted && listed.iter().filter(|entry| entry.unlisted).count() == 1);
    assert_eq!(listed.iter().map(|entry| &entry.path).collect::<BTreeSet<_>>().len(), listed.len());

    let to = |to: &str| MoveFile { from: "t".into(), to: to.into(), ..MoveFile::default() };
    let refused = client.move_file(&id(), &to("/dev/shm/t")).await.unwrap_err();
    let ClientError::Api { error, .. } = refused else { panic!("{refused}") };
    assert_eq!(error.code, ErrorCode::NameTooLong, "{error}");
    client.move_file(&id(), &to("t2")).await.unwrap();
    let options = DeleteFile { recursive: true, session: None };
    client.delete_file(&id(), "/workspace/t2", &options).await.unwrap();
    let gone = "for i in $(seq 6000); do [ -z \"$(ls -A /dev/shm)\" ] && break; sleep 0.01; done; ls -A . /dev/shm | xargs";
    assert_eq!(server.shell("s", gone).await, ".: /dev/shm:\n");
}

#[tokio::test]
async fn a_deep_tree_is_copied_exactly() {
    let server = server();
    let client = server.client();
    // Deeper than directories are held open.
    let make = "import os\nos.mkdir('t'); os.chdir('t')\nfor i in range(300):\n  open('f%d' % i,'w').write(str(i)); os.mkdir('d', 0o700 + i % 64); os.chdir('d')";
    server.shell("s", &format!("umask 0; python3 -c \"{make}\"")).await;
    let request = api::file::CopyFile {
        from: "t".into(),
        to: "t2".into(),
        recursive: true,
        ..Default::default()
    };
    client.copy_file(&id(), &request).await.unwrap();
    let modes = "find . -printf '%m %P\\n' | sort | sha256sum";
    server
        .shell("s", &format!("diff -r t t2; [ \"$(cd t; {modes})\" = \"$(cd t2; {modes})\" ]"))
        .await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_read_is_marked() {
    let server = server();
    let client = server.client();
    server.shell("s", "true").await;
    let listed = pages(&client, query("/proc", 1000), async |_page| {}).await;
    let agent = listed.iter().find(|entry| entry.path == "/proc/1").unwrap();
    assert!(agent.unlisted);
    assert!(!listed.iter().any(|entry| entry.path.starts_with("/proc/1/")));
}

#[tokio::test]
async fn a_million_names_come_in_pages_and_bounded_memory() {
    const NAMES: usize = 1_000_000;
    let server = server();
    let client = server.client();
    // One file of a million names, in memory: it is the names that count, and they go at once.
    let make = format!(
        "import os\nos.mkdir('/dev/shm/d'); os.chdir('/dev/shm/d'); open('0', 'w').close()\n\
         for i in range(1, {NAMES}): os.link('0', str(i))"
    );
    server.shell("s", &format!("python3 -c \"{make}\"")).await;
    let memory = async || {
        let status = server.shell("s", "grep RssAnon /proc/1/status").await;
        status.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).unwrap()
    };
    let before = memory().await;

    let mut seen = vec![false; NAMES];
    let mut query = ListFiles { recursive: false, ..query("/dev/shm/d", 1000) };
    loop {
        let page = client.list_files(&id(), &query).await.unwrap();
        for entry in &page.entries {
            let number: usize = entry.name.parse().unwrap();
            assert!(!std::mem::replace(&mut seen[number], true), "{number} came twice");
        }
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }

    assert!(seen.iter().all(|was_seen| *was_seen));
    let grown = memory().await.saturating_sub(before);
    assert!(grown < 4 * 1024, "the agent has taken {grown} KiB more");
}
