//! What is unpacked is what was packed, whoever packed it.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    process::Command,
};

use archive::UnpackOptions;

use crate::tree::{look, make, pack, unpack, unpack_with};

#[test]
fn a_tree_comes_back_exact_whatever_the_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    make(&from);
    let archive = pack(&from);
    let mut expected = look(&from);
    // The top is the one that was there.
    expected.remove(&Vec::new());

    for piece in [1, 511, 512, 513, 10_240, usize::MAX] {
        let to = tempfile::tempdir().unwrap();
        let done = unpack(to.path(), &archive, piece).unwrap();
        let mut found = look(to.path());
        found.remove(&Vec::new());
        assert!(found == expected, "in pieces of {piece}");
        assert_eq!(done.hard_links, 2);
        assert_eq!(done.entries(), expected.len() as u64);
        let bytes: u64 = 10 + 1_000_001 + 511 + 512 + 513 + 65_536 + 65_537 + 262_144;
        assert_eq!(done.bytes, bytes + 254 + 4 + 4);
    }
}

#[test]
fn the_forms_of_gnu_tar_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    make(&from);
    for (format, has_nanoseconds) in [("gnu", false), ("oldgnu", false), ("pax", true)] {
        let output = Command::new("tar")
            .args(["-c", &format!("--format={format}"), "-C", from.to_str().unwrap(), "."])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        unpack(ours.path(), &output.stdout, 10_000).unwrap();
        let mut packed = look(&from);
        if !has_nanoseconds {
            // What GNU tar itself makes of it.
            let archive = dir.path().join("archive");
            fs::write(&archive, &output.stdout).unwrap();
            let untar = ["-xpf", archive.to_str().unwrap(), "-C", theirs.path().to_str().unwrap()];
            assert!(Command::new("tar").args(untar).status().unwrap().success());
            packed = look(theirs.path());
        }
        let mut found = look(ours.path());
        found.remove(&Vec::new());
        packed.remove(&Vec::new());
        assert!(found == packed, "{format}");
    }
}

#[test]
fn the_oldest_form_and_ustar_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir_all(from.join("d").join("x".repeat(90))).unwrap();
    fs::write(from.join("d/file"), "x").unwrap();
    fs::write(from.join("d").join("x".repeat(90)).join("y".repeat(90)), "y").unwrap();
    for (format, files) in [("v7", 1), ("ustar", 2)] {
        let output = Command::new("tar")
            .args(["-c", &format!("--format={format}"), "-C", from.to_str().unwrap(), "."])
            .output()
            .unwrap();
        let to = tempfile::tempdir().unwrap();
        // The oldest form has no room for the longest name, and GNU tar leaves it out.
        let done = unpack(to.path(), &output.stdout, 512).unwrap();
        assert_eq!((done.files, done.directories), (files, 2), "{format}");
        assert_eq!(fs::read_to_string(to.path().join("d/file")).unwrap(), "x");
    }
}

#[test]
fn components_are_stripped_also_of_hard_links() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(from.join("top/d")).unwrap();
    fs::create_dir(&to).unwrap();
    fs::write(from.join("aside"), "x").unwrap();
    fs::write(from.join("top/d/file"), "x").unwrap();
    fs::hard_link(from.join("top/d/file"), from.join("top/d/again")).unwrap();

    let options = UnpackOptions { strip_components: 1, ..UnpackOptions::default() };
    let done = unpack_with(&to, &pack(&from), 1000, options).unwrap();

    assert_eq!((done.files, done.hard_links, done.directories), (1, 1, 1));
    assert!(!to.join("aside").exists());
    assert_eq!(fs::metadata(to.join("d/file")).unwrap().nlink(), 2);
}

#[test]
fn owners_and_times_are_ours_unless_they_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir_all(from.join("d")).unwrap();
    fs::write(from.join("d/f"), "x").unwrap();
    symlink("x", from.join("d/l")).unwrap();
    for path in ["d", "d/f", "d/l"] {
        std::os::unix::fs::lchown(from.join(path), Some(7), Some(8)).unwrap();
    }
    let touch = ["-h", "-d", "@1000.5"].map(str::to_owned).into_iter();
    let paths = ["d/f", "d/l", "d"].map(|path| from.join(path).display().to_string());
    assert!(Command::new("touch").args(touch.chain(paths)).status().unwrap().success());

    for keep in [true, false] {
        let to = tempfile::tempdir().unwrap();
        let options = UnpackOptions { keep_owner: keep, keep_times: keep, strip_components: 0 };
        unpack_with(to.path(), &pack(&from), 1000, options).unwrap();
        for path in ["d", "d/f", "d/l"] {
            let found = fs::symlink_metadata(to.path().join(path)).unwrap();
            assert_eq!((found.uid(), found.gid()) == (7, 8), keep, "{path}");
            assert_eq!((found.mtime(), found.mtime_nsec()) == (1000, 500_000_000), keep, "{path}");
        }
    }
}

#[test]
fn what_is_there_is_replaced_whole_and_directories_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    for root in [&from, &to] {
        fs::create_dir_all(root.join("d")).unwrap();
    }
    fs::write(from.join("d/file"), "new").unwrap();
    symlink("new", from.join("d/link")).unwrap();
    fs::write(from.join("d/one"), "one").unwrap();
    fs::hard_link(from.join("d/one"), from.join("d/two")).unwrap();
    fs::set_permissions(from.join("d"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(to.join("d/stays"), "there").unwrap();
    for name in ["file", "link", "one", "two"] {
        fs::write(to.join("d").join(name), "old").unwrap();
    }
    fs::hard_link(to.join("d/file"), to.join("other name")).unwrap();
    fs::set_permissions(to.join("d"), fs::Permissions::from_mode(0o700)).unwrap();

    unpack(&to, &pack(&from), 1000).unwrap();
    // Again over itself, when further names are of the same file already.
    unpack(&to, &pack(&from), 1000).unwrap();

    assert_eq!(fs::read_to_string(to.join("d/file")).unwrap(), "new");
    assert_eq!(fs::read_to_string(to.join("other name")).unwrap(), "old");
    assert_eq!(fs::read_link(to.join("d/link")).unwrap().to_str(), Some("new"));
    assert_eq!(fs::metadata(to.join("d/two")).unwrap().nlink(), 2);
    assert_eq!(fs::read_to_string(to.join("d/stays")).unwrap(), "there");
    assert_eq!(fs::metadata(to.join("d")).unwrap().mode() & 0o777, 0o700, "it was there");
    let mut names: Vec<_> = fs::read_dir(to.join("d"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["file", "link", "one", "stays", "two"], "no temporary file is left");
}
