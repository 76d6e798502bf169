//! What the store keeps, and what a crash may leave of it.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

fn open(dir: &TempDir) -> Store {
    Store::open(dir.path().join("images")).unwrap()
}

fn name(text: &str) -> ImageRef {
    text.parse().unwrap()
}

/// Commits a layer with one file and returns its key.
fn commit(store: &Store, text: &str) -> LayerKey {
    let key = LayerKey::base(text);
    let scratch = store.scratch().unwrap();
    fs::write(scratch.path().join("file"), text).unwrap();
    store.commit_layer(&key, scratch.path()).unwrap();
    key
}

fn put(store: &Store, image: &str, layers: &[LayerKey]) -> Image {
    let manifest = Manifest {
        key: layers.last().unwrap().then("end"),
        layers: layers.to_vec(),
        before_warm: None,
        settings: Settings::base(),
        size_bytes: 7,
    };
    store.put(&name(image), manifest, &store.changes().unwrap()).unwrap()
}

#[test]
fn an_image_is_found_by_its_name_and_by_its_digest_after_a_reopen() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let layers = [commit(&store, "low"), commit(&store, "high")];
    let image = put(&store, "a/b:1", &layers);
    drop(store);

    let store = open(&dir);
    let (found, rootfs) = store.get(&name("a/b:1")).unwrap();

    assert_eq!(found, image);
    let paths: Vec<_> = rootfs.layers.iter().map(|layer| store.path_of(layer)).collect();
    assert_eq!(paths, [store.layer_path(&layers[1]), store.layer_path(&layers[0])]);
    assert_eq!(store.by_digest(&image.digest).unwrap(), rootfs);
    assert_eq!(fs::read_to_string(paths[0].join("file")).unwrap(), "high");
}

#[test]
fn images_are_listed_by_name_and_gone_once_removed() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let layer = [commit(&store, "x")];
    for image in ["b", "a", "a:2"] {
        put(&store, image, &layer);
    }

    store.remove(&name("a")).unwrap();

    let names: Vec<_> = store.list().unwrap().iter().map(|i| i.name.to_string()).collect();
    assert_eq!(names, ["a:2", "b", "host"]);
    assert!(matches!(store.get(&name("a")), Err(ImageError::NotFound(_))));
    assert!(matches!(store.remove(&name("a")), Err(ImageError::NotFound(_))));
    assert!(matches!(store.by_digest("sha256:../../x"), Err(ImageError::DigestNotFound(_))));
}

#[test]
fn the_longest_name_fits() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let longest = format!("{}:{}", "a/".repeat(63) + "aa", "t".repeat(128));

    put(&store, &longest, &[commit(&store, "x")]);

    assert_eq!(store.get(&name(&longest)).unwrap().0.name, name(&longest));
}

#[test]
fn reserved_names_can_be_neither_given_nor_removed() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);

    for reserved in ["host", "host:x", "debian", "debian:bookworm", "scratch"] {
        let removed = store.remove(&name(reserved));
        assert!(matches!(removed, Err(ImageError::Reserved { .. })), "{reserved}");
    }
}

#[test]
fn what_a_crash_left_is_swept_and_what_was_whole_stays() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let key = commit(&store, "whole");
    let image = put(&store, "kept", std::slice::from_ref(&key));
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("precious"), "x").unwrap();
    let root = dir.path().join("images");
    // A layer half made, with a link out of the store; a manifest half written; a layer half
    // removed; and a link in place of a directory.
    fs::create_dir_all(root.join("tmp-0/etc")).unwrap();
    symlink(outside.path(), root.join("tmp-0/out")).unwrap();
    fs::write(root.join("tmp-1"), "{\"key\":").unwrap();
    fs::rename(store.layer_path(&commit(&store, "going")), root.join("tmp-2")).unwrap();
    symlink(outside.path(), root.join("tmp-3")).unwrap();
    drop(store);

    let store = open(&dir);

    let left: Vec<_> = store.entries("").unwrap();
    assert!(left.iter().all(|name| !name.starts_with(TEMPORARY)), "{left:?}");
    assert!(outside.path().join("precious").exists());
    assert_eq!(store.get(&name("kept")).unwrap().0, image);
    assert!(store.has_layer(&key) && !store.has_layer(&LayerKey::base("going")));
}

#[test]
fn a_scratch_directory_goes_with_its_owner_and_a_committed_one_does_not_come_back() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let scratch = store.scratch().unwrap();
    let path = scratch.path().to_owned();
    fs::write(path.join("f"), "x").unwrap();

    drop(scratch);

    assert!(!path.exists());
    assert!(store.has_layer(&commit(&store, "x")));
    assert_eq!(fs::read_dir(dir.path().join("images")).unwrap().count(), 4);
}

#[test]
fn a_layer_made_again_replaces_the_old_one() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let key = commit(&store, "x");
    let again = store.scratch().unwrap();
    fs::write(again.path().join("file"), "again").unwrap();

    store.commit_layer(&key, again.path()).unwrap();

    assert_eq!(fs::read_to_string(store.layer_path(&key).join("file")).unwrap(), "again");
}

#[test]
fn collecting_frees_what_neither_a_name_nor_a_sandbox_needs() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let [shared, old, new, lost] = ["shared", "old", "new", "lost"].map(|t| commit(&store, t));
    let replaced = put(&store, "app", &[shared.clone(), old.clone()]);
    put(&store, "app", &[shared.clone(), new.clone()]);

    let freed = store.collect(&BTreeSet::from([replaced.digest.clone()])).unwrap();
    assert!(freed > 0);
    assert!([&shared, &old, &new].map(|key| store.has_layer(key)).iter().all(|has| *has));
    assert!(!store.has_layer(&lost));

    store.collect(&BTreeSet::new()).unwrap();
    assert!(!store.has_layer(&old));
    assert!(store.has_layer(&shared) && store.has_layer(&new));
    assert!(matches!(store.by_digest(&replaced.digest), Err(ImageError::DigestNotFound(_))));
    store.get(&name("app")).unwrap();
}

#[test]
fn old_skeletons_of_the_host_go_once_no_sandbox_stands_on_one() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let newest = store.path_of(&store.get(&name(HOST)).unwrap().1.layers[0]);
    let old = store.host_dir().join(LayerKey::base("old").as_str());
    fs::create_dir(&old).unwrap();

    store.collect(&BTreeSet::from([HOST.to_owned()])).unwrap();
    assert!(old.exists());

    store.collect(&BTreeSet::new()).unwrap();
    assert!(newest.exists() && !old.exists());
}

#[test]
fn nothing_is_collected_during_a_build() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let build = store.changes().unwrap();

    assert!(matches!(store.collect(&BTreeSet::new()), Err(ImageError::Busy)));
    drop(build);
    store.collect(&BTreeSet::new()).unwrap();
}

#[test]
fn a_damaged_manifest_is_an_error_with_its_path() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let image = put(&store, "app", &[commit(&store, "x")]);
    let key: LayerKey = image.digest["sha256:".len()..].parse().unwrap();
    fs::write(store.manifest_path(&key), "{}").unwrap();

    let error = store.get(&name("app")).unwrap_err();

    assert!(matches!(error, ImageError::Damaged { .. }));
    assert!(error.to_string().contains(key.as_str()));
}

#[test]
fn a_file_with_two_names_counts_once() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let key = commit(&store, "x");
    let once = store.size_bytes(std::slice::from_ref(&key)).unwrap();

    fs::hard_link(store.layer_path(&key).join("file"), store.layer_path(&key).join("g")).unwrap();

    assert!(once > 0);
    assert_eq!(store.size_bytes(&[key]).unwrap(), once);
}
