"""Attacks from inside a sandbox: what a probe is, and how probes are run.

The files beside this one are lists of probes. One of them behind this text is a program, which runs
every probe in a process of its own and prints one line of JSON for each:

    {"id": "E05", "what": "mount", "outcome": "held", "detail": ""}

`held` is what a sandbox must answer. `broken`: the attack worked, or reached code that it must not
reach. `absent`: this machine has nothing to attack. `error`: the probe itself is at fault.

Each probe is harmless where it works, because it is also run where it must: in the control jail,
which is the host with little in between. So it opens and does not write, or passes arguments that the
kernel refuses only after it has allowed the call.
"""

import ctypes, errno, fcntl, json, os, platform, resource, select, signal, socket, stat, struct
import subprocess, sys, tempfile, threading, time

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
ARM = platform.machine() == "aarch64"

# What the harness knows of the host and of a neighbour, as `facts` tells it, from standard input: an
# environment could be read by the very probes that look for it. What is missing matches nothing.
HOST = {} if sys.argv[1:] == ["facts"] else json.loads(sys.stdin.read() or "{}")

# Seconds for one probe; none takes one on a machine that has nothing else to do.
PATIENCE = 120

# What the kernel says when it does not let us.
REFUSED = {errno.EPERM, errno.ENOSYS, errno.EACCES, errno.EROFS}

PROBES = []


class Absent(Exception):
    """There is nothing to attack on this machine."""


def probe(id, what, dies=False):
    """Registers a function that returns what broke, or nothing when the sandbox held; or that the
    kernel ends, for want of memory, when the sandbox holds and the attack `dies`."""

    def register(function):
        PROBES.append((id, what, function, dies))
        return function

    return register


def name_of(code):
    return errno.errorcode.get(code, str(code))


def call(number, *arguments):
    """Makes a system call by its number; the error, or 0."""
    if isinstance(number, tuple):
        number = number[1] if ARM else number[0]
    if number is None:
        raise Absent("not on this architecture")
    ctypes.set_errno(0)
    arguments = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *arguments)
    return ctypes.get_errno() if result == -1 else 0


def must_refuse(code, also=()):
    """What broke when a call ended with the error `code`."""
    if code == errno.ENOSYS and HOST.get("control"):
        raise Absent("the kernel has no such call")
    if code in REFUSED or code in also:
        return None
    return "the call worked" if code == 0 else f"the kernel got as far as {name_of(code)}"


def refused(action, also=()):
    """What broke when `action` was not refused."""
    try:
        action()
    except OSError as error:
        return must_refuse(error.errno, also)
    return "it worked"


def opens(path, how=os.O_WRONLY, also=()):
    """What broke when `path` can be opened. Nothing is written."""

    def action():
        try:
            os.close(os.open(path, how | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
        except FileNotFoundError:
            raise Absent("there is no such file")

    return refused(action, also)


def text(path):
    """What a file says; nothing when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20).decode(errors="replace")
    except OSError:
        return ""


def status(field, pid="self"):
    """A field of /proc/PID/status."""
    lines = text(f"/proc/{pid}/status").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field + ":")), "")


def output(arguments, identity=None):
    """What a program prints on both outputs, run as user id `identity`; nothing without it."""
    try:
        done = subprocess.run(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=PATIENCE / 2, user=identity,
                              group=identity, extra_groups=None if identity is None else [])
        return done.returncode, done.stdout.decode(errors="replace")
    except FileNotFoundError:
        raise Absent(f"{arguments[0]} is not here")


def control_lacks(capability):
    """Ends a probe in a control jail that cannot do what the attack needs: the host cannot."""
    if HOST.get("control") and not int(status("CapEff"), 16) >> capability & 1:
        raise Absent(f"the control jail has no capability {capability}")


def machine_code(code):
    """Runs bytes of machine code and returns what they leave in the first register."""
    import mmap

    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return ctypes.CFUNCTYPE(ctypes.c_long)(address)()


def facts():
    """What tells one world from another; the harness asks for it on both sides."""
    namespaces = ("user", "pid", "mnt", "net", "uts", "ipc", "cgroup", "time")
    memory = dict(line.split(":", 1) for line in text("/proc/meminfo").splitlines() if ":" in line)
    return {
        "namespaces": {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in namespaces},
        "boot_id": text("/proc/sys/kernel/random/boot_id").strip(),
        "machine_id": text("/etc/machine-id").strip(),
        "hostname": socket.gethostname(),
        "memory": memory.get("MemTotal", "").strip(),
        "uptime": float((text("/proc/uptime").split() or ["0"])[0]),
        "cpus": os.cpu_count(),
        "btime": next((int(line.split()[1]) for line in text("/proc/stat").splitlines()
                       if line.startswith("btime")), 0),
        "threads": int((text("/proc/loadavg").split() or ["", "", "", "0/0"])[3].split("/")[1]),
        "uid_map": text("/proc/self/uid_map").split(),
    }


def run_one(function, dies):
    """Runs a probe in a process of its own; what came of it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            # What a probe starts must not outlive it, nor must a probe that is stuck.
            os.setpgid(0, 0)
            # The first that the kernel ends for want of memory, before what runs the probes.
            with open("/proc/self/oom_score_adj", "w") as score:
                score.write("1000")
            try:
                broke = function()
                found = ("broken", str(broke)) if broke else ("held", "")
            except Absent as reason:
                found = ("absent", str(reason))
            except BaseException as error:
                found = ("error", f"{type(error).__name__}: {error}")
            os.write(writer, json.dumps([found[0], found[1][:4000]]).encode() + b"\n")
        finally:
            os._exit(0)
    os.close(writer)
    said = b""
    while select.select([reader], [], [], PATIENCE)[0]:
        piece = os.read(reader, 65536)
        said += piece
        # Its children may have the other end open after its last word.
        if not piece or piece.endswith(b"\n"):
            break
    else:
        said = b'["error", "it did not end"]'
    os.close(reader)
    try:
        os.killpg(child, signal.SIGKILL)
    except OSError:
        pass
    _, ended = os.waitpid(child, 0)
    if said:
        try:
            return json.loads(said)
        except ValueError:
            return ["error", f"it said {said[:200]}"]
    if os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGSYS:
        return ["held", "killed by SIGSYS"]
    if dies and os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGKILL:
        return ["held", "killed for want of memory"]
    return ["error", f"the probe died: {ended}"]


def main():
    if sys.argv[1:] == ["facts"]:
        print(json.dumps(facts()))
        return
    for id, what, function, dies in PROBES:
        if sys.argv[1:] and id not in sys.argv[1:]:
            continue
        outcome, detail = run_one(function, dies)
        line = {"id": id, "what": what, "outcome": outcome, "detail": detail}
        print(json.dumps(line), flush=True)
