//! Trees that somebody hostile has made, in every way that they come back: a start, a restore, a fork, an
//! import.

use serde_json::json;
use testkit::{Answer, Server, reqwest::Method, tape};

use crate::{
    attack::{self, Finding},
    server,
};

/// Makes of its own root what it can, as root, and says which of the places where the jail mounts
/// something it could replace: none.
const MAKE: &str = r#"
import os, socket, subprocess
def tried(action, *what):
    try: action(*what); return True
    except OSError: return False
os.chdir('/workspace')
# Set-user-id, with capabilities of a file, and one that belongs to another.
subprocess.check_call('cp "$(command -v setpriv)" "$(command -v id)" . && chmod 6755 setpriv id', shell=True)
tried(os.setxattr, 'id', 'security.capability', bytes.fromhex('0100000200200000002000000000000000000000'))
# What the overlay itself writes: names that are gone, directories that hide what is below.
for name in ['trusted.overlay.opaque', 'trusted.overlay.redirect', 'trusted.overlay.metacopy']:
    assert not tried(os.setxattr, '/workspace', name, b'y'), name
os.makedirs('/etc/opaque')
for name in ['user.overlay.opaque', 'user.overlay.redirect', 'user.overlay.whiteout']:
    tried(os.setxattr, '/etc/opaque', name, b'/../../../../..')
for kind in [(0o20000, 0, 0), (0o20000, 1, 1), (0o60000, 7, 0)]:
    assert not tried(os.mknod, f'node-{kind[1]}', kind[0] | 0o666, os.makedev(*kind[1:])), kind
os.mkfifo('fifo'); socket.socket(socket.AF_UNIX).bind('socket')
os.makedirs('.wh..wh..opq'); open('.wh.passwd', 'w')
# Links in the place of whatever is looked at by whoever starts or copies this.
for name in ['etc', 'root', 'home', 'var', 'srv', 'opt', 'tmp', 'mnt', 'media']:
    if not os.path.islink('/' + name) and tried(os.rename, '/' + name, f'/{name}.was'):
        os.symlink('/proc/1/root/proc/1', '/' + name)
for name in ['proc', 'dev', 'sys', 'run']:
    assert not tried(os.rename, '/' + name, f'/{name}.was'), name
    assert not tried(os.rmdir, '/' + name), name
os.symlink('/../../../../../..', '/workspace/up')
# Deeper than any path.
for depth in range(20000):
    os.mkdir('d'); os.chdir('d')
print('made')
"#;

/// What must hold in a sandbox with that tree.
const LOOK: &str = r#"
import os, subprocess
os.chdir('/workspace')
# The bits are there, and give nobody anything.
assert os.stat('setpriv').st_mode & 0o6000 == 0o6000
other = ['./setpriv', '--reuid', '1000', '--regid', '1000', '--clear-groups', './id', '-u']
assert subprocess.check_output(other) == b'1000\n', 'set-user-id'
other[-2:] = ['grep', '-E', 'CapEff|CapPrm', '/proc/self/status']
assert set(subprocess.check_output(other).split()[1::2]) == {b'0' * 16}, 'capabilities'
assert not [name for name in os.listdir('.') if name.startswith('node-')], 'devices'
# A link from above the root ends at the root.
assert os.path.samefile('up', '/') and not os.path.exists('/boot/vmlinuz')
assert open('/proc/1/cmdline').read().startswith('sandbar\0__agent'), 'the processes are its own'
assert os.listdir('/sys') == [] and open('/proc/keys').read() == ''
# As deep as it was made.
depth = 0
while os.path.isdir('d'):
    os.chdir('d'); depth += 1
print(depth)
"#;

async fn python(server: &Server, id: &str, program: &str) -> String {
    let path = format!("/v1/sandboxes/{id}/exec");
    let start = json!({"command": ["python3", "-I", "-c", program], "cwd": "/"});
    let answer = server.post(&path, &start).await;
    assert_eq!(answer.json["exitCode"], 0, "{id}: {}", answer.text);
    answer.json["stdout"].as_str().unwrap_or_default().to_owned()
}

/// Runs the probes of such trees in a sandbox; all of them have something to look at.
async fn probes(server: &Server, id: &str, when: &str) -> Vec<Finding> {
    let command = ["python3", "-I", "-c", &attack::program(attack::TREE)];
    let start = json!({"command": command, "cwd": "/", "stdin": "{}"});
    let answer = server.post(&format!("/v1/sandboxes/{id}/exec"), &start).await;
    assert_eq!(answer.json["exitCode"], 0, "{when}: {}", answer.text);
    let found = attack::findings(answer.json["stdout"].as_str().unwrap_or_default());
    let others: Vec<_> = found.iter().filter(|finding| finding.outcome != "held").collect();
    assert!(others.is_empty(), "{when}: {others:#?}");
    found
}

async fn post(server: &Server, path: &str, body: serde_json::Value) {
    let answer = server.post(path, &body).await;
    assert!(answer.status < 300, "{path}: {}", answer.text);
}

/// F30, E29, E34
#[tokio::test]
async fn a_hostile_tree_is_no_more_than_files_when_it_comes_back() {
    let server = server();
    let held = probes(&server, "s", "as it was made").await;
    let broke = attack::in_the_control_jail(attack::TREE, &attack::APART, &json!({}));
    attack::judge("hostile trees", &held, &broke);
    assert_eq!(python(&server, "s", MAKE).await, "made\n");
    let look = async |id: &str, when: &str| {
        assert_eq!(python(&server, id, LOOK).await, "20000\n", "{when}");
        probes(&server, id, when).await;
    };
    look("s", "with its links").await;

    post(&server, "/v1/sandboxes/s/checkpoints", json!({"id": "c"})).await;
    post(&server, "/v1/sandboxes/s/stop", json!({})).await;
    look("s", "started again").await;
    post(&server, "/v1/sandboxes/s/restore", json!({"checkpoint": "c"})).await;
    look("s", "restored").await;
    post(&server, "/v1/sandboxes/s/fork", json!({"checkpoint": "c", "ids": ["f"]})).await;
    look("f", "forked").await;
    // The server goes through it too, and leaves nothing of it: that is looked at when it ends.
    for id in ["s", "f"] {
        assert_eq!(server.delete(&format!("/v1/sandboxes/{id}")).await.status, 204);
    }
}

/// Imports an archive that begins as the export of a checkpoint of `s` does.
async fn import(server: &Server, about: &[u8], id: &str, parts: &[Vec<u8>]) -> Answer {
    let path = format!("/v1/sandboxes/s/checkpoints:import?checkpoint={id}");
    let body = [about, &tape::archive(parts)].concat();
    let call = server.request(Method::POST, &path).body(body);
    testkit::answer(call.send().await.expect("the server answers")).await
}

/// What the export of a checkpoint says about itself: a header and one block of records.
async fn about(server: &Server) -> Vec<u8> {
    let path = "/v1/sandboxes/s/checkpoints/c/export";
    let export = server.request(Method::GET, path).send().await.expect("the server answers");
    let export = export.bytes().await.expect("it comes whole");
    export[..2 * tape::BLOCK].to_vec()
}

/// F25, F30
#[tokio::test]
async fn an_import_writes_nothing_but_files_of_its_checkpoint() {
    let server = server();
    server.shell("s", "echo old > target; mkdir aside").await;
    post(&server, "/v1/sandboxes/s/checkpoints", json!({"id": "c"})).await;
    let before = server.look();
    let about = about(&server).await;
    let link = |to: &str| tape::entry(b'2', b"link", to.as_bytes(), b"");
    let hard = |to: &str| tape::entry(b'1', b"hard", to.as_bytes(), b"");
    let sized = |bytes: u64| tape::records(b'x', &[("size", &bytes.to_string())]);
    for (parts, code) in [
        (vec![tape::file("../target", "new")], "INVALID_ARCHIVE"),
        (vec![tape::file("a/../../target", "new")], "INVALID_ARCHIVE"),
        (vec![link("workspace"), tape::file("link/target", "new")], "NOT_DIRECTORY"),
        (vec![link("/proc/1/root"), tape::file("link/etc/passwd", "new")], "NOT_DIRECTORY"),
        (vec![link("workspace"), tape::file("link/.wh.target", "")], "NOT_DIRECTORY"),
        (vec![hard("../target")], "INVALID_ARCHIVE"),
        // What is mounted in the jail that unpacks is no part of a checkpoint.
        (vec![tape::file("proc/1/oom_score_adj", "0")], "INVALID_ARCHIVE"),
        (vec![tape::file("dev/new", "new")], "INVALID_ARCHIVE"),
        (vec![tape::entry(b'5', b"proc", b"", b"")], "INVALID_ARCHIVE"),
        (vec![tape::file("proc", "new")], "INVALID_ARCHIVE"),
        (vec![tape::file(".wh.dev", "")], "INVALID_ARCHIVE"),
        (vec![tape::file("run/.wh..wh..opq", "")], "INVALID_ARCHIVE"),
        (vec![hard("proc/1/exe")], "INVALID_ARCHIVE"),
        (vec![tape::file(".wh...", "")], "INVALID_ARCHIVE"),
        (vec![tape::file(".wh.", "")], "INVALID_ARCHIVE"),
        // More than any export has, as it says, or in several.
        (vec![sized(65 << 30), tape::file("bomb", "")], "INVALID_ARCHIVE"),
        (vec![sized(u64::MAX), tape::file("bomb", "")], "INVALID_ARCHIVE"),
        (
            vec![tape::records(b'x', &[("uid", "65536")]), tape::file("owned", "x")],
            "INVALID_ARCHIVE",
        ),
    ] {
        let refused = import(&server, &about, "d", &parts).await;
        assert_eq!(refused.code(), code, "{}", refused.text);
    }
    server.expect_again(&before);

    // Devices, identities and the overlay's own attributes are not taken, and that is told.
    let opaque = [("SCHILY.xattr.trusted.overlay.opaque", "y"), ("SCHILY.xattr.user.a", "b")];
    let parts = [
        tape::entry(b'3', b"workspace/null", b"", b""),
        tape::entry(b'4', b"workspace/disk", b"", b""),
        tape::records(b'x', &opaque),
        tape::entry(b'5', b"workspace/aside/", b"", b""),
        tape::records(b'x', &[("SCHILY.xattr.security.capability", "x")]),
        tape::file("workspace/program", "x"),
        tape::entry(b'2', b"workspace/up", b"../../../..", b""),
    ];
    let done = import(&server, &about, "d", &parts).await;
    assert_eq!(done.status, 201, "{}", done.text);
    assert_eq!(done.json["unpacked"]["leftOutCount"], 4, "{}", done.text);
    post(&server, "/v1/sandboxes/s/fork", json!({"checkpoint": "d", "ids": ["f"]})).await;
    let seen = "ls; python3 -c 'import os; print(os.listxattr(\"aside\"), os.listxattr(\"program\"))'; [ up -ef / ]";
    assert_eq!(server.shell("f", seen).await, "aside\nprogram\nup\n['user.a'] []\n",);
}
