//! Archives made to do harm, header by header.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use api::limit::{ARCHIVE_HEADER_BYTES, PATH_BYTES};
use archive::{ArchiveError, Fault, UnpackOptions, Unpacker};
use testkit::tape::{self, END, entry, file, header, records, seal};

use crate::tree::{directory, look, temporary, unpack};

/// Unpacks into a directory beside another one, and makes sure that this is as it was.
fn attack(parts: &[Vec<u8>], prepare: impl Fn(&Path)) -> (tempfile::TempDir, Result<u64, String>) {
    let dir = temporary();
    let (target, outside) = (dir.path().join("target"), dir.path().join("outside"));
    fs::create_dir(&target).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "untouched").unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    prepare(&target);
    let before = look(&outside);

    let bytes = tape::archive(parts);
    let done = unpack(&target, &bytes, 1000);

    assert_eq!(look(&outside), before);
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(names.len(), 2, "{names:?}");
    (dir, done.map(|done| done.entries()).map_err(|error| error.to_string()))
}

fn nothing(_: &Path) {}

#[test]
fn names_that_lead_out_are_refused() {
    for name in ["../outside/file", "a/../../outside/file", "..", "a/..", "./../outside/file"] {
        for kind in [b'0', b'1', b'2', b'5'] {
            let parts = [entry(kind, name.as_bytes(), b"x", b"")];
            let (dir, done) = attack(&parts, nothing);
            assert!(done.unwrap_err().contains("leads out"), "{name}");
            assert_eq!(fs::read_dir(dir.path().join("target")).unwrap().count(), 0, "{name}");
        }
    }
    let long = records(b'x', &[("path", "a/../../outside/file")]);
    assert!(attack(&[long, file("a", "x")], nothing).1.unwrap_err().contains("leads out"));
    let long = entry(b'L', b"././@LongLink", b"", b"../outside/file\0");
    assert!(attack(&[long, file("a", "x")], nothing).1.unwrap_err().contains("leads out"));
}

#[test]
fn absolute_names_are_taken_from_the_top() {
    let (dir, done) = attack(&[file("/etc/passwd", "x"), file("//a", "y")], nothing);
    assert_eq!(done, Ok(2));
    assert_eq!(fs::read_to_string(dir.path().join("target/etc/passwd")).unwrap(), "x");
    assert_eq!(fs::read_to_string(dir.path().join("target/a")).unwrap(), "y");
}

#[test]
fn nothing_is_written_through_a_link_of_the_archive() {
    for link in ["../outside", "/", ".", "d"] {
        let parts = [
            entry(b'5', b"d", b"", b""),
            entry(b'2', b"link", link.as_bytes(), b""),
            file("link/file", "gotcha"),
        ];
        let (dir, done) = attack(&parts, nothing);
        assert!(done.unwrap_err().contains("cannot write link/file"), "{link}");
        assert_eq!(fs::read_dir(dir.path().join("target/d")).unwrap().count(), 0);
    }
    // The last component too: the link goes, not what it names.
    let parts = [entry(b'2', b"link", b"../outside/file", b""), file("link", "gotcha")];
    let (dir, done) = attack(&parts, nothing);
    assert_eq!(done, Ok(2));
    assert_eq!(fs::read_to_string(dir.path().join("target/link")).unwrap(), "gotcha");
    // A directory entry does not make a link one, whichever way its bits are set.
    let parts = [entry(b'2', b"link", b"../outside", b""), entry(b'5', b"link", b"", b"")];
    assert!(attack(&parts, nothing).1.unwrap_err().contains("make the directory link"));
}

#[test]
fn nothing_is_written_through_a_link_that_is_there() {
    let link = |target: &Path| {
        symlink("../outside", target.join("link")).unwrap();
        symlink("../outside/file", target.join("file")).unwrap();
    };
    let (_dir, done) = attack(&[file("link/file", "gotcha")], link);
    assert!(done.is_err());
    let (dir, done) = attack(&[file("file", "gotcha")], link);
    assert_eq!(done, Ok(1));
    assert!(fs::symlink_metadata(dir.path().join("target/file")).unwrap().is_file());
    let (_dir, done) = attack(&[entry(b'5', b"link/x", b"", b"")], link);
    assert!(done.is_err());
}

#[test]
fn nothing_is_written_into_a_file_that_is_there() {
    // Further names of a file outside: replaced, not written into, and their bits not set.
    let link = |target: &Path| {
        fs::hard_link(target.join("../outside/file"), target.join("name")).unwrap();
    };
    let (dir, done) = attack(&[file("name", "gotcha")], link);
    assert_eq!(done, Ok(1));
    assert_eq!(fs::metadata(dir.path().join("target/name")).unwrap().nlink(), 1);
}

#[test]
fn hard_links_name_only_files_of_the_tree() {
    for target in ["../outside/secret", "a/../../outside/secret", ".."] {
        let parts = [entry(b'1', b"stolen", target.as_bytes(), b"")];
        assert!(attack(&parts, nothing).1.unwrap_err().contains("outside"), "{target}");
    }
    // Through a link, to a directory, to nothing.
    for (link, target) in
        [("../outside", "link/secret"), (".", "link/link"), ("x", "none"), ("x", "/etc/passwd")]
    {
        let parts = [
            entry(b'2', b"link", link.as_bytes(), b""),
            entry(b'1', b"stolen", target.as_bytes(), b""),
        ];
        let (dir, done) = attack(&parts, nothing);
        assert!(done.is_err(), "{target}");
        assert!(!dir.path().join("target/stolen").exists());
    }
    let parts = [entry(b'5', b"d", b"", b""), entry(b'1', b"stolen", b"d", b"")];
    assert!(attack(&parts, nothing).1.is_err());
    // The further name of a link is a link, and no name of what that leads to.
    let secret = Path::new("../outside/secret");
    let parts = [
        entry(b'2', b"link", secret.as_os_str().as_encoded_bytes(), b""),
        entry(b'1', b"stolen", b"link", b""),
    ];
    let (dir, done) = attack(&parts, nothing);
    assert_eq!(done, Ok(2));
    assert_eq!(fs::read_link(dir.path().join("target/stolen")).unwrap(), secret);
}

#[test]
fn devices_and_pipes_are_not_made_and_told() {
    let parts: Vec<_> =
        [b'3', b'4', b'6'].iter().map(|kind| entry(*kind, b"special", b"", b"")).collect();
    let dir = temporary();
    let bytes = [parts.concat(), file("kept", "x"), END.to_vec()].concat();
    let done = unpack(dir.path(), &bytes, 512).unwrap();
    assert_eq!((done.entries(), done.left_out.left_out_count), (1, 3));
    assert_eq!(done.left_out.left_out[0].path, "special");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn further_names_of_what_is_left_out_are_left_out_too() {
    let special = |name: &[u8]| entry(b'6', name, b"", b"");
    let again = |name: &[u8], target: &[u8]| entry(b'1', name, target, b"");
    // A file that is there is not what the archive names.
    let there = |target: &Path| fs::write(target.join("f"), "there").unwrap();
    let parts = [special(b"./f"), again(b"f2", b"f"), again(b"d/f3", b"./f2"), file("kept", "x")];
    let (dir, done) = attack(&parts, there);
    assert_eq!(done, Ok(1));
    let mut names: Vec<_> = fs::read_dir(dir.path().join("target"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["f", "kept"]);
    let told = unpack(temporary().path(), &tape::archive(&parts), 512).unwrap().left_out;
    let told: Vec<_> = told.left_out.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(told, ["f", "f2", "d/f3"]);
    // A file that comes later under the name has further ones.
    let parts = [special(b"f"), file("f", "x"), again(b"f2", b"f")];
    assert_eq!(attack(&parts, nothing).1, Ok(2));
    // What has never come has none.
    assert!(attack(&[special(b"f"), again(b"f2", b"g")], nothing).1.is_err());
}

#[test]
fn no_bit_that_lends_an_identity_is_taken() {
    let (dir, done) = attack(&[file("f", "x"), entry(b'5', b"d", b"", b"")], nothing);
    assert_eq!(done, Ok(2));
    for name in ["target/f", "target/d"] {
        let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o777, "{name}");
    }
}

#[test]
fn a_name_that_changes_its_kind_replaces_no_directory() {
    for parts in [
        [file("x", "1"), entry(b'5', b"x", b"", b"")],
        [file("x", "1"), file("x/y", "2")],
        [entry(b'5', b"x", b"", b""), file("x", "1")],
        [entry(b'5', b"x", b"", b""), entry(b'2', b"x", b"..", b"")],
        [file("x/y", "1"), entry(b'1', b"x", b"x/y", b"")],
    ] {
        assert!(attack(&parts, nothing).1.is_err());
    }
    let (_dir, done) =
        attack(&[file("x", "1"), entry(b'2', b"x", b"y", b""), file("x", "3")], nothing);
    assert_eq!(done, Ok(3));
}

fn fault_of(bytes: &[u8]) -> Option<Fault> {
    let dir = temporary();
    match unpack(dir.path(), bytes, 512) {
        Ok(_) => None,
        Err(ArchiveError::Invalid { fault, .. }) => Some(fault),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let x = |pairs: &[(&str, &str)]| records(b'x', pairs);
    let long = entry(b'L', b"././@LongLink", b"", b"name\0");
    let a = file("a", "x");
    for (parts, fault) in [
        // TARmageddon: what one reader takes for content is headers for the other.
        (vec![x(&[("size", "9")]), entry(b'5', b"d", b"", b"")], Fault::Content),
        (vec![entry(b'5', b"d", b"", b"hidden")], Fault::Content),
        (vec![entry(b'0', b"d/", b"", b"hidden")], Fault::Content),
        (vec![entry(b'2', b"l", b"t", b"hidden")], Fault::Content),
        (vec![entry(b'1', b"l", b"t", b"hidden")], Fault::Content),
        (vec![entry(b'6', b"p", b"", b"hidden")], Fault::Content),
        (vec![x(&[("path", "b")]), x(&[("path", "c")]), a.clone()], Fault::Extended),
        (vec![long.clone(), long.clone(), a.clone()], Fault::Extended),
        (vec![long.clone(), x(&[("path", "b")]), a.clone()], Fault::Extended),
        (vec![x(&[("path", "b")]), long.clone(), a.clone()], Fault::Extended),
        (vec![x(&[("path", "b")])], Fault::Extended),
        (vec![long], Fault::Extended),
        (vec![records(b'g', &[("path", "b")]), a.clone()], Fault::Extended),
        (vec![records(b'g', &[("size", "5")]), a.clone()], Fault::Extended),
        (vec![x(&[("GNU.sparse.major", "1")]), a.clone()], Fault::Type('S')),
        (vec![entry(b'S', b"sparse", b"", b"")], Fault::Type('S')),
        (vec![entry(b'?', b"odd", b"", b"")], Fault::Type('?')),
        (vec![x(&[("size", "-1")]), a.clone()], Fault::Number("size")),
        (vec![x(&[("size", "99999999999999999999")]), a.clone()], Fault::Number("size")),
        (vec![x(&[("path", "a\0b")]), a.clone()], Fault::Name),
        (vec![entry(b'x', b"x", b"", b"not a record"), a.clone()], Fault::Record),
        (vec![a.clone(), vec![0; 512], a.clone()], Fault::Trailing),
        (vec![a.clone(), END.to_vec(), a], Fault::Trailing),
    ] {
        assert_eq!(fault_of(&[parts.concat(), END.to_vec()].concat()), Some(fault), "{fault}");
    }
    for size in [
        &b"-0000000001\0"[..],
        b"0000000000x\0",
        // One, if only the last eight bytes of the number are looked at.
        b"\x80\0\0\x01\0\0\0\0\0\0\0\x01",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let bytes = [header(b'0', b"a", b"", size).to_vec(), END.to_vec()].concat();
        assert_eq!(fault_of(&bytes), Some(Fault::Number("size")));
    }
}

#[test]
fn what_is_no_archive_is_refused_at_once() {
    for bytes in [b"x".repeat(512), b"\x28\xb5\x2f\xfd".repeat(128), b"\x1f\x8b\x08\0".repeat(128)]
    {
        assert_eq!(fault_of(&bytes), Some(Fault::Header));
    }
    assert_eq!(fault_of(b""), Some(Fault::BrokenOff));
    assert_eq!(fault_of(b"PK"), Some(Fault::BrokenOff));
    assert_eq!(fault_of(&END), None);
    let zeros = |count| [END.to_vec(), vec![0; count]].concat();
    assert_eq!(fault_of(&zeros(16 << 20)), None);
    assert_eq!(fault_of(&zeros((16 << 20) + 512)), Some(Fault::Trailing));
}

#[test]
fn headers_and_names_are_bounded() {
    let a = file("a", "x");
    for (bytes, fault) in
        [(ARCHIVE_HEADER_BYTES, Fault::NameTooLong), (1 << 20, Fault::HeadersTooLarge)]
    {
        let long = entry(b'L', b"././@LongLink", b"", &vec![b'n'; bytes]);
        assert_eq!(fault_of(&[long, a.clone(), END.to_vec()].concat()), Some(fault));
    }
    // A size alone is refused, before any of it has come or has room.
    let huge = header(b'x', b"x", b"", b"77777777777\0");
    assert_eq!(fault_of(&huge), Some(Fault::HeadersTooLarge));
    let long = records(b'x', &[("path", &("p/".repeat(PATH_BYTES / 2 + 1) + "p"))]);
    assert_eq!(fault_of(&[long, a.clone(), END.to_vec()].concat()), Some(Fault::NameTooLong));
    let deep = records(b'x', &[("path", &("p/".repeat(300) + "p"))]);
    assert_eq!(fault_of(&[deep, a, END.to_vec()].concat()), Some(Fault::TooDeep));
}

#[test]
fn what_breaks_off_leaves_whole_files_only() {
    let content = "x".repeat(5000);
    let bytes = [file("first", &content), file("second", &content), END.to_vec()].concat();
    for cut in (0..bytes.len()).step_by(256) {
        let dir = temporary();
        fs::write(dir.path().join("second"), "old").unwrap();
        let error = unpack(dir.path(), &bytes[..cut], 300).unwrap_err();
        assert!(matches!(error, ArchiveError::Invalid { fault: Fault::BrokenOff, .. }), "{error}");
        for entry in fs::read_dir(dir.path()).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(text == content || text == "old", "{cut}");
        }
    }
}

#[test]
fn dropping_it_in_the_middle_leaves_whole_files_and_directories() {
    let dir = temporary();
    let directory_entry = entry(b'5', b"d", b"", b"");
    let bytes = [directory_entry, file("d/whole", "x"), file("d/half", &"x".repeat(5000))].concat();
    let mut unpacker = Unpacker::new(directory(dir.path()), UnpackOptions::default());
    unpacker.feed(&bytes[..3000]).unwrap();

    drop(unpacker);

    assert_eq!(fs::read_to_string(dir.path().join("d/whole")).unwrap(), "x");
    let names: Vec<_> = fs::read_dir(dir.path().join("d")).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let mode = fs::metadata(dir.path().join("d")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o777);
}

#[test]
fn after_an_error_nothing_more_is_taken() {
    let dir = temporary();
    let mut unpacker = Unpacker::new(directory(dir.path()), UnpackOptions::default());
    unpacker.feed(&file("../x", "")).unwrap_err();
    unpacker.feed(&file("y", "")).unwrap_err();
    unpacker.finish().unwrap_err();
    assert_eq!(unpacker.stop().entries(), 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_broken_archive_never_panics() {
    let sane = [
        records(b'x', &[("path", "long"), ("mtime", "1.5"), ("comment", "c")]),
        file("f", "content"),
        entry(b'5', b"d", b"", b""),
        entry(b'2', b"d/l", b"t", b""),
        entry(b'1', b"d/h", b"long", b""),
        END.to_vec(),
    ]
    .concat();
    let dir = temporary();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..2000 {
        let mut bytes = sane.clone();
        for _ in 0..3 {
            // Xorshift: the same bytes each time.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let at = usize::try_from(seed % (bytes.len() as u64)).unwrap();
            bytes[at] = u8::try_from(seed >> 56).unwrap();
            let begin = at / 512 * 512;
            if let Ok(block) = <&mut [u8; 512]>::try_from(&mut bytes[begin..begin + 512])
                && block[257..262] == *b"ustar"
            {
                seal(block);
            }
        }
        // Any answer is right; a panic, or a file elsewhere, is not.
        drop(unpack(dir.path(), &bytes, 700));
    }
}
