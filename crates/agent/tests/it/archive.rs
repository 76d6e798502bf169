//! Archives: bounded memory, bounded number, and what the wire shows.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use api::{archive::Unpacked, error::ErrorCode, limit::ARCHIVES_AT_ONCE};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use zstd::stream::write::Encoder;

use crate::harness::{Agent, eventually, request, within};

/// KiB that two archives, one out and one in, may add to the agent's memory.
const ARCHIVE_KIB: u64 = 8 * 1024;

async fn start() -> Agent {
    let agent = Agent::start();
    eventually("the working directory", || agent.work().exists()).await;
    agent
}

fn tree(root: &Path, directories: usize, files: usize) {
    for directory in 0..directories {
        let path = root.join(directory.to_string());
        fs::create_dir_all(&path).unwrap();
        for file in 0..files {
            fs::write(path.join(file.to_string()), format!("{directory} {file}")).unwrap();
        }
    }
}

/// Feeds the answer to one request to another, piece by piece.
async fn pass_on(agent: &Agent, from: &str, to: &str) -> Unpacked {
    let archive = agent.open(request(Method::GET, from, "")).await;
    assert_eq!(archive.status(), StatusCode::OK);
    let socket = agent.work().parent().unwrap().join("agent.sock");
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let put = Request::builder().method(Method::PUT).uri(to).body(archive.into_body()).unwrap();
    let answer = within(sender.send_request(put)).await.unwrap();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&bytes)))
}

#[tokio::test]
async fn archives_of_any_size_take_bounded_memory() {
    let agent = start().await;
    let from = agent.work().join("from");
    tree(&from.join("tree"), 20, 100);
    let big = fs::File::create(from.join("big")).unwrap();
    big.set_len(256 << 20).unwrap();
    // The first use of anything is not what an archive takes.
    agent.get("/archive?path=from&exclude=*").await;
    let before = agent.memory_kib("RssAnon:");

    for format in ["tar", "tar.zst"] {
        let from = format!("/archive?path=from&format={format}");
        let to = format!("/archive?path=to/{format}&format={format}");
        let done = pass_on(&agent, &from, &to).await;
        assert_eq!((done.files, done.directories), (2001, 21));
        let peak = agent.memory_kib("VmHWM:") - agent.memory_kib("RssFile:");
        assert!(peak < before + ARCHIVE_KIB, "{format}: from {before} to {peak} KiB");
    }
}

#[tokio::test]
async fn one_archive_too_many_is_told_to_wait() {
    let agent = start().await;
    fs::File::create(agent.work().join("big")).unwrap().set_len(1 << 40).unwrap();
    let mut held = Vec::new();
    for _ in 0..ARCHIVES_AT_ONCE {
        held.push(agent.open(request(Method::GET, "/archive?path=big", "")).await);
    }

    for method in [Method::GET, Method::PUT] {
        let (status, error) = agent.refused(request(method, "/archive?path=x", "")).await;
        assert_eq!((status.as_u16(), error.code), (429, ErrorCode::TooManyRequests));
    }

    held.pop();
    loop {
        let (status, ..) = agent.get("/archive?path=.&exclude=big").await;
        if status == StatusCode::OK {
            break;
        }
    }
}

#[tokio::test]
async fn a_compressed_archive_is_read_whole_or_refused() {
    let agent = start().await;
    tree(&agent.work().join("from"), 3, 3);
    let (_, headers, archive) = agent.get("/archive?path=from&format=tar.zst").await;
    assert_eq!(headers["content-type"], "application/zstd");
    let plain = zstd::stream::decode_all(&archive[..]).unwrap();
    let (_, headers, tar) = agent.get("/archive?path=from").await;
    assert_eq!(headers["content-type"], "application/x-tar");
    assert!(tar == plain);

    let frame = |window: u32, checksum: bool| {
        let mut encoder = Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window).unwrap();
        encoder.include_checksum(checksum).unwrap();
        encoder.write_all(&plain).unwrap();
        encoder.finish().unwrap()
    };
    let put = |body: Vec<u8>| request(Method::PUT, "/archive?path=to&format=tar.zst", body);
    let mut wrong_sum = frame(20, true);
    *wrong_sum.last_mut().unwrap() ^= 1;
    let two_frames: Vec<u8> = [&plain[..2000], &plain[2000..]]
        .iter()
        .flat_map(|part| zstd::stream::encode_all(*part, 1).unwrap())
        .collect();
    for (name, body, is_fine) in [
        ("8 MiB", frame(23, false), true),
        ("16 MiB", frame(24, false), false),
        ("a sum", frame(20, true), true),
        ("a wrong sum", wrong_sum, false),
        ("two frames", two_frames, true),
        ("half a frame", archive[..archive.len() / 2].to_vec(), false),
        ("all but a byte", archive[..archive.len() - 1].to_vec(), false),
        ("tar", tar.to_vec(), false),
        ("nothing", Vec::new(), false),
    ] {
        let (status, _, answer) = agent.send(put(body)).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(status.is_success(), is_fine, "{name}: {text}");
        assert_eq!(text.contains("INVALID_ARCHIVE"), !is_fine, "{name}: {text}");
    }
    // The other way round.
    let (_, error) = agent.refused(request(Method::PUT, "/archive?path=to", archive)).await;
    assert_eq!(error.code, ErrorCode::InvalidArchive);
}

#[tokio::test]
async fn owners_and_bits_of_the_archive_are_taken_as_asked() {
    let agent = start().await;
    let from = agent.work().join("from");
    tree(&from, 1, 1);
    std::os::unix::fs::chown(from.join("0/0"), Some(7), Some(8)).unwrap();
    fs::set_permissions(from.join("0/0"), fs::Permissions::from_mode(0o6766)).unwrap();
    let (.., archive) = agent.get("/archive?path=from").await;

    for (query, owner) in [("path=a", (0, 0)), ("path=b&keepOwner=true", (7, 8))] {
        let url = format!("/archive?{query}");
        let (status, ..) = agent.send(request(Method::PUT, &url, archive.clone())).await;
        assert_eq!(status, StatusCode::OK);
        let path = agent.work().join(&query[5..6]).join("0/0");
        let metadata = fs::metadata(path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), owner);
        assert_eq!(metadata.mode() & 0o7777, 0o766);
    }
}

#[tokio::test]
async fn directories_made_for_a_refused_archive_go_and_others_stay() {
    let agent = start().await;
    fs::create_dir(agent.work().join("there")).unwrap();
    let put = |url: &str, body: &[u8]| request(Method::PUT, url, body.to_vec());
    let bodies = [&b""[..], &[b'x'; 2000]];
    let end = [0; 1024];
    for format in ["tar", "tar.zst"] {
        for path in ["new/a/b", "new/a/b/", "there/a/b", "there"] {
            for body in bodies {
                let url = format!("/archive?path={path}&format={format}");
                let (_, error) = agent.refused(put(&url, body)).await;
                assert_eq!(error.code, ErrorCode::InvalidArchive, "{url}");
                assert!(!agent.work().join("new").exists(), "{url}");
                let mut left = fs::read_dir(agent.work().join("there")).unwrap();
                assert!(left.next().is_none(), "{url}");
            }
        }
    }
    let long = format!("/archive?path=new/{}", "x".repeat(300));
    let (_, error) = agent.refused(put(&long, &end)).await;
    assert_eq!(error.code, ErrorCode::NameTooLong);
    assert!(!agent.work().join("new").exists());

    // What was unpacked stays, and so does the place of an archive of nothing.
    fs::write(agent.work().join("f"), "x").unwrap();
    let (.., whole) = agent.get("/archive?path=f").await;
    let (_, error) = agent.refused(put("/archive?path=new/a", &whole[..whole.len() - 1024])).await;
    assert_eq!(error.code, ErrorCode::InvalidArchive);
    assert_eq!(fs::read(agent.work().join("new/a/f")).unwrap(), b"x");
    let (status, ..) = agent.send(put("/archive?path=new/empty", &end)).await;
    assert_eq!(status, StatusCode::OK);
    assert!(agent.work().join("new/empty").is_dir());
}
