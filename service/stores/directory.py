"""A store that keeps each session in a file of a folder, which processes may share."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import logging
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from service.errors import CheckpointDamaged, CheckpointTooNew, FileInvalid
from service.stores import record_file
from service.stores.base import Saved, StoreUnavailable, epoch_after, name_of
from service.stores.record_file import DELETED, Header

log = logging.getLogger(__name__)

T = TypeVar("T")
Groups = list[tuple[Path, list[tuple[int, Saved]]]]

DAMAGED = ".damaged"
"""Suffix of a file that cannot be read and is kept for the operator of the server."""

_LOCK = "lock"
_THREADS = 4
"""The number of threads. A disk can serve the writes of several threads at once."""
_SWEEP_SECONDS = 600.0
_LOCK_POLL_SECONDS = 0.002


class DirectoryStore:
    """
    Keeps records in 256 folders, by the first digits of the sessions' names.

    A reader or writer of a folder holds the lock on its file `lock`, which ends with the process.
    Machines may share the directory if its file system locks files (flock) between machines.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sync: bool,
        timeout_seconds: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Make the folder if it is missing, and start to remove sessions that are no longer kept.

        Args:
            folder: The folder, which only this user may read, because records hold the memories of
                sessions.
            sync: Whether records outlive a loss of power, or only the end of the process.
            timeout_seconds: Time limit of each method.
            clock: Gives Unix seconds.

        Raises:
            FileInvalid: the folder cannot be used.
        """
        self._folder = folder
        self._sync = sync
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        # All saves in one epoch are made by this process. A later save never has a smaller number,
        # whichever thread is faster.
        self._orders = itertools.count(time.time_ns() // 1_000)
        self._folders = [folder / f"{number:02x}" for number in range(256)]
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for each in self._folders:
                each.mkdir(mode=0o700, exist_ok=True)
                if not os.access(each, os.R_OK | os.W_OK | os.X_OK):
                    raise PermissionError(None, "may not be read and written", str(each))
            _synchronise(folder)
        except (FileExistsError, NotADirectoryError) as error:
            raise FileInvalid(
                f"--store: {error.filename} is a file, or lies in one; name a folder"
            ) from error
        except OSError as error:
            raise FileInvalid(f"--store: cannot use {error.filename}: {error.strerror}") from error
        self._is_closed = False
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="store")
        self._start_sweep()

    async def save(self, sessions: Sequence[Saved]) -> list[bool]:
        order = next(self._orders)
        by_folder: defaultdict[Path, list[tuple[int, Saved]]] = defaultdict(list)
        for place, session in enumerate(sessions):
            by_folder[self._path(session.session_id).parent].append((place, session))
        groups = list(by_folder.items())
        parts = [groups[first::_THREADS] for first in range(min(_THREADS, len(groups)))]
        kept: dict[int, bool] = {}
        for part in await asyncio.gather(
            *(self._in_pool(self._save, part, order) for part in parts)
        ):
            kept.update(part)
        return [kept[place] for place in range(len(sessions))]

    async def claim(self, session_id: str) -> tuple[int, bytes] | None:
        return await self._in_pool(self._claim, self._path(session_id))

    async def open(self, session: Saved) -> tuple[int, bytes] | None:
        return await self._in_pool(self._claim, self._path(session.session_id), session)

    async def epoch(self, session_id: str) -> int:
        return await self._in_pool(self._epoch, self._path(session_id))

    async def delete(self, session_id: str, epoch: int, seconds: float) -> None:
        await self._in_pool(self._delete, self._path(session_id), epoch, seconds)

    async def close(self) -> None:
        self._is_closed = True
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    def _path(self, session_id: str) -> Path:
        name = name_of(session_id)
        return self._folder / name[:2] / name

    async def _in_pool(self, work: Callable[..., T], *arguments: object) -> T:
        if self._clock() >= self._next_sweep:
            self._start_sweep()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await asyncio.get_running_loop().run_in_executor(
                    self._pool, work, *arguments
                )
        except TimeoutError:
            raise StoreUnavailable(
                f"the folder {self._folder} did not answer within {self._timeout_seconds} s"
            ) from None
        except OSError as error:
            raise StoreUnavailable(f"the folder {self._folder}: {error.strerror}") from error

    def _save(self, groups: Groups, order: int) -> dict[int, bool]:
        kept = {}
        for folder, sessions in groups:
            with self._locked(folder):
                for place, session in sessions:
                    kept[place] = self._save_one(session, order)
                if self._sync:
                    _synchronise(folder)
        return kept

    def _save_one(self, session: Saved, order: int) -> bool:
        path = self._path(session.session_id)
        try:
            current = self._header(path)
        except CheckpointTooNew:
            return False  # a replica of a later version has claimed it
        if current is not None and current.epoch > session.epoch:
            return False
        # A later save of this owner may have been written first. It then stays.
        if current is None or (current.epoch, current.order) <= (session.epoch, order):
            header = self._header_for(session, session.epoch, order)
            record_file.write(path, header, session.record, sync=self._sync)
        return True

    def _header_for(self, session: Saved, epoch: int, order: int) -> Header:
        """The header of a record that is to be kept from now on."""
        minutes = min(record_file.MAX_MINUTES, math.ceil(session.seconds / 60))
        return Header(epoch, order, self._clock() + session.seconds, minutes)

    def _claim(self, path: Path, first: Saved | None = None) -> tuple[int, bytes] | None:
        """Claim the record at a path. If there is none, `first` is kept and claimed."""
        with self._locked(path.parent):
            try:
                found = record_file.read(path)
            except CheckpointDamaged:
                _set_aside(path)
                raise
            if found is None or self._is_over(found[0]):
                if first is None:
                    return None
                found = self._header_for(first, 0, 0), first.record
            header, record = found
            if header.minutes == DELETED:
                return None
            now = self._clock()
            claimed = Header(
                epoch_after(header.epoch, now),
                0,  # the new owner counts its saves by a clock of its own
                max(header.forgotten_unix_seconds, now + 60 * header.minutes),
                header.minutes,
            )
            record_file.write(path, claimed, record, sync=self._sync)
            if self._sync:
                _synchronise(path.parent)
            return claimed.epoch, record

    def _epoch(self, path: Path) -> int:
        with self._locked(path.parent):
            current = self._header(path)
        return 0 if current is None else current.epoch

    def _delete(self, path: Path, epoch: int, seconds: float) -> None:
        with self._locked(path.parent):
            try:
                current = self._header(path)
            except CheckpointTooNew:
                return
            if current is not None and current.epoch > epoch:
                return
            deleted = Header(epoch + 1, 0, self._clock() + seconds, DELETED)
            try:
                record_file.write(path, deleted, b"", sync=self._sync)
            except OSError:
                path.unlink(missing_ok=True)  # a full disk then has room
                record_file.write(path, deleted, b"", sync=self._sync)
            if self._sync:
                _synchronise(path.parent)

    def _header(self, path: Path) -> Header | None:
        """The header of a session's file; a damaged file is set aside. Raises CheckpointTooNew."""
        try:
            header = record_file.read_header(path)
        except CheckpointDamaged:
            _set_aside(path)
            return None
        return None if header is None or self._is_over(header) else header

    def _is_over(self, header: Header) -> bool:
        return header.forgotten_unix_seconds <= self._clock()

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        """Hold a folder's lock, against other processes and against other threads."""
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._wait_for(descriptor)
            yield
        finally:
            os.close(descriptor)  # which lets go of the lock

    def _wait_for(self, descriptor: int) -> None:
        # The lock must not wait by itself: this thread has to continue even if the holder never
        # releases it.
        deadline = time.monotonic() + self._timeout_seconds
        while True:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_LOCK_POLL_SECONDS)

    def _start_sweep(self) -> None:
        self._next_sweep = self._clock() + _SWEEP_SECONDS
        self._pool.submit(self._sweep)

    def _sweep(self) -> None:
        """Remove records that are no longer kept, and files of writers that were killed."""
        for folder in self._folders:
            if self._is_closed:
                return
            try:
                with self._locked(folder):
                    for path in folder.iterdir():
                        self._sweep_one(path)
            except OSError as error:
                why = error.strerror
                log.warning("store not swept", extra={"folder": str(folder), "why": why})

    def _sweep_one(self, path: Path) -> None:
        """Remove a file if it is over; one that cannot be removed keeps no other in the folder."""
        try:
            self._remove_if_over(path)
        except OSError as error:
            log.warning("file not swept", extra={"file": str(path), "why": error.strerror})

    def _remove_if_over(self, path: Path) -> None:
        if (
            path.suffix == record_file.WRITING
        ):  # left over from a crash: a writer would hold the lock
            path.unlink()
        elif path.name != _LOCK and path.suffix != DAMAGED:
            try:
                header = record_file.read_header(path)
            except (CheckpointDamaged, CheckpointTooNew):
                return  # kept, so that the caller that claims the session gets the error
            if header is not None and self._is_over(header):
                path.unlink()


def _set_aside(path: Path) -> None:
    aside = path.with_suffix(DAMAGED)
    path.replace(aside)
    log.error("stored session is damaged", extra={"kept_as": str(aside)})


def _synchronise(folder: Path) -> None:
    """Make renamed and removed files of a folder outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
