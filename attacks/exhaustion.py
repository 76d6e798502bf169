"""Taking more than a sandbox's share. The sandbox has 256 MiB and 128 processes; each attack asks for
more than that, but for no more than the machine can give, because the control jail gives it."""

import mmap

MIB = 1 << 20
# Bytes that are too many.
TOO_MUCH = 400 * MIB
PROCESSES = 128
MAP_NORESERVE = 0x4000


def until_refused(most, action, refusals):
    """How often `action` works before the kernel refuses, up to `most`."""
    for count in range(most):
        try:
            action()
        except OSError as error:
            if error.errno in refusals:
                return count
            raise
    return most


def raise_descriptors():
    """As many as this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@probe("Q01", "processes without end")
def _():
    def start():
        if os.fork() == 0:
            signal.pause()

    made = until_refused(2 * PROCESSES, start, {errno.EAGAIN})
    return made >= PROCESSES and f"{made} processes"


@probe("Q01", "processes that start processes")
def _():
    # What each generation reaches is counted by the pipe's other end.
    reader, writer = os.pipe()
    for _ in range(9):
        try:
            os.fork()
        except OSError:
            break
    os.write(writer, b"x")
    if os.getpid() != os.getpgid(0):
        signal.pause()
    made = 0
    # Until there are too many, or no more come.
    while made <= PROCESSES and select.select([reader], [], [], PATIENCE / 40)[0]:
        made += len(os.read(reader, 4096))
    return made > PROCESSES and f"{made} processes"


@probe("Q02", "threads without end")
def _():
    end = threading.Event()
    threading.stack_size(64 * 1024)
    made = 0
    try:
        for made in range(2 * PROCESSES):
            threading.Thread(target=end.wait, daemon=True).start()
    except RuntimeError:
        pass
    return made >= PROCESSES and f"{made} threads"


@probe("Q03", "memory at once", dies=True)
def _():
    block = bytearray(TOO_MUCH)
    return f"{len(block) // MIB} MiB"


@probe("Q04", "memory piece by piece", dies=True)
def _():
    blocks = [bytearray(MIB) for _ in range(TOO_MUCH // MIB)]
    return f"{len(blocks)} MiB"


def fill(path):
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.unlink(path)
    piece = bytes(MIB)
    count = until_refused(TOO_MUCH // MIB, lambda: os.write(file, piece), {errno.ENOSPC})
    return count * MIB >= TOO_MUCH and f"{count} MiB"


for path in ("/dev/shm", "/run"):
    @probe("Q05", f"memory by files in {path}", dies=True)
    def _(path=path):
        return fill(f"{path}/sandbar-probe")


@probe("Q06", "memory by a file without a name", dies=True)
def _():
    file = os.memfd_create("probe")
    piece = bytes(MIB)
    return f"{sum(os.write(file, piece) for _ in range(TOO_MUCH // MIB)) // MIB} MiB"


@probe("Q06", "memory shared without a file", dies=True)
def _():
    shared = mmap.mmap(-1, TOO_MUCH)
    for offset in range(0, TOO_MUCH, 4096):
        shared[offset] = 1
    return "all of it"


@probe("Q07", "the kernel's memory, by sockets that nobody reads", dies=True)
def _():
    raise_descriptors()
    kept, piece, full = [], bytes(65536), 0
    while full < TOO_MUCH and len(kept) < 20000:
        pair = socket.socketpair()
        kept.append(pair)
        pair[0].setblocking(False)
        try:
            while True:
                full += pair[0].send(piece)
        except BlockingIOError:
            pass
    return f"{full // MIB} MiB in {len(kept)} pairs"


@probe("Q07", "the kernel's memory, by tables of pages", dies=True)
def _():
    count = TOO_MUCH // 8192 + 1
    space = mmap.mmap(-1, count << 21, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    libc.madvise(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(space))),
                 ctypes.c_size_t(count << 21), 15)
    for number in range(count):
        space[number << 21] = 1
    return f"{count} tables"


@probe("Q07", "the kernel's memory, by System V segments", dies=True)
def _():
    libc.shmat.restype = ctypes.c_void_p
    for _ in range(TOO_MUCH // (16 * MIB)):
        segment = libc.shmget(0, 16 * MIB, 0o1600)
        if segment < 0:
            return None
        address = libc.shmat(segment, None, 0)
        libc.shmctl(segment, 0, None)
        ctypes.memset(address, 1, 16 * MIB)
    return "all of it"


@probe("Q08", "the room for pipes")
def _():
    kept = []

    def grow():
        kept.append(os.pipe())
        fcntl.fcntl(kept[-1][1], 1031, MIB)

    made = until_refused(128, grow, {errno.EPERM})
    return made > 80 and f"{made} pipes of 1 MiB"


@probe("Q13", "descriptors without end")
def _():
    raise_descriptors()
    if HOST.get("control") and resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= 65536:
        raise Absent("the control jail has no more either")
    made = until_refused(66000, lambda: os.open("/dev/null", os.O_RDONLY), {errno.EMFILE, errno.ENFILE})
    return made > 65536 and f"{made} descriptors"


@probe("Q14", "descriptors on their way")
def _():
    raise_descriptors()
    kept, sent = [], [0]

    def send():
        if sent[0] % 5060 == 0:
            kept.append(socket.socketpair())
            kept[-1][0].setblocking(False)
        socket.send_fds(kept[-1][0], [b"x"], [0] * 253)
        sent[0] += 253

    until_refused(400, send, {errno.ETOOMANYREFS, errno.ENOBUFS, errno.EAGAIN})
    return sent[0] > 80000 and f"{sent[0]} descriptors"


@probe("Q15", "watchers of files (inotify instances)")
def _():
    if HOST.get("control"):
        raise Absent("the host's own limit would be used up")
    made = until_refused(300, lambda: libc.inotify_init() >= 0 or fail(), {errno.EMFILE, errno.ENFILE})
    return made > 128 and f"{made} instances"


def fail():
    raise OSError(ctypes.get_errno(), "refused")


@probe("Q16", "watched files")
def _():
    if HOST.get("control"):
        raise Absent("the host's own limit would be used up")
    # Each instance counts a file by itself.
    where, made = tempfile.mkdtemp(dir="/dev/shm"), 0
    for number in range(17000):
        os.mknod(f"{where}/{number}")
    try:
        for _ in range(16):
            watcher = libc.inotify_init()
            for number in range(17000):
                if libc.inotify_add_watch(watcher, f"{where}/{number}".encode(), 2) < 0:
                    return None
                made += 1
        return f"{made} watches"
    finally:
        for number in range(17000):
            os.unlink(f"{where}/{number}")
        os.rmdir(where)


@probe("Q17", "timers")
def _():
    timer = ctypes.c_int()
    made = 0
    while made < 8192 and call((222, 107), 1, 0, ctypes.byref(timer)) == 0:
        made += 1
    return made > 4096 and f"{made} timers"


@probe("Q18", "signals that wait")
def _():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
    about = (ctypes.c_int * 32)(signal.SIGRTMIN, 0, -1)
    made = 0
    while made < 8192 and call((129, 138), os.getpid(), int(signal.SIGRTMIN), about) == 0:
        made += 1
    return made > 4096 and f"{made} signals"


@probe("Q18", "message queues")
def _():
    return must_refuse(call((240, 180), b"probe", os.O_CREAT | os.O_RDWR, 0o600, 0))


@probe("Q19", "memory that cannot be reclaimed")
def _():
    block = mmap.mmap(-1, 64 * MIB)
    address = ctypes.addressof(ctypes.c_char.from_buffer(block))
    code = call((149, 228), ctypes.c_void_p(address), 64 * MIB)
    return must_refuse(code, {errno.ENOMEM, errno.EAGAIN})


@probe("Q39", "terminals of the machine")
def _():
    kept = []
    made = until_refused(300, lambda: kept.append(os.openpty()), {errno.ENOSPC, errno.EMFILE})
    return made > 128 and f"{made} terminals"


for name, limit in (("descriptors", resource.RLIMIT_NOFILE), ("core files", resource.RLIMIT_CORE),
                    ("signals", resource.RLIMIT_SIGPENDING), ("locked memory", resource.RLIMIT_MEMLOCK)):
    @probe("Q41", f"raise the limit of {name}")
    def _(limit=limit):
        _, hard = resource.getrlimit(limit)
        if hard == resource.RLIM_INFINITY:
            return "there is none"
        control_lacks(24)
        try:
            resource.setrlimit(limit, (hard + 1, hard + 1))
        except (ValueError, OSError):
            return None
        return f"it is {hard + 1}"
