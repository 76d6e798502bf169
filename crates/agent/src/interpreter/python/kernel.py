"""One context's Python: IPython's shell, spoken to through a socket.

Frames are a length in four bytes, big-endian, and so many bytes of JSON. What code prints goes
through descriptors 1 and 2 and never through the socket, so nothing that is printed can be taken
for an answer. Before each frame both outputs are flushed: what was written before a result is in
the pipe before the result is in the socket.
"""

import asyncio
import base64
import builtins
import io
import json
import os
import select
import signal
import sys
import threading

# As in the agent, `api::limit`.
REPRESENTATION_BYTES = 8 * 1024 * 1024
RESULT_BYTES = 24 * 1024 * 1024
# Results of builtin types are given as JSON too when that is small: who wants much writes a file.
VALUE_BYTES = 1024 * 1024
VALUE_ITEMS = 100_000
# Values in values: the agent reads twice as many.
DEPTH = 64

CHART = "application/vnd.sandbar.chart+json"
TABLE = "application/vnd.sandbar.table+json"
VALUE = "application/vnd.sandbar.value+json"


class Buffer(io.BufferedWriter):
    def close(self):
        # Code wraps it, as for another encoding, and what wraps it closes it when it goes.
        self.flush()


class Output(io.TextIOWrapper):
    """A standard output that nothing stays in."""

    def __init__(self, fd, name):
        raw = io.FileIO(fd, "w", closefd=False)
        super().__init__(Buffer(raw), encoding="utf-8", errors="backslashreplace")
        self._name = name

    @property
    def name(self):
        return self._name

    def write(self, text):
        count = super().write(text)
        self.flush()
        return count

    def close(self):
        # Code that closes its standard output would silence every run after it.
        self.flush()


class Wire:
    """The socket to the agent."""

    def __init__(self, sock, frame):
        self.sock = sock
        self.receive = frame
        self.lock = threading.Lock()
        self.run = None
        # Frames that the agent has not said to have read.
        self.unread = 0
        # Takes what comes instead.
        self.order = None
        self.was_interrupted = False
        self.is_for_forks_too = False
        os.register_at_fork(after_in_child=self.close_in_child)

    def close_in_child(self):
        # A fork of the code's own must not answer for its parent.
        if self.is_for_forks_too:
            return
        self.lock = threading.Lock()
        if self.sock is not None:
            os.close(self.sock.detach())
        self.sock = None

    def send(self, **message):
        for output in (sys.stdout, sys.stderr, OUT, ERR):
            try:
                output.flush()
            except Exception:
                pass
        if threading.current_thread() is not threading.main_thread():
            return self.send_frame(encode({"id": self.run, **message}))
        awaits = message["op"] in ("result", "clear")
        data = encode({"id": self.run, "awaits": awaits, **message})
        self.undisturbed(self.send_frame, data, awaits)
        # What is written after it comes after it: the agent says when it has read both.
        while awaits and self.unread and self.sock is not None:
            select.select([self.sock], [], [])
            self.undisturbed(self.hear)

    def hear(self):
        """Takes a frame."""
        message = json.loads(self.receive())
        if message["op"] == "read":
            self.unread = max(0, self.unread - 1)
        else:
            self.order(message)

    def undisturbed(self, work, *args):
        # An interrupt must not leave half a frame behind.
        handler = signal.signal(signal.SIGINT, self.defer)
        self.was_interrupted = False
        try:
            work(*args)
        finally:
            signal.signal(signal.SIGINT, handler)
        if self.was_interrupted and handler is not signal.SIG_IGN:
            signal.raise_signal(signal.SIGINT)

    def defer(self, *_unused):
        self.was_interrupted = True

    def send_frame(self, data, awaits=False):
        with self.lock:
            if self.sock is not None:
                self.sock.sendall(len(data).to_bytes(4, "big") + data)
                self.unread += awaits


def encode(message):
    try:
        text = json.dumps(message, ensure_ascii=False, allow_nan=False, default=str)
    except (ValueError, TypeError, RecursionError):
        text = json.dumps(plain(message), ensure_ascii=False, allow_nan=False)
    # Half of a surrogate pair is in no encoding.
    return text.encode("utf-8", "replace")


def plain(value, depth=0):
    """`value` out of what JSON knows."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else float(value) if abs(value) < 2**1000 else str(value)
    if isinstance(value, float):
        return float(value) if value == value and abs(value) != float("inf") else None
    if depth > DEPTH:
        return str(value)
    if isinstance(value, dict):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, depth + 1) for item in value]
    return str(value)


def is_plain(value):
    """Whether the agent can read how deep `value` is, and the numbers in it."""
    rest = [(value, 0)]
    while rest:
        item, depth = rest.pop()
        if isinstance(item, (dict, list, tuple)):
            if depth > DEPTH:
                return False
            rest.extend((one, depth + 1) for one in (item.values() if isinstance(item, dict) else item))
        elif isinstance(item, int) and not -(2**63) <= item < 2**64:
            return False
    return True


OUT = Output(1, "<stdout>")
ERR = Output(2, "<stderr>")


def bounded(data):
    """What of a MIME bundle is within the limits, and the types of what is not."""
    kept, truncated, total = {}, [], 0
    for mime, value in data.items():
        if isinstance(value, (bytes, bytearray)):
            value = base64.b64encode(value).decode("ascii")
        if isinstance(value, str):
            size = len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
        else:
            value = value if is_plain(value) else plain(value)
            size = len(encode(value))
        if size > REPRESENTATION_BYTES:
            truncated.append(mime)
            if mime != "text/plain":
                continue
            head = value.encode("utf-8", "replace")[:REPRESENTATION_BYTES].decode("utf-8", "ignore")
            value = f"{head}\n... [{size} bytes, of which {len(head.encode())} are shown]"
            size = REPRESENTATION_BYTES
        if total + size > RESULT_BYTES:
            truncated.append(mime)
            continue
        total += size
        kept[mime] = value
    return kept, truncated


def small_value(value):
    """A list or a dictionary of plain values as JSON, or nothing."""
    items = VALUE_ITEMS
    rest = [(value, 0)]
    while rest:
        item, depth = rest.pop()
        kind = type(item)
        if depth > DEPTH:
            return None
        if kind is dict:
            if not all(type(key) is str for key in item):
                return None
            items -= len(item)
            if items < 0:
                return None
            rest.extend((one, depth + 1) for one in item.values())
        elif kind is list or kind is tuple:
            items -= len(item)
            if items < 0:
                return None
            rest.extend((one, depth + 1) for one in item)
        elif kind is str:
            items -= len(item) // 8
        elif kind is float:
            if item != item or abs(item) == float("inf"):
                return None
        elif not (item is None or kind is bool or kind is int and -(2**63) <= item < 2**63):
            return None
        if items < 0:
            return None
    return value


def main(sock, frame, is_to_be_kept):
    wire = Wire(sock, frame)
    sys.stdout = sys.__stdout__ = OUT
    sys.stderr = sys.__stderr__ = ERR
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        from _sandbar import shell
    except ImportError as error:
        wire.send(op="missing", what=error.name or "IPython", why=str(error), version=sys.version.split()[0])
        return
    shell.serve(wire, is_to_be_kept)
