//! Archives: exact both ways, whoever made them, and never half.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use futures_util::{StreamExt, stream};
use testkit::{
    Answer, Server,
    reqwest::{Body, Method},
    tape,
};

use crate::{disk::Disk, server};

const ARCHIVE: &str = "/v1/sandboxes/s/archive";

/// Makes a tree with one of everything that an archive keeps, in the directory it runs in.
const TREE: &str = r#"
set -e
mkdir -p a/b 'empty dir' closed "$(printf 'odd\n\377 name')" sizes
printf 'x' > "$(printf 'odd\n\377 name')/$(printf '\033[2J')"
: > nothing
printf '#!/bin/sh\n' > a/script; chmod 751 a/script
for size in 1 511 512 513 65536 65537 1000000; do
    yes "line of $size" | head -c $size > sizes/$size
done
chmod 600 sizes/1; chown 7:8 sizes/1 a
ln -s ../nowhere a/dangling; ln -s / a/root; ln -s "$(printf %0300d 1)" a/long
ln sizes/65537 a/second; ln sizes/65537 third
long=$(printf %0200d 1); mkdir -p $long/$long/$long; echo deep > $long/$long/$long/$long
echo x > -rf; echo x > 'a b'; echo x > ünï
touch -d @1000000000.123456789 a/script; touch -h -d @5 a/dangling; touch -d @-5 nothing
chmod 555 closed; touch -d @1000000000 a
"#;

/// Prints everything about the tree that an archive keeps, in one order.
const LOOK: &str = r#"
find . -mindepth 1 \( -type d -printf '%P %y %m %U:%G %T@\0' -o -printf '%P %y %m %U:%G %T@ %s %l %n\0' \) |
    sort -z | tr '\0\n' '\n\0'
find . -type f -print0 | sort -z | xargs -0r sha256sum -z | tr '\0\n' '\n\0'
"#;

/// What is in a directory of the sandbox.
async fn look(server: &Server, dir: &str) -> String {
    server.shell("s", &format!("cd {dir}; {LOOK}")).await
}

/// The same of a directory of this machine.
fn look_outside(dir: &Path) -> String {
    let output = Command::new("sh")
        .args(["-c", LOOK])
        .current_dir(dir)
        .output()
        .expect("the test bench works");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The same with `.0000000000` for the ten digits after the point of each time.
fn without_fractions(text: &str) -> String {
    let mut parts = text.split('.');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let part =
            if digits == 10 { format!("0000000000{}", &part[10..]) } else { part.to_owned() };
        format!("{text}.{part}")
    })
}

async fn pack(server: &Server, query: &str) -> Vec<u8> {
    let response = server
        .request(Method::GET, &format!("{ARCHIVE}?{query}"))
        .send()
        .await
        .expect("the test bench works");
    assert_eq!(response.status(), 200, "{query}");
    response.bytes().await.expect("the archive is whole").to_vec()
}

async fn unpack(server: &Server, query: &str, archive: impl Into<Body>) -> Answer {
    let done = server.put(&format!("{ARCHIVE}?{query}"), archive).await;
    assert_eq!(done.status, 200, "{query}: {}", done.text);
    done
}

/// Gives bytes to a program of this machine.
fn feed(program: &str, arguments: &[&str], bytes: &[u8]) {
    let mut child =
        Command::new(program).args(arguments).stdin(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("stdin is piped").write_all(bytes).expect("the test bench works");
    assert!(child.wait().expect("the test bench works").success(), "{program} {arguments:?}");
}

#[tokio::test]
async fn a_directory_goes_out_and_in_exactly() {
    let server = server();
    server.shell("s", &format!("mkdir from; cd from; {TREE}")).await;
    let expected = look(&server, "from").await;

    for format in ["tar", "tar.zst"] {
        let archive = pack(&server, &format!("path=from&format={format}")).await;
        let query = format!("path=to/{format}&format={format}&keepOwner=true");
        let done = unpack(&server, &query, archive).await;

        assert_eq!(look(&server, &format!("to/{format}")).await, expected);
        let count = |name: &str| done.json[name].as_u64().unwrap();
        assert_eq!((count("symlinks"), count("hardLinks")), (3, 2), "{}", done.text);
        assert_eq!((count("files"), count("directories")), (14, 9), "{}", done.text);
        assert_eq!(count("leftOutCount"), 0);
    }
}

#[tokio::test]
async fn gnu_tar_and_sandbar_understand_each_other_inside_and_outside() {
    let server = server();
    server.shell("s", &format!("mkdir from; cd from; {TREE}")).await;
    let expected = look(&server, "from").await;
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();

    // Ours to theirs, inside and outside.
    let archive = pack(&server, "path=from").await;
    server.put("/v1/sandboxes/s/files/workspace/ours.tar", archive.clone()).await;
    let untar = "mkdir theirs; tar --warning=no-timestamp -xpf ours.tar --same-owner -C theirs";
    server.shell("s", untar).await;
    assert_eq!(look(&server, "theirs").await, expected);
    let at = outside.to_str().unwrap();
    feed("tar", &["--warning=no-timestamp", "-xp", "--same-owner", "-C", at], &archive);
    assert_eq!(look_outside(&outside), expected);

    // Theirs to ours, from inside and outside, in each form that has room for the names.
    for format in ["gnu", "pax"] {
        server.shell("s", &format!("tar -cf theirs.tar --format={format} -C from .")).await;
        let theirs = server.request(Method::GET, "/v1/sandboxes/s/files/workspace/theirs.tar");
        let theirs = theirs.send().await.unwrap().bytes().await.unwrap();
        unpack(&server, &format!("path=in-{format}&keepOwner=true"), theirs).await;
        let tar = ["-c", &format!("--format={format}"), "-C", at, "."];
        let theirs = Command::new("tar").args(tar).output().unwrap().stdout;
        unpack(&server, &format!("path=out-{format}&keepOwner=true"), theirs).await;
        for found in [format!("in-{format}"), format!("out-{format}")] {
            let found = look(&server, &found).await;
            if format == "pax" {
                assert_eq!(found, expected);
            } else {
                // GNU's own form has whole seconds.
                assert_eq!(found, without_fractions(&expected));
            }
        }
    }
}

#[tokio::test]
async fn hundreds_of_megabytes_go_both_ways_in_bounded_memory() {
    let server = server();
    // Not compressible, and not the same anywhere.
    let make = "openssl enc -aes-128-ctr -K 00 -iv 00 < /dev/zero 2>/dev/null | head -c 400000000";
    server.shell("s", &format!("mkdir from; ({make}) > from/big; : > from/after")).await;

    for format in ["tar", "tar.zst"] {
        let url = format!("{ARCHIVE}?path=from&format={format}");
        let archive = server.request(Method::GET, &url).send().await.unwrap().bytes_stream();
        let query = format!("path=to-{format}&format={format}");
        let done = unpack(&server, &query, Body::wrap_stream(archive)).await;
        assert_eq!(done.json["bytes"], 400_000_000, "{}", done.text);
        server.shell("s", &format!("cmp from/big to-{format}/big && rm to-{format}/big")).await;
    }
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    let peak_kib: u64 = peak.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap();
    assert!(peak_kib < 200 * 1024, "the daemon grew to {peak_kib} KiB");
}

#[tokio::test]
async fn what_is_excluded_is_not_in_the_archive() {
    let server = server();
    let make = "mkdir -p d/node_modules/x d/src d/build; touch d/a.pyc d/a.py d/src/b.pyc \
                d/node_modules/x/y d/build/c d/src/build; mkfifo d/pipe";
    server.shell("s", make).await;

    let query = "path=d&exclude=*.pyc&exclude=node_modules&exclude=/build";
    unpack(&server, "path=to", pack(&server, query).await).await;

    let found = server.shell("s", "cd to; find . | sort | xargs").await;
    assert_eq!(found, ". ./a.py ./src ./src/build\n");
    let refused = server.get(&format!("{ARCHIVE}?path=d&exclude=")).await;
    assert_eq!(refused.code(), "VALIDATION_FAILED");
}

#[tokio::test]
async fn one_file_is_an_archive_too_and_components_are_stripped() {
    let server = server();
    server
        .shell("s", "mkdir -p d/top/sub; echo x > d/f; echo y > d/top/sub/g; ln -s d/f link")
        .await;

    unpack(&server, "path=one", pack(&server, "path=link").await).await;
    let options = "path=two&stripComponents=1&keepTimes=false";
    unpack(&server, options, pack(&server, "path=d").await).await;

    assert_eq!(server.shell("s", "cat one/link; find two -type f").await, "x\ntwo/sub/g\n");
    server.shell("s", "[ two/sub/g -nt d/top/sub/g ]").await;
}

#[tokio::test]
async fn what_cannot_be_packed_is_told_in_the_archive() {
    let server = server();
    server.shell("s", "mkdir d; mkfifo d/pipe; touch d/file").await;

    let archive = pack(&server, "path=d").await;

    let told = r#"comment={"leftOutCount":1,"partial":false,"leftOut":[{"path":"pipe","reason":"special"}]}"#;
    assert!(archive.windows(told.len()).any(|part| part == told.as_bytes()));
    unpack(&server, "path=to", archive).await;
    assert_eq!(server.shell("s", "ls to").await, "file\n");
}

#[tokio::test]
async fn an_error_says_what_was_written_before() {
    let server = server();
    server.shell("s", "mkdir -p to/in-the-way; touch file").await;
    let a = tape::file("a", "123");
    for (archive, code, path, entries) in [
        (
            tape::archive(&[a.clone(), tape::file("in-the-way", "")]),
            "IS_DIRECTORY",
            "in-the-way",
            1,
        ),
        (tape::archive(&[a.clone(), tape::file("a/b", "")]), "NOT_DIRECTORY", "a/b", 1),
        (tape::archive(&[a.clone(), tape::file("../b", "")]), "INVALID_ARCHIVE", "../b", 1),
        (
            tape::archive(&[a.clone(), tape::file(&"n".repeat(100), "")])[..1500].to_vec(),
            "INVALID_ARCHIVE",
            "a",
            1,
        ),
        (a.clone(), "INVALID_ARCHIVE", "a", 1),
        (a[..513].to_vec(), "INVALID_ARCHIVE", "a", 0),
        (
            b"no archive, but long enough to be the header of one".repeat(20),
            "INVALID_ARCHIVE",
            "",
            0,
        ),
        (Vec::new(), "INVALID_ARCHIVE", "", 0),
    ] {
        let refused = server.put(&format!("{ARCHIVE}?path=to"), archive).await;
        assert_eq!(refused.code(), code, "{}", refused.text);
        let details = &refused.json["error"]["details"];
        assert!(details["path"].as_str().unwrap().ends_with(path), "{}", refused.text);
        assert_eq!(details["entries"], entries, "{}", refused.text);
    }
    assert_eq!(server.shell("s", "cat to/a; ls -A to").await, "123a\nin-the-way\n");

    for (query, code) in [
        ("path=none", "FILE_NOT_FOUND"),
        ("path=file/x", "NOT_DIRECTORY"),
        ("path=/dev/null", "NOT_REGULAR_FILE"),
        ("path=", "INVALID_PATH"),
        ("path=to&format=zip", "VALIDATION_FAILED"),
        ("path=to&unknown=1", "VALIDATION_FAILED"),
        ("", "VALIDATION_FAILED"),
    ] {
        assert_eq!(server.get(&format!("{ARCHIVE}?{query}")).await.code(), code, "{query}");
    }
    for (query, code) in [
        ("path=file", "NOT_DIRECTORY"),
        ("path=file/below", "NOT_DIRECTORY"),
        ("path=to&stripComponents=-1", "VALIDATION_FAILED"),
        ("path=to&keepOwner=perhaps", "VALIDATION_FAILED"),
    ] {
        let refused = server.put(&format!("{ARCHIVE}?{query}"), tape::END.to_vec()).await;
        assert_eq!(refused.code(), code, "{query}: {}", refused.text);
    }
}

/// The answer must come while the caller still sends, and arrive.
#[tokio::test]
async fn a_refused_upload_is_told_before_its_end() {
    let server = server();
    let first = tape::file("../outside", "");
    let endless = stream::iter([Ok(first)])
        .chain(stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0_u8; 65_536])).take(100_000));

    let refused = server.put(&format!("{ARCHIVE}?path=to"), Body::wrap_stream(endless)).await;

    assert_eq!(refused.code(), "INVALID_ARCHIVE", "{}", refused.text);
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_whole_files() {
    let server = server();
    server.shell("s", "mkdir to; echo old > to/half").await;
    let content = "y".repeat(1_000_000);
    let parts = [tape::file("whole", &content), tape::file("half", &content)].concat();
    let sent = parts[..parts.len() - 300_000].to_vec();
    let broken = stream::iter([Ok(sent), Err(std::io::Error::other("gone"))]);

    let request = server.request(Method::PUT, &format!("{ARCHIVE}?path=to"));
    assert!(request.body(Body::wrap_stream(broken)).send().await.is_err());

    // Nobody tells when the agent has met the break; the temporary file goes with it.
    let clean = "for i in $(seq 6000); do [ \"$(ls -A to | sort | xargs)\" = 'half whole' ] && exit 0; \
                 sleep 0.01; done; ls -A to; exit 1";
    server.shell("s", clean).await;
    assert_eq!(server.shell("s", "cat to/half; stat -c %s to/whole").await, "old\n1000000\n");
}

#[tokio::test]
async fn a_download_that_its_reader_leaves_ends_and_frees_its_place() {
    let server = server();
    server.shell("s", "mkdir d; truncate -s 10G d/endless").await;

    for _ in 0..20 {
        let response = server.request(Method::GET, &format!("{ARCHIVE}?path=d")).send().await;
        let mut body = response.unwrap().bytes_stream();
        assert!(body.next().await.unwrap().is_ok());
        drop(body);
        // The place is free when the agent has met the break.
        let mut status = 429;
        while status == 429 {
            let next = server.get(&format!("{ARCHIVE}?path=d&exclude=*")).await;
            status = next.status;
        }
        assert_eq!(status, 200);
    }
}

#[tokio::test]
async fn an_archive_whose_sandbox_dies_never_looks_whole() {
    let server = server();
    server.shell("s", "mkdir d; truncate -s 10G d/endless").await;
    let response = server.request(Method::GET, &format!("{ARCHIVE}?path=d")).send().await;
    let mut body = response.unwrap().bytes_stream();
    assert!(body.next().await.unwrap().is_ok());

    assert_eq!(server.delete("/v1/sandboxes/s").await.status, 204);

    while let Some(piece) = body.next().await {
        if piece.is_err() {
            return;
        }
    }
    panic!("the archive ended as if it were whole");
}

#[tokio::test]
async fn a_bomb_is_bounded_by_the_disk() {
    let disk = Disk::small(96);
    let server = Server::start_in(env!("CARGO_BIN_EXE_sandbar"), &disk.path(), &[]);
    server.shell("s", "echo kept > file").await;
    // 512 MiB of zeros in one file, in some KiB of zstd.
    let size = format!("{:011o}\0", 512 << 20);
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 19).unwrap();
    encoder.write_all(&tape::header(b'0', b"bomb", b"", size.as_bytes())).unwrap();
    for _ in 0..512 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());

    let refused = server.put(&format!("{ARCHIVE}?path=to&format=tar.zst"), bomb).await;

    assert_eq!(refused.code(), "NO_SPACE", "{}", refused.text);
    assert_eq!(refused.json["error"]["details"]["entries"], 0);
    // Nor is the directory that was made for it.
    assert_eq!(server.shell("s", "cat file; ls -A").await, "kept\nfile\n");
    drop(server);
}
