//! Images that servers of tests share.

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use crate::Server;

/// The directory with the default image as its recipe says now and this binary makes it, shared by
/// all tests and with the demo. Whoever comes first builds it, which takes minutes and the network
/// the first time; its steps are kept, so later changes of the recipe or of the binary take less.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn default_images(binary: &str) -> PathBuf {
    let root = repository();
    let recipe = root.join("images/default");
    let lock = File::create(root.join("target/demo.lock")).expect("target can be written");
    lock.lock().expect("a file can be locked");
    let state = &*STATE;
    let mut made_from = fs::read(recipe.join("Dockerfile")).expect("there is a recipe");
    let made_at = fs::metadata(binary).and_then(|binary| binary.modified()).expect("it is there");
    made_from.extend(format!("# {binary} {made_at:?}").into_bytes());
    let built = root.join("target/demo.image");
    if fs::read(&built).ok().as_ref() != Some(&made_from) {
        build(binary, state, &recipe);
        fs::write(&built, made_from).expect("target can be written");
    }
    // The server that built it had it to itself.
    open_to_others(state);
    state.join("images")
}

/// Has the server with the new state directory `state` keep the layer of the image `host` where others
/// do: it is mostly links, hundreds of them, and ext4 looks for an inode that was not in use a minute ago for each.
pub(crate) fn share_host_layer(state: &Path) {
    let shared = STATE.join("images/host");
    fs::create_dir_all(&shared).expect("the state directory of the demo can be written");
    // A server moves the layer there that it has made, which it can on one file system only.
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).expect("it is there");
    if device(&shared) == device(state) {
        fs::create_dir(state.join("images")).expect("the state directory is new");
        symlink(shared, state.join("images/host")).expect("there is none yet");
    }
}

/// The state directory of the demo.
static STATE: LazyLock<PathBuf> = LazyLock::new(|| {
    let made = Command::new(repository().join("scripts/state-dir")).output();
    let made = made.expect("the script starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let state = String::from_utf8(made.stdout).expect("its path is UTF-8");
    let state = PathBuf::from(state.trim_end());
    open_to_others(&state);
    state
});

/// Servers of other tests are other users, and read the images of this one.
fn open_to_others(state: &Path) {
    fs::set_permissions(state, fs::Permissions::from_mode(0o711)).expect("it is ours");
}

fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the repository is there")
}

fn build(binary: &str, state: &Path, recipe: &Path) {
    let server = Server::start_in(binary, state, &[]);
    let recipe = recipe.to_str().expect("the path is UTF-8");
    let built = server.command(["image", "build", "--tag", "default", recipe]).output();
    let built = built.expect("the binary starts");
    let said = [&*built.stdout, &*built.stderr].map(String::from_utf8_lossy).concat();
    assert!(built.status.success(), "{said}");
}
