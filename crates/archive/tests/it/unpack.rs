//! What is unpacked is what was packed, whoever packed it.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use archive::{UnpackOptions, Unpacker};

use testkit::tape;

use crate::tree::{directory, look, make, pack, temporary, unpack, unpack_with};

#[test]
fn a_tree_comes_back_exact_whatever_the_pieces() {
    let dir = temporary();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    make(&from);
    let archive = pack(&from);
    let mut expected = look(&from);
    // The top is the one that was there.
    expected.remove(&Vec::new());

    for piece in [1, 511, 512, 513, 10_240, usize::MAX] {
        let to = temporary();
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
    let dir = temporary();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    make(&from);
    for (format, has_nanoseconds) in [("gnu", false), ("oldgnu", false), ("pax", true)] {
        let packed_by_tar = tar(&from, &[&format!("--format={format}"), "."]);
        let (ours, theirs) = (temporary(), temporary());
        unpack(ours.path(), &packed_by_tar, 10_000).unwrap();
        let mut packed = look(&from);
        if !has_nanoseconds {
            // What GNU tar itself makes of it.
            let archive = dir.path().join("archive");
            fs::write(&archive, &packed_by_tar).unwrap();
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

/// What GNU tar writes about `from` with these arguments.
fn tar(from: &Path, arguments: &[&str]) -> Vec<u8> {
    let output =
        Command::new("tar").args(["-c", "-C", from.to_str().unwrap()]).args(arguments).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn labels_lists_of_names_and_long_records_of_gnu_tar_are_read_over() {
    let dir = temporary();
    let from = dir.path().join("from");
    fs::create_dir_all(from.join("d")).unwrap();
    fs::write(from.join("d/file"), "x").unwrap();
    symlink("file", from.join("d/link")).unwrap();
    fs::hard_link(from.join("d/link"), from.join("d/same")).unwrap();
    let list = dir.path().join("list");
    for arguments in
        [["-V", "../a label", "d"], ["-g", list.to_str().unwrap(), "d"], ["-b", "8192", "d"]]
    {
        let to = temporary();
        let done = unpack(to.path(), &tar(&from, &arguments), 10_000).unwrap();
        let made = (done.files, done.directories, done.symlinks, done.hard_links);
        assert_eq!(made, (1, 1, 1, 1), "{arguments:?}");
        assert_eq!(fs::read_link(to.path().join("d/same")).unwrap(), Path::new("file"));
    }
}

#[test]
fn directories_are_as_the_archive_has_them_wherever_it_names_them() {
    let dir = temporary();
    let from = dir.path().join("from");
    for name in ["a/deep", "b"] {
        fs::create_dir_all(from.join(name)).unwrap();
    }
    for name in ["a/x", "a/deep/y", "b/z"] {
        fs::write(from.join(name), "x").unwrap();
    }
    for (number, name) in ["a/deep", "a", "b"].into_iter().enumerate() {
        let opened = fs::File::open(from.join(name)).unwrap();
        opened.set_permissions(fs::Permissions::from_mode(0o700)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 * number as u64);
        opened.set_times(fs::FileTimes::new().set_modified(time)).unwrap();
    }
    let mut expected = look(&from);
    expected.remove(&Vec::new());
    for order in [
        // After what is in them; before it, and come back to; some twice.
        &["a/x", "a/deep/y", "b/z", "a/deep", "a", "b"][..],
        &["a", "b", "a/deep", "a/x", "b/z", "a/deep/y"],
        &["a", "a/x", "a/deep/y", "a/deep", "a", "b", "b/z"],
    ] {
        for options in
            [UnpackOptions::default(), UnpackOptions { layer: true, ..UnpackOptions::default() }]
        {
            let options = UnpackOptions { keep_times: true, ..options };
            let to = temporary();
            let archive = tar(&from, &[&["--no-recursion", "--format=pax"][..], order].concat());
            unpack_with(to.path(), &archive, 10_000, options).unwrap();
            let mut found = look(to.path());
            found.remove(&Vec::new());
            assert!(found == expected, "{order:?} {options:?}: {found:?} {expected:?}");
        }
    }
    // Those that were there keep what they had.
    let to = temporary();
    fs::create_dir(to.path().join("a")).unwrap();
    fs::set_permissions(to.path().join("a"), fs::Permissions::from_mode(0o750)).unwrap();
    unpack(to.path(), &tar(&from, &["--no-recursion", "a/x", "a"]), 10_000).unwrap();
    assert_eq!(fs::metadata(to.path().join("a")).unwrap().mode() & 0o7777, 0o750);
}

#[test]
fn what_was_taken_away_again_does_not_count() {
    let archive = tape::archive(&[tape::file("a", "123"), tape::file("big", &"x".repeat(1 << 20))]);
    let to = temporary();
    let mut unpacker = Unpacker::new(directory(to.path()), UnpackOptions::default());
    unpacker.feed(&archive[..500_000]).unwrap();
    unpacker.finish().unwrap_err();
    let done = unpacker.done();
    assert_eq!((done.files, done.bytes), (1, 3));
    assert_eq!(look(to.path()).len(), 2, "the top and one file");
}

#[test]
fn the_oldest_form_and_ustar_are_read() {
    let dir = temporary();
    let from = dir.path().join("from");
    fs::create_dir_all(from.join("d").join("x".repeat(90))).unwrap();
    fs::write(from.join("d/file"), "x").unwrap();
    fs::write(from.join("d").join("x".repeat(90)).join("y".repeat(90)), "y").unwrap();
    for (format, files) in [("v7", 1), ("ustar", 2)] {
        let output = Command::new("tar")
            .args(["-c", &format!("--format={format}"), "-C", from.to_str().unwrap(), "."])
            .output()
            .unwrap();
        let to = temporary();
        // The oldest form has no room for the longest name, and GNU tar leaves it out.
        let done = unpack(to.path(), &output.stdout, 512).unwrap();
        assert_eq!((done.files, done.directories), (files, 2), "{format}");
        assert_eq!(fs::read_to_string(to.path().join("d/file")).unwrap(), "x");
    }
}

#[test]
fn a_new_top_is_as_the_archive_has_it_and_one_that_was_there_is_not() {
    let dir = temporary();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("file"), "x").unwrap();
    for (mode, filling) in [(0o2700, 0o700), (0o1077, 0o777), (0o555, 0o755)] {
        fs::set_permissions(&from, fs::Permissions::from_mode(mode)).unwrap();
        for new_top in [true, false] {
            let to = temporary();
            let bits = || fs::metadata(to.path()).unwrap().mode() & 0o7777;
            fs::set_permissions(to.path(), fs::Permissions::from_mode(0o711)).unwrap();
            let options = UnpackOptions { new_top, ..UnpackOptions::default() };
            let mut unpacker = Unpacker::new(directory(to.path()), options);
            let archive = pack(&from);
            let mut pieces = archive.chunks(512);
            while unpacker.entries() == 0 {
                unpacker.feed(pieces.next().unwrap()).unwrap();
            }
            assert_eq!(bits(), if new_top { filling } else { 0o711 }, "{mode:o}");
            pieces.for_each(|piece| unpacker.feed(piece).unwrap());
            unpacker.finish().unwrap();
            assert_eq!(bits(), if new_top { mode & 0o777 } else { 0o711 }, "{mode:o}");
        }
    }
}

#[test]
fn components_are_stripped_also_of_hard_links() {
    let dir = temporary();
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
    let dir = temporary();
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
        let to = temporary();
        let options =
            UnpackOptions { keep_owner: keep, keep_times: keep, ..UnpackOptions::default() };
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
    let dir = temporary();
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

/// Two threads make the files; the order of the archive must show in nothing.
#[test]
fn the_last_entry_of_a_name_wins_as_with_gnu_tar() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for round in 0..6 {
        let mut parts = Vec::new();
        for number in 0..3000 {
            let (dir, name) = (random(12), random(if round % 2 == 0 { 8 } else { 400 }));
            // Some directories are named, some only used; all are come back to.
            let dir = if dir < 3 { String::new() } else { format!("d{}/d{dir}/", dir % 4) };
            parts.push(match random(40) {
                0 => tape::entry(b'5', format!("{dir}sub{name}/").as_bytes(), b"", b""),
                1 => tape::entry(b'2', format!("{dir}{name}").as_bytes(), b"nowhere", b""),
                2 => tape::file(&format!("{dir}{name}"), &"large".repeat(20_000)),
                3 if number > 0 => {
                    let link = parts.last().map_or(b"".as_slice(), |part: &Vec<u8>| &part[..100]);
                    let link = link.split(|byte| *byte == 0).next().unwrap();
                    tape::entry(b'1', format!("{dir}{name}").as_bytes(), link, b"")
                }
                length => {
                    let content =
                        format!("{number} ").repeat(usize::try_from(length * 20).unwrap());
                    tape::file(&format!("{dir}{name}"), &content)
                }
            });
            // A name of a directory, of a link that leads nowhere, or the same name is no target.
            let is_bad = |part: &Vec<u8>, before: &Vec<u8>| {
                part[156] == b'1' && (before[156] != b'0' || part[..100] == before[..100])
            };
            if let [.., before, part] = &*parts
                && is_bad(part, before)
            {
                parts.pop();
            }
        }
        let archive = tape::archive(&parts);
        let (ours, theirs) = (temporary(), temporary());
        let file = theirs.path().with_extension("tar");
        fs::write(&file, &archive).unwrap();
        let untar = Command::new("tar")
            .args(["--warning=no-timestamp", "-xf"])
            .arg(&file)
            .arg("-C")
            .arg(theirs.path())
            .output()
            .unwrap();
        fs::remove_file(&file).unwrap();
        assert!(untar.status.success(), "{}", String::from_utf8_lossy(&untar.stderr));

        let done = unpack(ours.path(), &archive, 20_000).unwrap();

        assert_eq!(done.entries(), parts.len() as u64);
        assert_eq!(content(ours.path()), content(theirs.path()), "round {round}");
    }
}

/// Paths with what is there, and how many names a file has.
fn content(root: &std::path::Path) -> Vec<(String, Vec<u8>, u64)> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            found.push((name, b"directory".to_vec(), 0));
        } else if metadata.is_symlink() {
            found.push((name, b"link".to_vec(), 1));
        } else {
            found.push((name, fs::read(&path).unwrap(), metadata.nlink()));
        }
    }
    found.sort();
    found
}

#[test]
fn directories_keep_their_time_whoever_fills_them() {
    let dir = temporary();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&to).unwrap();
    for number in 0..200 {
        let path = from.join(format!("{}/{number}", number % 7));
        fs::create_dir_all(&path).unwrap();
        for file in 0..number % 90 {
            fs::write(path.join(file.to_string()), "x").unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(number);
        fs::File::open(&path).unwrap().set_modified(time).unwrap();
    }

    unpack(&to, &pack(&from), 10_000).unwrap();

    let (mut expected, mut found) = (look(&from), look(&to));
    expected.remove(&Vec::new());
    found.remove(&Vec::new());
    assert!(found == expected);
}
