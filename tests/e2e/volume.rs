//! Disk limits, and where sandboxes' own files are.

use serde_json::json;
use testkit::Server;

use crate::{disk::Disk, server};

const MIB: u64 = 1 << 20;

async fn limited(server: &Server, id: &str, bytes: u64) {
    let body = json!({"id": id, "resources": {"diskBytes": bytes}});
    let created = server.post("/v1/sandboxes", &body).await;
    assert_eq!(created.json["resources"]["diskBytes"], bytes, "{}", created.text);
}

#[tokio::test]
async fn a_full_volume_is_told_and_is_nobody_else_s() {
    let server = server();
    limited(&server, "full", 64 * MIB).await;
    limited(&server, "other", 64 * MIB).await;

    let fill = json!({"command": "echo on; head -c 200M /dev/urandom > fill"});
    let ended = server.post("/v1/sandboxes/full/exec", &fill).await;
    assert_eq!(ended.json["ending"], json!({"type": "diskFull"}), "{}", ended.text);
    assert_eq!(ended.json["stdout"], "on\n");
    let size: u64 = server.shell("full", "stat -c %s fill").await.trim().parse().unwrap();
    assert!((32 * MIB..=64 * MIB).contains(&size), "{size}");

    let upload = server.put("/v1/sandboxes/full/files/workspace/up", vec![1; 4 << 20]).await;
    assert_eq!(upload.code(), "NO_SPACE", "{}", upload.text);
    server.shell("other", "head -c 40M /dev/urandom > fill; sync").await;

    // What it has stored is there, and what it removes it may write again.
    assert_eq!(server.shell("full", "stat -c %s fill").await.trim(), size.to_string());
    server.shell("full", "rm fill; sync; head -c 40M /dev/urandom > again; sync").await;
}

#[tokio::test]
async fn a_file_that_fails_for_another_reason_is_not_a_full_disk() {
    let server = server();
    limited(&server, "s", 64 * MIB).await;
    let failing = json!({"command": "head -c 20M /dev/urandom > most; cat /none"});
    let ended = server.post("/v1/sandboxes/s/exec", &failing).await;
    assert_eq!(ended.json["ending"], json!({"type": "exited", "code": 1}), "{}", ended.text);
}

#[tokio::test]
async fn files_without_content_are_limited_too() {
    let server = server();
    limited(&server, "s", 16 * MIB).await;
    let many = "import os\nn = 0\ntry:\n while n < 10**6:\n  os.close(os.open(f'f{n}', os.O_CREAT)); n += 1\nexcept OSError as e: print(n, e.errno)";
    let ended =
        server.post("/v1/sandboxes/s/exec", &json!({"command": ["python3", "-c", many]})).await;
    let said = ended.json["stdout"].as_str().unwrap_or_default().to_owned();
    let (files, errno) = said.trim().split_once(' ').expect(&ended.text);
    assert!(files.parse::<u64>().unwrap() > 1000 && errno == "122", "{said}");
}

#[tokio::test]
async fn what_a_sandbox_uses_is_told() {
    let server = server();
    limited(&server, "s", 64 * MIB).await;
    server.shell("s", "head -c 20M /dev/urandom > file; sync").await;
    let seen = server.get("/v1/sandboxes/s").await;
    let used = seen.json["usage"]["diskBytes"].as_u64().unwrap_or_default();
    assert!((20 * MIB..22 * MIB).contains(&used), "{}", seen.text);
}

#[tokio::test]
async fn a_disk_limit_out_of_range_is_refused() {
    let settings = [("LIMITS_MAX_DISK", "1GiB"), ("LIMITS_DEFAULT_DISK", "32MiB")];
    let server = Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &settings);
    for bytes in [1, 16 * MIB - 1, 1024 * MIB + 1] {
        let body = json!({"id": "s", "resources": {"diskBytes": bytes}});
        let refused = server.post("/v1/sandboxes", &body).await;
        assert_eq!(refused.code(), "VALIDATION_FAILED", "{}", refused.text);
        assert_eq!(refused.json["error"]["details"]["field"], "resources.diskBytes");
    }
    limited(&server, "edge", 1024 * MIB).await;
    server.shell("default", "true").await;
    assert_eq!(server.get("/v1/sandboxes/default").await.json["resources"]["diskBytes"], 32 * MIB);
}

/// A tmpfs of this size is too small for a file system in a file.
#[tokio::test]
async fn a_node_that_cannot_limit_says_so_and_refuses_to_promise() {
    let disk = Disk::small(64);
    let server = Server::start_in(env!("CARGO_BIN_EXE_sandbar"), &disk.path(), &[]);
    let log = server.log_until("the disk space of sandboxes is not limited");
    assert!(log.contains("volumes need 2048 MiB"), "{log}");

    let body = json!({"id": "s", "resources": {"diskBytes": 64 * MIB}});
    let refused = server.post("/v1/sandboxes", &body).await;
    assert_eq!(refused.code(), "VALIDATION_FAILED", "{}", refused.text);
    server.shell("s", "echo kept > file").await;
    assert!(server.get("/v1/sandboxes/s").await.json["resources"]["diskBytes"].is_null());
}

#[tokio::test]
async fn volumes_that_cannot_be_mounted_are_not_replaced_by_empty_ones() {
    let mut server = server();
    server.shell("s", "echo kept > file").await;
    let destroyed = server.command(["down"]).output().expect("the binary starts");
    assert!(destroyed.status.success());
    server.wait_for_end();
    let image = server.state_dir().join("volumes.img");
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    // The superblock's number, which says what this is; btrfs keeps it at 64 KiB + 64.
    let magic = |bytes: &[u8; 8]| {
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, (64 << 10) + 64).unwrap();
    };
    magic(b"_BHRfS_X");

    let complaint = Server::refusal(&mut server.command(["serve"]));

    assert!(complaint.contains("mounting the volumes"), "{complaint}");
    magic(b"_BHRfS_M");
    server.restart();
    assert_eq!(server.shell("s", "cat file").await, "kept\n");
}
