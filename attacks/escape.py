"""Escapes and privileges."""

CLONE = {
    "NEWUSER": 0x10000000, "NEWNS": 0x20000, "NEWPID": 0x20000000, "NEWNET": 0x40000000,
    "NEWUTS": 0x4000000, "NEWIPC": 0x8000000, "NEWCGROUP": 0x2000000, "NEWTIME": 0x80,
}
# Capabilities that no code in a sandbox may have: all but eleven.
DANGEROUS = ~0x800405FB & ((1 << 41) - 1)
SYS_ADMIN = 21
MS_REMOUNT, MS_BIND, MS_RDONLY = 32, 4096, 1
AT_EMPTY_PATH = 0x1000


def c(value):
    return value.encode() if isinstance(value, str) else value


@probe("E01", "every id of the host is somebody inside")
def _():
    for kind in ("uid_map", "gid_map"):
        for line in text(f"/proc/self/{kind}").splitlines():
            inside, outside, count = map(int, line.split())
            if outside < 65536 or count > 65536:
                return f"{kind}: {line.strip()}"


@probe("E01", "a neighbour has the same ids")
def _():
    if facts()["uid_map"][1] in HOST.get("neighbour", {}).get("uid_map", [])[1:2]:
        return "the ranges are equal"


for number, field in enumerate(("CapBnd", "CapEff", "CapPrm")):
    @probe("E02", f"dangerous capabilities in {field}")
    def _(field=field):
        found = int(status(field), 16) & DANGEROUS
        return found and f"{found:x}"


@probe("E02", "capabilities that cannot be given up come back")
def _():
    # Version 3, this thread; everything in all three sets.
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    wanted = (ctypes.c_uint32 * 6)(*[0xFFFFFFFF, 0xFFFFFFFF, 0, 0x1FF, 0x1FF, 0])
    full = call((126, 91), header, wanted) == 0
    one = (ctypes.c_uint32 * 6)(1 << SYS_ADMIN, 1 << SYS_ADMIN, 0, 0, 0, 0)
    return (full or call((126, 91), header, one) == 0) and "capset gave them"


@probe("E03", "no_new_privs can be missing")
def _():
    return status("NoNewPrivs") != "1" and status("NoNewPrivs")


@probe("E03", "the filter can be missing")
def _():
    return status("Seccomp") != "2" and f"Seccomp: {status('Seccomp')}"


for kind in ("user", "pid", "mnt", "net", "uts", "ipc", "cgroup", "time"):
    @probe("E04", f"the {kind} namespace is shared with the host or a neighbour")
    def _(kind=kind):
        mine = os.readlink(f"/proc/self/ns/{kind}")
        for who in ("host", "neighbour"):
            if HOST.get(who, {}).get("namespaces", {}).get(kind) == mine:
                return f"with the {who}: {mine}"


for kind in ("tmpfs", "proc", "sysfs", "overlay", "devtmpfs", "cgroup2", "bpf", "debugfs"):
    @probe("E05", f"mount {kind}")
    def _(kind=kind):
        return must_refuse(call((165, 40), b"x", c(tempfile.mkdtemp()), c(kind), 0, b"mode=7"))

for name, flag in CLONE.items():
    @probe("E06", f"unshare {name}")
    def _(flag=flag):
        return must_refuse(call((272, 97), flag))


@probe("E07", "clone3")
def _():
    # Of no size, so that it starts nothing where it exists.
    code = call(435, ctypes.create_string_buffer(88), 0)
    return code != errno.ENOSYS and f"{name_of(code)}: the C library does not fall back"


for name, flag in CLONE.items():
    if name == "NEWTIME":
        continue

    @probe("E08", f"clone {name}")
    def _(flag=flag):
        owner = os.getpid()
        code = call((56, 220), flag | signal.SIGCHLD, 0, 0, 0, 0)
        if os.getpid() != owner:
            os._exit(0)
        return must_refuse(code)


for kind in ("user", "pid", "mnt", "net", "uts", "ipc", "cgroup", "time"):
    @probe("E09", f"setns {kind}")
    def _(kind=kind):
        with open(f"/proc/self/ns/{kind}") as file:
            return must_refuse(call((308, 268), file.fileno(), 0))


@probe("E10", "remount /proc/sys for writing")
def _():
    return must_refuse(call((165, 40), 0, b"/proc/sys", 0, MS_REMOUNT | MS_BIND, 0))


@probe("E10", "remount the root")
def _():
    return must_refuse(call((165, 40), 0, b"/", 0, MS_REMOUNT | MS_BIND, 0))


for path in ("/proc/sys", "/proc/kcore", "/proc", "/sys"):
    @probe("E10", f"take {path} off")
    def _(path=path):
        # A marked mount goes with the second call only: nothing goes here (umount2(2), MNT_EXPIRE).
        return must_refuse(call((166, 39), c(path), 4))


@probe("E11", "leave the root with chroot")
def _():
    # The root that the control jail has left lies above its own.
    before = os.stat("/")
    inner = tempfile.mkdtemp()
    way = os.open("/", os.O_RDONLY)
    os.chroot(inner)
    os.fchdir(way)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    after = os.stat("/")
    return (before.st_dev, before.st_ino) != (after.st_dev, after.st_ino) and "another root"


for name, mode, device in (
    ("a disk", stat.S_IFBLK, (8, 0)), ("the memory", stat.S_IFCHR, (1, 1)),
    ("the kernel's log", stat.S_IFCHR, (1, 11)), ("a loop device", stat.S_IFBLK, (7, 0)),
    ("a null device", stat.S_IFCHR, (1, 3)),
):
    @probe("E12", f"mknod: {name}")
    def _(mode=mode, device=device):
        path = os.path.join(tempfile.mkdtemp(), "node")
        return refused(lambda: os.mknod(path, mode | 0o600, os.makedev(*device)))


@probe("E13", "devices of the host")
def _():
    harmless = {"fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
                "urandom", "zero"}
    return " ".join(sorted(set(os.listdir("/dev")) - harmless)[:8])


@probe("E13", "a mount lets device nodes work")
def _():
    # /dev itself must; nothing else may, and what is read only may not either.
    for line in text("/proc/self/mountinfo").splitlines():
        fields = line.split()
        where, options = fields[4], fields[5].split(",")
        inside_dev = where == "/dev" or where.startswith(("/dev/pts", "/proc/"))
        if not inside_dev and "nodev" not in options:
            return where


@probe("E13", "a mount lets set-user-id programs work")
def _():
    for line in text("/proc/self/mountinfo").splitlines():
        fields = line.split()
        if "nosuid" not in fields[5].split(","):
            return fields[4]


for path in ("kernel/core_pattern", "kernel/modprobe", "kernel/hotplug", "kernel/hostname",
             "kernel/domainname", "vm/overcommit_memory", "vm/drop_caches", "fs/file-max",
             "fs/protected_symlinks", "user/max_user_namespaces", "user/max_inotify_instances",
             "net/ipv4/ip_forward", "net/ipv4/ip_unprivileged_port_start", "kernel/ns_last_pid"):
    @probe("E15", f"set {path}")
    def _(path=path):
        if path.startswith("user/"):
            control_lacks(24)
        return opens(f"/proc/sys/{path}")


@probe("E15", "register a format of programs")
def _():
    return opens("/proc/sys/fs/binfmt_misc/register")


@probe("E16", "the system request key")
def _():
    return opens("/proc/sysrq-trigger")


@probe("E16", "steer interrupts")
def _():
    return opens("/proc/irq/default_smp_affinity")


for kind, option in (("cgroup", "memory"), ("cgroup", "devices"), ("cgroup", "pids")):
    @probe("E17", f"mount {kind} with {option}")
    def _(kind=kind, option=option):
        return must_refuse(call((165, 40), b"x", c(tempfile.mkdtemp()), c(kind), 0, c(option)))


@probe("E17", "release agents of cgroups")
def _():
    for where in ("/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu"):
        if os.path.exists(f"{where}/release_agent") or os.path.exists(f"{where}/cgroup.procs"):
            return where


@probe("E18", "handles of the kernel in /sys")
def _():
    for path in ("kernel/uevent_helper", "kernel/debug", "fs/bpf", "kernel/security", "module", "block",
                 "bus", "firmware", "kernel/mm", "power/state"):
        if os.path.exists(f"/sys/{path}"):
            return path


# Arguments of -1 are refused by all of these, after the kernel has let the caller in.
CALLS = {
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "io_uring_setup": 425,
    "io_uring_enter": 426, "io_uring_register": 427, "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "mount_setattr": 442, "statmount": 457, "listmount": 458, "pivot_root": (155, 41),
    "pidfd_getfd": 438, "kcmp": (312, 272), "process_madvise": 440, "process_vm_writev": (311, 271),
    "process_mrelease": 448, "mbind": (237, 235), "set_mempolicy": (238, 237),
    "get_mempolicy": (239, 236), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "quotactl": (179, 60), "quotactl_fd": 443, "syslog": (103, 116), "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263), "iopl": (172, None), "ioperm": (173, None),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "sethostname": (170, 161), "setdomainname": (171, 162), "vmsplice": (278, 75),
    "remap_file_pages": (216, 234), "io_setup": (206, 0), "io_submit": (209, 2),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "sched_setattr": (314, 274),
    "lsm_list_modules": 461, "lsm_get_self_attr": 459, "cachestat": 451, "map_shadow_stack": 453,
    "set_mempolicy_home_node": 450, "vhangup": (153, 58),
}
for name, number in CALLS.items():
    @probe("E19", name)
    def _(number=number):
        return must_refuse(call(number, *[-1] * 6))


@probe("E20", "modify_ldt")
def _():
    return must_refuse(call((154, None), 0, ctypes.create_string_buffer(64), 64))


@probe("E20", "memfd_secret")
def _():
    return must_refuse(call(447, 0))


for family in range(3, 47):
    if family in (10, 16):
        continue

    @probe("E21", f"sockets of family {family}")
    def _(family=family):
        codes = set()
        for kind in (1, 2, 3, 5):
            try:
                socket.socket(family, kind).close()
                return f"type {kind} works"
            except OSError as error:
                codes.add(error.errno)
        # A family that this kernel was built without looks refused to everybody.
        if not codes & {errno.EPERM}:
            if codes <= {errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT}:
                raise Absent("the kernel has no such family")
            return " ".join(map(name_of, codes))


for name, protocol in (("NETFILTER", 12), ("XFRM", 6), ("AUDIT", 9), ("KOBJECT_UEVENT", 15),
                       ("GENERIC", 16), ("CONNECTOR", 11), ("SOCK_DIAG", 4), ("CRYPTO", 21)):
    @probe("E22", f"netlink {name}")
    def _(protocol=protocol):
        try:
            socket.socket(16, 3, protocol).close()
            return "it opens"
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EPROTONOSUPPORT):
                return name_of(error.errno)


for name, family, kind, protocol in (
    ("IP", 2, 3, 1), ("IPv6", 10, 3, 58), ("packets", 17, 3, 0), ("IPPROTO_RAW", 2, 3, 255),
    ("SCTP", 2, 1, 132), ("DCCP", 2, 6, 33), ("UDP-Lite", 2, 2, 136), ("MPTCP", 2, 1, 262),
):
    @probe("E23", f"sockets: {name}")
    def _(family=family, kind=kind, protocol=protocol):
        return refused(lambda: socket.socket(family, kind, protocol).close(),
                       {errno.EPROTONOSUPPORT} if protocol == 262 else ())


def connected():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return socket.create_connection(listener.getsockname()), listener


@probe("E24", "another protocol over TCP (kernel TLS)")
def _():
    connection, _listener = connected()
    connection.setsockopt(6, 1, 1)
    return refused(lambda: connection.setsockopt(6, 31, b"tls"))


@probe("E24", "encapsulation in UDP")
def _():
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    return refused(lambda: one.setsockopt(17, 100, 2))


for level, name in ((282, "SOL_TLS"), (279, "SOL_ALG"), (263, "SOL_PACKET"), (132, "SOL_SCTP"),
                    (136, "SOL_UDPLITE"), (284, "SOL_MPTCP")):
    @probe("E24", f"options of level {name}")
    def _(level=level):
        connection, _listener = connected()
        return refused(lambda: connection.setsockopt(level, 1, 1))


@probe("E25", "calls of the 32-bit ABI")
def _():
    if ARM:
        raise Absent("not on this architecture")
    # mov eax, 20 (getpid of i386); int 0x80; ret
    return f"getpid said {machine_code(bytes.fromhex('b814000000cd80c3'))}"


@probe("E26", "calls of the x32 ABI")
def _():
    if ARM:
        raise Absent("not on this architecture")
    code = call(0x40000000 | 39)
    if code == errno.ENOSYS:
        raise Absent("the kernel has no x32")
    return must_refuse(code)


for name, request in (("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541C), ("TIOCSETD", 0x5423)):
    @probe("E27", f"{name} on a terminal")
    def _(request=request):
        import pty

        _leader, terminal = pty.openpty()
        return refused(lambda: fcntl.ioctl(terminal, request, b"x" * 8), ())


for name, value in (("READ_IMPLIES_EXEC", 0x400000), ("MMAP_PAGE_ZERO", 0x100000),
                    ("ADDR_COMPAT_LAYOUT", 0x200000), ("PER_LINUX32", 8)):
    @probe("E28", f"personality {name}")
    def _(value=value):
        return must_refuse(call((135, 92), value))


@probe("E29", "a set-user-id program")
def _():
    copy = os.path.join(tempfile.mkdtemp(), "id")
    os.chmod(os.path.dirname(copy), 0o755)
    output(["cp", "/usr/bin/id", copy])
    os.chmod(copy, 0o4755)
    _, said = output([copy, "-u"], identity=1000)
    return said.strip() != "1000" and f"it runs as {said.strip()}"


@probe("E30", "a program with file capabilities")
def _():
    copy = os.path.join(tempfile.mkdtemp(), "cat")
    os.chmod(os.path.dirname(copy), 0o755)
    output(["cp", "/bin/cat", copy])
    os.setxattr(copy, "security.capability", struct.pack("<5I", 0x02000001, 1 << SYS_ADMIN, 0, 0, 0))
    _, said = output([copy, "/proc/self/status"], identity=1000)
    effective = next((line for line in said.splitlines() if line.startswith("CapEff")), "CapEff: 0")
    return int(effective.split()[1], 16) >> SYS_ADMIN & 1 and effective


for name in ("mem", "environ", "maps", "fd/0", "exe", "syscall", "stack", "auxv", "io", "pagemap"):
    @probe("E31", f"read the agent's {name}")
    def _(name=name):
        def read():
            # Some can be opened by everybody and are refused where they are read.
            with open(f"/proc/1/{name}", "rb", 0) as file:
                file.read(1)
        return refused(read, {errno.EIO})

for name in ("root/", "cwd/", "map_files", "fdinfo/0"):
    @probe("E31", f"list the agent's {name}")
    def _(name=name):
        if name == "fdinfo/0":
            return refused(lambda: open(f"/proc/1/{name}", "rb").read())
        return refused(lambda: os.listdir(f"/proc/1/{name}"))

for name in ("ns/mnt", "ns/user", "exe", "cwd", "root", "fd/0", "fd/3", "fd/4", "fd/5"):
    @probe("E31", f"follow the agent's {name}")
    def _(name=name):
        return refused(lambda: os.readlink(f"/proc/1/{name}"), {errno.ENOENT})


@probe("E31", "trace the agent")
def _():
    # PTRACE_SEIZE: does not stop it.
    return must_refuse(call((101, 117), 0x4206, 1, 0, 0))


@probe("E31", "read the agent's memory by call")
def _():
    buffer = ctypes.create_string_buffer(8)
    iovec = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
    there = (ctypes.c_size_t * 2)(4096, 8)
    return must_refuse(call((310, 270), 1, iovec, 1, there, 1, 0))


@probe("E31", "set the agent's limits")
def _():
    limit = (ctypes.c_uint64 * 2)()
    return must_refuse(call((302, 261), 1, resource.RLIMIT_NOFILE, 0, limit))


@probe("E32", "all that may be killed is one's own")
def _():
    os.kill(1, 0)
    os.kill(1, signal.SIGKILL)
    os.kill(1, signal.SIGSTOP)
    return status("State", 1)[:1] in ("", "T", "Z") and status("State", 1)


for how, name in ((os.O_RDWR, "written"), (os.O_WRONLY | os.O_TRUNC, "emptied"), (os.O_RDONLY, "read")):
    @probe("E33", f"the agent's program can be {name}")
    def _(how=how):
        if how == os.O_RDONLY:
            return opens("/proc/1/exe", how)
        return opens("/proc/1/exe", how & ~os.O_TRUNC)


@probe("E34", "a way that leads to another root")
def _():
    mine = os.stat("/")
    for way in ("/proc/1/root/", "/proc/1/cwd/", "/proc/self/cwd/" + "../" * 40, "/proc/self/root/..",
                "/dev/fd/../../../..", "/.."):
        try:
            there = os.stat(way)
        except OSError:
            continue
        if way != "/proc/1/cwd/" and (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            return way


@probe("E35", "the root or the working directory is outside")
def _():
    for link in ("/proc/self/cwd", "/proc/self/root"):
        if "unreachable" in os.readlink(link):
            return os.readlink(link)
    if not os.getcwd().startswith("/"):
        return os.getcwd()
    # What a leaked descriptor would be good for.
    for number in range(3, 256):
        try:
            os.chdir(f"/proc/self/fd/{number}")
        except OSError:
            continue
        return f"descriptor {number} is a directory"


@probe("E39", "a descriptor came along")
def _():
    # 0 to 2 are the command's; what this program has opened itself closes on exec.
    reader, writer = os.pipe()
    seen = subprocess.run(["sh", "-c", "for f in /proc/self/fd/*; do readlink $f; done"], close_fds=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout.decode().splitlines()
    for link in seen:
        if not link.startswith(("pipe:", "/dev/null", "/dev/pts/", "/proc/")):
            return link


@probe("E40", "the number of descriptors a command starts with")
def _():
    before = HOST.get("descriptors", 3)
    found = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    # This program's own: the pipe of its answer, and the directory just listed.
    return len(found) > before + 2 and f"{found}"


for name, content in (("uid_map", "0 1 1"), ("gid_map", "0 1 1"), ("setgroups", "allow")):
    @probe("E41", f"write {name}")
    def _(name=name, content=content):
        def write():
            with open(f"/proc/self/{name}", "w") as file:
                file.write(content)
        return refused(write)


for name in ("trusted.overlay.opaque", "trusted.overlay.redirect", "trusted.overlay.metacopy",
             "trusted.other"):
    @probe("E42", f"set {name}")
    def _(name=name):
        where = tempfile.mkdtemp()
        return refused(lambda: os.setxattr(where, name, b"y"))


@probe("E43", "the root follows what an upper layer says of lower ones")
def _():
    line = next((l for l in text("/proc/self/mountinfo").splitlines() if l.split()[4] == "/"), "")
    if "overlay" not in line:
        return f"no overlay: {line}"
    for option in ("redirect_dir=on", "redirect_dir=follow", "metacopy=on", "index=on"):
        if option in line:
            return option


for path in ("/usr/bin/env", "/etc/hosts", "/usr/bin/su"):
    @probe("E44", f"a hard link to the image's {path}")
    def _(path=path):
        before = os.stat(path)
        try:
            other = os.path.join(tempfile.mkdtemp(dir=os.path.dirname(path)), "link")
            os.link(path, other)
        except OSError as error:
            return must_refuse(error.errno, {errno.EXDEV})
        after = os.stat(other)
        os.unlink(other)
        os.rmdir(os.path.dirname(other))
        # Through an overlay a link makes a copy, which is the sandbox's own.
        if os.statvfs(path).f_fsid == 0 or "overlay" not in text("/proc/self/mountinfo"):
            return f"link count {after.st_nlink}, was {before.st_nlink}"


@probe("E46", "containers in a container")
def _():
    for tool in (["unshare", "-Ur", "true"], ["unshare", "-m", "true"],
                 ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]):
        try:
            code, _said = output(tool)
        except Absent:
            continue
        if code == 0:
            return " ".join(tool)


@probe("E49", "real-time scheduling")
def _():
    return refused(lambda: os.sched_setscheduler(0, 1, os.sched_param(10)))


@probe("E49", "a higher priority than others")
def _():
    return refused(lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))


@probe("E49", "the first place at the disk")
def _():
    # IOPRIO_CLASS_RT
    return must_refuse(call((251, 30), 1, 0, 1 << 13))


for name, arguments in (
    ("PR_SET_SYSCALL_USER_DISPATCH", (59, 0, 0, 0, 0)), ("PR_SET_MM", (35, 99, 0, 0, 0)),
    ("PR_SCHED_CORE", (62, 99, 0, 0, 0)), ("PR_SET_MEMORY_MERGE", (67, 0, 0, 0, 0)),
    ("PR_SET_IO_FLUSHER", (57, 0, 0, 0, 0)), ("PR_SET_SPECULATION_CTRL", (53, 99, 0, 0, 0)),
    ("PR_SET_TSC", (26, 1, 0, 0, 0)), ("PR_TASK_PERF_EVENTS_ENABLE", (32, 0, 0, 0, 0)),
):
    @probe("E50", name)
    def _(arguments=arguments):
        return must_refuse(call((157, 167), *arguments))


@probe("E50", "no_new_privs can be taken back")
def _():
    if call((157, 167), 38, 0, 0, 0, 0) == 0 or status("NoNewPrivs") != "1":
        return f"NoNewPrivs: {status('NoNewPrivs')}"


@probe("E51", "a thread without the filter")
def _():
    def look():
        found.append(status("Seccomp", "thread-self"))

    found = []
    threads = [threading.Thread(target=look) for _ in range(32)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return set(found) != {"2"} and f"{set(found)}"


@probe("E51", "fewer filters than two")
def _():
    filters = int(status("Seccomp_filters") or 0)
    return filters < 2 and f"{filters}"


@probe("E52", "a program from memory has more rights")
def _():
    with open("/bin/cat", "rb") as file:
        memory = os.memfd_create("cat")
        os.write(memory, file.read())
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 1)
        os.execve(memory, ["cat", "/proc/self/status"], {})
    os.close(writer)
    said = os.read(reader, 65536).decode()
    os.waitpid(child, 0)
    fields = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    if fields["Seccomp"] != "2" or int(fields["CapBnd"], 16) & DANGEROUS:
        return f"Seccomp {fields['Seccomp']}, CapBnd {fields['CapBnd']}"


@probe("E53", "something listens on the sandbox's loopback")
def _():
    listening = []
    for name in ("tcp", "tcp6"):
        for line in text(f"/proc/net/{name}").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                listening.append(int(fields[1].rsplit(":", 1)[1], 16))
    return listening and f"{listening}"


@probe("E53", "a local socket that answers")
def _():
    for line in text("/proc/net/unix").splitlines()[1:]:
        fields = line.split()
        path = fields[7] if len(fields) > 7 else ""
        if not path:
            continue
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(2)
        try:
            one.connect("\0" + path[1:] if path.startswith("@") else path)
        except OSError:
            continue
        return path
