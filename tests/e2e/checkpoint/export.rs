//! Checkpoints that leave a node and come to another, and what is no such thing.

use std::{
    io::Read as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use testkit::{
    Answer, Leaks, PATIENCE, Server,
    reqwest::{Body, Method},
    tape,
};

use super::{BOX, checkpoint, restore};
use crate::server;

const IMPORT: &str = "/v1/sandboxes/s/checkpoints:import";
const EXPORT: &str = "/v1/sandboxes/s/checkpoints/c/export";

/// Writes one of everything that a checkpoint keeps.
const WRITE: &str = r#"
set -e
mkdir -p d/e; echo 1 > d/f; ln d/f d/g; ln -s d/f link; mkfifo -m 640 pipe; chown 7:8 d/f
chmod 4755 d/f; chmod 2770 d; touch -d @1000000000.123456789 d/f; chown -h 3:4 link
truncate -s 40M sparse; echo end >> sparse; head -c 5M /dev/urandom > large; : > empty
echo x > "$(printf 'a\377\nb')"; long=$(printf %0200d 1); mkdir -p $long/$long; echo x > $long/$long/$long
python3 -c 'import os; os.setxattr("large", "user.a", b"\x00b"); os.setxattr("d", "user.d", b"1"); os.setxattr("empty", "user.e", b"")'
mkdir closed; echo in > closed/in; chmod 0 closed/in closed; touch -d @1000000000 d
rm /etc/hosts; rm -r /root; mkdir /root; echo in > /root/in
cp -a /etc /etc2; rm -r /etc; mkdir /etc; cp -a /etc2/passwd /etc; rm -r /etc2
"#;

/// Prints all of it.
const LOOK: &str = r#"
cd /
find . -maxdepth 1 -printf '%p %y %m %U:%G\n' | sort
for dir in . etc root workspace; do stat -c '%n %Y' $dir; done
find etc root workspace -mindepth 1 \( -type d -printf '%p %y %m %U:%G %T@\0' -o -printf '%p %y %m %U:%G %T@ %s %l %n\0' \) |
    sort -z | tr '\0\n' '\n\0'
find etc root workspace -type f -print0 | sort -z | xargs -0r sha256sum -z | tr '\0\n' '\n\0'
python3 -c 'import os; print([(name, key, os.getxattr(name, key)) for name in ["workspace/large", "workspace/d", "workspace/empty"] for key in os.listxattr(name)])'
[ "$(du -k workspace/sparse | cut -f1)" -lt 1000 ] && echo it has its hole
"#;

/// Makes a sandbox `s` with a checkpoint `c`. Returns what there is then, and its export as a tar stream.
async fn exported(server: &Server, write: &str) -> (Leaks, Vec<u8>) {
    server.shell("s", write).await;
    checkpoint(server, "c").await;
    (server.look(), export(server).await)
}

async fn export(server: &Server) -> Vec<u8> {
    let response = server.request(Method::GET, EXPORT).send().await.expect("the server answers");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/x-tar");
    response.bytes().await.expect("it comes whole").to_vec()
}

async fn import(server: &Server, query: &str, body: impl Into<Body>) -> Answer {
    let call = server.request(Method::POST, &format!("{IMPORT}{query}"));
    testkit::answer(call.body(body).send().await.expect("the server answers")).await
}

async fn checkpoints(server: &Server) -> usize {
    let listed = server.get(&format!("{BOX}/checkpoints")).await;
    listed.json["checkpoints"].as_array().map(Vec::len).unwrap_or_default()
}

/// What an export says about itself: all before its first entry.
fn about(export: &[u8]) -> &[u8] {
    let size = std::str::from_utf8(&export[124..135]).expect("a size is digits");
    let size = usize::from_str_radix(size, 8).expect("a size is digits");
    &export[..tape::BLOCK + size.next_multiple_of(tape::BLOCK)]
}

/// Runs the command line, which succeeds, and returns what it prints.
fn run(server: &Server, arguments: &[&str]) -> String {
    let done = server.command(arguments).output().expect("the binary starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

#[tokio::test]
async fn a_checkpoint_goes_to_another_node_as_it_is() {
    let (here, there) = (server(), server());
    here.shell("s", WRITE).await;
    let looked = here.shell("s", LOOK).await;
    checkpoint(&here, "c").await;
    here.shell("s", "rm -r d; echo later > later").await;
    there.shell("s", "echo other > other").await;
    let dir = tempfile::tempdir().unwrap();
    for (name, more) in [("c.tar.zst", &[][..]), ("c.tar", &["--tar"])] {
        let file = dir.path().join(name);
        let file = file.to_str().unwrap();
        run(&here, &[&["checkpoint", "export", "s", "c", "-o", file], more].concat());
        let id = name.replace('.', "-");

        assert_eq!(run(&there, &["checkpoint", "import", "s", file, "--as", &id]), id);

        let forked = json!({"checkpoint": id, "ids": [format!("fork-{id}")]});
        let forked = there.post(&format!("{BOX}/fork"), &forked).await;
        assert_eq!(forked.status, 201, "{}", forked.text);
        restore(&there, &id).await;
        for sandbox in ["s".to_owned(), format!("fork-{id}")] {
            assert_eq!(there.shell(&sandbox, LOOK).await, looked);
        }
    }
    // Other tools read it.
    let seen = Command::new("tar").arg("-tf").arg(dir.path().join("c.tar")).output().unwrap();
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    for name in ["etc/.wh..wh..opq", "workspace/d/f", "root/in"] {
        assert!(seen.lines().any(|line| line.trim_start_matches("./") == name), "{name} in {seen}");
    }
}

#[tokio::test]
async fn what_no_export_keeps_is_told_by_the_import() {
    let server = server();
    let write = "echo x > .wh.x; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'";
    let (_, whole) = exported(&server, write).await;

    let imported = import(&server, "?checkpoint=d", whole).await;

    assert_eq!(imported.status, 201, "{}", imported.text);
    assert_eq!(imported.json["checkpoint"]["id"], "d");
    let unpacked = &imported.json["unpacked"];
    assert_eq!((&unpacked["leftOutCount"], &unpacked["partial"]), (&json!(2), &json!(true)));
    let mut told: Vec<String> = unpacked["leftOut"].as_array().unwrap().iter().map(named).collect();
    told.sort();
    assert_eq!(told, ["workspace/.wh.x reserved", "workspace/socket special"]);
}

fn named(entry: &Value) -> String {
    let text = |key: &str| entry[key].as_str().unwrap_or_default();
    format!("{} {}", text("path"), text("reason"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_fails_leaves_nothing() {
    let server = server();
    let (before, whole) = exported(&server, "head -c 3M /dev/urandom > big; sync").await;
    let other = String::from_utf8_lossy(about(&whole)).into_owned();
    let (_, digest) = other.split_once("\"imageDigest\":\"").unwrap();
    let (digest, _) = digest.split_once('"').unwrap();
    let mut another = whole.clone();
    let at = other.find("\"imageDigest\":\"").unwrap() + 15 + digest.len() - 1;
    another[at] = if another[at] == b'0' { b'1' } else { b'0' };
    let half = whole[..whole.len() / 2].to_vec();
    for (body, query, status, code) in [
        (half.clone(), "", 400, "INVALID_ARCHIVE"),
        (b"nothing".to_vec(), "", 400, "INVALID_ARCHIVE"),
        (Vec::new(), "", 400, "INVALID_ARCHIVE"),
        (whole[about(&whole).len()..].to_vec(), "", 400, "INVALID_ARCHIVE"),
        (another, "", 409, "IMAGE_MISMATCH"),
        (whole.clone(), "?checkpoint=c", 409, "CHECKPOINT_EXISTS"),
        (whole.clone(), "?format=tar.zst", 400, "INVALID_ARCHIVE"),
        (whole.clone(), "?format=zip", 400, "VALIDATION_FAILED"),
        (whole.clone(), "?checkpoint=A%20b", 400, "VALIDATION_FAILED"),
    ] {
        let refused = import(&server, query, body).await;
        assert_eq!((refused.status, refused.code()), (status, code), "{query} {}", refused.text);
        if code == "IMAGE_MISMATCH" {
            let details = &refused.json["error"]["details"];
            assert_eq!(details["has"], digest);
            assert_ne!(details["needs"], digest);
        }
    }
    server.expect_again(&before);
    // One whose caller goes away in the middle.
    let (sender, pieces) = tokio::sync::mpsc::unbounded_channel::<std::io::Result<Vec<u8>>>();
    sender.send(Ok(half)).unwrap();
    let pieces = futures_util::stream::unfold(pieces, async |mut pieces| {
        Some((pieces.recv().await?, pieces))
    });
    let call = server.request(Method::POST, &format!("{IMPORT}?checkpoint=d"));
    let call = tokio::spawn(call.body(Body::wrap_stream(pieces)).send());
    // It is under way when one jail more is there.
    let begun = Instant::now();
    while server.look().found().jails != before.found().jails + 1 {
        assert!(begun.elapsed() < PATIENCE, "{}", server.log());
        // There is no event for what is on nobody's record.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let taken = import(&server, "?checkpoint=d", "x").await;
    assert_eq!(taken.code(), "CHECKPOINT_EXISTS", "{}", taken.text);
    call.abort();
    drop(sender);
    server.expect_again(&before);
    assert_eq!(checkpoints(&server).await, 1);

    assert_eq!(import(&server, "?checkpoint=d", whole).await.status, 201);
    assert_eq!(checkpoints(&server).await, 2);
    restore(&server, "d").await;
    assert_eq!(server.shell("s", "stat -c %s big").await, "3145728\n");
}

#[tokio::test]
async fn an_import_is_within_the_limit_of_its_sandbox() {
    let server = server();
    let small = json!({"id": "small", "resources": {"diskBytes": 24 << 20}});
    assert_eq!(server.post("/v1/sandboxes", &small).await.status, 201);
    let (before, whole) = exported(&server, "head -c 40M /dev/urandom > big; sync").await;

    let url = "/v1/sandboxes/small/checkpoints:import";
    let refused = server.request(Method::POST, url).body(whole).send().await.unwrap();
    let refused = testkit::answer(refused).await;

    assert_eq!((refused.status, refused.code()), (507, "NO_SPACE"), "{}", refused.text);
    server.expect_again(&before);
}

#[tokio::test]
async fn an_export_goes_on_when_its_checkpoint_and_its_sandbox_go() {
    let server = server();
    let (_, whole) = exported(&server, "head -c 20M /dev/urandom > big; ls > small; sync").await;
    let begun = server.request(Method::GET, EXPORT).send().await.unwrap();
    assert_eq!(begun.status(), 200);

    assert_eq!(server.delete(&format!("{BOX}/checkpoints/c")).await.status, 204);
    assert_eq!(server.delete(BOX).await.status, 204);

    assert!(begun.bytes().await.unwrap() == whole, "it is another one");
    assert_eq!(server.get(EXPORT).await.code(), "SANDBOX_NOT_FOUND");
    server.shell("s", "true").await;
    assert_eq!(server.get(EXPORT).await.code(), "CHECKPOINT_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_whose_caller_goes_leaves_nothing_and_makes_way() {
    let server = server();
    let (before, _) = exported(&server, "head -c 40M /dev/urandom > big; sync").await;
    // More than may be made at once.
    let mut exports = Vec::new();
    let full = loop {
        let begun = server.request(Method::GET, EXPORT).send().await.unwrap();
        if begun.status() != 200 {
            break testkit::answer(begun).await;
        }
        let mut pieces = begun.bytes_stream();
        assert!(pieces.next().await.unwrap().is_ok());
        exports.push(pieces);
    };
    assert_eq!((full.status, full.code()), (429, "TOO_MANY_REQUESTS"), "{}", full.text);
    assert_eq!(exports.len(), 4);

    drop(exports);

    server.expect_again(&before);
    assert!(export(&server).await.len() > 40 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_cannot_take_the_exports_of_others() {
    let server = server();
    for id in ["g-1", "m-1"] {
        server.shell(id, "head -c 40M /dev/urandom > big; sync").await;
        let checkpoints = format!("/v1/sandboxes/{id}/checkpoints");
        assert_eq!(server.post(&checkpoints, &json!({"id": "c"})).await.status, 201);
    }
    let greedy = server.new_key("greedy", Some("g-")).await;
    let modest = server.new_key("modest", Some("m-")).await;
    let begin = async |key: &str, id: &str| {
        let url = format!("/v1/sandboxes/{id}/checkpoints/c/export");
        server.request_with(key, Method::GET, &url).send().await.unwrap()
    };
    // Nobody reads them.
    let held = [begin(&greedy, "g-1").await, begin(&greedy, "g-1").await];
    assert!(held.iter().all(|export| export.status() == 200));

    let refused = begin(&greedy, "g-1").await;
    assert_eq!(refused.status(), 429);
    let refused = testkit::answer(refused).await;
    assert_eq!(refused.code(), "TOO_MANY_REQUESTS", "{}", refused.text);
    assert_eq!(refused.json["error"]["details"]["limit"], 2);

    let export = begin(&modest, "m-1").await;
    assert_eq!(export.status(), 200);
    // The last one is an admin's.
    let compared = server.get("/v1/sandboxes/m-1/diff").await;
    assert_eq!(compared.status, 200, "{}", compared.text);
    assert!(export.bytes().await.unwrap().len() > 40 << 20);
}

#[tokio::test]
async fn what_is_too_large_to_come_back_does_not_go() {
    let server = server();
    // Nearly nothing on the disk, and more than the limit with its holes.
    server.shell("s", "mkdir d; for n in 1 2 3; do truncate -s 32G d/$n; done").await;
    checkpoint(&server, "c").await;
    let before = server.look();
    let refused = server.get(EXPORT).await;
    assert_eq!((refused.status, refused.code()), (413, "TREE_TOO_LARGE"), "{}", refused.text);
    let details = &refused.json["error"]["details"];
    assert!(
        details["path"].as_str().is_some_and(|path| path.starts_with("workspace/d/")),
        "{details}"
    );
    assert_eq!(details["limitBytes"], 64_u64 << 30);
    server.expect_again(&before);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.tar");

    let arguments = ["checkpoint", "export", "s", "c", "-o", file.to_str().unwrap()];
    let done = server.command(arguments).output().unwrap();

    assert!(!done.status.success());
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(told.contains("more than 68719476736 bytes of files"), "{told}");
    assert!(!Path::new(&file).exists(), "what is not whole is there");
}

/// What a few KiB become: each is refused as soon as it is more than it may be.
#[tokio::test]
async fn an_import_of_zeros_that_were_packed_small_is_cut_off() {
    const ZEROS: u64 = 128 << 20;
    let server = server();
    let (before, whole) = exported(&server, "echo x > f").await;
    let about = about(&whole).to_vec();
    let pack = |begin: &[u8]| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        std::io::copy(&mut begin.chain(std::io::repeat(0).take(ZEROS)), &mut encoder).unwrap();
        encoder.finish().unwrap()
    };
    let size = ("size", &*((64_u64 << 30) + 1).to_string());
    let zeros = format!("{ZEROS:011o}\0");
    let file = tape::header(b'0', b"workspace/large", b"", zeros.as_bytes()).to_vec();
    let header = tape::header(b'x', b"header", b"", zeros.as_bytes()).to_vec();
    for (what, begin) in [
        (
            "a file that claims more than an export has",
            [tape::records(b'x', &[size]), file].concat(),
        ),
        ("a header as long", header),
        ("what follows the end", tape::END.to_vec()),
    ] {
        let bomb = pack(&[about.clone(), begin].concat());
        assert!(bomb.len() < 1 << 20, "{what}: {} bytes", bomb.len());
        let refused = import(&server, "?format=tar.zst", bomb).await;
        assert_eq!(
            (refused.status, refused.code()),
            (400, "INVALID_ARCHIVE"),
            "{what}: {}",
            refused.text
        );
    }
    // A window of 2 GiB, which whoever unpacks would have to keep in memory.
    let window = b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00";
    let refused = import(&server, "?format=tar.zst", window.to_vec()).await;
    assert_eq!((refused.status, refused.code()), (400, "INVALID_ARCHIVE"), "{}", refused.text);
    server.expect_again(&before);
}
