"""Checks that a module of tests leaves no sockets, processes, threads or unclosed objects."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 10.0
"""For what is closed already to be gone: gRPC closes its sockets on threads of its own."""

_LASTING: set[str] = set()
"""What was made for the whole session."""


@dataclass(frozen=True)
class Held:
    """What this process holds, each thing by a name that nothing later has."""

    things: dict[str, str]
    """What each name is, for people."""

    @classmethod
    def now(cls) -> Held:
        """Sockets and processes on Linux, threads everywhere."""
        return cls({**_threads(), **_sockets(), **_children()})

    def more_than(self, before: Held) -> list[str]:
        """What was not there before, and does not last for the session."""
        news = self.things.keys() - before.things.keys() - _LASTING
        return sorted(self.things[name] for name in news)


def _threads() -> dict[str, str]:
    # Pools keep their threads: the event loop's are its own, and gone with it.
    return {
        f"thread {thread.ident} {id(thread)}": f"thread {thread.name}"
        for thread in threading.enumerate()
    }


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
        for listed in Path("/proc/self/task").glob("*/children"):
            with suppress(OSError):
                for pid in listed.read_text().split():
                    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                    found[f"process {pid}"] = f"process {pid}: {command.decode()[:200]}"
    return found


@contextmanager
def lasting() -> Iterator[None]:
    """What is made in this block may be there until the session ends."""
    before = Held.now().things.keys()
    yield
    _LASTING.update(Held.now().things.keys() - before)


@contextmanager
def nothing_left() -> Iterator[None]:
    """
    Fail if the block leaves sockets, processes or threads behind.

    What it left unclosed is collected, so that its ResourceWarning is an error here and not in a
    later module.
    """
    before = Held.now()
    yield
    gc.collect()
    gc.freeze()  # what is there now is not looked through again for each module
    deadline = time.monotonic() + _SECONDS
    while left := Held.now().more_than(before):
        assert time.monotonic() < deadline, f"left behind: {'; '.join(left)}"
        time.sleep(0.05)
