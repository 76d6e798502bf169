//! The default image, for tests that need what it has.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = root.canonicalize().expect("the repository is there");
    let recipe = root.join("images/default");
    let lock = File::create(root.join("target/demo.lock")).expect("target can be written");
    lock.lock().expect("a file can be locked");
    let made = Command::new(root.join("scripts/state-dir")).output().expect("the script starts");
    let state = String::from_utf8(made.stdout).expect("its path is UTF-8");
    let state = PathBuf::from(state.trim_end());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut made_from = fs::read(recipe.join("Dockerfile")).expect("there is a recipe");
    let made_at = fs::metadata(binary).and_then(|binary| binary.modified()).expect("it is there");
    made_from.extend(format!("# {binary} {made_at:?}").into_bytes());
    let built = root.join("target/demo.image");
    if fs::read(&built).ok().as_ref() != Some(&made_from) {
        build(binary, &state, &recipe);
        fs::write(&built, made_from).expect("target can be written");
    }
    // Servers of other tests are other users, and read the images of this one.
    fs::set_permissions(&state, fs::Permissions::from_mode(0o711)).expect("it is ours");
    state.join("images")
}

fn build(binary: &str, state: &Path, recipe: &Path) {
    let server = Server::start_in(binary, state, &[]);
    let recipe = recipe.to_str().expect("the path is UTF-8");
    let built = server.command(["image", "build", "--tag", "default", recipe]).output();
    let built = built.expect("the binary starts");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}
