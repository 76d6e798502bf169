//! A builder on the other end of a real stream, in a thread instead of a process.

use std::{fs, os::unix::fs::MetadataExt};

use tempfile::TempDir;

use super::*;
use crate::{build::Build, recipe::Recipe, settings::Settings};

/// Builders of the store at this directory.
#[derive(Debug)]
struct Threads(PathBuf);

impl Builders for Threads {
    fn start(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = UnixStream::pair()?;
        let images = self.0.clone();
        thread::spawn(move || builder_main(theirs, images));
        Ok(ours.into())
    }
}

fn store(dir: &TempDir) -> Store {
    let images = dir.path().join("images");
    Store::open_with(images.clone(), Box::new(Threads(images))).unwrap()
}

/// What a builder answers to these bytes.
fn answer(images: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::from(Threads(images.to_owned()).start().unwrap());
    stream.write_all(bytes).unwrap_or_default();
    stream.shutdown(Shutdown::Write).unwrap_or_default();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

fn framed(task: &str) -> Vec<u8> {
    let length = u32::try_from(task.len()).unwrap();
    [&length.to_le_bytes()[..], task.as_bytes()].concat()
}

#[test]
fn a_store_is_changed_through_builders_as_it_is_without() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir);
    let upper = dir.path().join("sandboxes/7/upper/etc");
    fs::create_dir_all(&upper).unwrap();
    fs::write(upper.join("made"), "here").unwrap();
    let key = LayerKey::base("x");
    let changes = store.changes().unwrap();

    store.take_upper(&key, 7, &changes).unwrap();
    let manifest = Manifest {
        key: key.clone(),
        layers: vec![key.clone()],
        before_warm: None,
        settings: Settings::base(),
        size_bytes: 0,
    };
    let image = store.put(&"app".parse().unwrap(), manifest, &changes).unwrap();
    drop(changes);

    assert!(image.size_bytes > 0);
    let (found, rootfs) = store.get(&"app".parse().unwrap()).unwrap();
    assert_eq!(found, image);
    let made = store.path_of(&rootfs.layers[0]).join("etc/made");
    assert_eq!(fs::read_to_string(made).unwrap(), "here");
    assert!(store.get(&"host".parse().unwrap()).is_ok());
    store.remove(&"app".parse().unwrap()).unwrap();
    assert!(store.collect(&BTreeSet::new()).unwrap() > 0);
    assert!(!store.has_layer(&key));
}

#[test]
fn what_fails_in_a_builder_fails_here_with_its_reason() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir);
    let changes = store.changes().unwrap();
    match store.take_upper(&LayerKey::base("x"), 8, &changes) {
        Err(ImageError::Io { source, .. }) => assert_eq!(source.kind(), io::ErrorKind::NotFound),
        other => panic!("{other:?}"),
    }
}

/// A builder that is told to stop says so, and one whose caller is gone ends.
#[test]
fn a_download_that_is_cancelled_ends() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir);
    let cancel = Cancel::default();
    cancel.cancel();
    let recipe = Recipe::parse("FROM debian:bookworm\n").unwrap();
    let build = Build {
        store: &store,
        name: &"app".parse().unwrap(),
        recipe: &recipe,
        downloads: &crate::Downloads::default(),
        cancel: &cancel,
        warm: None,
    };
    match build.run(&mut |_, _| panic!("nothing runs"), &mut |_| {}) {
        Err(ImageError::Cancelled | ImageError::ToolMissing { .. }) => {}
        other => panic!("{other:?}"),
    }
    let left = fs::read_dir(dir.path().join("images")).unwrap().flatten();
    assert_eq!(left.count(), 4);
}

#[test]
fn forged_tasks_are_refused_and_change_nothing() {
    let dir = TempDir::new().unwrap();
    let images = dir.path().join("images");
    let store = store(&dir);
    let outside = dir.path().join("outside");
    fs::create_dir_all(outside.join("upper")).unwrap();
    let before = fs::metadata(&outside).unwrap().ctime_nsec();
    let digits = "0".repeat(64);
    let forged = [
        r#"{"layer":{"key":"../../outside","sandbox":1}}"#.to_owned(),
        format!(r#"{{"layer":{{"key":"{digits}","sandbox":"../outside"}}}}"#),
        format!(r#"{{"layer":{{"key":"{digits}","sandbox":1,"path":"/etc"}}}}"#),
        format!(r#"{{"layer":{{"key":"{digits}/..","sandbox":1}}}}"#),
        r#"{"remove":{"name":"../names"}}"#.to_owned(),
        r#"{"base":{"release":"bookworm; rm -rf /","proxies":{}}}"#.to_owned(),
        r#"{"base":{"release":"bookworm","proxies":{"LD_PRELOAD":"/tmp/x.so"}}}"#.to_owned(),
        r#"{"base":{"release":"bookworm","proxies":{"http_proxy":"a\nb"}}}"#.to_owned(),
        r#"{"run":{"program":"/bin/sh"}}"#.to_owned(),
        "{}".to_owned(),
        String::new(),
    ];
    for task in forged {
        let said = answer(&images, &framed(&task));
        assert!(said.contains("failed") && !said.contains("ended"), "{task}: {said}");
    }
    let said = answer(&images, &(TASK_BYTES + 1).to_le_bytes());
    assert!(said.contains("malformed"), "{said}");
    assert!(answer(&images, &[9, 0]).contains("malformed"));

    assert_eq!(fs::metadata(&outside).unwrap().ctime_nsec(), before);
    assert!(outside.join("upper").exists());
    assert!(store.list().unwrap().iter().all(|image| image.name.to_string() == "host"));
}
