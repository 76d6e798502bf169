//! Trees, and archives of them.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::Path,
};

use api::archive::Unpacked;
use archive::{ArchiveError, PackOptions, Packer, Source, UnpackOptions, Unpacker};

/// Everything about a file that an archive keeps. Content and links by value, further names by the
/// first in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    content: Vec<u8>,
    first_name: Vec<u8>,
}

pub(crate) type Tree = BTreeMap<Vec<u8>, Entry>;

/// What is below `root`, and `root` itself under an empty name.
pub(crate) fn look(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut names = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let content = if metadata.is_symlink() {
            fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
        } else if metadata.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let first: &mut Vec<u8> = names.entry(metadata.ino()).or_insert_with(|| name.clone());
        *first = name.clone().min(first.clone());
        let (modified, owner) =
            ((metadata.mtime(), metadata.mtime_nsec()), (metadata.uid(), metadata.gid()));
        let first_name = metadata.ino().to_ne_bytes().to_vec();
        tree.insert(name, Entry { mode: metadata.mode(), owner, modified, content, first_name });
    }
    for entry in tree.values_mut() {
        let inode = u64::from_ne_bytes(entry.first_name[..].try_into().unwrap());
        entry.first_name.clone_from(&names[&inode]);
    }
    tree
}

/// A tree with one of everything that an archive keeps.
pub(crate) fn make(root: &Path) {
    let write = |name: &[u8], content: &[u8], mode: u32| {
        let path = root.join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    write(b"empty", b"", 0o600);
    write(b"a/script", b"#!/bin/sh\n", 0o755);
    write(b"a/b/data", &(0..=255).cycle().take(1_000_001).collect::<Vec<u8>>(), 0o644);
    for size in [511, 512, 513, 65_536, 65_537, 262_144] {
        write(format!("sizes/{size}").as_bytes(), &vec![b's'; size], 0o640);
    }
    let every_byte: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    for part in every_byte.chunks(64) {
        write(&[b"names/", part].concat(), part, 0o444);
    }
    write(&[b"names/", &[b'n'; 255][..]].concat(), b"long", 0o644);
    let deep = [&b"deep/"[..], &[&[b'd'; 200][..], b"/"].concat().repeat(15), b"file"].concat();
    write(&deep, b"deep", 0o644);
    write("names/-rf".as_bytes(), b"", 0o644);
    write("names/ä日本\u{202e}".as_bytes(), b"", 0o644);
    fs::create_dir(root.join("a/empty directory")).unwrap();
    fs::set_permissions(root.join("a/empty directory"), fs::Permissions::from_mode(0o750)).unwrap();
    symlink("../nowhere", root.join("a/dangling")).unwrap();
    symlink(OsStr::from_bytes(&[b't'; 3000]), root.join("a/long link")).unwrap();
    symlink(".", root.join("loop")).unwrap();
    fs::hard_link(root.join("a/b/data"), root.join("a/second name")).unwrap();
    fs::hard_link(root.join("a/b/data"), root.join("third name")).unwrap();
    let time = |name: &str, time: std::time::SystemTime| {
        File::open(root.join(name)).unwrap().set_modified(time).unwrap();
    };
    let epoch = std::time::UNIX_EPOCH;
    time("empty", epoch + std::time::Duration::new(1_700_000_000, 123_456_789));
    time("a/script", epoch - std::time::Duration::from_millis(1500));
    time("a", epoch + std::time::Duration::from_secs(9));
    // No owner may write it, so it must be filled first.
    fs::set_permissions(root.join("sizes"), fs::Permissions::from_mode(0o555)).unwrap();
}

/// A directory in memory: some disks are slow at names that come and go.
pub(crate) fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

pub(crate) fn directory(path: &Path) -> std::os::fd::OwnedFd {
    File::open(path).unwrap().into()
}

pub(crate) fn pack_with(root: &Path, options: PackOptions) -> Vec<u8> {
    let mut packer = Packer::new(Source::Directory(directory(root)), options).unwrap();
    let mut bytes = Vec::new();
    while packer.fill(&mut bytes).unwrap() {}
    bytes
}

pub(crate) fn pack(root: &Path) -> Vec<u8> {
    pack_with(root, PackOptions::default())
}

/// Unpacks with everything kept, in pieces of `piece` bytes.
pub(crate) fn unpack(root: &Path, bytes: &[u8], piece: usize) -> Result<Unpacked, ArchiveError> {
    let options = UnpackOptions { keep_owner: true, keep_times: true, ..UnpackOptions::default() };
    unpack_with(root, bytes, piece, options)
}

pub(crate) fn unpack_with(
    root: &Path,
    bytes: &[u8],
    piece: usize,
    options: UnpackOptions,
) -> Result<Unpacked, ArchiveError> {
    let mut unpacker = Unpacker::new(directory(root), options);
    for piece in bytes.chunks(piece) {
        unpacker.feed(piece)?;
    }
    unpacker.finish()
}
