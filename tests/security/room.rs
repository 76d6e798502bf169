//! Calls that the agent answers: statfs(2) and fstatfs(2), by programs that want to hold it up, or have it
//! write where they may not.

use serde_json::json;
use testkit::Server;

use crate::server;

/// Another size than that of `/dev/shm`.
const LIMIT: u64 = 320 << 20;

/// What the programs below begin with.
const PRELUDE: &str = r#"
import ctypes, mmap, os, platform, signal, subprocess, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)
STATFS, FSTATFS = {"x86_64": (137, 138), "aarch64": (43, 44)}[platform.machine()]
LIMIT = int(sys.argv[1]) if len(sys.argv) > 1 else 0

def size(path, words=None, mark=0):
    words = words or (ctypes.c_uint64 * 15)()
    if libc.syscall(STATFS, path, words, ctypes.c_uint64(mark)):
        return -ctypes.get_errno()
    return words[2] * words[1]
"#;

async fn limited(server: &Server) {
    let body = json!({"id": "s", "resources": {"diskBytes": LIMIT, "pids": 256}});
    let created = server.post("/v1/sandboxes", &body).await;
    assert_eq!(created.json["resources"]["diskBytes"], LIMIT, "{}", created.text);
}

/// Runs a program in the sandbox.
async fn run(server: &Server, program: &str) -> String {
    server.put("/v1/sandboxes/s/files/tmp/program.py", format!("{PRELUDE}{program}")).await;
    server.shell("s", &format!("python3 /tmp/program.py {LIMIT}")).await
}

/// Descriptors that the agent has open.
fn descriptors(server: &Server) -> usize {
    let listed = std::fs::read_dir(format!("/proc/{}/fd", server.agent_pid()));
    listed.expect("the agent runs").count()
}

/// Q43
#[tokio::test]
async fn many_callers_at_once_hold_nobody_up_and_leave_nothing() {
    let server = server();
    limited(&server).await;
    run(&server, "print(size(b'/'))").await;
    let before = descriptors(&server);
    let storm = r"
wrong = []
def ask():
    for _ in range(200):
        if size(b'/workspace') != LIMIT:
            wrong.append(1)
threads = [threading.Thread(target=ask) for _ in range(64)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(wrong))
";
    assert_eq!(run(&server, storm).await, "0\n");
    let after = descriptors(&server);
    assert!(after <= before + 1, "{before} descriptors, then {after}");

    // One that never ends: requests, checkpoints and freezes go on beside it.
    let endless = "import os, threading\n\
        def ask():\n while True: os.statvfs('/workspace')\n\
        for _ in range(64): threading.Thread(target=ask).start()\n\
        print('ready', flush=True)";
    let command = json!({"command": ["python3", "-c", endless], "id": "storm"});
    let started = server.post("/v1/sandboxes/s/processes", &command).await;
    assert_eq!(started.status, 201, "{}", started.text);
    let ready = json!({"until": {"type": "log", "text": "ready"}, "timeoutMs": 60_000});
    let ready = server.post("/v1/sandboxes/s/processes/storm/wait", &ready).await;
    assert_eq!(ready.status, 200, "{}", ready.text);
    for number in 0..10 {
        assert_eq!(server.shell("s", "echo works").await, "works\n");
        let made = json!({"id": format!("c{number}")});
        let made = server.post("/v1/sandboxes/s/checkpoints", &made).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let frozen = server.post("/v1/sandboxes/s/freeze", &json!({})).await;
        assert!(frozen.status < 300, "{}", frozen.text);
    }
    assert_eq!(
        server.shell("s", "df -B1 --output=size / | tail -n 1").await.trim(),
        LIMIT.to_string()
    );
    assert_eq!(server.shell("neighbour", "echo well").await, "well\n");
}

/// Q44
#[tokio::test]
async fn callers_that_are_killed_meanwhile_hold_nobody_up() {
    let server = server();
    limited(&server).await;
    let kill = r#"
child = "import os\nwhile True: os.statvfs('/workspace')"
for _ in range(40):
    asking = [subprocess.Popen([sys.executable, "-S", "-c", child]) for _ in range(4)]
    time.sleep(0.02)
    for one in asking: one.kill()
    for one in asking: one.wait()
print(size(b'/') == LIMIT)
"#;
    assert_eq!(run(&server, kill).await, "True\n");
    // By signals that it handles: each call is whole, and nothing is written behind it.
    let interrupted = r"
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, True)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
answers = set()
for _ in range(20000):
    words = (ctypes.c_uint64 * 15)()
    answers.add(size(b'/', words))
    copy = bytes(words)
    if bytes(words) != copy: print('written late')
signal.setitimer(signal.ITIMER_REAL, 0)
print(answers <= {LIMIT, -4} and LIMIT in answers)
";
    assert_eq!(run(&server, interrupted).await, "True\n");
}

/// Q45. A path that was of another file system when the agent read it may be of the root when the kernel
/// does: then the kernel answers, as it does whoever passes the agent's mark.
#[tokio::test]
async fn a_path_that_changes_meanwhile_is_one_of_what_it_was() {
    let server = server();
    limited(&server).await;
    let change = r"
path = ctypes.create_string_buffer(b'/dev/shm', 16)
places = [b'/dev/shm', b'/workspace', b'/none', b'/']
os.symlink('/dev/shm', '/tmp/link')
stop = False
def change():
    number = 0
    while not stop:
        number += 1
        path.value = places[number % 4]
        os.symlink(['/dev/shm', '/', '/none'][number % 3], '/tmp/new')
        os.rename('/tmp/new', '/tmp/link')
changer = threading.Thread(target=change)
changer.start()
seen = set()
for _ in range(5000):
    seen.add(size(path))
    seen.add(size(b'/tmp/link'))
stop = True
changer.join()
known = {LIMIT, size(b'/dev/shm'), size(b'/', mark=0x73616e6462617221), -2}
print(len(known), seen - known, LIMIT in seen)
";
    assert_eq!(run(&server, change).await, "4 set() True\n");
}

/// Q46
#[tokio::test]
async fn memory_that_its_owner_may_not_write_is_not_written() {
    let server = server();
    limited(&server).await;
    let write = r"
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
PRIVATE, SHARED, ANONYMOUS = 2, 1, 32
def ask(address):
    return libc.syscall(STATFS, b'/', ctypes.c_void_p(address)), ctypes.get_errno()
program = os.open(sys.executable, os.O_RDONLY)
maps = {
    'nothing': libc.mmap(None, 4096, 0, PRIVATE | ANONYMOUS, -1, 0),
    'read-only': libc.mmap(None, 4096, 1, PRIVATE | ANONYMOUS, -1, 0),
    'program': libc.mmap(None, 4096, 5, PRIVATE, program, 0),
    'file': libc.mmap(None, 4096, 1, SHARED, program, 0),
}
for name, address in maps.items():
    before = None if name == 'nothing' else ctypes.string_at(address, 4096)
    print(name, *ask(address), name == 'nothing' or ctypes.string_at(address, 4096) == before)
# The last bytes of what may be written, and beyond.
end = libc.mmap(None, 8192, 3, PRIVATE | ANONYMOUS, -1, 0)
libc.munmap(ctypes.c_void_p(end + 4096), 4096)
print('whole', *ask(end + 4096 - 120))
print('cut', *ask(end + 4096 - 119))
# What is not there yet may be written.
print('fresh', *ask(libc.mmap(None, 4096, 3, PRIVATE | ANONYMOUS, -1, 0)))
# A process that hides itself is answered by the kernel.
libc.prctl(4, 0, 0, 0, 0)
print('hidden', ask(end)[0], size(b'/') > 0)
";
    let expected = "nothing -1 14 True\nread-only -1 14 True\nprogram -1 14 True\nfile -1 14 True\n\
                    whole 0 14\ncut -1 14\nfresh 0 14\nhidden 0 True\n";
    assert_eq!(run(&server, write).await, expected);
}

/// E62
#[tokio::test]
async fn no_program_listens_to_the_calls_of_others() {
    let server = server();
    limited(&server).await;
    // With and without the agent's own listener: SECCOMP_FILTER_FLAG_NEW_LISTENER.
    let listen = r"
class Instruction(ctypes.Structure): _fields_ = [('code', ctypes.c_uint16), ('jt', ctypes.c_uint8), ('jf', ctypes.c_uint8), ('k', ctypes.c_uint32)]
class Program(ctypes.Structure): _fields_ = [('length', ctypes.c_uint16), ('filter', ctypes.POINTER(Instruction))]
allow = (Instruction * 1)(Instruction(6, 0, 0, 0x7fff0000))
program = Program(1, allow)
SECCOMP = {'x86_64': 317, 'aarch64': 277}[platform.machine()]
print(libc.syscall(SECCOMP, 1, 8, ctypes.byref(program)), ctypes.get_errno())
print(libc.syscall(SECCOMP, 1, 0, ctypes.byref(program)), size(b'/') == LIMIT)
listeners = [link for one in os.listdir('/proc') if one.isdigit() for link in [one] if os.path.isdir(f'/proc/{one}/fd')]
found = []
for one in listeners:
    try:
        found += [os.readlink(f'/proc/{one}/fd/{number}') for number in os.listdir(f'/proc/{one}/fd')]
    except OSError: pass
print([name for name in found if 'seccomp' in name or '/sys/' in name])
";
    assert_eq!(run(&server, listen).await, "-1 1\n0 True\n[]\n");
}
