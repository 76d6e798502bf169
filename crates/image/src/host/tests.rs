//! The image `host`, of this machine and of made-up ones.

use tempfile::TempDir;

use super::*;

/// A machine with a merged /usr and secrets in every place that must not be shared.
fn machine() -> TempDir {
    let machine = TempDir::new().unwrap();
    let at = |name: &str| machine.path().join(name);
    for dir in ["usr/bin", "usr/lib", "usr/lib64", "etc/ssl/certs", "etc/ssl/private", "root"] {
        disk::make_directory(&at(dir), 0o755).unwrap();
    }
    for name in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), at(name)).unwrap();
    }
    disk::put(&at("etc/shadow"), b"secret", 0o640).unwrap();
    disk::put(&at("etc/ssl/private/key"), b"secret", 0o600).unwrap();
    disk::put(&at("etc/ssl/certs/own.key"), b"secret", 0o600).unwrap();
    disk::put(&at("etc/ssl/certs/ca.crt"), b"public", 0o644).unwrap();
    disk::put(&at("etc/services"), b"http 80/tcp\n", 0o644).unwrap();
    disk::put(&at("root/.ssh/id"), b"secret", 0o644).unwrap();
    for (name, target) in [
        ("beside", "ca.crt"),
        ("into", "/usr/share/x"),
        ("out", "/root/.ssh/id"),
        ("up", "../private/key"),
        ("round", "/usr/../root/.ssh/id"),
    ] {
        symlink(target, at("etc/ssl/certs").join(name)).unwrap();
    }
    machine
}

fn store(dir: &TempDir) -> Store {
    Store::open(dir.path().join("images")).unwrap()
}

#[test]
fn the_layer_has_public_files_and_no_secret() {
    let (machine, dir) = (machine(), TempDir::new().unwrap());

    let store = store(&dir);
    let (_, rootfs) = image(&store, machine.path()).unwrap();

    let root = store.path_of(&rootfs.layers[0]);
    let certs = root.join("etc/ssl/certs");
    let mut names: Vec<_> =
        fs::read_dir(&certs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["beside", "ca.crt", "into"]);
    assert_eq!(fs::read_to_string(root.join("etc/services")).unwrap(), "http 80/tcp\n");
    assert!(!fs::read_to_string(root.join("etc/shadow")).unwrap().contains("secret"));
    for empty in ["root", "home", "opt", "srv", "mnt", "usr", "var/lib", "workspace", "tmp"] {
        assert_eq!(fs::read_dir(root.join(empty)).unwrap().count(), 0, "{empty}");
    }
    assert_eq!(fs::read_link(root.join("bin")).unwrap(), Path::new("usr/bin"));
    assert!(fs::symlink_metadata(root.join("lib32")).is_err());
    assert_eq!(fs::metadata(root.join("tmp")).unwrap().permissions().mode() & 0o7777, 0o1777);
    assert_eq!(rootfs.binds, [Bind::Usr]);
}

#[test]
fn the_layer_is_kept_until_the_machine_changes() {
    let (machine, dir) = (machine(), TempDir::new().unwrap());
    let store = store(&dir);
    let first = image(&store, machine.path()).unwrap();

    assert_eq!(image(&store, machine.path()).unwrap(), first);

    for change in ["usr/lib/os-release", "usr/bin/new-program", "etc/mime.types"] {
        let before = image(&store, machine.path()).unwrap().1;
        fs::write(machine.path().join(change), change).unwrap();
        let after = image(&store, machine.path()).unwrap().1;
        assert_ne!(before.layers, after.layers, "{change}");
        // Sandboxes may still stand on the old one.
        assert!(store.path_of(&before.layers[0]).is_dir());
    }
}

#[test]
fn a_machine_with_a_bin_of_its_own_is_refused_by_name() {
    let (machine, dir) = (machine(), TempDir::new().unwrap());
    for target in [None, Some("/opt/bin"), Some("usr/../opt")] {
        fs::remove_file(machine.path().join("bin")).unwrap();
        match target {
            Some(target) => symlink(target, machine.path().join("bin")).unwrap(),
            None => fs::create_dir(machine.path().join("bin")).unwrap(),
        }

        let error = image(&store(&dir), machine.path()).unwrap_err();

        assert!(matches!(error, ImageError::HostNotMerged { path: "/bin" }), "{error}");
        assert_eq!(fs::read_dir(dir.path().join("images/host")).unwrap().count(), 0);
        if target.is_none() {
            fs::remove_dir(machine.path().join("bin")).unwrap();
            symlink("usr/bin", machine.path().join("bin")).unwrap();
        }
    }
}

#[test]
fn threads_that_ask_at_once_get_the_same_layer() {
    let (machine, dir) = (machine(), TempDir::new().unwrap());
    let store = store(&dir);

    let layers: Vec<_> = std::thread::scope(|scope| {
        let ask = || image(&store, machine.path()).unwrap().1.layers;
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });

    assert!(layers.iter().all(|each| *each == layers[0]));
    assert_eq!(fs::read_dir(dir.path().join("images/host")).unwrap().count(), 1);
}

#[test]
fn this_machine_s_own_image_has_its_linker_cache_and_certificates() {
    let dir = TempDir::new().unwrap();

    let store = store(&dir);
    let (image, rootfs) = store.get(&HOST.parse().unwrap()).unwrap();

    assert_eq!(image.digest, HOST);
    let root = store.path_of(&rootfs.layers[0]);
    assert_eq!(
        fs::read(root.join("etc/ld.so.cache")).unwrap(),
        fs::read("/etc/ld.so.cache").unwrap()
    );
    assert_eq!(fs::read_link(root.join("bin")).unwrap(), fs::read_link("/bin").unwrap());
    assert_eq!(rootfs.binds, [Bind::Usr]);
}
