"""Files that may be replaced while the server runs, such as certificates and tokens."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from service.errors import FileInvalid, one_line

log = logging.getLogger(__name__)

T = TypeVar("T")
Stamp = tuple[int, int, int]

_RETRY_SECONDS = 10.0
"""Time until wrong files are read again if they have not changed."""


class WatchedFiles(Generic[T]):
    """A value that is read from files, and read again when one of them changes. Thread-safe."""

    def __init__(
        self,
        setting: str,
        paths: Sequence[Path],
        read: Callable[[], T],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Read the value for the first time.

        Args:
            setting: The setting that names the files, for logs and errors.
            paths: The files. `value` asks for the time, size and inode of each.
            read: Reads the value from the files; raises an error if it cannot.
            clock: Gives seconds.

        Raises:
            FileInvalid: a file is missing, or its content is wrong.
        """
        self._setting = setting
        self._paths = paths
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._failed: tuple[Stamp, ...] = ()
        self._retry_seconds = 0.0
        self._seen = self._stamp()
        try:
            self._value = read()
        # Libraries for keys and certificates raise what they like: see `_read_again`.
        except Exception as error:
            raise FileInvalid(f"{setting}: {self._sentence(error)}") from error

    def value(self) -> T:
        """Return the value of the files; while they are wrong, the last value that was right."""
        # The stamp is from before the reading, so that a change meanwhile leads to another reading.
        stamp = self._stamp()
        with self._lock:
            if stamp != self._seen and self._is_due(stamp):
                self._read_again(stamp)
            return self._value

    def _is_due(self, stamp: tuple[Stamp, ...]) -> bool:
        return stamp != self._failed or self._clock() >= self._retry_seconds

    def _read_again(self, stamp: tuple[Stamp, ...]) -> None:
        try:
            self._value = self._read()
        # Whatever a library raises about a wrong file, calls must go on with the last right one.
        except Exception as error:
            self._failed = stamp
            self._retry_seconds = self._clock() + _RETRY_SECONDS
            why = self._sentence(error)
            log.error("files not taken over", extra={"setting": self._setting, "why": why})
        else:
            self._seen = stamp
            log.info("files taken over", extra={"setting": self._setting})

    def _sentence(self, error: Exception) -> str:
        if isinstance(error, UnicodeDecodeError):
            return f"{' or '.join(map(str, self._paths))} is not text in UTF-8"
        return one_line(error)

    def _stamp(self) -> tuple[Stamp, ...]:
        return tuple(file_stamp(path) for path in self._paths)


def file_stamp(path: Path) -> Stamp:
    """Return what changes with the content of a file: time, size and inode. Follows links."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0, 0  # the reading raises the error
    return status.st_mtime_ns, status.st_size, status.st_ino
