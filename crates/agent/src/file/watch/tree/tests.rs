use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    thread,
    time::Duration,
};

use super::*;
use crate::file::{path::absolute, watch::pending::Change};

/// In memory: a disk would take all the time of these tests.
fn directory(name: &str) -> PathBuf {
    let path = PathBuf::from(format!("/dev/shm/agent-tree-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

fn arm(path: &Path, all: &Watched) -> Result<Tree, ApiError> {
    let path = absolute("/", path.to_str().unwrap()).unwrap();
    Tree::arm(path, true, Filter::new(&[], None).unwrap(), all)
}

fn tree(path: &Path) -> Tree {
    arm(path, &Watched::default()).unwrap()
}

/// What a reader of the changes believes is there.
#[derive(Debug, Default)]
struct Belief {
    paths: BTreeSet<Vec<u8>>,
    /// What has left and will arrive.
    moving: Vec<(RelativePath, BTreeSet<Vec<u8>>)>,
}

impl Belief {
    fn read(path: &Path) -> Self {
        let mut belief = Self::default();
        let mut left = vec![path.to_owned()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                let relative = entry.path().strip_prefix(path).unwrap().to_owned();
                belief.paths.insert(relative.into_os_string().into_encoded_bytes());
                if entry.file_type().unwrap().is_dir() {
                    left.push(entry.path());
                }
            }
        }
        belief
    }

    /// Takes out `path` and what is below it, named from there.
    fn take(&mut self, path: &[u8]) -> BTreeSet<Vec<u8>> {
        let below = [path, b"/"].concat();
        let is_part = |p: &Vec<u8>| *p == path || p.starts_with(&below);
        let (part, rest) = std::mem::take(&mut self.paths).into_iter().partition(is_part);
        self.paths = rest;
        let part: BTreeSet<Vec<u8>> = part;
        part.into_iter().map(|p| p[path.len()..].to_vec()).collect()
    }

    fn apply(&mut self, change: &Change) {
        match (change.kind, &change.other) {
            (FileChangeType::Create, _) | (FileChangeType::MoveTo, None) => {
                if change.kind == FileChangeType::MoveTo {
                    self.take(&change.path);
                }
                self.paths.insert(change.path.to_vec());
            }
            (FileChangeType::Delete, _) | (FileChangeType::MoveFrom, None) => {
                self.take(&change.path);
            }
            (FileChangeType::MoveFrom, Some(_)) => {
                let part = self.take(&change.path);
                self.moving.push((Arc::clone(&change.path), part));
            }
            (FileChangeType::MoveTo, Some(from)) => {
                self.take(&change.path);
                let at = self.moving.iter().position(|(path, _)| path == from).unwrap();
                let (_, part) = self.moving.remove(at);
                self.paths.insert(change.path.to_vec());
                self.paths.extend(part.into_iter().map(|p| [&*change.path, &p].concat()));
            }
            (FileChangeType::Modify | FileChangeType::Attrib, _) => {}
        }
    }
}

fn watched(tree: &Tree) -> BTreeSet<Vec<u8>> {
    tree.nodes.keys().map(|watch| tree.path_of(*watch).expect("every place is known")).collect()
}

fn drained(tree: &mut Tree) -> (Vec<Change>, Drained) {
    let mut pending = Pending::default();
    let drained = tree.drain(&mut pending).unwrap();
    tree.settle();
    (pending.take().collect(), drained)
}

fn shown(changes: &[Change]) -> Vec<String> {
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let other = |change: &Change| change.other.as_deref().map(text).unwrap_or_default();
    changes.iter().map(|c| format!("{:?} {} {}", c.kind, text(&c.path), other(c))).collect()
}

#[test]
fn what_was_made_before_it_was_watched_is_found() {
    let path = directory("found");
    let mut tree = tree(&path);

    fs::create_dir_all(path.join("a/b/c")).unwrap();
    fs::write(path.join("a/b/c/file"), "").unwrap();
    let (changes, _) = drained(&mut tree);
    fs::write(path.join("a/b/c/file"), "x").unwrap();
    let (later, _) = drained(&mut tree);

    assert_eq!(
        shown(&changes),
        ["Create a ", "Create a/b ", "Create a/b/c ", "Create a/b/c/file "]
    );
    assert_eq!(shown(&later), ["Modify a/b/c/file "]);
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn a_moved_directory_takes_its_content_along() {
    let path = directory("moved");
    let outside = directory("outside");
    fs::create_dir_all(path.join("a/b")).unwrap();
    fs::create_dir_all(outside.join("in/deep")).unwrap();
    fs::write(outside.join("in/deep/file"), "").unwrap();
    let mut tree = tree(&path);

    // A directory that is made and moved before anybody looks.
    fs::create_dir(path.join("a/new")).unwrap();
    fs::rename(path.join("a"), path.join("z")).unwrap();
    let (inside, _) = drained(&mut tree);
    fs::write(path.join("z/b/file"), "").unwrap();
    fs::write(path.join("z/new/file"), "").unwrap();
    let (below, _) = drained(&mut tree);
    fs::rename(outside.join("in"), path.join("in")).unwrap();
    let (arrived, _) = drained(&mut tree);
    fs::rename(path.join("z"), outside.join("z")).unwrap();
    fs::write(outside.join("z/new/unseen"), "").unwrap();
    let (left, _) = drained(&mut tree);

    assert_eq!(shown(&inside), ["Create a/new ", "MoveFrom a z", "MoveTo z a"]);
    assert_eq!(shown(&below), ["Create z/b/file ", "Create z/new/file "]);
    assert_eq!(shown(&arrived), ["MoveTo in ", "Create in/deep ", "Create in/deep/file "]);
    assert_eq!(shown(&left), ["MoveFrom z "]);
    let expected = [&b""[..], b"in", b"in/deep"].map(<[u8]>::to_vec);
    assert_eq!(watched(&tree), BTreeSet::from(expected));
    fs::remove_dir_all(path).unwrap();
    fs::remove_dir_all(outside).unwrap();
}

#[test]
fn the_end_of_the_root_is_seen() {
    for (name, moved) in [("deleted", false), ("renamed", true), ("above", true)] {
        let path = directory(name);
        let root = path.join("parent/root");
        fs::create_dir_all(&root).unwrap();
        let mut tree = tree(&root);
        fs::create_dir_all(path.join("parent/other/root")).unwrap();
        fs::remove_dir_all(path.join("parent/other")).unwrap();
        assert_eq!(drained(&mut tree).1.end, None);

        match name {
            "deleted" => fs::remove_dir(&root).unwrap(),
            "renamed" => fs::rename(&root, path.join("parent/x")).unwrap(),
            _ => fs::rename(path.join("parent"), path.join("x")).unwrap(),
        }
        fs::create_dir_all(&root).unwrap();

        let expected = if moved { WatchEnd::Moved } else { WatchEnd::Deleted };
        assert_eq!(drained(&mut tree).1.end, Some(expected), "{name}");
        fs::remove_dir_all(path).unwrap();
    }
}

#[test]
fn lost_events_are_told_and_the_tree_is_whole_again() {
    let path = directory("lost");
    let mut tree = tree(&path);
    let queued = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let queued: usize = queued.trim().parse().unwrap();

    for number in 0..queued / 2 + 10 {
        let name = path.join(number.to_string());
        fs::write(&name, "").unwrap();
        fs::remove_file(name).unwrap();
    }
    fs::create_dir_all(path.join("unseen/deep")).unwrap();
    let mut has_overflowed = false;
    loop {
        let (_, drained) = drained(&mut tree);
        has_overflowed |= drained.has_overflowed;
        if !drained.has_more {
            break;
        }
    }

    assert!(has_overflowed);
    fs::write(path.join("unseen/deep/file"), "").unwrap();
    assert_eq!(shown(&drained(&mut tree).0), ["Create unseen/deep/file "]);
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn directories_are_counted_and_given_back() {
    let path = directory("counted");
    fs::create_dir_all(path.join("a/b")).unwrap();
    let all = Watched::default();
    let mut tree = arm(&path, &all).unwrap();
    let above = path.components().count() - 1;
    assert_eq!(all.load(Ordering::Relaxed), 3 + above);
    fs::remove_dir_all(path.join("a")).unwrap();
    drained(&mut tree);
    assert_eq!(all.load(Ordering::Relaxed), 1 + above);
    drop(tree);
    assert_eq!(all.load(Ordering::Relaxed), 0);

    all.store(WATCHED_DIRECTORIES - 1 - above, Ordering::Relaxed);
    let mut tree = arm(&path, &all).unwrap();
    fs::create_dir(path.join("one-too-many")).unwrap();
    let error = tree.drain(&mut Pending::default()).unwrap_err();
    assert_eq!(error.code, ErrorCode::TreeTooLarge);
    fs::remove_dir_all(path).unwrap();
}

/// A sequence that looks random and is the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Does something somewhere; what cannot be done is not.
fn disturb(path: &Path, random: &mut Random) {
    let place = |random: &mut Random| {
        let mut at = path.to_owned();
        for _ in 0..=random.below(4) {
            at.push(["a", "b", "c"][random.below(3)]);
        }
        at
    };
    let target = place(random);
    let result = match random.below(10) {
        0..4 => fs::create_dir_all(target),
        4..6 => fs::write(target, "x"),
        6 => fs::remove_file(&target).or_else(|_| fs::remove_dir_all(target)),
        _ => fs::rename(target, place(random)),
    };
    drop(result);
}

/// Compares what a reader believes, and what is watched, with the disk.
fn check(path: &Path, tree: &Tree, belief: Option<&Belief>, at: &str) {
    let expected = Belief::read(path);
    if let Some(belief) = belief {
        assert_eq!(belief.paths, expected.paths, "{at}");
    }
    let mut directories: BTreeSet<_> = expected.paths.into_iter().collect();
    directories.retain(|p| path.join(std::ffi::OsStr::from_bytes(p)).is_dir());
    directories.insert(Vec::new());
    assert_eq!(watched(tree), directories, "{at}");
    assert_eq!(tree.index.len() + 1, tree.nodes.len(), "{at}");
}

#[test]
fn whatever_has_happened_a_reader_knows_what_is_there() {
    for seed in 1..=50 {
        let path = directory(&format!("random-{seed}"));
        let mut random = Random(seed);
        let mut tree = tree(&path);
        let mut belief = Belief::default();
        for round in 0..100 {
            for _ in 0..=random.below(30) {
                disturb(&path, &mut random);
            }

            let mut pending = Pending::default();
            let drained = tree.drain(&mut pending).unwrap();
            let is_lost = tree.settle();
            pending.take().for_each(|change| belief.apply(&change));

            let at = format!("seed {seed}, round {round}");
            assert!(!drained.has_overflowed && !is_lost, "{at}");
            check(&path, &tree, Some(&belief), &at);
        }
        fs::remove_dir_all(path).unwrap();
    }
}

#[test]
fn whatever_happens_meanwhile_nothing_stays_unwatched() {
    let mut certain = 0;
    for seed in 1..=20 {
        let path = directory(&format!("storm-{seed}"));
        let mut tree = tree(&path);
        // None once some of it was lost.
        let mut belief = Some(Belief::default());
        let mut tell = |tree: &mut Tree| {
            let mut pending = Pending::default();
            let mut has_overflowed = tree.drain(&mut pending).unwrap().has_overflowed;
            if tree.is_waiting() {
                thread::sleep(Duration::from_millis(5));
                has_overflowed |= tree.drain(&mut pending).unwrap().has_overflowed;
            }
            if tree.settle() {
                has_overflowed |= tree.drain(&mut pending).unwrap().has_overflowed;
            }
            belief = belief.take().filter(|_| !has_overflowed);
            if let Some(belief) = &mut belief {
                pending.take().for_each(|change| belief.apply(&change));
            }
        };
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let (is_over, path) = (&is_over, &path);
            scope.spawn(move || {
                let mut random = Random(seed);
                (0..3000).for_each(|_| disturb(path, &mut random));
                is_over.store(true, Ordering::Relaxed);
            });
            while !is_over.load(Ordering::Relaxed) {
                tell(&mut tree);
            }
        });
        tell(&mut tree);

        check(&path, &tree, None, &format!("seed {seed}"));
        certain += usize::from(belief.is_some());
        fs::remove_dir_all(path).unwrap();
    }
    // Mostly everything is told, too.
    assert!(certain > 0);
}
