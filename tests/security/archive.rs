//! Hostile archives and hostile trees: F04, F05, F12, F15, F21, F24, F25.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    process::Output,
};

use testkit::{Answer, Server, reqwest::Method, tape};

use crate::server;

const ARCHIVE: &str = "/v1/sandboxes/s/archive";

async fn unpack(server: &Server, path: &str, parts: &[Vec<u8>]) -> Answer {
    server.put(&format!("{ARCHIVE}?path={path}"), tape::archive(parts)).await
}

fn copy_out(server: &Server, target: &std::path::Path) -> Output {
    let target = target.display().to_string();
    server.command(["cp", "-r", "s:/workspace/d/.", &target]).output().expect("the binary starts")
}

/// F25
#[tokio::test]
async fn no_entry_leaves_the_directory() {
    let server = server();
    server.shell("s", "mkdir to; echo old > target; mkdir aside").await;
    let link = |to: &str| tape::entry(b'2', b"link", to.as_bytes(), b"");
    let hard = |to: &str| tape::entry(b'1', b"hard", to.as_bytes(), b"");
    for (parts, code) in [
        (vec![tape::file("../target", "new")], "INVALID_ARCHIVE"),
        (vec![tape::file("a/../../target", "new")], "INVALID_ARCHIVE"),
        (
            vec![tape::records(b'x', &[("path", "../target")]), tape::file("x", "new")],
            "INVALID_ARCHIVE",
        ),
        (vec![link(".."), tape::file("link/target", "new")], "NOT_DIRECTORY"),
        (vec![link("/workspace"), tape::file("link/target", "new")], "NOT_DIRECTORY"),
        (vec![link("/proc/self/root"), tape::file("link/etc/passwd", "new")], "NOT_DIRECTORY"),
        (vec![link("../aside"), tape::entry(b'5', b"link/made", b"", b"")], "NOT_DIRECTORY"),
        (vec![hard("../target"), tape::file("hard", "new")], "INVALID_ARCHIVE"),
        (vec![hard("/etc/passwd"), tape::file("hard", "new")], "FILE_NOT_FOUND"),
    ] {
        let refused = unpack(&server, "to", &parts).await;
        assert_eq!(refused.code(), code, "{}", refused.text);
        server.shell("s", "rm -rf to/*").await;
    }
    // What replaces a link, or a further name of one, replaces that; what is absolute is below the
    // directory.
    let parts = [
        link("../target"),
        hard("link"),
        tape::file("hard", "new"),
        tape::file("link", "new"),
        tape::file("/etc/passwd", "new"),
    ];
    assert_eq!(unpack(&server, "to", &parts).await.status, 200);

    assert_eq!(server.shell("s", "find to -type l; cat to/hard to/link").await, "newnew");
    assert_eq!(server.shell("s", "cat target; ls -A aside").await, "old\n");
    assert_eq!(server.shell("s", "ls -A; cat to/etc/passwd").await, "aside\ntarget\nto\nnew");
    assert!(!server.shell("s", "cat /etc/passwd").await.contains("new"));
}

/// F25, E12
#[tokio::test]
async fn devices_and_identities_are_not_made() {
    let server = server();
    let parts = [
        tape::entry(b'3', b"null", b"", b""),
        tape::entry(b'4', b"disk", b"", b""),
        tape::entry(b'6', b"pipe", b"", b""),
        tape::file("program", "x"),
        tape::entry(b'5', b"directory", b"", b""),
    ];

    let done = unpack(&server, "to", &parts).await;

    assert_eq!(done.json["leftOutCount"], 3, "{}", done.text);
    assert_eq!(
        server.shell("s", "stat -c '%n %a %u' to/*").await,
        "to/directory 777 0\nto/program 777 0\n"
    );
    // An owner beyond the sandbox's ids has no place in it.
    let owned = [tape::records(b'x', &[("uid", "65536")]), tape::file("owned", "x")];
    let query = format!("{ARCHIVE}?path=to&keepOwner=true");
    let refused = server.put(&query, tape::archive(&owned)).await;
    assert!(refused.status >= 400, "{}", refused.text);
    server.shell("s", "[ ! -e to/owned ]").await;
}

/// F25: what other programs read in another way is not read at all.
#[tokio::test]
async fn an_archive_with_two_meanings_is_refused() {
    let server = server();
    let long = tape::entry(b'L', b"././@LongLink", b"", b"name\0");
    for parts in [
        vec![tape::records(b'x', &[("size", "0")]), tape::entry(b'5', b"d", b"", b"hidden")],
        vec![tape::records(b'x', &[("path", "a")]), long.clone(), tape::file("b", "")],
        vec![long.clone(), long, tape::file("b", "")],
        vec![tape::header(b'0', b"b", b"", b"\x80\0\0\x01\0\0\0\0\0\0\0\0").to_vec()],
        vec![tape::header(b'0', b"b", b"", b"-0000000001\0").to_vec()],
        vec![tape::records(b'x', &[("GNU.sparse.realsize", "1099511627776")]), tape::file("b", "")],
    ] {
        let refused = unpack(&server, "to", &parts).await;
        assert_eq!(refused.code(), "INVALID_ARCHIVE", "{}", refused.text);
    }
    // The directory of the first one, whose size is none; nothing of what is hidden behind it.
    assert_eq!(server.shell("s", "find to").await, "to\nto/d\n");
}

/// F25: the size of a header alone must not cost memory.
#[tokio::test]
async fn headers_of_any_size_cost_nothing() {
    let server = server();
    for kind in [b'x', b'g', b'L', b'K'] {
        let huge = tape::header(kind, b"huge", b"", b"77777777777\0").to_vec();
        let refused = unpack(&server, "to", &[huge, vec![b'n'; 4 << 20]]).await;
        assert_eq!(refused.code(), "INVALID_ARCHIVE", "{}", refused.text);
    }
    let long = tape::entry(b'L', b"././@LongLink", b"", &[b'n'; 5000]);
    assert_eq!(unpack(&server, "to", &[long, tape::file("x", "")]).await.code(), "INVALID_ARCHIVE");
    let deep = tape::records(b'x', &[("path", &vec!["d"; 2000].join("/"))]);
    assert_eq!(unpack(&server, "to", &[deep, tape::file("x", "")]).await.code(), "INVALID_ARCHIVE");
}

/// F12: a directory that is swapped for a link, again and again, while archives are unpacked.
#[tokio::test]
async fn a_swapped_directory_leads_nowhere() {
    let server = server();
    server.shell("s", "mkdir -p to/d aside").await;
    let swap = "cd to; while [ ! -e ../stop ]; do mv -T d e && ln -s ../aside d && rm d; \
                mv -T e d; done";
    let swapping = format!("({swap}) > /dev/null 2>&1 &");
    server.shell("s", &swapping).await;

    let mut written = 0;
    for round in 0..300 {
        let done = unpack(&server, "to", &[tape::file("d/file", &round.to_string())]).await;
        written += u32::from(done.status == 200);
    }
    server.shell("s", "touch stop").await;

    assert!(written > 0, "not one archive was unpacked");
    assert_eq!(server.shell("s", "ls -A aside").await, "");
}

/// F04, F05
#[tokio::test]
async fn nothing_of_the_agent_can_be_packed() {
    let server = server();
    server.shell("s", "mkdir d; ln -s /proc/1 d/agent; ln -s /proc/self p; ln -s / root").await;
    for path in ["/proc", "/proc/self", "/proc/1", "/proc/self/environ", "p", "root/proc/1/root"] {
        let refused = server.get(&format!("{ARCHIVE}?path={path}")).await;
        assert!(
            matches!(refused.code(), "PERMISSION_DENIED" | "FILESYSTEM_ERROR" | "TOO_MANY_LINKS"),
            "{path}: {}",
            refused.text
        );
    }
    // Links are packed as links, and what is mounted is not descended into.
    let request = server.request(Method::GET, &format!("{ARCHIVE}?path=/&exclude=/usr"));
    let archive = request.send().await.unwrap().bytes().await.unwrap();
    let names = |wanted: &str| {
        let mut archive = tar::Archive::new(&*archive);
        let entries = archive.entries().unwrap().map(Result::unwrap);
        entries.filter(|entry| entry.path_bytes().starts_with(wanted.as_bytes())).count()
    };
    assert_eq!((names("workspace/d/agent"), names("workspace/d/agent/")), (1, 0));
    assert_eq!(names("proc/"), 0);
    assert_eq!(names("dev/"), 0);
}

/// F24
#[tokio::test]
async fn trees_deeper_than_any_path_are_packed_as_far_as_paths_go() {
    let server = server();
    let make = r#"import os
os.mkdir("d"); os.chdir("d"); open("file", "w").close()
for i in range(3000): os.mkdir("d"); os.chdir("d")"#;
    server.shell("s", &format!("python3 -c '{make}'")).await;

    let archive = server.request(Method::GET, &format!("{ARCHIVE}?path=d")).send().await.unwrap();
    let archive = archive.bytes().await.unwrap();
    let done = server.put(&format!("{ARCHIVE}?path=to"), archive).await;

    assert_eq!((&done.json["files"], &done.json["directories"]), (&1.into(), &255.into()));
    let dir = tempfile::tempdir().unwrap();
    let copied = copy_out(&server, dir.path());
    let stderr = String::from_utf8_lossy(&copied.stderr).into_owned();
    assert_eq!(copied.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("it lies too deep"), "{stderr}");
}

/// F15, F21: what code in a sandbox can put into its files, copied to the host by root.
#[tokio::test]
async fn a_copy_to_the_host_stays_in_its_directory() {
    let server = server();
    let make = r#"mkdir -p d/sub; cd d; ln -s / root; ln -s ../../outside up; ln -s /etc/passwd p
        mkfifo pipe; printf x > "$(printf '\033]0;title\007\n')"; echo x > s; chmod 6777 s
        chmod 7777 sub; ln s sub/again"#;
    server.shell("s", make).await;
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("copy");
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();

    let first = copy_out(&server, &target);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let mode =
        |name: &str| fs::symlink_metadata(target.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("s"), mode("sub")), (0o777, 0o777));
    assert!(!target.join("pipe").exists());

    // What was a directory is a link on the next copy, and what was a link a directory.
    let turn =
        "cd d; rm -r up root p; mkdir up root; echo x > up/file; echo x > root/file; echo new > p";
    server.shell("s", turn).await;
    let second = copy_out(&server, &target);
    let stderr = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("Not a directory"), "{stderr}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(!std::path::Path::new("/file").exists());

    // The same with links that the user has there: the files go in place of them.
    let third = dir.path().join("third");
    fs::create_dir(&third).unwrap();
    fs::write(outside.join("kept"), "kept").unwrap();
    symlink(outside.join("kept"), third.join("p")).unwrap();
    let copied = copy_out(&server, &third);
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(third.join("p")).unwrap(), "new\n");
}

/// What a terminal would take for commands does not reach it.
#[tokio::test]
async fn names_of_a_sandbox_do_not_speak_to_the_terminal() {
    let server = server();
    server.shell("s", r#"mkdir d; mkfifo "$(printf 'd/\033[2J\nname')""#).await;
    let dir = tempfile::tempdir().unwrap();

    let copied = copy_out(&server, dir.path());

    let stderr = String::from_utf8_lossy(&copied.stderr).into_owned();
    assert_eq!(stderr, "sandbar: \\u{1b}[2J\\nname: it is a socket, a pipe or a device\n");
}
