//! The other side: what careful programs and debuggers need still works inside.

use crate::server;

/// E45, E47
#[tokio::test]
async fn what_programs_need_works() {
    let server = server();
    // A program that locks itself in asks for the version first: no attributes, no size, flag 1.
    let landlock = "import ctypes\nprint(ctypes.CDLL(None).syscall(444, 0, 0, 1) >= 1)";
    assert_eq!(server.shell("s", &format!("python3 -c '{landlock}'")).await, "True\n");
    let traced = "strace -f -e trace=execve sh -c 'true; /bin/true' 2>&1 | grep -c execve";
    assert_eq!(server.shell("s", traced).await, "2\n");
    let debugged = "gdb -q -batch -ex run -ex 'print $_exitcode' /bin/true 2>&1 | tail -1";
    assert_eq!(server.shell("s", debugged).await, "$1 = 0\n");
}
