//! Contents: in JSON, by condition, at the end of a file, many at once.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panic, also in its helper functions"
)]

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
};

use api::{
    error::ErrorCode,
    exec::Encoding,
    file::{FileResult, NewFile, ReadEncoding, ReadFiles, WriteFile, WriteFiles},
    id::SandboxId,
    limit::{BATCH_FILES, JSON_CONTENT_BYTES},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{StreamExt, stream};
use serde_json::json;
use sha2::{Digest, Sha256};
use testkit::{
    client::{Client, ClientError},
    reqwest::{Method, StatusCode, header},
};

use super::FILES;
use crate::server;

fn id() -> SandboxId {
    "s".parse().unwrap()
}

/// The code of a refusal.
fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> ErrorCode {
    match result.unwrap_err() {
        ClientError::Api { error, .. } => error.code,
        other => panic!("{other}"),
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

async fn write(client: &Client, path: &str, content: impl Into<Vec<u8>>) -> String {
    let options = WriteFile::default();
    let entry = client.write_file(&id(), path, &options, content.into()).await.unwrap();
    entry.etag.expect("a written file has a tag")
}

async fn read(client: &Client, path: &str) -> String {
    String::from_utf8(client.read_file(&id(), path).await.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn text_comes_as_text_and_everything_else_as_base64() {
    let server = server();
    let client = server.client();
    let auto = async |path: &str, content: &[u8]| {
        let path = format!("/workspace/{path}");
        write(&client, &path, content).await;
        let found = client.file_content(&id(), &path, ReadEncoding::Auto).await.unwrap();
        assert_eq!((found.size, found.mode), (content.len() as u64, 0o644), "{path}");
        assert_eq!(found.path, path);
        match found.encoding {
            Encoding::Utf8 => assert_eq!(found.content.as_bytes(), content, "{path}"),
            Encoding::Base64 => {
                assert_eq!(BASE64_STANDARD.decode(&found.content).unwrap(), content, "{path}");
            }
        }
        (found.mime_type, found.encoding, found.is_binary)
    };
    let text = |kind: &str| (kind.to_owned(), Encoding::Utf8, false);
    let binary = |kind: &str| (kind.to_owned(), Encoding::Base64, true);

    assert_eq!(auto("a.txt", "ä\u{0}\"\\\u{1b}\n".as_bytes()).await, text("text/plain"));
    assert_eq!(auto("a.json", b"{}").await, text("application/json"));
    assert_eq!(auto("Makefile", b"all:\n").await, text("text/plain"));
    assert_eq!(auto("empty", b"").await, text("text/plain"));
    assert_eq!(auto("a.png", b"text").await, binary("image/png"));
    assert_eq!(auto("picture", b"\x89PNG\r\n\x1a\n\0").await, binary("image/png"));
    assert_eq!(auto("zero", b"a\0b").await, binary("application/octet-stream"));
    // Text by its name that is none: nothing may be lost.
    assert_eq!(auto("latin1.txt", b"caf\xe9").await, binary("text/plain"));

    let utf8 = client.file_content(&id(), "/workspace/latin1.txt", ReadEncoding::Utf8).await;
    assert_eq!(utf8.unwrap().content, "caf\u{fffd}");
    let base64 = client.file_content(&id(), "/workspace/a.json", ReadEncoding::Base64).await;
    let base64 = base64.unwrap();
    assert_eq!((&*base64.content, base64.is_binary), ("e30=", false));
}

#[tokio::test]
async fn large_content_in_json_is_exact_wherever_it_is_cut() {
    let server = server();
    let client = server.client();
    // Two, three and four bytes a character, against pieces of any size.
    let text: String = "äö€😀x\n".chars().cycle().take(400_001).collect();
    write(&client, "/workspace/text", text.clone()).await;
    let found = client.file_content(&id(), "/workspace/text", ReadEncoding::Auto).await.unwrap();
    assert_eq!(found.encoding, Encoding::Utf8);
    assert!(found.content == text);

    let bytes: Vec<u8> = (0..=255).cycle().take(1_000_001).collect();
    write(&client, "/workspace/bytes", bytes.clone()).await;
    let found = client.file_content(&id(), "/workspace/bytes", ReadEncoding::Auto).await.unwrap();
    assert!(BASE64_STANDARD.decode(found.content).unwrap() == bytes);

    // One byte at the very end makes it binary.
    let almost = [text.as_bytes(), b"\xc3"].concat();
    write(&client, "/workspace/almost", almost.clone()).await;
    let found = client.file_content(&id(), "/workspace/almost", ReadEncoding::Auto).await.unwrap();
    assert!(found.is_binary && BASE64_STANDARD.decode(found.content).unwrap() == almost);
}

#[tokio::test]
async fn json_carries_32_mib_and_not_a_byte_more() {
    let server = server();
    let client = server.client();
    server
        .shell(
            "s",
            &format!(
                "truncate -s {JSON_CONTENT_BYTES} most; truncate -s {} more",
                JSON_CONTENT_BYTES + 1
            ),
        )
        .await;

    let most = client.file_content(&id(), "/workspace/most", ReadEncoding::Base64).await.unwrap();
    assert_eq!(BASE64_STANDARD.decode(most.content).unwrap().len() as u64, JSON_CONTENT_BYTES);
    let more = server.get(&format!("{FILES}/workspace/more?encoding=auto")).await;
    assert_eq!((more.status, more.code()), (413, "FILE_TOO_LARGE"));
    let details = &more.json["error"]["details"];
    assert_eq!(details["path"], "/workspace/more");
    assert_eq!(details["maxSize"], JSON_CONTENT_BYTES);
    assert_eq!(details["actualSize"], JSON_CONTENT_BYTES + 1);
    // The raw form has no limit.
    let raw =
        server.request(Method::HEAD, &format!("{FILES}/workspace/more")).send().await.unwrap();
    assert_eq!(raw.headers()["content-length"], (JSON_CONTENT_BYTES + 1).to_string());
    // Ranges are for GET alone.
    let head = server.request(Method::HEAD, &format!("{FILES}/workspace/more"));
    let whole = head.header("range", "bytes=0-9").send().await.unwrap();
    assert_eq!(whole.status(), 200);
    assert_eq!(whole.headers()["content-length"], (JSON_CONTENT_BYTES + 1).to_string());
}

#[tokio::test]
async fn a_content_that_is_known_is_not_sent_again() {
    let server = server();
    let path = format!("{FILES}/workspace/f.txt");
    server.put(&path, "0123456789").await;
    let get =
        |name: &'static str, value: String| server.request(Method::GET, &path).header(name, value);
    let first = server.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(first.headers()[header::CONTENT_TYPE], "text/plain");
    let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();

    let known = get("if-none-match", tag.clone()).send().await.unwrap();
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(known.headers()["etag"], *tag);
    assert_eq!(known.text().await.unwrap(), "");
    let part = get("if-range", tag.clone()).header("range", "bytes=2-3").send().await.unwrap();
    assert_eq!((part.status().as_u16(), &*part.text().await.unwrap()), (206, "23"));
    let stat = server.get(&format!("{FILES}:stat?path=f.txt")).await;
    assert_eq!(stat.json["etag"], tag);

    server.put(&path, "abcdefghij").await;

    let other = get("if-none-match", tag.clone()).send().await.unwrap();
    assert_eq!((other.status().as_u16(), &*other.text().await.unwrap()), (200, "abcdefghij"));
    let whole = get("if-range", tag.clone()).header("range", "bytes=2-3").send().await.unwrap();
    assert_eq!((whole.status().as_u16(), &*whole.text().await.unwrap()), (200, "abcdefghij"));
    let refused = testkit::answer(get("if-match", tag).send().await.unwrap()).await;
    assert_eq!((refused.status, refused.code()), (412, "PRECONDITION_FAILED"));
}

#[tokio::test]
async fn of_two_writers_who_read_the_same_one_is_refused() {
    let server = server();
    let client = server.client();
    let (id, path, options) = (id(), "/workspace/f", WriteFile::default());
    let mut tag = write(&client, path, "0").await;

    let lost = code(client.replace_file(&id, path, &options, "\"1-1-1\"", "lost").await);
    assert_eq!(lost, ErrorCode::PreconditionFailed);
    let missing = client.replace_file(&id, "/workspace/new/none", &options, &tag, "x").await;
    assert_eq!(code(missing), ErrorCode::PreconditionFailed);
    assert_eq!(server.shell("s", "ls").await, "f\n");

    // Some take its place, some add to it.
    let mut before = "0".to_owned();
    for round in 1..=100 {
        let racers = (0..4).map(|racer| {
            let (client, id, tag, before) =
                (client.clone(), id.clone(), tag.clone(), before.clone());
            async move {
                let new = format!("{round} {racer}");
                let append = racer % 2 == 0;
                let content = before.repeat(usize::from(append)) + &new;
                let options = WriteFile { append, ..WriteFile::default() };
                let written = client.replace_file(&id, path, &options, &tag, new).await;
                written.map(|entry| (entry.etag, content))
            }
        });
        let mut winners = futures_util::future::join_all(racers).await;
        winners.retain(Result::is_ok);
        assert_eq!(winners.len(), 1, "round {round}");
        let (next, content) = winners.remove(0).unwrap();
        assert_eq!(read(&client, path).await, content);
        (tag, before) = (next.unwrap(), content);
    }
}

#[tokio::test]
async fn appended_content_is_added_whole() {
    let server = server();
    let client = server.client();
    let (id, path) = (id(), "/workspace/log");
    let append = WriteFile { append: true, mode: Some("600".to_owned()), ..WriteFile::default() };
    let made = client.write_file(&id, path, &append, "one\n").await.unwrap();
    assert_eq!((made.size, made.mode), (4, 0o600));
    server.shell("s", "ln log other; exec 9< log").await;
    let added = client.write_file(&id, path, &append, "two\n").await.unwrap();
    assert_eq!(added.size, 8);
    assert_eq!(added.etag, client.stat_file(&id, &stat(path)).await.unwrap().etag);
    assert_eq!(server.shell("s", "cat other; ls -A").await, "one\ntwo\nlog\nother\n");

    // Large additions at the same time, each larger than any single write.
    let add = WriteFile { append: true, ..WriteFile::default() };
    let additions = (0..6_u8).map(|number| {
        let (client, id, add) = (client.clone(), id.clone(), add.clone());
        async move {
            let content = vec![b'a' + number; 1_500_000];
            client.write_file(&id, "/workspace/many", &add, content).await.unwrap()
        }
    });
    futures_util::future::join_all(additions).await;
    let runs = "tr -s a-f < many | wc -c; wc -c < many; ls -A | xargs";
    assert_eq!(server.shell("s", runs).await, "6\n9000000\nlog many other\n");

    // Through a link, and never into what is no file.
    server.shell("s", "ln -s log link; mkfifo pipe; mkdir dir").await;
    client.write_file(&id, "/workspace/link", &add, "three\n").await.unwrap();
    assert_eq!(server.shell("s", "tail -n 1 log; test -L link").await, "three\n");
    let pipe = client.write_file(&id, "/workspace/pipe", &add, "x").await;
    assert_eq!(code(pipe), ErrorCode::NotRegularFile);
    let dir = client.write_file(&id, "/workspace/dir", &add, "x").await;
    assert_eq!(code(dir), ErrorCode::IsDirectory);
}

fn stat(path: &str) -> api::file::StatFile {
    api::file::StatFile { path: path.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn what_does_not_fit_is_not_added_in_part() {
    let server = server();
    let client = server.client();
    server.shell("s", "mkdir -p /dev/shm/d; head -c 1000 /dev/zero > /dev/shm/d/f; df --output=avail -B1 /dev/shm").await;
    let free: usize = server
        .shell("s", "df --output=avail -B1 /dev/shm | tail -n 1")
        .await
        .trim()
        .parse()
        .unwrap();
    let add = WriteFile { append: true, ..WriteFile::default() };
    // Beside the file there is room for it, in the file there is not.
    let content = vec![1_u8; free * 3 / 4];

    let refused = client.write_file(&id(), "/dev/shm/d/f", &add, content).await;

    assert_eq!(code(refused), ErrorCode::NoSpace);
    assert_eq!(
        server.shell("s", "stat -c %s /dev/shm/d/f; ls -A /dev/shm/d; rm -r /dev/shm/d").await,
        "1000\nf\n"
    );
}

#[tokio::test]
async fn an_exclusive_write_makes_and_never_replaces() {
    let server = server();
    let client = server.client();
    let id = id();
    let exclusive = WriteFile { exclusive: true, ..WriteFile::default() };
    server.shell("s", "ln -s nowhere dangling; mkdir dir").await;
    for name in ["dangling", "dir"] {
        let refused = client.write_file(&id, format!("/workspace/{name}"), &exclusive, "x").await;
        assert_eq!(code(refused), ErrorCode::FileExists, "{name}");
    }
    for round in 0..40 {
        let path = format!("/workspace/new/{round}");
        let exclusive = WriteFile { append: round % 2 == 0, ..exclusive.clone() };
        let race = (0..4).map(|racer| client.write_file(&id, &path, &exclusive, racer.to_string()));
        let done = futures_util::future::join_all(race).await;
        let winner = done.iter().position(Result::is_ok).unwrap();
        let lost: Vec<_> = done.into_iter().filter(Result::is_err).map(code).collect();
        assert_eq!(lost, [ErrorCode::FileExists; 3]);
        assert_eq!(read(&client, &path).await, winner.to_string());
    }
    let header = server.request(Method::PUT, &format!("{FILES}/workspace/new/0"));
    let header = header.header("if-none-match", "*").body("x").send().await.unwrap();
    assert_eq!(testkit::answer(header).await.code(), "FILE_EXISTS");
    assert_eq!(
        server.shell("s", "ls -A | xargs; ls -A new | wc -l").await,
        "dangling dir new\n40\n"
    );
}

#[tokio::test]
async fn a_wrong_checksum_changes_nothing() {
    let server = server();
    let client = server.client();
    let (id, path) = (id(), "/workspace/f");
    write(&client, path, "old").await;
    let content = vec![7_u8; 700_000];
    let with = |bytes: &[u8], append| WriteFile {
        sha256: Some(sha256(bytes)),
        append,
        ..WriteFile::default()
    };
    for append in [false, true] {
        let wrong = client.write_file(&id, path, &with(b"other", append), content.clone()).await;
        assert_eq!(code(wrong), ErrorCode::ChecksumMismatch);
    }
    assert_eq!(server.shell("s", "cat f; ls -A").await, "oldf\n");
    let answer = server.put(&format!("{FILES}/workspace/f?sha256={}", sha256(b"x")), "y").await;
    assert_eq!((answer.status, answer.code()), (422, "CHECKSUM_MISMATCH"));
    assert_eq!(answer.json["error"]["details"]["sha256"], sha256(b"y"));
    assert_eq!(answer.json["error"]["details"]["path"], path);

    let upper = WriteFile { sha256: Some(sha256(&content).to_uppercase()), ..WriteFile::default() };
    client.write_file(&id, path, &upper, content.clone()).await.unwrap();
    assert_eq!(server.shell("s", "sha256sum < f").await, format!("{}  -\n", sha256(&content)));
    client.write_file(&id, path, &with(b"", false), "").await.unwrap();
    assert_eq!(read(&client, path).await, "");
}

#[tokio::test]
async fn many_files_are_written_and_read_at_once() {
    let server = server();
    let client = server.client();
    server.shell("s", "mkdir dir; printf '\\377' > binary").await;
    let file = |path: &str, content: &str| NewFile {
        path: path.to_owned(),
        content: content.to_owned(),
        ..NewFile::default()
    };
    let base64 =
        |path: &str, content: &str| NewFile { encoding: Encoding::Base64, ..file(path, content) };
    let files = vec![
        file("a/b/text", "hällo"),
        base64("bytes", "AP8="),
        base64("alphabet", "AP8*"),
        base64("padding", "AP8"),
        file("dir", "x"),
        NewFile { mode: Some("700".to_owned()), ..file("mode", "#!") },
        NewFile { mode: Some("4755".to_owned()), ..file("setuid", "") },
        NewFile { exclusive: true, ..file("a/b/text", "no") },
        NewFile { append: true, ..file("a/b/text", "!") },
        NewFile { sha256: Some(sha256(b"x")), ..file("sum", "y") },
        NewFile { if_match: Some("\"1\"".to_owned()), ..file("a/b/text", "no") },
        file("nul\0", ""),
        file("", ""),
    ];
    use ErrorCode as E;

    let results = client.write_files(&id(), &WriteFiles { files, session: None }).await.unwrap();
    let paths: Vec<String> = results.iter().map(shown).collect();
    let codes: Vec<_> =
        results.into_iter().map(|r| r.into_result().map(|e| e.size).map_err(|e| e.code)).collect();

    assert_eq!(
        codes,
        [
            Ok(6),
            Ok(2),
            Err(E::ValidationFailed),
            Err(E::ValidationFailed),
            Err(E::IsDirectory),
            Ok(2),
            Err(E::ValidationFailed),
            Err(E::FileExists),
            Ok(7),
            Err(E::ChecksumMismatch),
            Err(E::PreconditionFailed),
            Err(E::InvalidPath),
            Err(E::InvalidPath),
        ]
    );
    assert_eq!(paths[0], "/workspace/a/b/text");
    assert_eq!(paths[4], "dir", "a failed one is named as it was asked for");

    let paths = ["a/b/text", "binary", "/none", "dir", "mode", "", "bytes"].map(str::to_owned);
    let request = ReadFiles { paths: paths.to_vec(), encoding: ReadEncoding::Auto, session: None };
    let results = client.read_files(&id(), &request).await.unwrap();
    let found: Vec<_> = results
        .into_iter()
        .map(|r| r.into_result().map(|c| c.content).map_err(|e| e.code))
        .collect();
    assert_eq!(
        found,
        [
            Ok("hällo!".to_owned()),
            Ok("/w==".to_owned()),
            Err(E::FileNotFound),
            Err(E::IsDirectory),
            Ok("#!".to_owned()),
            Err(E::InvalidPath),
            Ok("AP8=".to_owned()),
        ]
    );
}

fn shown(result: &FileResult<api::file::FileEntry>) -> String {
    match result {
        FileResult::Done(entry) => entry.path.clone(),
        FileResult::Failed { path, .. } => path.clone(),
    }
}

#[tokio::test]
async fn a_batch_has_its_limits() {
    let server = server();
    let client = server.client();
    let names = |count: usize| (0..count).map(|n| format!("f{n}")).collect::<Vec<_>>();
    let new = |count| {
        let files = names(count).into_iter().map(|path| NewFile {
            content: path.clone(),
            path,
            ..NewFile::default()
        });
        WriteFiles { files: files.collect(), session: None }
    };
    let reading = |paths| ReadFiles { paths, encoding: ReadEncoding::Base64, session: None };
    for count in [0, BATCH_FILES + 1] {
        assert_eq!(code(client.write_files(&id(), &new(count)).await), ErrorCode::ValidationFailed);
        assert_eq!(
            code(client.read_files(&id(), &reading(names(count))).await),
            ErrorCode::ValidationFailed
        );
    }
    let written = client.write_files(&id(), &new(BATCH_FILES)).await.unwrap();
    assert!(written.iter().all(|result| matches!(result, FileResult::Done(_))));
    let read = client.read_files(&id(), &reading(names(BATCH_FILES))).await.unwrap();
    for (number, result) in read.into_iter().enumerate() {
        let content = BASE64_STANDARD.decode(result.into_result().unwrap().content).unwrap();
        assert_eq!(content, format!("f{number}").as_bytes());
    }

    // Together they carry 32 MiB of content: what does not fit is refused, what comes after may fit.
    let half = JSON_CONTENT_BYTES / 2;
    server
        .shell(
            "s",
            &format!("truncate -s {half} half; truncate -s {} more; truncate -s 1 one", half + 1),
        )
        .await;
    let paths = ["half", "more", "half", "one"].map(str::to_owned).to_vec();
    let sizes = client.read_files(&id(), &reading(paths)).await.unwrap();
    let sizes: Vec<_> =
        sizes.into_iter().map(|r| r.into_result().map(|c| c.size).map_err(|e| e.code)).collect();
    let too_large = ErrorCode::FileTooLarge;
    assert_eq!(sizes, [Ok(half), Err(too_large), Ok(half), Err(too_large)]);

    let large = json!({"files": [{"path": "f", "content": "x".repeat(9 << 20)}]});
    assert_eq!(server.post(&format!("{FILES}:write"), &large).await.code(), "PAYLOAD_TOO_LARGE");
}

#[tokio::test]
async fn paths_start_where_their_session_is() {
    let server = server();
    let cd = json!({"command": "mkdir -p d && cd d && echo here > f", "session": "s1"});
    assert_eq!(server.post("/v1/sandboxes/s/exec", &cd).await.json["exitCode"], 0);
    let found = server.get(&format!("{FILES}:stat?path=f&session=s1")).await;
    assert_eq!(found.json["path"], "/workspace/d/f", "{}", found.text);
    assert_eq!(server.get(&format!("{FILES}/f?session=s1")).await.text, "here\n");
    let bad = server.get(&format!("{FILES}/f?session=-")).await;
    assert_eq!(bad.code(), "VALIDATION_FAILED", "{}", bad.text);
    assert_eq!(server.get(&format!("{FILES}:stat?path=.")).await.json["path"], "/workspace/");
}

/// Bytes of a stream's chunk; no power of two, so that it is cut differently from what it passes.
const CHUNK_BYTES: usize = 1_000_003;

/// A content of `size` bytes in which each chunk is another.
fn pattern(size: u64) -> impl Iterator<Item = Vec<u8>> + Send {
    let chunk: Vec<u8> = (0..=250).cycle().take(CHUNK_BYTES).collect();
    let mut left = size;
    std::iter::from_fn(move || {
        let length = usize::try_from(left.min(CHUNK_BYTES as u64)).unwrap();
        let mut chunk = chunk.get(..length).filter(|chunk| !chunk.is_empty())?.to_vec();
        let number = left.to_le_bytes();
        let marked = length.min(number.len());
        chunk[..marked].copy_from_slice(&number[..marked]);
        left -= length as u64;
        Some(chunk)
    })
}

/// Uploads a content of `size` bytes and downloads it; true when both have one hash.
async fn comes_back(client: &Client, size: u64) -> bool {
    let sent = Arc::new(Mutex::new(Sha256::new()));
    let content = stream::iter(pattern(size).map({
        let sent = Arc::clone(&sent);
        move |chunk| {
            sent.lock().unwrap().update(&chunk);
            Ok(chunk.into())
        }
    }));
    let path = "/workspace/f";
    let written = client.write_file_stream(&id(), path, &WriteFile::default(), content).await;
    assert_eq!(written.unwrap().size, size);
    let mut received = Sha256::new();
    let mut content = client.read_file_stream(&id(), path).await.unwrap();
    while let Some(chunk) = content.next().await {
        received.update(chunk.unwrap());
    }
    client.delete_file(&id(), path, &api::file::DeleteFile::default()).await.unwrap();
    let sent = sent.lock().unwrap().clone();
    sent.finalize() == received.finalize()
}

#[tokio::test]
async fn every_size_comes_back_byte_for_byte() {
    let server = server();
    let client = server.client();
    // Around the agent's pieces, and up to what a 32-bit number cannot count.
    for size in [0, 1, 261_119, 261_120, 261_121, 522_240, 16 << 20, (4 << 30) + 1] {
        assert!(comes_back(&client, size).await, "{size} bytes");
    }
}
