"""What an abuser does for as long as it is let: `python3 load.py NAME`. Each load uses up one thing that
sandboxes have a share of, and none ends by itself. What a neighbour feels of it is measured by
`sandbar bench --neighbours` and by `tests/security/neighbour.rs`."""

import ctypes, fcntl, mmap, os, socket, struct, sys, time

libc = ctypes.CDLL(None, use_errno=True)
LOADS = {}
HERE = "/workspace"
MIB = 1 << 20
F_SETPIPE_SZ = 1031


def load(function):
    LOADS[function.__name__] = function
    return function


def for_ever(*actions):
    """Does each of the actions over and over, each in a process of its own."""
    for action in actions:
        if os.fork() == 0:
            while True:
                try:
                    action()
                except OSError:
                    pass
    while True:
        os.wait()


@load
def processors():
    """Sixty-four that compute, on all processors and not on those that they were told to use."""
    os.sched_setaffinity(0, range(os.sysconf("SC_NPROCESSORS_CONF")))
    for_ever(*[lambda: sum(range(100000))] * 64)


@load
def calls():
    """Calls, faults, and processes that come and go."""
    def fault():
        with mmap.mmap(-1, 32 * MIB) as pages:
            for at in range(0, len(pages), 4096):
                pages[at] = 1

    def process():
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

    for_ever(os.getppid, os.sched_yield, fault, process)


@load
def processes():
    """As many processes as there may be, each of which wants more."""
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.001)


@load
def memory():
    """Memory until the kernel ends who takes it, and again."""
    take = "[bytearray(1 << 24) for _ in range(1 << 20)]"
    for_ever(lambda: os.spawnlp(os.P_WAIT, "python3", "python3", "-c", take))


@load
def disk():
    """Bytes on disk, each of them there before the next, until there is no room; and again."""
    def fill():
        file = os.open(f"{HERE}/load", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            piece = os.urandom(MIB)
            while True:
                os.write(file, piece)
                os.fsync(file)
        finally:
            os.close(file)

    for_ever(fill)


@load
def files():
    """Files without content, made and removed."""
    def turn():
        names = [f"{HERE}/load-{os.getpid()}-{number}" for number in range(20000)]
        try:
            for name in names:
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT))
        finally:
            for name in names:
                try:
                    os.unlink(name)
                except FileNotFoundError:
                    break

    for_ever(turn)


@load
def pipes():
    """Bytes through pipes as large as they may be."""
    def pump():
        pairs = [os.pipe() for _ in range(64)]
        piece = bytes(MIB)
        for _, writer in pairs:
            try:
                fcntl.fcntl(writer, F_SETPIPE_SZ, MIB)
            except OSError:
                pass
            os.set_blocking(writer, False)
        while True:
            for reader, writer in pairs:
                os.read(reader, os.write(writer, piece))

    for_ever(pump)


@load
def watches():
    """Events for watchers that never read them, on more files than may be watched."""
    where = f"/tmp/load-{os.getpid()}"
    os.makedirs(where)
    watchers = [libc.inotify_init() for _ in range(200)]
    for watcher in watchers:
        libc.inotify_add_watch(watcher, where.encode(), 0xFFF)

    def event():
        os.close(os.open(f"{where}/x", os.O_WRONLY | os.O_CREAT))
        os.unlink(f"{where}/x")

    for_ever(event)


@load
def packets():
    """Small packets on the loopback."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.connect(server.getsockname())
    for_ever(lambda: client.send(b"x"), lambda: server.recv(1))


@load
def connections():
    """Connections to where none is allowed, and so to nobody: each is looked at, and refused."""
    def open_one():
        for port in range(1, 60000):
            with socket.socket() as one:
                one.setblocking(False)
                one.connect_ex((f"10.{port % 250}.7.7", port))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.sendto(b"x", (f"10.{port % 250}.7.7", port))

    for_ever(open_one)


@load
def names():
    """Questions for names."""
    with open("/etc/resolv.conf") as file:
        gateway = next(line.split()[1] for line in file if line.startswith("nameserver"))
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.connect((gateway, 53))
    question = b"\x04load\x07invalid\x00" + struct.pack("!HH", 1, 1)
    for_ever(lambda: client.send(struct.pack("!HHHHHH", 7, 256, 1, 0, 0, 0) + question))


@load
def output():
    """Output without end, of which the newest is kept: so each piece says that it has begun, as the first
    may be gone before anyone asks."""
    piece = b"begun\n".ljust(65535, b"a") + b"\n"
    while True:
        os.write(1, piece)


if __name__ == "__main__":
    print("begun", flush=True)
    LOADS[sys.argv[1]]()
