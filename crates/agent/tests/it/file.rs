//! Files: byte-exact, bounded, and errors that name the path.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, chown, symlink},
    },
    path::PathBuf,
};

use api::{
    error::ErrorCode,
    file::{FileEntry, FileList, FileType},
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use serde_json::json;

use crate::harness::{Agent, eventually, post, request, within};

async fn start() -> Agent {
    let agent = Agent::start();
    eventually("the working directory", || agent.work().exists()).await;
    agent
}

async fn put(agent: &Agent, url: &str, body: impl Into<Bytes>) -> FileEntry {
    let (status, _, answer) = agent.send(request(Method::PUT, url, body)).await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer));
    serde_json::from_slice(&answer).unwrap()
}

async fn list(agent: &Agent, query: &str) -> FileList {
    let (status, _, answer) = agent.get(&format!("/files:list?{query}")).await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer));
    serde_json::from_slice(&answer).unwrap()
}

async fn check_refused(
    agent: &Agent,
    request: Request<http_body_util::Full<Bytes>>,
    code: ErrorCode,
) {
    let shown = format!("{} {}", request.method(), request.uri());
    let (status, error) = agent.refused(request).await;
    assert_eq!((status.as_u16(), error.code), (code.status(), code), "{shown}: {error}");
}

fn names(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_is_written_is_read() {
    let agent = start().await;
    for size in [0, 1, 1000, 256 * 1024, 256 * 1024 + 1, 3_000_000] {
        let content: Vec<u8> = (0..=255).cycle().take(size).collect();
        let url = agent.url("deep/er/a%20file.json");

        let entry = put(&agent, &url, content.clone()).await;
        let (status, headers, read) = agent.get(&url).await;

        assert_eq!((status, read.len()), (StatusCode::OK, size));
        assert!(read == content, "{size} bytes differ");
        assert_eq!((entry.size, &*entry.name, entry.mode), (size as u64, "a file.json", 0o644));
        assert_eq!(entry.path, agent.work().join("deep/er/a file.json").display().to_string());
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["content-length"], size.to_string());
        assert_eq!(headers["x-sandbar-mode"], "644");
        assert_eq!(headers["x-sandbar-modified-ms"], entry.modified_ms.to_string());
    }
    assert_eq!(names(&agent.work().join("deep/er")), ["a file.json"]);
}

#[tokio::test]
async fn a_replaced_file_keeps_mode_and_owner_and_is_never_half() {
    let agent = start().await;
    let path = agent.work().join("f");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4750)).unwrap();
    chown(&path, Some(7), Some(8)).unwrap();
    let held = File::open(&path).unwrap();

    let entry = put(&agent, &agent.url("f"), "new").await;

    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (7, 8, 0o750));
    assert_eq!(entry.mode, 0o750);
    assert_eq!(std::io::read_to_string(held).unwrap(), "old");
    put(&agent, &format!("{}?mode=0600", agent.url("f")), "new").await;
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(names(&agent.work()), ["f"]);
}

#[tokio::test]
async fn links_are_followed_but_not_out_of_proc() {
    let agent = start().await;
    let work = agent.work();
    fs::create_dir(work.join("d")).unwrap();
    fs::write(work.join("d/target"), "old").unwrap();
    symlink("link2", work.join("link")).unwrap();
    symlink(work.join("d/target"), work.join("link2")).unwrap();
    symlink("d/new", work.join("dangling")).unwrap();
    symlink("loop", work.join("loop")).unwrap();
    symlink("/proc/self/root", work.join("magic")).unwrap();

    put(&agent, &agent.url("link"), "through").await;
    put(&agent, &agent.url("dangling"), "made").await;

    assert_eq!(fs::read_to_string(work.join("d/target")).unwrap(), "through");
    assert_eq!(fs::read_to_string(work.join("d/new")).unwrap(), "made");
    assert!(fs::symlink_metadata(work.join("link")).unwrap().is_symlink());
    assert_eq!(agent.get(&agent.url("link")).await.2, "through");
    for (method, name) in [
        (Method::GET, "loop"),
        (Method::PUT, "loop"),
        (Method::GET, "magic/etc/passwd"),
        (Method::PUT, "magic/tmp/made"),
        (Method::PUT, "magic/none/made"),
    ] {
        let request = request(method, &agent.url(name), "");
        check_refused(&agent, request, ErrorCode::TooManyLinks).await;
    }
    agent.send(request(Method::DELETE, &agent.url("link"), "")).await;
    assert!(work.join("d/target").exists());
}

#[tokio::test]
async fn what_is_no_file_is_refused_at_once() {
    let agent = start().await;
    let work = agent.work();
    agent
        .sh("mkfifo fifo; mkdir dir; touch file; python3 -c \"import socket; \
        socket.socket(socket.AF_UNIX).bind('socket')\"")
        .await;
    let url = |name: &str| agent.url(name);
    use ErrorCode as E;
    let long = "x".repeat(256);
    let (get, put, delete) = (Method::GET, Method::PUT, Method::DELETE);
    for (method, url, code) in [
        (&get, url("nothing"), E::FileNotFound),
        (&get, url("dir"), E::IsDirectory),
        (&get, url("file/below"), E::NotDirectory),
        (&get, url("fifo"), E::NotRegularFile),
        (&get, url("socket"), E::NotRegularFile),
        (&get, "/files/dev/zero".to_owned(), E::NotRegularFile),
        (&get, url(&long), E::NameTooLong),
        (&get, url("a%00b"), E::InvalidPath),
        (&get, url("a%zz"), E::InvalidPath),
        (&get, format!("/files/{}", "x/".repeat(3000)), E::InvalidPath),
        (&get, format!("/files/proc/{}/environ", agent.pid()), E::PermissionDenied),
        (&get, "/files/proc/self/maps".to_owned(), E::PermissionDenied),
        (&put, url("dir"), E::IsDirectory),
        (&put, url("dir/"), E::IsDirectory),
        (&put, url("dir/.."), E::IsDirectory),
        (&put, url("file/below"), E::NotDirectory),
        (&put, url("fifo"), E::NotRegularFile),
        (&put, url("socket"), E::NotRegularFile),
        (&put, "/files/dev/null".to_owned(), E::NotRegularFile),
        (&put, url(&long), E::NameTooLong),
        (&put, format!("{}?mode=4755", url("file")), E::ValidationFailed),
        (&put, format!("{}?mod=755", url("file")), E::ValidationFailed),
        (&delete, url("nothing"), E::FileNotFound),
        (&delete, url("dir"), E::IsDirectory),
        (&delete, "/files/.".to_owned(), E::ResourceBusy),
        (&delete, "/files/proc?recursive=true".to_owned(), E::ResourceBusy),
        (&delete, format!("{}?recursive=1", url("dir")), E::ValidationFailed),
        (&get, "/files:list?path=nothing".to_owned(), E::FileNotFound),
        (&get, "/files:list?path=file".to_owned(), E::NotDirectory),
        (&get, "/files:list?path=".to_owned(), E::InvalidPath),
        (&get, "/files:list".to_owned(), E::ValidationFailed),
        (&get, "/files:list?path=.&limit=0".to_owned(), E::ValidationFailed),
        (&get, "/files:list?path=.&limit=10001".to_owned(), E::ValidationFailed),
        (&get, "/files:list?path=.&cursor=Li4".to_owned(), E::ValidationFailed),
        (&get, format!("/files:list?path=/proc/{}", agent.pid()), E::PermissionDenied),
    ] {
        check_refused(&agent, request(method.clone(), &url, "x"), code).await;
    }
    let (_, error) = agent.refused(request(get, &url("nothing"), "")).await;
    assert_eq!(error.details["path"], work.join("nothing").display().to_string());
    assert_eq!(names(&work), ["dir", "fifo", "file", "socket"]);
}

#[tokio::test]
async fn parts_of_a_file_are_served() {
    let agent = start().await;
    put(&agent, &agent.url("f"), "0123456789").await;
    let get = async |range: &'static str| -> (StatusCode, HeaderMap, Bytes) {
        let mut request = request(Method::GET, &agent.url("f"), "");
        request.headers_mut().insert("range", range.parse().unwrap());
        agent.send(request).await
    };

    let (status, headers, body) = get("bytes=2-4").await;
    assert_eq!((status, &body[..]), (StatusCode::PARTIAL_CONTENT, &b"234"[..]));
    assert_eq!(headers["content-range"], "bytes 2-4/10");
    assert_eq!(get("bytes=-3").await.2, "789");
    assert_eq!(get("bytes=8-").await.2, "89");
    let (status, headers, _) = get("bytes=10-").await;
    assert_eq!(status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(headers["content-range"], "bytes */10");
    assert_eq!(get("lines=1-2").await.0, StatusCode::OK);

    let (status, headers, body) = agent.send(request(Method::HEAD, &agent.url("f"), "")).await;
    assert_eq!((status, body.len()), (StatusCode::OK, 0));
    assert_eq!(headers["content-length"], "10");
    let (_, _, version) = agent.get("/files/proc/version").await;
    assert!(version.starts_with(b"Linux"));
}

#[tokio::test]
async fn a_file_that_shrinks_breaks_the_connection_not_the_length() {
    let agent = start().await;
    let path = agent.work().join("f");
    File::create(&path).unwrap().set_len(64 * 1024 * 1024).unwrap();
    let response = agent.open(request(Method::GET, &agent.url("f"), "")).await;
    assert_eq!(response.headers()["content-length"], "67108864");

    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();

    let mut body = response.into_body();
    let end = loop {
        match within(body.frame()).await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Some(Err(_))), "a short body must not look whole");
}

#[tokio::test]
async fn a_gibibyte_passes_in_constant_memory() {
    const PIECE: usize = 1024 * 1024;
    let agent = start().await;
    let piece = Bytes::from(vec![7; PIECE]);
    let frames =
        stream::iter((0..1024).map(move |_| Ok::<_, std::io::Error>(Frame::data(piece.clone()))));
    let put = Request::put(agent.url("big")).body(StreamBody::new(frames)).unwrap();

    let status = send_stream(&agent, put).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    let mut body = agent.open(request(Method::GET, &agent.url("big"), "")).await.into_body();
    let mut received = 0;
    while let Some(frame) = within(body.frame()).await {
        received += frame.unwrap().into_data().unwrap().len();
    }

    assert_eq!(received, 1024 * PIECE);
    let peak = agent.memory_kib("VmHWM");
    assert!(peak < 16 * 1024, "{peak} KiB");
}

async fn send_stream<B>(agent: &Agent, request: Request<B>) -> hyper::Result<StatusCode>
where
    B: hyper::body::Body<Data = Bytes, Error = std::io::Error> + Send + 'static,
{
    let socket = agent.work().parent().unwrap().join("agent.sock");
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    tokio::time::timeout(crate::harness::DEADLINE * 4, sender.send_request(request))
        .await
        .expect("an answer")
        .map(|response| response.status())
}

#[tokio::test]
async fn a_broken_upload_leaves_the_old_content_and_nothing_else() {
    let agent = start().await;
    fs::write(agent.work().join("f"), "old").unwrap();
    let frames = stream::iter((0..10).map(|number| match number {
        9 => Err(std::io::Error::other("the caller dies")),
        _ => Ok(Frame::data(Bytes::from(vec![1; 1024 * 1024]))),
    }));
    let put = Request::put(agent.url("f")).body(StreamBody::new(frames)).unwrap();

    send_stream(&agent, put).await.unwrap_err();

    eventually("the temporary file is gone", || names(&agent.work()) == ["f"]).await;
    assert_eq!(fs::read_to_string(agent.work().join("f")).unwrap(), "old");
}

#[tokio::test]
async fn writers_of_one_file_never_mix() {
    let agent = start().await;
    let sizes = [300_000, 400_000, 500_000, 600_000];
    let writes = (0..40).map(|number| {
        let byte = b'a' + number % 4;
        let content = vec![byte; sizes[usize::from(number % 4)]];
        let agent = &agent;
        async move { put(agent, &agent.url("f"), content).await }
    });

    within(futures_util::future::join_all(writes)).await;

    let content = fs::read(agent.work().join("f")).unwrap();
    assert_eq!(content.len(), sizes[usize::from(content[0] - b'a')]);
    assert!(content.iter().all(|byte| *byte == content[0]));
    assert_eq!(names(&agent.work()), ["f"]);
}

#[tokio::test]
async fn a_full_disk_says_so() {
    let agent = start().await;
    let disk = agent.work().join("disk");
    fs::create_dir(&disk).unwrap();
    let tmpfs = Tmpfs::new(disk.clone(), "1m");

    let (status, error) =
        agent.refused(request(Method::PUT, &agent.url("disk/f"), vec![1; 4 * 1024 * 1024])).await;

    assert_eq!((status.as_u16(), error.code), (507, ErrorCode::NoSpace));
    assert!(names(&disk).is_empty());
    drop(tmpfs);
}

/// A small file system, mounted by root as long as the value lives.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn new(path: PathBuf, size: &str) -> Self {
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(&path)
            .status()
            .unwrap();
        assert!(status.success(), "mount needs root");
        Self(path)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        assert!(std::process::Command::new("umount").arg(&self.0).status().unwrap().success());
    }
}

#[tokio::test]
async fn trees_of_any_depth_are_deleted_and_links_are_not_followed() {
    let agent = start().await;
    let work = agent.work();
    fs::create_dir(work.join("kept")).unwrap();
    fs::write(work.join("kept/file"), "").unwrap();
    let make = "import os\nfor i in range(2500):\n  os.mkdir('d'); open('f','w'); os.chdir('d')\n\
        os.symlink('/', 'root')";
    let made = agent.exec(json!({"command": ["python3", "-c", make]})).await;
    assert!(made.success, "{}", made.stderr);
    symlink(work.join("kept"), work.join("d/link")).unwrap();
    for number in 0..300 {
        fs::create_dir_all(work.join(format!("d/wide/{number}/x"))).unwrap();
    }

    let listed = list(&agent, "path=d&recursive=true&limit=1000").await;
    assert!(listed.entries.len() == 1000 && listed.next_cursor.is_some());
    let (status, _, body) = agent
        .send(request(Method::DELETE, &format!("{}?recursive=true", agent.url("d/")), ""))
        .await;

    assert_eq!(status, StatusCode::NO_CONTENT, "{}", String::from_utf8_lossy(&body));
    assert_eq!(names(&work), ["f", "kept"]);
    assert_eq!(names(&work.join("kept")), ["file"]);
}

#[tokio::test]
async fn a_tree_wider_than_is_remembered_is_deleted() {
    let agent = start().await;
    let wide = agent.work().join("wide");
    for number in 0..17_600 {
        for below in ["a", "b", "c"] {
            fs::create_dir_all(wide.join(format!("{number}/{below}"))).unwrap();
        }
    }

    let delete = request(Method::DELETE, &format!("{}?recursive=true", agent.url("wide")), "");
    let (status, _, body) = agent.send(delete).await;

    assert_eq!(status, StatusCode::NO_CONTENT, "{}", String::from_utf8_lossy(&body));
    assert!(!wide.exists());
}

#[tokio::test]
async fn a_directory_that_goes_between_two_pages_ends_there() {
    let agent = start().await;
    let work = agent.work();
    for number in 0..8 {
        fs::create_dir_all(work.join(format!("d/{number}/x"))).unwrap();
    }
    let page = list(&agent, "path=d&recursive=true&limit=1").await;
    // It is held open: what comes next is in it.
    fs::remove_dir_all(&page.entries[0].path).unwrap();

    let cursor = page.next_cursor.unwrap();
    let rest = list(&agent, &format!("path=d&recursive=true&limit=100&cursor={cursor}")).await;

    assert_eq!((rest.entries.len(), rest.next_cursor), (14, None));
}

/// All pages of a query, and that each but the last is full.
async fn pages(agent: &Agent, query: &str, limit: usize) -> Vec<String> {
    let mut paths = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = list(agent, &format!("{query}&limit={limit}{cursor}")).await;
        paths.extend(page.entries.into_iter().map(|entry| entry.path));
        let Some(next) = page.next_cursor else { return paths };
        assert_eq!(paths.len() % limit, 0);
        cursor = format!("&cursor={next}");
        if (paths.len() / limit).is_multiple_of(2) {
            // Another list between two pages, so that the next one has only its cursor to go by.
            assert!(list(agent, "path=/usr&limit=1").await.next_cursor.is_some());
        }
    }
}

#[tokio::test]
async fn pages_of_any_size_are_the_same_list() {
    let agent = start().await;
    let work = agent.work();
    for name in ["a/b/c", "a/b.x", "a-", "a0", ".hidden/x", "b/.y", "z"] {
        fs::create_dir_all(work.join(name)).unwrap();
    }
    for number in 0..30 {
        fs::write(work.join(format!("a/b/{number}")), "").unwrap();
    }
    symlink("..", work.join("a/up")).unwrap();
    let mut expected: Vec<PathBuf> = ["a-", "a0", "a", "a/b", "a/b.x", "a/b/c", "a/up", "b", "z"]
        .iter()
        .map(|name| work.join(name))
        .chain((0..30).map(|number| work.join(format!("a/b/{number}"))))
        .collect();
    // `Path` compares component by component.
    expected.sort();
    let expected: Vec<String> = expected.iter().map(|path| path.display().to_string()).collect();

    for limit in [1, 2, 7, 39, 1000] {
        let mut seen = pages(&agent, "path=.&recursive=true", limit).await;
        for (index, path) in seen.iter().enumerate() {
            let parent = PathBuf::from(path).parent().unwrap().display().to_string();
            let before = seen[..index].contains(&parent) || *parent == *work.to_str().unwrap();
            assert!(before, "{limit}: {path} comes before its directory");
        }
        if limit < expected.len() {
            seen.sort_by(|a, b| PathBuf::from(a).cmp(&PathBuf::from(b)));
        }
        assert_eq!(seen, expected, "{limit}");
    }
    let flat = pages(&agent, &format!("path={}", work.display()), 2).await;
    assert_eq!(flat.len(), 5);
    let hidden = pages(&agent, "path=.&recursive=true&hidden=true", 3).await;
    assert_eq!(hidden.len(), expected.len() + 3);
}

#[tokio::test]
async fn entries_say_what_they_are() {
    let agent = start().await;
    let work = agent.work();
    fs::write(work.join("file"), "12345").unwrap();
    fs::set_permissions(work.join("file"), fs::Permissions::from_mode(0o1751)).unwrap();
    symlink("to/where", work.join("link")).unwrap();
    agent.sh("mkfifo pipe").await;
    let odd = work.join(std::ffi::OsStr::from_bytes(b"\xff\n"));
    fs::write(&odd, "odd").unwrap();

    let entries = list(&agent, "path=.").await.entries;

    let shown: Vec<_> = entries
        .iter()
        .map(|entry| (&*entry.name, entry.file_type, entry.link_target.as_deref()))
        .collect();
    assert_eq!(
        shown,
        [
            ("file", FileType::File, None),
            ("link", FileType::Symlink, Some("to/where")),
            ("pipe", FileType::Other, None),
            ("\u{fffd}\n", FileType::File, None),
        ]
    );
    assert_eq!((entries[0].size, entries[0].mode), (5, 0o1751));
    let encoded = entries[3].encoded_path.as_ref().unwrap();
    assert_eq!(agent.get(&format!("/files/{encoded}")).await.2, "odd");
    agent.send(request(Method::DELETE, &format!("/files/{encoded}"), "")).await;
    assert!(!odd.exists());
}

#[tokio::test]
async fn a_hundred_thousand_entries_are_listed_in_pages() {
    let agent = start().await;
    let work = agent.work();
    for number in 0..100_000 {
        File::create(work.join(format!("{number:06}"))).unwrap();
    }

    let mut seen = pages(&agent, "path=.", 1000).await;

    assert_eq!(seen.len(), 100_000);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 100_000);
    let ten = list(&agent, "path=.&limit=10000").await;
    assert!(ten.entries.len() == 10_000 && ten.next_cursor.is_some());
    assert!(ten.entries.is_sorted_by_key(|entry| entry.name.clone()));
    let peak = agent.memory_kib("VmHWM");
    assert!(peak < 32 * 1024, "{peak} KiB");
    fs::remove_dir_all(work).unwrap();
}

#[tokio::test]
async fn directories_are_made() {
    let agent = start().await;
    let make = async |path: &str, recursive: bool| {
        agent.send(post("/files:mkdir", &json!({"path": path, "recursive": recursive}))).await
    };

    let (status, _, body) = make("a", false).await;
    let entry: FileEntry = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, entry.file_type, entry.mode), (StatusCode::OK, FileType::Directory, 0o755));
    assert_eq!(entry.path, agent.work().join("a").display().to_string());
    assert_eq!(make("x/y/z/", true).await.0, StatusCode::OK);
    assert_eq!(make("x/y", true).await.0, StatusCode::OK);
    File::create(agent.work().join("file")).unwrap().write_all(b"").unwrap();
    for (path, recursive, code) in [
        ("a", false, ErrorCode::FileExists),
        ("q/r", false, ErrorCode::FileNotFound),
        ("file", true, ErrorCode::FileExists),
        ("file/x", true, ErrorCode::NotDirectory),
        ("", true, ErrorCode::InvalidPath),
        ("\0", true, ErrorCode::InvalidPath),
    ] {
        let body = json!({"path": path, "recursive": recursive});
        check_refused(&agent, post("/files:mkdir", &body), code).await;
    }
}
