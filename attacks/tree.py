# A tree that somebody hostile has made and that comes back: by a start, a restore, a fork. Whoever runs
# this first makes it, as root and with whatever the kernel lets them; each run looks what it gives to
# whom. The control jail is a tree of root's own making.

TREE = "/workspace/hostile"
OVERLAY = ("trusted.overlay.opaque", "trusted.overlay.redirect", "trusted.overlay.metacopy")
NODES = {"null": (stat.S_IFCHR, 1, 3), "loop": (stat.S_IFBLK, 7, 0), "whiteout": (stat.S_IFCHR, 0, 0)}
SYS_ADMIN = 21
IMMUTABLE = 0x10
# linux/fs.h, of the architectures that there are.
GET_FLAGS, SET_FLAGS = 0x80086601, 0x40086602


def tried(action, *what):
    try:
        action(*what)
    except OSError:
        pass


def flags_of(path, wanted=0):
    """The flags of a file, as chattr(1) shows them; with more of them, if the kernel lets us."""
    with open(path) as file:
        flags = bytearray(8)
        fcntl.ioctl(file, GET_FLAGS, flags)
        if wanted:
            fcntl.ioctl(file, SET_FLAGS, struct.pack("q", struct.unpack_from("i", flags)[0] | wanted))
        return struct.unpack_from("i", flags)[0]


def make():
    os.makedirs(TREE, 0o755)
    for name in ("id", "cat"):
        output(["cp", f"/usr/bin/{name}", f"{TREE}/{name}"])
    os.chmod(f"{TREE}/id", 0o6755)
    os.chmod(f"{TREE}/cat", 0o755)
    capable = struct.pack("<5I", 0x02000001, 1 << SYS_ADMIN, 0, 0, 0)
    tried(os.setxattr, f"{TREE}/cat", "security.capability", capable)
    for name, (kind, major, minor) in NODES.items():
        tried(os.mknod, f"{TREE}/{name}", kind | 0o666, os.makedev(major, minor))
    for name in ("below", "foreign", "fast"):
        os.makedirs(f"{TREE}/{name}")
    for name in OVERLAY:
        tried(os.setxattr, f"{TREE}/below", name, b"y")
    tried(os.chown, f"{TREE}/foreign", 1 << 20, 1 << 20)
    tried(flags_of, f"{TREE}/fast", IMMUTABLE)


if not os.path.isdir(TREE):
    make()


for option, what in (("-u", "set-user-id"), ("-g", "set-group-id")):
    @probe("F30", f"a {what} program of the tree")
    def _(option=option):
        _, said = output([f"{TREE}/id", option], identity=1000)
        return said.strip() != "1000" and f"it runs as {said.strip()}"


@probe("F30", "a program of the tree with file capabilities")
def _():
    _, said = output([f"{TREE}/cat", "/proc/self/status"], identity=1000)
    effective = next(line for line in said.splitlines() if line.startswith("CapEff"))
    return int(effective.split()[1], 16) >> SYS_ADMIN & 1 and effective


for name in NODES:
    @probe("F30", f"a node of the tree: {name}")
    def _(name=name):
        return os.path.lexists(f"{TREE}/{name}") and "it is there"


for name in OVERLAY:
    @probe("F30", f"the tree has {name}")
    def _(name=name):
        return name in os.listxattr(f"{TREE}/below") and "it is there"


@probe("F30", "a directory of the tree is another's")
def _():
    owner = os.stat(f"{TREE}/foreign").st_uid
    return owner != 0 and f"of {owner}"


@probe("F30", "a directory of the tree that nobody can remove")
def _():
    try:
        return flags_of(f"{TREE}/fast") & IMMUTABLE and "it is immutable"
    except OSError as error:
        if HOST.get("control"):
            raise Absent(f"the file system has no flags: {error}")
