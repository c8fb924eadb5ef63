"""Checks that a module of tests leaves no sockets, processes, threads or unclosed objects."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

_SECONDS = 10.0
"""For what is closed already to be gone: gRPC closes its sockets on threads of its own."""

_LASTING: set[str] = set()
"""What was made for the whole session."""


@dataclass(frozen=True)
class Held:
    """What this process holds, each thing by a name that nothing later has."""

    things: dict[str, str]
    """Descriptions by name."""

    @classmethod
    def now(cls) -> Held:
        """Sockets and processes on Linux, threads everywhere."""
        return cls({**_threads(), **_sockets(), **_children()})

    def more_than(self, before: Held) -> list[str]:
        """What was not there before, and does not last for the session."""
        news = self.things.keys() - before.things.keys() - _LASTING
        return sorted(self.things[name] for name in news)


def _threads() -> dict[str, str]:
    frames = sys._current_frames()
    return {
        f"thread {thread.ident} {id(thread)}": f"thread {thread.name}{_place(frames, thread)}"
        for thread in threading.enumerate()
        # Threads of gRPC's own, which have called into Python.
        if not isinstance(thread, threading._DummyThread)
    }


def _place(frames: Mapping[int, FrameType], thread: threading.Thread) -> str:
    """Where a thread is, if it still runs: the three innermost lines of it."""
    frame = frames.get(thread.ident or 0)
    lines = traceback.extract_stack(frame)[-3:] if frame else ()
    return "".join(f" < {Path(line.filename).name}:{line.lineno}" for line in reversed(lines))


def _sockets() -> dict[str, str]:
    found = {}
    if sys.platform == "linux":
        for file in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                target = os.readlink(file)
                if target.startswith("socket:"):
                    found[target] = f"{target} (file descriptor {file.name})"
    return found


def _children() -> dict[str, str]:
    found = {}
    if sys.platform == "linux":
        parent = str(os.getpid())
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                # Its name, in parentheses, may hold anything; state and parent follow.
                after_name = (process / "stat").read_text().rpartition(")")[2].split()
                if after_name[1] == parent:
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[f"process {process.name}"] = f"process {process.name}: {command[:200]}"
    return found


@contextmanager
def lasting() -> Iterator[None]:
    """Sockets, processes and threads made in the block may stay until the session ends."""
    before = Held.now().things.keys()
    yield
    _LASTING.update(Held.now().things.keys() - before)


@contextmanager
def nothing_left() -> Iterator[None]:
    """
    Fail if the block leaves sockets, processes or threads behind.

    Garbage is collected, so that a ResourceWarning is an error here and not in a later module.
    """
    before = Held.now()
    yield
    gc.collect()
    gc.freeze()  # the next module's collection skips the objects that exist now
    deadline = time.monotonic() + _SECONDS
    while left := Held.now().more_than(before):
        assert time.monotonic() < deadline, f"left behind: {'; '.join(left)}"
        time.sleep(0.05)
