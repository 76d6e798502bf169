"""A started interpreter, kept in a file that other processes go on from.

`keep` forks. The child stops inside a few instructions that the agent brings (`sys::resume`), and
its parent writes the child's memory to the file. Whoever goes on from it, in this sandbox or in
another one of the same image, returns from those instructions and is told apart by what they
return. It has its own process id, descriptors, variables and limits, but the memory of the child:
`go_on` replaces everything in it that must not be shared or is not true any more.
"""

import array
import ctypes
import faulthandler
import gc
import importlib
import mmap
import os
import random
import signal
import site
import struct
import sys
import tempfile
import threading

from _sandbar import keep as asked

PAGE = 4096
SEGMENTS_AT = 56
# Fewer zeros than these are written with what is around them: each range costs a call later.
ZERO_BYTES = 16 * PAGE
# Read and looked through at once; whole pages.
CHUNK_BYTES = 16 * 1024 * 1024
# As the main thread of any program may need.
STACK_BYTES = 8 * 1024 * 1024
NO_OFFSET = 2**64 - 1
# `MADV_POPULATE_WRITE`, Linux 5.14.
POPULATE_WRITE = 23
# Bytes of glibc's thread descriptor before the thread's id, on x86-64 since 2.26.
TID_OFFSET = 0x2D0

# What is read once, when Python or a library starts: with other values nothing kept is true.
READ_AT_START = (
    "PYTHON", "LD_", "GLIBC_", "MALLOC_", "LC_", "LANG", "TZ", "HOME", "IPYTHON", "JUPYTER",
    "MPL", "MATPLOTLIB", "OPENBLAS_", "OMP_", "GOTO_", "MKL_", "NUMEXPR_", "NPY_", "NUMPY_",
    "PANDAS_", "OPENSSL_", "SSL_", "XDG_", "PATH",
)  # fmt: skip

# Calls of the kernel by the names of the functions of its shared object that do the same faster.
CALLS = {
    b"clock_gettime": 228, b"gettimeofday": 96, b"time": 201, b"getcpu": 309, b"clock_getres": 229,
    b"getrandom": 318,
}  # fmt: skip


class Unfit(Exception):
    """This interpreter cannot be kept, and why."""


def variables():
    """The variables that this process was started with."""
    texts = open("/proc/self/environ", "rb").read().split(b"\0")
    pairs = (os.fsdecode(text).partition("=") for text in texts if b"=" in text)
    return {name: value for name, _, value in pairs}


def read_at_start(environ):
    return {name: value for name, value in environ.items() if name.startswith(READ_AT_START)}


def directories():
    """Where what is loaded comes from, and when these changed last."""
    paths = set(sys.path) - {""} | {sys.executable}
    # It may be made later.
    paths.add(site.getusersitepackages())
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str):
            paths.add(os.path.dirname(path))
    return {path: changed(path) for path in sorted(paths)}


def changed(path):
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None


def open_files():
    for name in os.listdir("/proc/self/fd"):
        try:
            yield int(name), os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            # The list itself.
            pass


def mappings(pid):
    for line in open(f"/proc/{pid}/maps"):
        span, access, _offset, _device, _inode, *name = line.split(maxsplit=5)
        start, end = (int(text, 16) for text in span.split("-"))
        yield start, end, access, name[0].strip() if name else ""


class Libraries:
    """What of the C library and others is put right by hand."""

    def __init__(self):
        self.libc = ctypes.CDLL(None)
        self.libc.pthread_self.restype = ctypes.c_void_p
        try:
            self.end_of_heap = ctypes.c_void_p.in_dll(self.libc, "__curbrk")
        except ValueError:
            raise Unfit("the image's C library is not glibc") from None
        self.libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self.tid = ctypes.c_int.from_address(self.libc.pthread_self() + TID_OFFSET)
        if self.tid.value != threading.get_native_id():
            raise Unfit("this glibc keeps its threads in another way")
        names = {name for *_, name in mappings("self")}
        self.random = [ctypes.CDLL(name) for name in names if "/libcrypto" in name]
        for library in self.random:
            # Its first use costs more than all that is done later.
            library.RAND_poll()
        self.algebra = []
        for name in names:
            if "openblas" in name:
                self.algebra += set_threads(ctypes.CDLL(name))

    def name(self, name):
        self.libc.prctl(15, name, 0, 0, 0)

    def use_all_cores(self):
        """Gives linear algebra its threads. Not at once: they spin for a while when they begin, and
        each page that is written first in a process with several threads costs a word to all cores."""
        threads = len(os.sched_getaffinity(0))
        for set_number in self.algebra if threads > 1 else ():
            set_number(threads)

    def leave_heap(self):
        """The heap's end is the kernel's to know, and it will not know this one: malloc is made to
        take memory from elsewhere, and to start another heap where the kernel's is."""
        guard = (self.end_of_heap.value + PAGE - 1) // PAGE * PAGE
        self.libc.mmap.restype = ctypes.c_void_p
        self.libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
        fixed = 0x100000 | mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        if self.libc.mmap(guard, PAGE, 0, fixed, -1, 0) != guard:
            raise Unfit("there is something behind the heap")
        self.libc.malloc.restype = ctypes.c_void_p
        self.libc.malloc.argtypes = [ctypes.c_size_t]
        for _ in range(10_000):
            # As large as what malloc does not map by itself.
            if self.libc.malloc(100_000) > guard:
                return
        raise Unfit("malloc does not leave its heap")


def set_threads(library):
    for name in ("scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads", "openblas_set_num_threads"):
        if hasattr(library, name):
            return [getattr(library, name)]
    return []


class Stop:
    """The instructions in which the child stops."""

    def __init__(self):
        access = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        self.memory = mmap.mmap(-1, 2 * PAGE, prot=access)
        self.memory[PAGE : PAGE + len(asked.CODE)] = asked.CODE
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        # With the interpreter's lock held: what goes on has it.
        self.call = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(start + PAGE)
        self.registers = start


def keep(wire, shell):
    """Writes the file and returns its size and nothing. In whoever goes on from it, returns nothing
    and the `Resumed`."""
    for name in asked.IMPORTS:
        try:
            importlib.import_module(name)
        except ImportError:
            if name not in asked.OPTIONAL:
                raise
    exercise(shell)
    if len(os.listdir("/proc/self/task")) > 1:
        raise Unfit("an import has started a thread")
    gc.collect()
    held = [path for number, path in open_files() if number > 3]
    if held:
        raise Unfit(f"an import holds {held} open")
    stop, libraries = Stop(), Libraries()
    started_with = {name: value for name, value in variables().items() if name not in asked.ADDED}
    environ, places, rc = read_at_start(started_with), directories(), settings_of_matplotlib()
    faulthandler.disable()
    libraries.leave_heap()
    gc.collect()
    # The collector leaves all this alone from now on, and so the memory that it is in.
    gc.freeze()
    wire.is_for_forks_too = True
    pid = os.fork()
    if pid:
        try:
            os.waitpid(pid, os.WUNTRACED)
            return write(pid, stop.registers), None
        finally:
            os.kill(pid, signal.SIGKILL)
    stop.call(stop.registers)
    wire.is_for_forks_too = False
    wire.sock.set_inheritable(False)
    go_on(libraries, environ, places, rc)
    return None, Resumed(libraries)


class Resumed:
    """What is done in one that went on, when nobody waits for it."""

    def __init__(self, libraries):
        self.use_all_cores = libraries.use_all_cores
        self.madvise = libraries.libc.madvise

    def look_ahead(self):
        """Makes the pages its own that the first code writes to. It is ready: nobody waits yet."""
        try:
            with open(asked.PATH, "rb", 0) as file:
                _, (_, later) = notes(file.read(asked.HEADER_BYTES))
        except (OSError, struct.error):
            # Anybody in the sandbox may change the file.
            return
        for pages in later:
            # What cannot be there now comes when it is touched.
            self.madvise(*pages, POPULATE_WRITE)

    def note(self):
        """Notes in the file to which pages whoever goes on from it writes, as this process has: at
        first those that it wrote to before it was ready, and the second time those since then."""
        with open("/proc/self/pagemap", "rb", 0) as pages, open(asked.PATH, "r+b", 0) as file:
            head = file.read(asked.HEADER_BYTES)
            at, (soon, later) = notes(head)
            noted = {page for start, length in soon for page in range(start, start + length, PAGE)}
            ranges = later if soon else soon
            for page in written(pages, head):
                if page not in noted:
                    note(ranges, page)
            room = (asked.HEADER_BYTES - at - 16) // 16
            file.seek(at)
            file.write(packed(soon[:room]) + packed(later[: max(0, room - len(soon))]))


def exercise(shell):
    """Has done once what the first cells of most people do, and leaves no trace of it."""
    shell.should_run_async("1", transformed_cell=shell.transform_cell("1"))
    try:
        compile("1 1", "<string>", "exec")
    except SyntaxError:
        shell.InteractiveTB.structured_traceback(*sys.exc_info())
    try:
        raise ValueError
    except ValueError:
        shell.InteractiveTB.structured_traceback(*sys.exc_info())
    shell.display_formatter.format([{"a": 1}])
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        frame = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": [0.5, 1.5]})
        shell.display_formatter.format(frame)
        shell.display_formatter.format(frame.describe())
        frame.groupby("b").a.sum()
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        figure, axes = pyplot.subplots()
        axes.plot([1, 2], [1, 2], label="a")
        axes.set_title("a")
        axes.legend()
        shell.display_formatter.format(figure)
        pyplot.close("all")
        # Fonts that are loaded are files that are open.
        fonts = sys.modules["matplotlib.font_manager"]
        getattr(fonts, "_get_font", fonts.get_font).cache_clear()


def settings_of_matplotlib():
    matplotlib = sys.modules.get("matplotlib")
    return matplotlib and matplotlib.matplotlib_fname()


def go_on(libraries, environ, places, rc):
    """In whoever goes on: makes true what is not, and gives up where that cannot be."""
    libraries.end_of_heap.value = None
    libraries.name(b"python3")
    libraries.tid.value = threading.get_native_id()
    threading.main_thread()._set_native_id()
    now = variables()
    for name in set(os.environ) - set(now):
        del os.environ[name]
    for name, value in now.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    is_true = read_at_start(os.environ) == environ and all(changed(path) == when for path, when in places.items())
    if not is_true:
        os._exit(asked.UNFIT_CODE)
    # Python's own, at its start.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # No two processes may draw the same numbers.
    random.seed()
    tempfile._name_sequence = None
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
    for library in libraries.random:
        library.RAND_poll()
    if rc is not None and settings_of_matplotlib() != rc:
        matplotlib = sys.modules["matplotlib"]
        matplotlib.rc_file(matplotlib.matplotlib_fname())


def write(pid, registers):
    """Writes the memory of the stopped process, and returns the bytes of the file."""
    os.makedirs(os.path.dirname(asked.PATH), exist_ok=True)
    temporary = f"{asked.PATH}.new"
    try:
        with open(f"/proc/{pid}/mem", "rb", 0) as memory, open(temporary, "wb", 0) as file:
            size = write_segments(mappings(pid), memory, registers, file)
        os.replace(temporary, asked.PATH)
    except BaseException:
        os.unlink(temporary)
        raise
    return size


def write_segments(ranges, memory, registers, file):
    file.seek(asked.HEADER_BYTES)
    segments = []
    for start, end, access, name in ranges:
        if name in ("[vvar]", "[vvar_vclock]", "[vsyscall]"):
            continue
        if name == "[stack]":
            add(segments, end - STACK_BYTES, start - end + STACK_BYTES, NO_OFFSET, access)
        if "r" not in access:
            add(segments, start, end - start, NO_OFFSET, access)
            continue
        for begin in range(start, end, CHUNK_BYTES):
            memory.seek(begin)
            data = memory.read(min(end - begin, CHUNK_BYTES))
            if name == "[vdso]":
                data = without_shortcuts(data)
            for offset, length, is_zero in runs(data):
                at = NO_OFFSET
                if not is_zero:
                    at = file.tell()
                    file.write(data[offset : offset + length])
                add(segments, begin + offset, length, at, access)
    head = struct.pack("<8s32sQQ", asked.MAGIC, asked.FINGERPRINT, registers, len(segments))
    head += b"".join(struct.pack("<QQQQ", *segment) for segment in segments)
    # Nothing is noted yet, see `Resumed.note`.
    head += packed([]) + packed([])
    if len(head) > asked.HEADER_BYTES:
        raise Unfit(f"its memory is in {len(segments)} pieces")
    size = file.tell()
    file.seek(0)
    file.write(head)
    os.fchmod(file.fileno(), 0o644)
    return size


def notes(head):
    """Where in the head the notes begin, and the ranges of pages that are written to soon, before
    one that goes on is ready, and later, by the first code."""
    count, = struct.unpack_from("<Q", head, SEGMENTS_AT - 8)
    begin = at = SEGMENTS_AT + 32 * count
    lists = []
    for _ in range(2):
        count, = struct.unpack_from("<Q", head, at)
        end = at + 8 + 16 * count
        lists.append([list(pages) for pages in struct.iter_unpack("<QQ", head[at + 8 : end])])
        at = end
    return begin, lists


def packed(ranges):
    return struct.pack("<Q", len(ranges)) + b"".join(struct.pack("<QQ", *pages) for pages in ranges)


def written(pages, head):
    """The pages of the segments that are this process's own by now, and not the file's any more."""
    count, = struct.unpack_from("<Q", head, SEGMENTS_AT - 8)
    for at in range(SEGMENTS_AT, SEGMENTS_AT + 32 * count, 32):
        start, length = struct.unpack_from("<QQ", head, at)
        pages.seek(start // PAGE * 8)
        states = array.array("Q", pages.read(length // PAGE * 8))
        for index, state in enumerate(states):
            if state >> 63 and not state >> 61 & 1:
                yield start + index * PAGE


def note(ranges, page):
    """Adds a page to ranges of pages; one that lies between two of them goes with them."""
    if ranges and page - ranges[-1][0] - ranges[-1][1] <= PAGE:
        ranges[-1][1] = page + PAGE - ranges[-1][0]
    else:
        ranges.append([page, PAGE])


def add(segments, start, length, offset, access):
    """Adds a range of memory, to the one before it where it goes on."""
    protection = ("r" in access) | ("w" in access) << 1 | ("x" in access) << 2
    if segments:
        before = segments[-1]
        follows = before[0] + before[1] == start and before[3] == protection
        if follows and (before[2] == NO_OFFSET) == (offset == NO_OFFSET):
            if offset == NO_OFFSET or before[2] + before[1] == offset:
                before[1] += length
                return
    segments.append([start, length, offset, protection])


def runs(data):
    """Pieces of `data`: where each begins, its length, and whether it is zeros."""
    zeros = bytes(ZERO_BYTES)
    found = []
    for offset in range(0, len(data), ZERO_BYTES):
        piece = data[offset : offset + ZERO_BYTES]
        is_zero = piece == zeros[: len(piece)]
        if found and found[-1][2] == is_zero:
            found[-1][1] += len(piece)
        else:
            found.append([offset, len(piece), is_zero])
    return found


def without_shortcuts(image):
    """The kernel's shared object, as memory that any kernel may have under it: its functions read
    pages of the kernel's that are not there, so they ask the kernel itself."""
    image = bytearray(image)
    sections, = struct.unpack_from("<Q", image, 40)
    size, count, _ = struct.unpack_from("<HHH", image, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", image, sections + index * size) for index in range(count)]
    for header in headers:
        if header[1] != 11:
            continue
        names = headers[header[6]]
        for symbol in range(header[4], header[4] + header[5], 24):
            name, _info, _other, _section, value, _size = struct.unpack_from("<IBBHQQ", image, symbol)
            start = names[4] + name
            text = bytes(image[start : image.index(0, start)]).removeprefix(b"__vdso_")
            if text in CALLS and value:
                # mov eax, CALL; syscall; ret
                image[value : value + 8] = b"\xb8" + CALLS[text].to_bytes(4, "little") + b"\x0f\x05\xc3"
    return bytes(image)
