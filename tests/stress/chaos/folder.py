"""The folder of a directory store, which can be full, locked, or out of reach for a while."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SIZE = "256m"


class Folder:
    """As root a small disk of its own (tmpfs), so that it can be full."""

    def __init__(self, path: Path) -> None:
        """Make it, and mount it where that is allowed."""
        path.mkdir()
        self.url = f"directory:{path / 'kept'}"
        self._path = path
        self._kept = path / "kept"
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(path)]
        self.is_mounted = (
            shutil.which("mount") is not None
            and subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode == 0
        )

    def stop(self) -> None:
        """Let go of the disk."""
        if self.is_mounted:
            subprocess.run(["umount", "--lazy", str(self._path)], check=True)
            self.is_mounted = False

    @contextmanager
    def full(self) -> Iterator[None]:
        """Have no room left on the disk for a while."""
        filler = self._path / "filler"
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
        try:
            yield
        finally:
            filler.unlink()

    @contextmanager
    def locked(self, chance: random.Random) -> Iterator[None]:
        """Hold the locks of half of the folders, as a machine does that hangs."""
        descriptors = [
            os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            for folder in sorted(self._kept.iterdir())
            if chance.random() < 0.5
        ]
        held = []
        try:
            for descriptor in descriptors:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    held.append(descriptor)
                except BlockingIOError:
                    pass  # a replica has it at this moment
            yield
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    @contextmanager
    def unusable(self) -> Iterator[None]:
        """Be out of reach, as a disk that was unmounted."""
        away = self._path / "away"
        self._kept.rename(away)
        try:
            yield
        finally:
            away.rename(self._kept)
