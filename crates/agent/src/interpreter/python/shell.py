"""IPython's shell without a terminal: what it shows goes to the agent."""

import asyncio
import asyncio.events
import builtins
import faulthandler
import getpass
import json
import os
import re
import signal
import sys
import threading

from IPython.core import page
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import StdinNotImplementedError
from IPython.core.formatters import DisplayFormatter
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Any, Type
from traitlets.config import Config

from _sandbar import kernel

WIRE = None
# What is done later in a process that went on from a warm start.
RESUMED = None
# Colours, which tracebacks have and those who read them may not want.
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def show(data, metadata=None, main=False, transient=None, update=False):
    kept, truncated = kernel.bounded(data)
    display = (transient or {}).get("display_id")
    WIRE.send(
        op="result",
        main=main,
        data=kept,
        metadata=metadata or {},
        display=None if display is None else str(display),
        update=update,
        truncated=truncated,
    )


class Publisher(DisplayPublisher):
    """What code displays."""

    def publish(self, data, metadata=None, *, transient=None, update=False, **_unused):
        if self.shell is not None and getattr(self.shell, "display_trap_is_silent", False):
            return
        show(data, metadata, transient=transient, update=update)

    def clear_output(self, wait=False):
        WIRE.send(op="clear", wait=bool(wait))


class Hook(DisplayHook):
    """The value of the last expression."""

    def start_displayhook(self):
        self.bundle = None

    def write_output_prompt(self):
        pass

    def write_format_data(self, format_dict, md_dict=None):
        self.bundle = (format_dict, md_dict or {})

    def finish_displayhook(self):
        if self.bundle is not None and self.bundle[0]:
            show(*self.bundle, main=True)
        self.bundle = None


class Formatter(DisplayFormatter):
    """IPython's, and beside its representations those for programs."""

    def format(self, obj, include=None, exclude=None):
        data, metadata = super().format(obj, include=include, exclude=exclude)
        if data:
            try:
                add_for_programs(obj, data)
            except Exception:
                # It is an addition: an object that cannot be looked into has none.
                pass
        return data, metadata


def add_for_programs(obj, data):
    kind = type(obj)
    if kind is list or kind is dict:
        value = kernel.small_value(obj)
        if value is not None:
            data.setdefault(kernel.VALUE, value)
        return
    # Nothing is imported for that: an object of a library means that the library is there.
    root = kind.__module__.partition(".")[0]
    if root == "pandas" or "pandas" in sys.modules:
        pandas = sys.modules.get("pandas")
        if pandas is not None and isinstance(obj, (pandas.DataFrame, pandas.Series)):
            from _sandbar import table

            data[kernel.TABLE] = table.table(pandas, obj)
            return
    figure = sys.modules.get("matplotlib.figure")
    if figure is not None and isinstance(obj, figure.Figure):
        from _sandbar import chart

        data[kernel.CHART] = chart.chart(obj)


class Kernel:
    """Libraries that show themselves as in a notebook ask the shell whether it has one of these."""


class Shell(InteractiveShell):
    display_pub_class = Type(Publisher)
    displayhook_class = Type(Hook)
    # Of the last exception that was shown.
    shown = Any(None)
    kernel = Any(Kernel())
    has_colors = False

    def init_display_formatter(self):
        self.display_formatter = Formatter(parent=self)
        self.configurables.append(self.display_formatter)

    def init_io(self):
        pass

    def init_hooks(self):
        super().init_hooks()
        self.set_hook("show_in_pager", page.as_hook(show_page), 99)

    def enable_gui(self, gui=None):
        """There is no screen, so there is no event loop to be made part of."""

    def ask_exit(self):
        raise SystemExit(0)

    def _showtraceback(self, etype, evalue, stb):
        self.shown = (etype, evalue, [str(line) for line in stb])


def show_page(text, *_unused, **_also_unused):
    data = text if isinstance(text, dict) else {"text/plain": str(text)}
    data = data["data"] if isinstance(data.get("data"), dict) else data
    plain = data.get("text/plain")
    if isinstance(plain, str) and not Shell.instance().has_colors:
        data = {**data, "text/plain": ANSI.sub("", plain)}
    show(data)


def refuse_input(prompt="", *_unused, **_also_unused):
    __tracebackhide__ = True
    raise StdinNotImplementedError(
        "there is nobody to answer input(): set a variable in the code instead, or in the run's `env`"
    )


class Interrupts:
    """SIGINT ends the code that runs, and nothing else."""

    def __init__(self, loop):
        self.loop = loop
        self.task = None
        self.was_cancelled = False
        self.listen()

    def listen(self):
        signal.signal(signal.SIGINT, self.handle)

    def handle(self, *_unused):
        __tracebackhide__ = True
        task = self.task
        if task is None or task.done():
            return
        running = asyncio.current_task(self.loop)
        if running is not task:
            # It awaits something.
            self.was_cancelled = True
            self.loop.call_soon_threadsafe(task.cancel)
        if running is not None:
            # What it awaits may never come back to the loop.
            raise KeyboardInterrupt


def allow_nested_run(loop):
    """`asyncio.run` in a cell, where a loop runs already: the outer one stands still meanwhile."""
    run = asyncio.run

    def run_beside(*args, **options):
        if asyncio.events._get_running_loop() is not loop:
            return run(*args, **options)
        task = asyncio.current_task(loop)
        asyncio.events._set_running_loop(None)
        handler = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return run(*args, **options)
        finally:
            signal.signal(signal.SIGINT, handler)
            asyncio.events._set_running_loop(loop)
            asyncio.set_event_loop(loop)
            assert asyncio.current_task(loop) is task

    run_beside.__doc__ = run.__doc__
    run_beside.__name__ = "run"
    run_beside.__module__ = "asyncio"
    run_beside.__wrapped__ = run
    asyncio.run = asyncio.runners.run = run_beside


def make_shell():
    config = Config()
    # Nothing is written beside what the code itself writes.
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    # Also where no colours are wanted: without them IPython shows less of the code.
    config.InteractiveShell.colors = "neutral"
    config.InteractiveShell.xmode = "Context"
    config.InteractiveShell.banner1 = ""
    config.InteractiveShell.autoindent = False
    shell = Shell.instance(config=config)
    sys.modules["__main__"] = shell.user_module
    shell.user_module.__builtins__ = builtins
    return shell


def line_of(shell, evalue, traceback, count):
    """The line of the cell in which an exception was raised."""
    start = f"<ipython-input-{count}-"
    if isinstance(evalue, SyntaxError) and str(evalue.filename or "").startswith(start):
        return evalue.lineno
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename.startswith(start):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


async def run_cell(shell, interrupts, message):
    code = message["code"]
    preprocessing = None
    transformed = code
    try:
        transformed = shell.transform_cell(code)
    except Exception:
        preprocessing = sys.exc_info()
    is_async = shell.should_run_async(
        code, transformed_cell=transformed, preprocessing_exc_tuple=preprocessing
    )
    interrupts.task = asyncio.current_task()
    interrupts.was_cancelled = False
    result = None
    try:
        if not is_async:
            # Python's own handler leaves no trace of itself in the code's traceback.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            return shell.run_cell(code, store_history=True)
        try:
            result = await shell.run_cell_async(
                code,
                store_history=True,
                transformed_cell=transformed,
                preprocessing_exc_tuple=preprocessing,
            )
        finally:
            shell.events.trigger("post_execute")
            shell.events.trigger("post_run_cell", result)
        return result
    finally:
        interrupts.listen()
        interrupts.task = None


def failure(shell, interrupts, result, count):
    """The exception that a cell ended with, as it is told."""
    error = result.error_before_exec or result.error_in_exec
    if error is None and shell.shown is None:
        return None
    # An object that cannot be shown fails its cell too, as it does in a notebook.
    etype, evalue, lines = shell.shown or (type(error), error, [])
    error = error if error is not None else evalue
    if not shell.has_colors:
        lines = [ANSI.sub("", line) for line in lines]
    name = getattr(etype, "__name__", str(etype))
    if interrupts.was_cancelled and issubclass(etype, asyncio.CancelledError):
        name = "KeyboardInterrupt"
    try:
        value = str(evalue)
    except Exception:
        value = f"<{name} that has no text>"
    line = line_of(shell, error, getattr(error, "__traceback__", None), count)
    return {"name": name, "value": value, "traceback": lines, "line": line}


async def run(shell, interrupts, message):
    WIRE.run = message["id"]
    own_pid = os.getpid()
    count = shell.execution_count
    if count == 2 and RESUMED is not None:
        RESUMED.use_all_cores()
    shell.shown = None
    shell.has_colors = bool(message.get("color"))
    changes = message.get("env") or {}
    saved = {name: os.environ.get(name) for name in changes}
    change_env(changes)
    error = None
    try:
        result = await run_cell(shell, interrupts, message)
        error = failure(shell, interrupts, result, count)
    except BaseException as exception:
        interrupts.listen()
        # Past IPython's own handlers: an interrupt while it showed something, or a broken hook.
        interrupts.task = None
        name = type(exception).__name__
        if interrupts.was_cancelled:
            name = "KeyboardInterrupt"
        error = {"name": name, "value": str(exception), "traceback": [f"{name}: {exception}"], "line": None}
    if os.getpid() != own_pid:
        # A fork of the code's that came back from its cell has nothing left to do.
        for output in (sys.stdout, sys.stderr):
            try:
                output.flush()
            except Exception:
                pass
        os._exit(1 if error else 0)
    change_env(saved)
    if error is not None:
        error["traceback"] = [line[: kernel.REPRESENTATION_BYTES // 64] for line in error["traceback"][:1000]]
        error["value"] = error["value"][: kernel.REPRESENTATION_BYTES // 8]
        WIRE.send(op="error", **error)
    WIRE.send(op="end", count=count)


def change_env(changes):
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def read_frame():
    """Frames come in a thread's stead when the loop can read: whole, because they are small or
    were sent at once."""
    try:
        WIRE.hear()
    except Exception:
        os._exit(0)


async def live(shell):
    loop = asyncio.get_running_loop()
    frames = asyncio.Queue()
    WIRE.order = frames.put_nowait
    loop.add_reader(WIRE.sock.fileno(), read_frame)
    interrupts = Interrupts(loop)
    allow_nested_run(loop)
    WIRE.send(op="ready", version=sys.version.split()[0])
    if RESUMED is not None:
        RESUMED.look_ahead()
    while True:
        message = await frames.get()
        if message["op"] == "note":
            RESUMED.note()
            WIRE.send(op="end", count=0)
            continue
        task = loop.create_task(run(shell, interrupts, message))
        while not task.done():
            try:
                await asyncio.wait([task])
            except BaseException:
                pass
        if not task.cancelled() and task.exception() is not None:
            os._exit(70)


def prepare_process():
    """What a process has, and who goes on from a warm start does not."""
    faulthandler.enable(file=2, all_threads=False)
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    os.environ.setdefault("PAGER", "cat")
    os.environ.setdefault("GIT_PAGER", "cat")


def prepare():
    """All that does not depend on whose context this is."""
    prepare_process()
    builtins.input = refuse_input
    getpass.getpass = refuse_input
    sys.argv = [""]
    return make_shell()


def serve(wire, is_to_be_kept):
    global WIRE, RESUMED
    WIRE = wire
    shell = prepare()
    if is_to_be_kept:
        from _sandbar import warm

        try:
            count, RESUMED = warm.keep(wire, shell)
        except Exception as error:
            return wire.send(op="unfit", why=f"{type(error).__name__}: {error}")
        if count is not None:
            return wire.send(op="kept", bytes=count)
        prepare_process()
    sys.path.insert(0, "")
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    main = loop.create_task(live(shell))
    while not main.done():
        try:
            loop.run_until_complete(main)
        except BaseException:
            # It was raised in a task or a signal handler of the code's own.
            if loop.is_closed():
                raise
