use std::{path::PathBuf, process::Command};

use api::network::{AllowList, NetworkPolicy};

use super::*;
use crate::{event::Cause, settings::tests::config};

pub(crate) fn record(id: &str, jail: u64) -> SandboxRecord {
    SandboxRecord {
        id: id.parse().unwrap(),
        jail: JailId(jail),
        slot: u32::try_from(jail).unwrap(),
        settings: Settings::of(
            api::sandbox::CreateSandbox {
                env: [("A".to_owned(), "ä'\"\n".to_owned())].into(),
                ..Default::default()
            },
            &config("/".as_ref()),
        )
        .unwrap(),
        image_digest: "host".to_owned(),
        created_at_ms: 5,
        files: Files { volume: JailId(jail), inherited_bytes: 0 },
        origin: None,
        phase: Phase::Creating,
    }
}

fn agent() -> AgentIdentity {
    AgentIdentity { pid: 10, start_time: u64::from(u32::MAX) + 1, boot_id: "b".to_owned() }
}

fn failure() -> Failure {
    Failure {
        code: api::error::ErrorCode::SandboxFailed,
        step: Some("mount".to_owned()),
        reason: "no".to_owned(),
    }
}

async fn create(records: &Records, record: &SandboxRecord) -> Result<(), RecordError> {
    records.write(Change::Create(Box::new(record.clone()))).await
}

fn close(records: Records, thread: std::thread::JoinHandle<()>) {
    drop(records);
    thread.join().unwrap();
}

#[tokio::test]
async fn every_phase_reads_as_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (records, loaded, thread) = Records::open(&path).unwrap();
    assert_eq!(loaded, Loaded { next_jail: 1, ..Loaded::default() });
    let phases = [
        Phase::Creating,
        Phase::Starting,
        Phase::Running(agent()),
        Phase::Stopped,
        Phase::Failed(failure()),
    ];
    let mut expected = Vec::new();
    for (number, phase) in (1..).zip(phases) {
        let mut one = record(&format!("s{number}"), number);
        create(&records, &one).await.unwrap();
        records.write(Change::Phase(JailId(number), phase.clone())).await.unwrap();
        one.phase = phase;
        expected.push(one);
    }
    close(records, thread);
    let (_records, loaded, _thread) = Records::open(&path).unwrap();
    assert_eq!(loaded, Loaded { sandboxes: expected, next_jail: 6, ..Loaded::default() });
}

#[tokio::test]
async fn changed_settings_read_as_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (records, _, thread) = Records::open(&path).unwrap();
    let mut one = record("a", 1);
    create(&records, &one).await.unwrap();
    let rules = ["*.example.com:443", "203.0.113.0/24:53/udp"];
    let allow = rules.map(|rule| rule.parse().unwrap()).into();
    one.settings.network = NetworkPolicy::Listed(AllowList { allow });
    one.settings.network_revision = 7;
    let change = |jail| Change::Settings(JailId(jail), Box::new(one.settings.clone()));
    records.write(change(1)).await.unwrap();
    // Of a sandbox that is gone.
    records.write(change(2)).await.unwrap();
    close(records, thread);
    let (_records, loaded, _thread) = Records::open(&path).unwrap();
    assert_eq!(loaded.sandboxes, [one]);
}

#[tokio::test]
async fn settings_without_a_revision_are_those_of_an_older_program() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (records, _, thread) = Records::open(&path).unwrap();
    create(&records, &record("a", 1)).await.unwrap();
    close(records, thread);
    let database = rusqlite::Connection::open(&path).unwrap();
    let strip = "UPDATE sandbox SET settings = json_remove(settings, '$.network_revision')";
    assert_eq!(database.execute(strip, []).unwrap(), 1);
    drop(database);
    let (_records, loaded, _thread) = Records::open(&path).unwrap();
    assert_eq!(loaded.sandboxes, [record("a", 1)]);
}

#[tokio::test]
async fn a_burial_takes_the_place_of_a_sandbox_and_its_number_is_not_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (records, _, thread) = Records::open(&path).unwrap();
    create(&records, &record("a", 7)).await.unwrap();
    records.write(Change::Bury(JailId(7))).await.unwrap();
    records.write(Change::Bury(JailId(7))).await.unwrap();
    // A late word about a sandbox that is gone does not bring it back.
    records.submit(Change::Phase(JailId(7), Phase::Running(agent()))).await;
    close(records, thread);

    let (records, loaded, thread) = Records::open(&path).unwrap();
    assert_eq!(loaded, Loaded { burials: vec![JailId(7)], next_jail: 8, ..Loaded::default() });
    records.write(Change::Buried(JailId(7))).await.unwrap();
    close(records, thread);
    let (_records, loaded, _thread) = Records::open(&path).unwrap();
    assert_eq!(loaded, Loaded { next_jail: 8, ..Loaded::default() });
}

#[tokio::test]
async fn a_refused_change_does_not_take_its_group_down() {
    let dir = tempfile::tempdir().unwrap();
    let (records, _, thread) = Records::open(&dir.path().join("db")).unwrap();
    let records_of = [record("a", 1), record("a", 2), record("b", 1), record("c", 3)];
    let writes = records_of.iter().map(|one| create(&records, one));
    let results = futures_util::future::join_all(writes).await;
    let ok: Vec<_> = results.iter().map(Result::is_ok).collect();
    assert_eq!(ok, [true, false, false, true]);
    close(records, thread);
    let (_records, loaded, _thread) = Records::open(&dir.path().join("db")).unwrap();
    assert_eq!(loaded.sandboxes.len(), 2);
}

#[tokio::test]
async fn what_was_acknowledged_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (records, _, _thread) = Records::open(&path).unwrap();
    create(&records, &record("a", 1)).await.unwrap();
    // As after kill -9: the files as they are now, without the writer's farewell.
    let copy = dir.path().join("copy");
    std::fs::copy(&path, &copy).unwrap();
    std::fs::copy(dir.path().join("db-wal"), dir.path().join("copy-wal")).unwrap();
    let (_records, loaded, _thread) = Records::open(&copy).unwrap();
    assert_eq!(loaded.sandboxes, [record("a", 1)]);
}

fn port(number: u16, generation: u64) -> PortRecord {
    PortRecord {
        port: PortNumber::new(number).unwrap(),
        name: Some("ä".to_owned()),
        token: "my_token".parse().ok(),
        generation,
        is_public: false,
        exposed_at_ms: (generation % 2 == 1).then_some(5),
    }
}

#[tokio::test]
async fn ports_read_as_last_changed_and_go_with_their_sandbox() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (records, _, thread) = Records::open(&path).unwrap();
    let set =
        |jail: u64, port: PortRecord| records.write(Change::Port(JailId(jail), Box::new(port)));
    create(&records, &record("a", 1)).await.unwrap();
    create(&records, &record("b", 2)).await.unwrap();
    for generation in [1, 2, 3] {
        set(1, port(8080, generation)).await.unwrap();
    }
    set(1, PortRecord { token: None, name: None, ..port(9000, 1) }).await.unwrap();
    set(2, port(8080, 2)).await.unwrap();
    set(3, port(8080, 1)).await.unwrap();
    records.write(Change::Bury(JailId(2))).await.unwrap();
    // A late word does not bring it back.
    set(2, port(8080, 3)).await.unwrap();
    close(records, thread);

    let (records, loaded, thread) = Records::open(&path).unwrap();
    let second = PortRecord { token: None, name: None, ..port(9000, 1) };
    let expected = [(JailId(1), vec![port(8080, 3), second])];
    assert_eq!(loaded.ports, expected.into());
    close(records, thread);
}

/// A file as the first version of the schema left it, with one sandbox and one burial.
fn first_version(path: &std::path::Path) {
    let database = rusqlite::Connection::open(path).unwrap();
    database.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    database.execute_batch(schema::TABLES).unwrap();
    let one = record("a", 7);
    let settings = serde_json::to_string(&one.settings).unwrap();
    database
        .execute(
            "INSERT INTO sandbox (id, jail, slot, settings, image_digest, created_at_ms, phase)
             VALUES ('a', 7, 7, ?1, 'host', 5, 'creating')",
            [settings],
        )
        .unwrap();
    database
        .execute_batch("INSERT INTO burial VALUES (9); UPDATE last_jail SET number = 9")
        .unwrap();
    database.pragma_update(None, "user_version", 1).unwrap();
    database.pragma_update(None, "application_id", 0x5342_4152).unwrap();
}

#[tokio::test]
async fn a_file_of_the_first_version_is_brought_up_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    first_version(&path);

    let (records, loaded, thread) = Records::open(&path).unwrap();
    let kept = Loaded {
        sandboxes: vec![record("a", 7)],
        burials: vec![JailId(9)],
        next_jail: 10,
        ..Loaded::default()
    };
    assert_eq!(loaded, kept);
    let key = key("ci");
    records.write(Change::CreateKey(Box::new(key.clone()))).await.unwrap();
    close(records, thread);

    // The second time there is nothing to do.
    let (records, loaded, thread) = Records::open(&path).unwrap();
    assert_eq!(loaded, Loaded { keys: vec![key], ..kept });
    close(records, thread);
    let database = rusqlite::Connection::open(&path).unwrap();
    let version: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, schema::VERSION);
}

#[test]
fn a_file_that_cannot_be_brought_up_is_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    first_version(&path);
    // In the way of the third version's table: the second's goes again with it.
    let change = |text: &str| -> i64 {
        let database = rusqlite::Connection::open(&path).unwrap();
        database.execute_batch(text).unwrap();
        let version = database.pragma_query_value(None, "user_version", |row| row.get(0));
        version.unwrap()
    };
    assert_eq!(change("CREATE TABLE key (x)"), 1);

    let error = Records::open(&path).unwrap_err();

    assert!(format!("{error:?}").contains("already exists"), "{error:?}");
    assert_eq!(change("DROP TABLE key"), 1);
    assert_eq!(Records::open(&path).unwrap().1.sandboxes, [record("a", 7)]);
}

#[tokio::test]
async fn a_full_disk_does_not_keep_a_file_of_the_first_version_from_being_brought_up() {
    let dir = tempfile::tempdir().unwrap();
    let disk = TinyDisk::mount(dir.path().join("disk"));
    let path = disk.0.join("db");
    first_version(&path);
    Reserve::beside(&path).hold().unwrap();
    disk.fill();

    let (records, loaded, thread) = Records::open(&path).unwrap();

    assert_eq!(loaded.sandboxes, [record("a", 7)]);
    close(records, thread);
}

fn key(name: &str) -> KeyRecord {
    KeyRecord {
        name: name.parse().unwrap(),
        scope: KeyScope::Sandboxes { prefix: "ci-".parse().unwrap(), max_sandboxes: Some(3) },
        digest: Digest::of(name.as_bytes()),
        created_at_ms: 5,
        expires_at_ms: None,
        used_at_ms: None,
    }
}

#[tokio::test]
async fn keys_read_as_written_and_go_when_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (records, _, thread) = Records::open(&path).unwrap();
    let admin = KeyRecord {
        scope: KeyScope::Admin {},
        expires_at_ms: Some(i64::MAX),
        used_at_ms: Some(3),
        ..key("admin")
    };
    for one in [&admin, &key("ci"), &key("gone")] {
        records.write(Change::CreateKey(Box::new(one.clone()))).await.unwrap();
    }
    // A name and a digest stand for one key.
    let twin = KeyRecord { digest: Digest::of(b"other"), ..key("ci") };
    let double = KeyRecord { digest: Digest::of(b"ci"), ..key("ci2") };
    for one in [twin, double] {
        records.write(Change::CreateKey(Box::new(one))).await.unwrap_err();
    }
    for _ in 0..2 {
        records.write(Change::RemoveKey("gone".parse().unwrap())).await.unwrap();
    }
    records.note(Change::KeyUsed("ci".parse().unwrap(), 8));
    records.note(Change::KeyUsed("gone".parse().unwrap(), 8));
    close(records, thread);

    let (_records, loaded, _thread) = Records::open(&path).unwrap();
    assert_eq!(loaded.keys, [admin, KeyRecord { used_at_ms: Some(8), ..key("ci") }]);
}

#[tokio::test]
async fn a_key_whose_scope_makes_no_sense_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (records, _, thread) = Records::open(&path).unwrap();
    records.write(Change::CreateKey(Box::new(key("ci")))).await.unwrap();
    close(records, thread);
    let database = rusqlite::Connection::open(&path).unwrap();
    let update = |text: &str| database.execute(&format!("UPDATE key SET {text}"), []);
    for bad in
        ["scope = 'admin'", "prefix = NULL", "scope = 'all', prefix = NULL", "digest = x'00'"]
    {
        assert!(update(bad).is_err(), "{bad}");
    }
    update("prefix = ''").unwrap();
    drop(database);
    let error = Records::open(&path).unwrap_err().to_string();
    assert!(error.contains("key ci"), "{error}");
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (records, _, thread) = Records::open(&path).unwrap();
    close(records, thread);
    let set = |version: i64| {
        let database = rusqlite::Connection::open(&path).unwrap();
        database.pragma_update(None, "user_version", version).unwrap();
    };
    set(schema::VERSION + 1);
    let error = Records::open(&path).unwrap_err();
    assert!(matches!(error, RecordError::Newer { found, known } if found == known + 1), "{error}");
    set(schema::VERSION);
    assert!(Records::open(&path).is_ok());
}

#[test]
fn a_damaged_or_foreign_file_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    for content in [vec![b'x'; 100], b"SQLite format 3\0".repeat(512)] {
        std::fs::write(&path, &content).unwrap();
        let error = Records::open(&path).unwrap_err();
        assert!(matches!(error, RecordError::Damaged(_)), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), content);
        std::fs::remove_file(&path).unwrap();
    }
    let foreign = rusqlite::Connection::open(&path).unwrap();
    foreign.execute_batch("CREATE TABLE t (x)").unwrap();
    drop(foreign);
    assert!(matches!(Records::open(&path).unwrap_err(), RecordError::Damaged(None)));
}

#[tokio::test]
async fn a_row_that_makes_no_sense_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (records, _, thread) = Records::open(&path).unwrap();
    create(&records, &record("a", 1)).await.unwrap();
    close(records, thread);
    let database = rusqlite::Connection::open(&path).unwrap();
    database.execute("UPDATE sandbox SET settings = '{}'", []).unwrap();
    drop(database);
    let error = Records::open(&path).unwrap_err().to_string();
    assert!(error.contains("sandbox a"), "{error}");
}

/// A file system of 1 MiB, unmounted at the end.
struct TinyDisk(PathBuf);

impl TinyDisk {
    fn mount(on: PathBuf) -> Self {
        std::fs::create_dir(&on).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tiny"])
            .arg(&on)
            .status()
            .unwrap();
        assert!(mount.success(), "needs root");
        Self(on)
    }

    /// Uses up every byte.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        let error = std::io::copy(&mut std::io::repeat(0), &mut file).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        path
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let unmount = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmount.is_ok_and(|status| status.success()));
    }
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_acknowledged_that_is_not_stored_and_destroying_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let disk = TinyDisk::mount(dir.path().join("disk"));
    let path = disk.0.join("db");
    let (records, _, thread) = Records::open(&path).unwrap();
    records.write(Change::CreateKey(Box::new(key("lost")))).await.unwrap();
    let mut stored = Vec::new();
    for one in [record("first", 1), record("second", 2), record("third", 3)] {
        create(&records, &one).await.unwrap();
        stored.push(one);
    }
    let filler = disk.fill();
    let mut number = 4;
    for _ in 0..3 {
        // As many new ones as there is room for, then room has to be made.
        let refusal = loop {
            let mut one = record(&format!("s{number}"), number);
            one.settings.env.insert("B".to_owned(), "x".repeat(8 * 1024));
            match create(&records, &one).await {
                Ok(()) => stored.push(one),
                Err(error) => break error,
            }
            number += 1;
            assert!(number < 1000, "the disk never fills up");
        };
        assert!(matches!(refusal, RecordError::Full(_)), "{refusal}");
        let gone = stored.pop().unwrap();
        records.write(Change::Bury(gone.jail)).await.unwrap();
        records.write(Change::Buried(gone.jail)).await.unwrap();
        // A key that was lost can always be removed.
        records.write(Change::RemoveKey("lost".parse().unwrap())).await.unwrap();
    }
    std::fs::remove_file(filler).unwrap();
    create(&records, &record("after", 2000)).await.unwrap();
    stored.push(record("after", 2000));
    close(records, thread);

    let (records, loaded, thread) = Records::open(&path).unwrap();
    assert_eq!((loaded.sandboxes, loaded.keys), (stored, vec![]));
    close(records, thread);
}

#[tokio::test]
async fn a_full_disk_does_not_keep_a_node_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let disk = TinyDisk::mount(dir.path().join("disk"));
    let path = disk.0.join("db");
    let (records, _, thread) = Records::open(&path).unwrap();
    create(&records, &record("a", 1)).await.unwrap();
    close(records, thread);
    disk.fill();
    let (records, loaded, thread) = Records::open(&path).unwrap();
    assert_eq!(loaded.sandboxes, [record("a", 1)]);
    close(records, thread);
}

fn checkpoint(id: &str, volume: u64) -> CheckpointRecord {
    let id = id.parse().unwrap();
    CheckpointRecord { id, volume: JailId(volume), created_at_ms: 9, size_bytes: 1 << 40 }
}

#[tokio::test]
async fn a_volume_on_record_is_a_sandboxs_a_checkpoints_or_to_be_buried() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (records, _, thread) = Records::open(&path).unwrap();
    let one = record("one", 1);
    create(&records, &one).await.unwrap();
    create(&records, &record("two", 2)).await.unwrap();
    let add = |jail, id, volume| Change::Checkpoint(JailId(jail), Box::new(checkpoint(id, volume)));
    for volume in 10..16 {
        records.write(Change::Bury(JailId(volume))).await.unwrap();
    }
    // Two of the first sandbox, of which one goes; one of the second, which goes with it; one of a
    // sandbox that is not there.
    records.write(add(1, "a", 10)).await.unwrap();
    records.write(add(1, "b", 11)).await.unwrap();
    records.write(Change::Bury(JailId(11))).await.unwrap();
    records.write(add(2, "a", 12)).await.unwrap();
    records
        .write(Change::Files(JailId(2), Files { volume: JailId(13), inherited_bytes: 1 }))
        .await
        .unwrap();
    records.write(Change::Bury(JailId(2))).await.unwrap();
    let cursor = records.events(None).await.unwrap().newest;
    let late = add(2, "late", 14).telling(created(&record("two", 2)));
    records.write(late).await.unwrap();
    assert_eq!(records.events(None).await.unwrap().newest, cursor, "nothing is told of it");
    records
        .write(Change::Files(JailId(2), Files { volume: JailId(14), inherited_bytes: 1 }))
        .await
        .unwrap();
    // The first is restored: its own volume goes.
    let files = Files { volume: JailId(15), inherited_bytes: u64::from(u32::MAX) };
    records.write(Change::Files(JailId(1), files)).await.unwrap();
    close(records, thread);

    let (_records, loaded, _thread) = Records::open(&path).unwrap();
    assert_eq!(loaded.sandboxes, [SandboxRecord { files, ..one }]);
    assert_eq!(loaded.checkpoints, [(JailId(1), vec![checkpoint("a", 10)])].into());
    assert_eq!(loaded.burials, [1, 2, 11, 12, 13, 14].map(JailId));
    assert_eq!(loaded.next_jail, 16);
}

#[tokio::test]
async fn a_fork_has_an_origin_until_it_has_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (records, _, thread) = Records::open(&path).unwrap();
    let origin = Some(Origin { volume: JailId(7), size_bytes: 5 });
    let fork = SandboxRecord { origin, ..record("fork", 8) };
    create(&records, &fork).await.unwrap();
    close(records, thread);
    let (records, loaded, thread) = Records::open(&path).unwrap();
    assert_eq!(loaded.sandboxes, std::slice::from_ref(&fork));
    let files = Files { volume: JailId(8), inherited_bytes: 5 };
    records.write(Change::Files(JailId(8), files)).await.unwrap();
    close(records, thread);
    let (_records, loaded, _thread) = Records::open(&path).unwrap();
    assert_eq!(loaded.sandboxes, [SandboxRecord { files, origin: None, ..fork }]);
    assert_eq!(loaded.burials, []);
}

#[tokio::test]
async fn what_is_somebodys_on_record_is_not_buried_as_nobodys() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (records, _, thread) = Records::open(&path).unwrap();
    create(&records, &record("a", 1)).await.unwrap();
    let files = Files { volume: JailId(2), inherited_bytes: 0 };
    records.write(Change::Files(JailId(1), files)).await.unwrap();
    records.write(Change::Buried(JailId(1))).await.unwrap();
    let checkpoint = CheckpointRecord {
        id: "c".parse().unwrap(),
        volume: JailId(3),
        created_at_ms: 0,
        size_bytes: 0,
    };
    records.write(Change::Checkpoint(JailId(1), Box::new(checkpoint))).await.unwrap();

    for number in 1..=4 {
        let written = records.write(Change::Remains(JailId(number))).await;
        let is_refused =
            matches!(written, Err(RecordError::Owned(JailId(refused))) if refused == number);
        assert_eq!(is_refused, number < 4, "{number}: {written:?}");
    }

    assert_eq!(records.burials().await.unwrap(), [JailId(4)]);
    close(records, thread);
}

fn created(record: &SandboxRecord) -> Draft {
    let cause = Cause::of(api::event::EventCause::Recovery);
    Draft::of(&record.id, &record.settings, api::event::EventKind::Created, cause)
}

#[tokio::test]
async fn an_event_stands_and_falls_with_its_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (records, _, thread) = Records::open(&path).unwrap();
    let mut live = records.follow();
    // The second has the jail of the first.
    let writes = [record("a", 1), record("b", 1), record("c", 2)].map(|one| {
        let told = created(&one);
        records.write(Change::Create(Box::new(one)).telling(told))
    });
    let results = futures_util::future::join_all(writes).await;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    let chapter = records.events(None).await.unwrap();
    let told: Vec<_> =
        chapter.events.iter().map(|event| event.sandbox_id.as_ref().unwrap().as_str()).collect();
    assert_eq!(told, ["a", "c"]);
    for event in &chapter.events {
        assert_eq!(*live.recv().await.unwrap(), *event);
    }
    close(records, thread);

    let (records, _, _thread) = Records::open(&path).unwrap();
    assert_eq!(records.events(None).await.unwrap(), chapter);
    assert_eq!(records.events(Some(1)).await.unwrap().events, chapter.events[1..]);
}
