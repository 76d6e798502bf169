//! What is packed is what there is.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    process::{Command, Stdio},
};

use api::{archive::LeftOutReason, limit::ARCHIVE_DEPTH, pattern::Pattern};
use archive::{ArchiveError, PackOptions, Packer, Source};

use crate::tree::{directory, look, make, pack, pack_with, temporary};

/// Gives `archive` to a program and returns what it prints.
fn feed(program: &str, arguments: &[&str], archive: &[u8]) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(archive).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned())
        .collect();
    names.sort();
    names
}

fn comment(archive: &[u8]) -> Option<serde_json::Value> {
    let mut archive = tar::Archive::new(archive);
    let mut comment = None;
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        for record in entry.pax_extensions().unwrap().into_iter().flatten() {
            let record = record.unwrap();
            if record.key() == Ok("comment") {
                comment = Some(serde_json::from_slice(record.value_bytes()).unwrap());
            }
        }
    }
    comment
}

#[test]
fn gnu_tar_makes_the_same_tree_of_it() {
    let dir = temporary();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    make(&from);

    let archive = pack(&from);
    // It finds a time before 1970 worth a word.
    let quiet = "--warning=no-timestamp";
    feed("tar", &["-xp", quiet, "--same-owner", "-C", to.to_str().unwrap()], &archive);

    assert_eq!(look(&from), look(&to));
    assert_eq!(comment(&archive), None);
}

#[test]
fn python_reads_it_to_its_end_and_its_comment() {
    let dir = temporary();
    fs::write(dir.path().join("file"), "x").unwrap();
    let _socket = UnixListener::bind(dir.path().join("socket\n")).unwrap();
    let program = "import sys,tarfile,io
t = tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read()))
for m in t: print(m.name, m.pax_headers.get('comment'))";

    let printed = feed("python3", &["-c", program], &pack(dir.path()));

    let expected = r#". None
file None
. {"leftOutCount":1,"partial":false,"leftOut":[{"path":"socket\n","reason":"special"}]}
"#;
    assert_eq!(printed, expected);
}

#[test]
fn one_file_is_an_archive_too() {
    let dir = temporary();
    fs::write(dir.path().join("f"), "content").unwrap();
    let file = File::open(dir.path().join("f")).unwrap();
    let source = Source::File { file, name: b"name".to_vec() };

    let mut packer = Packer::new(source, PackOptions::default()).unwrap();
    let mut archive = Vec::new();
    while packer.fill(&mut archive).unwrap() {}

    assert_eq!(archive.len(), 512 * (2 + 1 + 1 + 2), "records and header, content, end");
    assert_eq!(feed("tar", &["-xO"], &archive), "content");
    assert_eq!(names(&archive), ["name"]);
}

#[test]
fn what_is_excluded_is_not_there_and_not_told() {
    let dir = temporary();
    for file in ["a.py", "a.pyc", "node_modules/x/y", "src/b.pyc", "src/b.py", "target/t"] {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let exclude = ["*.pyc", "node_modules", "/target"].map(|text| Pattern::parse(text).unwrap());

    let archive =
        pack_with(dir.path(), PackOptions { exclude: exclude.into(), cross_mounts: false });

    assert_eq!(names(&archive), ["./", "a.py", "src/", "src/b.py"]);
    assert_eq!(comment(&archive), None);
}

#[test]
fn what_cannot_be_in_an_archive_is_left_out_and_told() {
    let dir = temporary();
    fs::write(dir.path().join("kept"), "").unwrap();
    Command::new("mkfifo").arg(dir.path().join("pipe")).status().unwrap();
    let _socket = UnixListener::bind(dir.path().join("socket")).unwrap();

    let archive = pack(dir.path());

    assert_eq!(names(&archive), ["./", "./", "kept"]);
    let comment = comment(&archive).unwrap();
    assert_eq!(comment["leftOutCount"], 2);
    for entry in comment["leftOut"].as_array().unwrap() {
        assert_eq!(entry["reason"], "special", "{entry}");
    }
}

#[test]
fn nothing_mounted_is_descended_into() {
    let from = Path::new("/dev");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(mounts.contains(" /dev/shm "), "this test needs something mounted below /dev");
    let below = tempfile::tempdir_in("/dev/shm").unwrap();
    let inside = below.path().strip_prefix("/dev").unwrap().to_string_lossy().into_owned() + "/";

    let mut packer =
        Packer::new(Source::Directory(directory(from)), PackOptions::default()).unwrap();
    let mut archive = Vec::new();
    while packer.fill(&mut archive).unwrap() {}
    assert!(!names(&archive).iter().any(|name| name.starts_with("shm")));
    assert!(packer.left_out().left_out_count > 1);

    let options = PackOptions { exclude: Vec::new(), cross_mounts: true };
    assert!(names(&pack_with(from, options)).contains(&inside));
}

#[test]
fn trees_of_any_depth_and_width_end() {
    let dir = temporary();
    let mut path = dir.path().to_owned();
    for _ in 0..ARCHIVE_DEPTH + 5 {
        path.push("d");
        fs::create_dir(&path).unwrap();
    }
    for number in 0..5000 {
        fs::write(dir.path().join(format!("file {number}")), "x").unwrap();
    }

    let mut packer =
        Packer::new(Source::Directory(directory(dir.path())), PackOptions::default()).unwrap();
    let mut archive = Vec::new();
    while packer.fill(&mut archive).unwrap() {}

    assert_eq!(packer.files(), 5000);
    let left_out = packer.left_out();
    assert_eq!(left_out.left_out_count, 1);
    assert_eq!(left_out.left_out[0].reason, LeftOutReason::TooDeep);
    // The top is no level of its own in a name, and is entered twice.
    assert_eq!(names(&archive).len(), 5000 + ARCHIVE_DEPTH - 1 + 2);
}

/// A file that is at its announced size when its header is written, and another one later.
#[test]
fn a_file_that_changes_while_it_is_read_keeps_its_announced_size() {
    const SIZE: u64 = 4 << 20;
    for (new, is_short) in [(SIZE / 2, true), (0, true), (SIZE * 2, false)] {
        let dir = temporary();
        let path = dir.path().join("file");
        fs::write(&path, vec![b'x'; usize::try_from(SIZE).unwrap()]).unwrap();

        let mut packer =
            Packer::new(Source::Directory(directory(dir.path())), PackOptions::default()).unwrap();
        let mut archive = Vec::new();
        packer.fill(&mut archive).unwrap();
        assert!(archive.len() < 1 << 20, "the file is not read yet");
        File::options().write(true).open(&path).unwrap().set_len(new).unwrap();
        let begun = archive.len();
        while packer.fill(&mut archive).unwrap() {}

        let mut read = tar::Archive::new(&*archive);
        let mut sizes = Vec::new();
        for entry in read.entries().unwrap() {
            let mut entry = entry.unwrap();
            sizes.push((entry.path().unwrap().display().to_string(), entry.size()));
            if entry.size() > 0 {
                let mut content = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
                assert_eq!(content.len() as u64, SIZE);
                assert_eq!(content.ends_with(b"\0"), is_short);
                assert!(content.starts_with(&vec![b'x'; begun - 4096]));
            }
        }
        let expected = [("./", 0), ("file", SIZE), ("./", 0)];
        assert_eq!(sizes, expected.map(|(name, size)| (name.to_owned(), size)));
        assert_eq!(comment(&archive).unwrap()["leftOut"][0]["reason"], "changed");
    }
}

#[test]
fn an_archive_of_one_file_that_becomes_shorter_while_it_is_read_does_not_look_whole() {
    let dir = temporary();
    let path = dir.path().join("file");
    fs::write(&path, vec![b'x'; 4 << 20]).unwrap();
    let source = Source::File { file: File::open(&path).unwrap(), name: b"file".to_vec() };
    let mut packer = Packer::new(source, PackOptions::default()).unwrap();
    let mut archive = Vec::new();
    packer.fill(&mut archive).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();

    let error = loop {
        match packer.fill(&mut archive) {
            Ok(true) => {}
            Ok(false) => panic!("it ended"),
            Err(error) => break error,
        }
    };

    assert!(matches!(error, ArchiveError::File { .. }), "{error}");
}

#[test]
fn what_may_not_be_read_is_left_out_and_told() {
    let dir = temporary();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.path().join("open"), "").unwrap();
    fs::write(dir.path().join("closed"), "").unwrap();
    fs::create_dir(dir.path().join("closed directory")).unwrap();
    for name in ["closed", "closed directory"] {
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o0)).unwrap();
    }

    // Root may read everything, so somebody else does it: this program, as its own child.
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "pack::as_nobody", "--ignored", "--nocapture"])
        .env("PACK", dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    for told in ["\"closed\" Unreadable", "\"closed directory\" Unreadable", "1 files"] {
        assert!(text.contains(told), "{told}: {text}");
    }
}

#[test]
#[ignore = "run by the test above"]
fn as_nobody() {
    let Some(path) = std::env::var_os("PACK") else { return };
    let source = Source::Directory(directory(Path::new(&path)));
    let mut packer = Packer::new(source, PackOptions::default()).unwrap();
    while packer.fill(&mut Vec::new()).unwrap() {}
    for entry in &packer.left_out().left_out {
        println!("{:?} {:?}", entry.path, entry.reason);
    }
    println!("{} files", packer.files());
}
