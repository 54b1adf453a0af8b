"""Describes what keeps a process from ending.

After a daemon has stopped, the interpreter itself may wait forever as it shuts down: for a thread,
for a ``multiprocessing`` child, or in an ``atexit`` function.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from pathlib import Path
from types import FrameType

from daemonkit.process.children import Children

_NOT_OF_THE_PROJECT = (sysconfig.get_path("stdlib"), str(Path(__file__).parent.parent))


def blockers() -> str:
    """The threads, children and functions that keep the process from ending, as text."""
    main = threading.main_thread()
    threads = [each for each in threading.enumerate() if each is not main and not each.daemon]
    frames = sys._current_frames()
    words = [f"thread {each.name}{_at(frames.get(each.ident or 0))}" for each in threads]
    words += [f"child process {pid} ({_name(pid)})" for pid in Children(os.getpid()).pids]
    if not words or not _waits_for_others(frames.get(main.ident or 0)):
        words.insert(0, f"the main thread{_at(frames.get(main.ident or 0))}")
    return ", ".join(words)


def _waits_for_others(frame: FrameType | None) -> bool:
    """Whether the interpreter is shutting down and waits for threads or ``multiprocessing``
    children."""
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    waiting = frame is not None and frame.f_code.co_name in ("_shutdown", "_exit_function")
    return waiting or frame is None


def _at(frame: FrameType | None) -> str:
    """The innermost function and line of the project in a stack, such as " in f() at a.py:3"."""
    nearest = frame
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_OF_THE_PROJECT):
        frame = frame.f_back
    frame = frame or nearest
    if frame is None:
        return ""
    file = os.path.basename(frame.f_code.co_filename)  # noqa: PTH119  it may be no path
    return f" in {frame.f_code.co_name}() at {file}:{frame.f_lineno}"


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "ended"
