"""What a sandbox could learn about the host and its neighbours."""

# Of a machine, not of a sandbox. What is left of them in a sandbox is empty.
FILES = ("buddyinfo", "cmdline", "config.gz", "diskstats", "interrupts", "iomem", "ioports", "kallsyms",
         "key-users", "keys", "kpagecgroup", "kpagecount", "kpageflags", "mdstat", "modules",
         "pagetypeinfo", "partitions", "sched_debug", "schedstat", "slabinfo", "softirqs", "swaps",
         "timer_list", "vmallocinfo", "zoneinfo", "kcore")


def host(name):
    return HOST.get("host", {}).get(name)


def neighbour(name):
    return HOST.get("neighbour", {}).get(name)


for name in FILES:
    @probe("I01", f"/proc/{name}")
    def _(name=name):
        if not os.path.exists(f"/proc/{name}"):
            raise Absent("the kernel has no such file")
        try:
            with open(f"/proc/{name}", "rb") as file:
                return file.read(10) and "it can be read"
        except OSError:
            return None


@probe("I02", "the server's environment")
def _():
    seen = "\0".join([text(f"/proc/{pid}/environ") for pid in os.listdir("/proc") if pid.isdigit()])
    canary = HOST.get("canary")
    return canary and canary in seen and "the canary is there"


@probe("I03", "paths of the host among the mounts")
def _():
    seen = text("/proc/self/mountinfo") + text("/proc/mounts")
    for secret in HOST.get("secrets", []):
        if secret in seen:
            return secret


@probe("I03", "mounts of the host")
def _():
    kinds = {line.split(" - ")[1].split()[0] for line in text("/proc/self/mountinfo").splitlines()}
    foreign = kinds - {"overlay", "proc", "tmpfs", "devpts", "ext4", "btrfs", "xfs"}
    return " ".join(sorted(foreign))


for path in ("/sys/class/dmi/id", "/sys/firmware", "/sys/devices/virtual/dmi", "/sys/devices/system",
             "/sys/class/net", "/sys/kernel", "/sys/fs"):
    @probe("I04", path)
    def _(path=path):
        return os.path.exists(path) and "it is there"


@probe("I05", "processes of others")
def _():
    # PID 1, this program, what started it and what it started.
    mine = [int(pid) for pid in os.listdir("/proc") if pid.isdigit()]
    strangers = []
    for pid in mine:
        parent = int((text(f"/proc/{pid}/stat").rsplit(")", 1)[-1].split() or [0, 0])[1])
        if pid == 1 or pid == os.getpid() or pid == os.getppid():
            continue
        if parent in (1, os.getppid(), os.getpid()) or pid == int(status("PPid", os.getppid()) or 0):
            continue
        strangers.append(text(f"/proc/{pid}/comm").strip())
    return " ".join(strangers[:5])


@probe("I06", "the kernel's log by call")
def _():
    return must_refuse(call((103, 116), 10, 0, 0))


@probe("I06", "the kernel's log as a file")
def _():
    for path in ("/dev/kmsg", "/proc/kmsg"):
        broke = opens(path, os.O_RDONLY)
        if broke and os.stat(path).st_rdev != os.makedev(1, 3):
            return path


@probe("I07", "links and addresses of the host")
def _():
    names = [line.split(":")[0].strip() for line in text("/proc/net/dev").splitlines()[2:]]
    foreign = [name for name in names if name not in ("lo", "eth0")]
    return " ".join(foreign)


@probe("I07", "sockets of others")
def _():
    others = [line for line in text("/proc/net/unix").splitlines()[1:] if len(line.split()) > 7]
    return others and others[0]


@probe("I08", "the id of the host's boot")
def _():
    mine = text("/proc/sys/kernel/random/boot_id").strip()
    return mine and mine in (host("boot_id"), neighbour("boot_id")) and mine


@probe("I08", "the id of the machine")
def _():
    mine = text("/etc/machine-id").strip()
    return mine and mine in (host("machine_id"), neighbour("machine_id")) and mine


@probe("I08", "the name of the host")
def _():
    return socket.gethostname() == host("hostname") and socket.gethostname()


@probe("I09", "the host's memory")
def _():
    return facts()["memory"] == host("memory") and host("memory")


@probe("I09", "the host's uptime")
def _():
    up = float((text("/proc/uptime").split() or ["0"])[0])
    return host("uptime") and abs(up - host("uptime")) < 600 and f"{up} s"


@probe("I09", "the host's uptime by clock")
def _():
    for clock in (time.CLOCK_BOOTTIME, time.CLOCK_MONOTONIC):
        up = time.clock_gettime(clock)
        if host("uptime") and abs(up - host("uptime")) < 600:
            return f"{up} s"


@probe("I09", "the time of the host's start")
def _():
    line = next((l for l in text("/proc/stat").splitlines() if l.startswith("btime")), "")
    return host("btime") and line and abs(int(line.split()[1]) - host("btime")) < 600 and line


@probe("I09", "what the host's processors do")
def _():
    # Interrupts and context switches of a whole machine are in the millions.
    fields = dict(line.split(" ", 1) for line in text("/proc/stat").splitlines() if " " in line)
    return int(fields.get("ctxt", "0")) > 1000000 and f"ctxt {fields['ctxt']}"


@probe("I09", "the host's load")
def _():
    # The fourth field is the number of running threads and that of all.
    threads = int((text("/proc/loadavg").split() or ["", "", "", "0/0"])[3].split("/")[1])
    theirs = host("threads") or 0
    return theirs and abs(threads - theirs) <= max(20, theirs // 10) and f"{threads} threads"


@probe("I10", "what the host's memory does")
def _():
    fields = dict(line.split() for line in text("/proc/vmstat").splitlines())
    return any(int(number) for number in fields.values()) and "/proc/vmstat has numbers"


@probe("I10", "pressure on the host")
def _():
    for name in ("cpu", "memory", "io"):
        if text(f"/proc/pressure/{name}"):
            return name


@probe("I14", "the page cache of the image, by cachestat")
def _():
    with open("/usr/bin/env", "rb") as file:
        answer = ctypes.create_string_buffer(40)
        return must_refuse(call(451, file.fileno(), (ctypes.c_uint64 * 2)(0, 4096), answer, 0))


@probe("I15", "System V memory of others")
def _():
    lines = text("/proc/sysvipc/shm").splitlines()[1:]
    return lines and lines[0]


@probe("I15", "shared files of others")
def _():
    mine = os.listdir("/dev/shm")
    return " ".join(mine[:4])


for name, arguments in (("read the user's keyring", (0, -4)), ("describe it", (6, -4, 0, 0)),
                        ("join a session", (1, 0))):
    @probe("I16", name)
    def _(arguments=arguments):
        return must_refuse(call((250, 219), *arguments))


@probe("I17", "an abstract socket of the host")
def _():
    name = HOST.get("abstract")
    if not name:
        raise Absent("the harness has no socket")
    try:
        socket.socket(socket.AF_UNIX).connect("\0" + name)
    except ConnectionRefusedError:
        return None
    return "it answered"


@probe("I18", "names of cgroups")
def _():
    for line in text("/proc/self/cgroup").splitlines():
        path = line.split(":", 2)[2]
        # A command has a group of its own below its sandbox's.
        if path.count("/") > 2 or any(secret in path for secret in HOST.get("secrets", [])):
            return line


@probe("I18", "the trees of cgroups")
def _():
    return os.path.isdir("/sys/fs/cgroup") and " ".join(os.listdir("/sys/fs/cgroup")[:4])


@probe("I25", "a core file that reaches the host")
def _():
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    return (soft > 1 or hard > 1) and f"the limit is {hard}"
