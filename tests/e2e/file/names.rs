//! What is done with names: look, move, copy, link, change the mode.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panic, also in its helper functions"
)]

use api::{
    error::ErrorCode,
    file::{ChangeMode, CopyFile, FileType, MakeSymlink, MoveFile, StatFile},
    id::SandboxId,
};
use serde_json::{Value, json};
use testkit::{
    Server,
    client::{Client, ClientError},
};

use super::FILES;
use crate::{
    process::{start, wait},
    server,
};

fn id() -> SandboxId {
    "s".parse().unwrap()
}

/// Code and path of a refusal.
fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (ErrorCode, String) {
    match result.unwrap_err() {
        ClientError::Api { error, .. } => {
            let path = error.details.get("path").and_then(Value::as_str).unwrap_or_default();
            (error.code, path.to_owned())
        }
        other => panic!("{other}"),
    }
}

async fn rename(
    client: &Client,
    from: &str,
    to: &str,
) -> Result<api::file::FileEntry, ClientError> {
    let request = MoveFile { from: from.to_owned(), to: to.to_owned(), ..MoveFile::default() };
    client.move_file(&id(), &request).await
}

async fn copy(
    client: &Client,
    from: &str,
    to: &str,
    recursive: bool,
) -> Result<api::file::FileEntry, ClientError> {
    let request =
        CopyFile { from: from.to_owned(), to: to.to_owned(), recursive, ..CopyFile::default() };
    client.copy_file(&id(), &request).await
}

#[tokio::test]
async fn a_look_says_what_is_there() {
    let server = server();
    let client = server.client();
    server
        .shell("s", "printf 12345 > file; chmod 1751 file; chown 7:8 file; touch -d @1000000000.123 file; mkdir dir; ln -s file link; ln -s gone dangling; mkfifo pipe")
        .await;
    let look = async |path: &str, follow| {
        let query = StatFile { path: path.to_owned(), follow, session: None };
        client.stat_file(&id(), &query).await
    };

    let file = look("file", false).await.unwrap();
    assert_eq!(
        (&*file.name, &*file.path, file.file_type),
        ("file", "/workspace/file", FileType::File)
    );
    assert_eq!((file.size, file.mode, file.uid, file.gid), (5, 0o1751, 7, 8));
    assert_eq!((file.modified_ms, file.accessed_ms), (1_000_000_000_123, 1_000_000_000_123));
    assert!(file.changed_ms > file.modified_ms && file.etag.is_some());
    let link = look("/workspace/link", false).await.unwrap();
    assert_eq!((link.file_type, link.link_target.as_deref()), (FileType::Symlink, Some("file")));
    let followed = look("link", true).await.unwrap();
    assert_eq!((&*followed.name, followed.file_type, followed.size), ("link", FileType::File, 5));
    assert_eq!(followed.etag, file.etag);
    assert_eq!(look("dir/", false).await.unwrap().file_type, FileType::Directory);
    assert_eq!(look("/", true).await.unwrap().file_type, FileType::Directory);
    assert_eq!(look("pipe", true).await.unwrap().file_type, FileType::Other);
    assert_eq!(look("dangling", false).await.unwrap().file_type, FileType::Symlink);
    for (path, follow, code) in [
        ("none", false, ErrorCode::FileNotFound),
        ("dangling", true, ErrorCode::FileNotFound),
        ("file/x", false, ErrorCode::NotDirectory),
        ("", false, ErrorCode::InvalidPath),
        ("/proc/self/exe", true, ErrorCode::TooManyLinks),
    ] {
        assert_eq!(refusal(look(path, follow).await).0, code, "{path}");
    }
    for (path, exists) in
        [("/workspace/link", true), ("/workspace/dangling", false), ("/workspace/file/x", false)]
    {
        assert_eq!(client.file_exists(&id(), path).await.unwrap(), exists, "{path}");
    }
}

#[tokio::test]
async fn a_move_is_another_name_for_the_same_thing() {
    let server = server();
    let client = server.client();
    server.shell("s", "echo 1 > a; ln -s a link; mkdir -p dir/sub full; touch full/x; mkdir empty; mkfifo pipe").await;

    let moved = rename(&client, "a", "dir/b").await.unwrap();
    assert_eq!((&*moved.path, moved.size), ("/workspace/dir/b", 2));
    rename(&client, "/workspace/link", "link2").await.unwrap();
    rename(&client, "pipe", "pipe2").await.unwrap();
    // Over a file, over an empty directory, and onto itself.
    server.shell("s", "echo old > target").await;
    rename(&client, "dir/b", "target").await.unwrap();
    rename(&client, "dir/", "empty").await.unwrap();
    rename(&client, "target", "target").await.unwrap();

    let left = "find . | sort | xargs; cat target; readlink link2";
    assert_eq!(
        server.shell("s", left).await,
        ". ./empty ./empty/sub ./full ./full/x ./link2 ./pipe2 ./target\n1\na\n"
    );
    use ErrorCode as E;
    for (from, to, code, at) in [
        ("none", "x", E::FileNotFound, "/workspace/none"),
        ("target", "no/x", E::FileNotFound, "/workspace/no/x"),
        ("target", "full", E::IsDirectory, "/workspace/full"),
        ("empty", "full", E::DirectoryNotEmpty, "/workspace/full"),
        ("empty", "target", E::NotDirectory, "/workspace/target"),
        ("target/x", "y", E::NotDirectory, "/workspace/target/x"),
        ("empty", "empty/sub/x", E::InvalidPath, "/workspace/empty/sub/x"),
        ("/", "x", E::ResourceBusy, "/"),
        ("empty/..", "x", E::ResourceBusy, "/workspace/empty/.."),
        ("", "x", E::InvalidPath, ""),
        ("target", "", E::InvalidPath, ""),
        ("/proc", "x", E::ResourceBusy, "/proc"),
        ("target", "/proc/x", E::FileNotFound, "/proc/x"),
    ] {
        assert_eq!(refusal(rename(&client, from, to).await), (code, at.to_owned()), "{from} {to}");
    }
    let exclusive =
        MoveFile { from: "target".into(), to: "link2".into(), exclusive: true, session: None };
    let kept = refusal(client.move_file(&id(), &exclusive).await);
    assert_eq!(kept, (E::FileExists, "/workspace/link2".to_owned()));
    assert_eq!(server.shell("s", "cat target; readlink link2").await, "1\na\n");
}

#[tokio::test]
async fn a_move_to_another_file_system_keeps_everything() {
    let server = server();
    let client = server.client();
    let tree = "mkdir -p t/sub t/locked; echo 1 > t/sub/f; ln -s nowhere t/link; truncate -s 1000000 t/sparse; echo x >> t/sparse; \
        chown 7:8 t/sub/f t/sub; chmod 4750 t/sub/f; chmod 711 t/sub; chmod 000 t/locked; touch -d @1000000000 t/sub/f t/sub; ln -s /etc single; \
        for link in t/link single; do chown -h 7:8 $link; touch -hd @1000000000 $link; done";
    server.shell("s", tree).await;
    let look = "stat -c '%n %F %a %u:%g %Y' sub sub/f sparse locked link; stat -c %s sparse; readlink link; cat sub/f; sha256sum < sparse";
    let before = server.shell("s", &format!("cd t; {look}")).await;

    let moved = rename(&client, "t", "/dev/shm/moved").await.unwrap();

    assert_eq!(moved.file_type, FileType::Directory);
    let after = server.shell("s", &format!("cd /dev/shm/moved; {look}")).await;
    assert_eq!(after, before);
    assert!(after.contains("sub/f regular file 4750 7:8 1000000000"), "{after}");
    assert!(after.contains("link symbolic link 777 7:8 1000000000"), "{after}");
    assert_eq!(server.shell("s", "ls -A; ls -A /dev/shm; [ $(stat -c %b /dev/shm/moved/sparse) -lt 100 ] && echo sparse").await, "single\nmoved\nsparse\n");

    rename(&client, "single", "/dev/shm/single").await.unwrap();
    let link = "readlink /dev/shm/single; stat -c '%u:%g %Y' /dev/shm/single; ls -A";
    assert_eq!(server.shell("s", link).await, "/etc\n7:8 1000000000\n");
    server
        .shell(
            "s",
            "mkdir with; touch with/f; mkfifo with/pipe; mkfifo pipe; mkdir -p /dev/shm/full/x",
        )
        .await;
    let refused = refusal(rename(&client, "with", "/dev/shm/with").await);
    assert_eq!(refused, (ErrorCode::NotRegularFile, "/workspace/with/pipe".to_owned()));
    let refused = refusal(rename(&client, "pipe", "/dev/shm/pipe").await);
    assert_eq!(refused.0, ErrorCode::NotRegularFile);
    server.shell("s", "rm with/pipe").await;
    let refused = refusal(rename(&client, "with", "/dev/shm/full").await);
    assert_eq!(refused.0, ErrorCode::DirectoryNotEmpty);
    let exclusive = MoveFile {
        from: "with".into(),
        to: "/dev/shm/full".into(),
        exclusive: true,
        session: None,
    };
    assert_eq!(refusal(client.move_file(&id(), &exclusive).await).0, ErrorCode::FileExists);
    // What was refused left nothing, and nothing is lost.
    let left = "ls -A | xargs; ls -A with; ls -A /dev/shm | xargs; rm -r /dev/shm/*";
    assert_eq!(server.shell("s", left).await, "pipe with\nf\nfull moved single\n");
}

#[tokio::test]
async fn a_directory_of_the_image_can_be_moved() {
    let server = server();
    let client = server.client();
    let before = server.shell("s", "cd /etc && find . -type f | sort | xargs sha256sum").await;

    rename(&client, "/etc", "/etc2").await.unwrap();

    assert_eq!(
        server.shell("s", "cd /etc2 && find . -type f | sort | xargs sha256sum").await,
        before
    );
    assert_eq!(
        refusal(rename(&client, "/etc2", "/etc2/in/itself").await).0,
        ErrorCode::FileNotFound
    );
    rename(&client, "/etc2", "/etc").await.unwrap();
    assert_eq!(refusal(rename(&client, "/usr", "/usr/lib/x").await).0, ErrorCode::InvalidPath);
    server.shell("s", "test -d /usr/bin; test ! -e /etc2; ! ls -A / | grep sandbar").await;
}

#[tokio::test]
async fn a_copy_is_whole_and_apart() {
    let server = server();
    let client = server.client();
    server.shell("s", "head -c 3000000 /dev/urandom > big; chmod 4640 big; chown 7:8 big; ln -s big link; echo old > old; ln -s elsewhere taken").await;

    let copied = copy(&client, "big", "copy", false).await.unwrap();
    assert_eq!((copied.size, copied.mode, copied.uid), (3_000_000, 0o640, 0));
    copy(&client, "link", "old", false).await.unwrap();
    copy(&client, "big", "taken", false).await.unwrap();
    copy(&client, "big", "big", false).await.unwrap();
    let same = "for f in copy old taken; do cmp big $f; test ! -L $f; done; echo more >> copy; cmp big old; ls -A | xargs";
    assert_eq!(server.shell("s", same).await, "big copy link old taken\n");

    server.shell("s", "mkdir -p t/a/b t/empty; echo 1 > t/a/b/f; echo 2 > t/a/.hidden; ln -s ../.. t/a/up; chmod 700 t/a; truncate -s 5000000 t/hole").await;
    copy(&client, "t", "t2", true).await.unwrap();
    assert_eq!(
        server
            .shell("s", "diff -r --no-dereference t t2 && stat -c %a t2/a t2 && stat -c %b t2/hole")
            .await,
        "700\n755\n0\n"
    );
    use ErrorCode as E;
    for (from, to, recursive, code, at) in [
        ("t", "t3", false, E::IsDirectory, "/workspace/t"),
        ("t", "t2", true, E::FileExists, "/workspace/t2"),
        ("t", "t/a/b/inside", true, E::InvalidPath, "/workspace/t/a/b/inside"),
        ("t", "t/inside", true, E::InvalidPath, "/workspace/t/inside"),
        ("big", "t2", true, E::IsDirectory, "/workspace/t2"),
        ("big", "no/x", false, E::FileNotFound, "/workspace/no/x"),
        ("none", "x", false, E::FileNotFound, "/workspace/none"),
        ("/dev/zero", "x", false, E::NotRegularFile, "/dev/zero"),
        ("/proc/self/exe", "x", false, E::TooManyLinks, "/proc/self/exe"),
        ("big", "/", false, E::FileExists, "/"),
    ] {
        let refused = refusal(copy(&client, from, to, recursive).await);
        assert_eq!(refused, (code, at.to_owned()), "{from} {to}");
    }
    let exclusive =
        CopyFile { from: "big".into(), to: "old".into(), exclusive: true, ..CopyFile::default() };
    assert_eq!(refusal(client.copy_file(&id(), &exclusive).await).0, E::FileExists);
    assert_eq!(
        server.shell("s", "ls -A | xargs; ls -A t t/a/b | xargs").await,
        "big copy link old t t2 taken\nt: a empty hole t/a/b: f\n"
    );
}

#[tokio::test]
async fn a_copy_has_what_reading_gives_whatever_size_the_file_says() {
    let server = server();
    let client = server.client();
    // No size; no size and no data that could be sought; a hole at the end.
    server.shell("s", "echo x > hole; truncate -s 1000000 hole").await;
    for from in ["/proc/version", "/proc/sys/kernel/ostype", "/workspace/hole"] {
        let copied = copy(&client, from, "copied", false).await.unwrap();
        assert_ne!(copied.size, 0, "{from}");
        server.shell("s", &format!("cmp copied {from}")).await;
    }
}

#[tokio::test]
async fn a_copy_that_does_not_fit_leaves_nothing() {
    let server = server();
    let client = server.client();
    let fill = "cd /dev/shm; mkdir t; free=$(df --output=avail -B1 . | tail -n 1); head -c $((free * 2 / 3)) /dev/zero > t/f";
    server.shell("s", fill).await;

    let refused = refusal(copy(&client, "/dev/shm/t", "/dev/shm/t2", true).await);
    assert_eq!(refused, (ErrorCode::NoSpace, "/dev/shm/t/f".to_owned()));
    let refused = refusal(copy(&client, "/dev/shm/t/f", "/dev/shm/f", false).await);
    assert_eq!(refused.0, ErrorCode::NoSpace);

    let gone = "for i in $(seq 6000); do [ \"$(ls -A /dev/shm)\" = t ] && break; sleep 0.01; done; ls -A /dev/shm; rm -r /dev/shm/t";
    assert_eq!(server.shell("s", gone).await, "t\n");
}

#[tokio::test]
async fn a_tree_from_which_others_remove_things_is_copied_without_them() {
    let server = server();
    let client = server.client();
    let churn = "import os\nos.mkdir('t'); open('t/stays', 'w').close(); print(flush=True)\n\
                 while True:\n\
                 \x20for i in map(str, range(50)): open('t/f'+i, 'w').close(); os.symlink('x', 't/l'+i); os.mkdir('t/d'+i)\n\
                 \x20for i in map(str, range(50)): os.remove('t/f'+i); os.remove('t/l'+i); os.rmdir('t/d'+i)";
    start(&server, json!({"command": ["python3", "-c", churn], "id": "churn"})).await;
    wait(&server, "churn", json!({"type": "log", "pattern": "^$"})).await;

    for number in 0..100 {
        copy(&client, "t", &number.to_string(), true).await.unwrap();
    }

    assert_eq!(
        server
            .shell("s", "ls -d [0-9]*/stays | wc -l; ls -A /workspace | grep -c sandbar || true")
            .await,
        "100\n0\n"
    );
}

#[tokio::test]
async fn a_copy_whose_caller_leaves_is_given_up() {
    let server = server();
    let client = server.client();
    // So many that the copy takes far longer than it takes to see it and to leave. Names of one file are
    // made fast, and each becomes a file.
    let make = "import os\nos.mkdir('/dev/shm/t'); os.chdir('/dev/shm/t'); open('0', 'w').close()\n\
                for i in range(1, 200_000): os.link('0', str(i))";
    server.shell("s", &format!("python3 -c \"{make}\"")).await;
    let copying = tokio::spawn({
        let client = client.clone();
        async move { copy(&client, "/dev/shm/t", "/dev/shm/t2", true).await }
    });
    let begun = "cd /dev/shm; for i in $(seq 6000); do ls -d .sandbar-* 2>/dev/null && exit 0; sleep 0.01; done; exit 1";
    server.shell("s", begun).await;
    copying.abort();

    let gone = "cd /dev/shm; for i in $(seq 6000); do [ \"$(ls -A)\" = t ] && break; sleep 0.01; done; ls -A; ls t | wc -l";
    assert_eq!(server.shell("s", gone).await, "t\n200000\n");
}

#[tokio::test]
async fn links_are_made_and_replaced() {
    let server = server();
    let client = server.client();
    let link = async |path: &str, target: &str, replace| {
        let request = MakeSymlink {
            path: path.to_owned(),
            target: target.to_owned(),
            replace,
            session: None,
        };
        client.make_symlink(&id(), &request).await
    };
    let made = link("l", "../no where/ü", false).await.unwrap();
    assert_eq!(
        (made.file_type, made.link_target.as_deref()),
        (FileType::Symlink, Some("../no where/ü"))
    );
    server.shell("s", "echo x > file; mkdir dir").await;
    link("l", "file", true).await.unwrap();
    link("file", "l", true).await.unwrap();
    assert_eq!(server.shell("s", "readlink l file; ls -A | xargs").await, "file\nl\ndir file l\n");
    use ErrorCode as E;
    for (path, target, replace, code) in [
        ("l", "x", false, E::FileExists),
        ("dir", "x", true, E::IsDirectory),
        ("no/l", "x", false, E::FileNotFound),
        ("/", "x", true, E::FileExists),
        ("l2", "", false, E::ValidationFailed),
        ("l2", "a\0b", false, E::ValidationFailed),
        ("l2", &"x".repeat(4096), false, E::ValidationFailed),
        ("", "x", false, E::InvalidPath),
    ] {
        assert_eq!(refusal(link(path, target, replace).await).0, code, "{path}");
    }
    link("l2", &"x".repeat(4095), false).await.unwrap();
    assert_eq!(server.shell("s", "ls -A | xargs").await, "dir file l l2\n");
}

#[tokio::test]
async fn modes_are_changed_and_lend_no_identity() {
    let server = server();
    let client = server.client();
    let change = async |path: &str, mode: &str| {
        let request = ChangeMode { path: path.to_owned(), mode: mode.to_owned(), session: None };
        client.change_mode(&id(), &request).await
    };
    server.shell("s", "touch file; chmod 6755 file; mkdir dir; ln -s file link; mkfifo pipe").await;
    assert_eq!(change("link", "600").await.unwrap().mode, 0o600);
    assert_eq!(change("dir", "0").await.unwrap().mode, 0);
    assert_eq!(change("pipe", "0777").await.unwrap().mode, 0o777);
    assert_eq!(server.shell("s", "stat -c %a file dir pipe").await, "600\n0\n777\n");
    for (path, mode, code) in [
        ("none", "644", ErrorCode::FileNotFound),
        ("file", "1000", ErrorCode::ValidationFailed),
        ("file", "u+s", ErrorCode::ValidationFailed),
        ("file", "", ErrorCode::ValidationFailed),
        ("/proc/version", "777", ErrorCode::PermissionDenied),
        ("/proc/self/exe", "777", ErrorCode::TooManyLinks),
        ("/usr/bin/env/x", "644", ErrorCode::NotDirectory),
    ] {
        assert_eq!(refusal(change(path, mode).await).0, code, "{path} {mode}");
    }
}

#[tokio::test]
async fn a_slash_at_the_end_says_that_a_path_is_a_directory() {
    let server = server();
    let client = server.client();
    server.shell("s", "mkdir dir; echo kept > file; ln -s dir link").await;
    let remove = async |path: &str, query: &str| {
        let path = format!("{FILES}/workspace/{path}{query}");
        server.delete(&path).await
    };

    for (path, query) in [("file/", ""), ("link/", ""), ("file/", "?recursive=true")] {
        assert_eq!(remove(path, query).await.code(), "NOT_DIRECTORY", "{path} {query}");
    }
    for (from, to) in [("file/", "new"), ("link/", "new"), ("file", "new/")] {
        let code = refusal(rename(&client, from, to).await).0;
        assert_eq!(code, ErrorCode::NotDirectory, "{from} {to}");
    }
    let code = refusal(copy(&client, "file", "new/", false).await).0;
    assert_eq!(code, ErrorCode::NotDirectory);
    assert_eq!(server.shell("s", "cat file; ls").await, "kept\ndir\nfile\nlink\n");

    rename(&client, "dir/", "moved/").await.unwrap();
    copy(&client, "moved/", "copied/", true).await.unwrap();
    assert_eq!(remove("moved/", "?recursive=true").await.status, 204);
    assert_eq!(server.shell("s", "ls").await, "copied\nfile\nlink\n");
}

#[tokio::test]
async fn bad_requests_are_refused_before_anything_is_done() {
    let server = server();
    for (verb, body) in [
        ("move", json!({"from": "a"})),
        ("move", json!({"from": "a", "to": "b", "overwrite": true})),
        ("copy", json!({"from": "a", "to": 1})),
        ("symlink", json!({"path": "a"})),
        ("chmod", json!({"path": "a", "mode": 493})),
        ("read", json!({"paths": "a"})),
        ("read", json!({"paths": ["a"], "encoding": "latin1"})),
        ("write", json!({"files": [{"path": "a"}]})),
        ("write", json!({"files": [{"path": "a", "content": "", "encoding": "auto"}]})),
        ("mkdir", json!([])),
    ] {
        let answer = server.post(&format!("{FILES}:{verb}"), &body).await;
        assert_eq!(answer.code(), "VALIDATION_FAILED", "{verb} {body}: {}", answer.text);
    }
    for query in [
        "stat?path=a&follow=1",
        "stat",
        "list?path=.&limit=0",
        "list?path=.&limit=10001",
        "list?path=.&cursor=AAAAAAAAAABhLw&depth=2",
        "list?path=.&cursor=AAAAAAAAAABhLwAAAAAAAAAAYi8",
    ] {
        assert_eq!(
            server.get(&format!("{FILES}:{query}")).await.code(),
            "VALIDATION_FAILED",
            "{query}"
        );
    }
    for query in ["encoding=latin1", "session=", "hidden=true"] {
        let path = format!("{FILES}/workspace/a?{query}");
        assert_eq!(server.get(&path).await.code(), "VALIDATION_FAILED", "{query}");
    }
    for query in ["mode=8", "mode=1777", "append=yes", "sha256=00", "exclusive", "x=y"] {
        let path = format!("{FILES}/workspace/a?{query}");
        assert_eq!(server.put(&path, "x").await.code(), "VALIDATION_FAILED", "{query}");
    }
    assert_eq!(entries(&server).await, 0);
}

async fn entries(server: &Server) -> usize {
    let listed = server.get(&format!("{FILES}:list?path=.&hidden=true")).await;
    listed.json["entries"].as_array().map_or(usize::MAX, Vec::len)
}
