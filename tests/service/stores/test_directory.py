"""The directory store: crashes, damage, full disks, locks, and what it removes."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.errors import CheckpointDamaged, CheckpointTooNew
from service.stores import record_file
from service.stores.base import Saved, StoreUnavailable, name_of
from service.stores.directory import DAMAGED, DirectoryStore
from service.stores.record_file import WRITING
from tests.conftest import Clock
from tests.support.claims import claimed, record_of
from tests.support.store_process import SESSIONS, number_of

LONG = 60.0
SAVED = Saved("session", 1, b"record" * 1_000, LONG)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DirectoryStore]:
    """A store that synchronises."""
    store = DirectoryStore(tmp_path, sync=True, timeout_seconds=10.0)
    yield store
    await store.close()


def file_of(folder: Path, session: str = SAVED.session_id) -> Path:
    """Where a session is kept."""
    name = name_of(session)
    return folder / name[:2] / name


def contents(folder: Path) -> list[str]:
    """The names of all files but locks."""
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.name != "lock")


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def killed_after(folder: Path, batches: int, seconds: float) -> int:
    """Kill a writer a moment after so many batches: the last batch that it had kept."""
    command = [sys.executable, "-m", "tests.support.store_process", "write"]
    with subprocess.Popen(
        [*command, f"directory:{folder}", "no"], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for _ in range(batches):
            writer.stdout.readline()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            pass  # a moment that is not a multiple of anything
        writer.send_signal(signal.SIGKILL)
        # A line that the kill cut off tells nothing.
        lines = [line for line in writer.stdout if line.endswith("\n")]
        return int(lines[-1]) if lines else batches


@pytest.mark.parametrize("seed", range(5))
async def test_a_killed_writer_leaves_whole_records(tmp_path: Path, seed: int) -> None:
    """Each is the one that was kept last or a later one, and nothing else stays."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    kept = await asyncio.to_thread(
        killed_after, tmp_path, chance.randrange(1, 20), chance.random() / 50
    )

    store = DirectoryStore(tmp_path, sync=False)
    records = [await record_of(store, session) for session in SESSIONS]
    # Nothing of a session whose write was cut off is left when the store has looked around.
    await until(lambda: len(contents(tmp_path)) == len(SESSIONS))
    await store.close()
    for record in records:
        assert record is not None
        assert number_of(record) in (kept, kept + 1)


async def test_what_is_synchronised_is_so_before_it_is_kept(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file before it gets its name, and the folder after."""
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def recorded_fsync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        calls.append("folder" if Path(path).is_dir() else f"file {os.fstat(descriptor).st_size}")
        fsync(descriptor)

    def recorded_replace(self: Path, target: Path) -> Path:
        calls.append("name")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    await store.save([SAVED])
    size = file_of(tmp_path).stat().st_size

    assert calls == [f"file {size}", "name", "folder"]
    await store.claim(SAVED.session_id)
    assert calls[3:] == [f"file {size}", "name", "folder"]
    await store.delete(SAVED.session_id, await store.epoch(SAVED.session_id), LONG)
    assert calls[6:] == [f"file {size - len(SAVED.record)}", "name", "folder"]


async def test_files_are_for_nobody_else(store: DirectoryStore, tmp_path: Path) -> None:
    """Only the server's user can read the files."""
    await store.save([SAVED])

    modes = {
        path.is_dir(): path.stat().st_mode & 0o777
        for path in (file_of(tmp_path).parent, file_of(tmp_path))
    }
    assert modes == {True: 0o700, False: 0o600}


@pytest.mark.parametrize("place", [0, 8, 20, 30, 36, 41, 60, -1])
async def test_a_damaged_file_is_told_and_kept_aside(
    store: DirectoryStore, tmp_path: Path, place: int
) -> None:
    """One bit anywhere is found; then the session is unknown, and can be kept again."""
    await store.save([SAVED])
    data = bytearray(file_of(tmp_path).read_bytes())
    data[place] ^= 1
    file_of(tmp_path).write_bytes(data)

    with pytest.raises(CheckpointDamaged, match="the stored session is damaged"):
        await store.claim(SAVED.session_id)
    assert file_of(tmp_path).with_suffix(DAMAGED).read_bytes() == data
    assert await store.claim(SAVED.session_id) is None
    assert await store.save([SAVED]) == [True]
    assert await record_of(store, SAVED.session_id) == SAVED.record


@pytest.mark.parametrize("size", [0, 3, 39, 40, 44, 1_000])
async def test_a_file_that_was_cut_short_is_damaged(
    store: DirectoryStore, tmp_path: Path, size: int
) -> None:
    """At any length; a save does not trust it either."""
    for _ in range(2):
        await store.save([SAVED])
        os.truncate(file_of(tmp_path), size)

        with pytest.raises(CheckpointDamaged, match="damaged or cut short"):
            await store.claim(SAVED.session_id)
    assert contents(tmp_path) == [name_of(SAVED.session_id) + DAMAGED]


async def test_a_damaged_header_refuses_no_owner(store: DirectoryStore, tmp_path: Path) -> None:
    """An epoch that nobody wrote is not believed."""
    await store.save([SAVED])
    with file_of(tmp_path).open("r+b") as file:
        file.seek(14)
        file.write(b"\xff")

    assert await store.save([SAVED]) == [True]
    assert await record_of(store, SAVED.session_id) == SAVED.record


async def test_a_later_servers_file_is_left_alone(store: DirectoryStore, tmp_path: Path) -> None:
    """It is no damage, and its session is no longer ours."""
    await store.save([SAVED])
    later = bytearray(file_of(tmp_path).read_bytes())
    later[4] = record_file.VERSION + 1
    file_of(tmp_path).write_bytes(later)

    with pytest.raises(CheckpointTooNew, match="layout 2, and this server reads up to 1"):
        await store.claim(SAVED.session_id)
    assert await store.save([SAVED]) == [False]
    await store.delete(SAVED.session_id, 1, LONG)
    assert file_of(tmp_path).read_bytes() == later


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Let no file of this process grow further, as where a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_leaves_the_earlier_record(store: DirectoryStore, tmp_path: Path) -> None:
    """The store says why, takes up no room, and works again after."""
    await store.save([SAVED])
    larger = SAVED._replace(record=bytes(100_000))

    with files_end_at(50_000), pytest.raises(StoreUnavailable, match="File too large"):
        await store.save([larger])
    assert contents(tmp_path) == [name_of(SAVED.session_id)]
    epoch, record = await claimed(store, SAVED.session_id)
    assert record == SAVED.record
    assert await store.save([larger._replace(epoch=epoch)]) == [True]
    assert await record_of(store, SAVED.session_id) == larger.record


async def test_a_full_disk_takes_a_deletion(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it deletes makes room for what is left of it."""
    await store.save([SAVED])
    write = record_file.write

    def full(path: Path, *arguments: object, **more: bool) -> None:
        if path.exists():
            raise OSError(28, "No space left on device")
        write(path, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(record_file, "write", full)
    await store.delete(SAVED.session_id, 1, LONG)
    assert await store.claim(SAVED.session_id) is None
    assert await store.epoch(SAVED.session_id) == 2


async def test_a_record_of_an_earlier_server_is_claimed(
    store: DirectoryStore, tmp_path: Path
) -> None:
    """It does not say for how long it is kept, and is kept no longer by a claim."""
    header = record_file.Header(1, 0, time.time() + 5, 0)
    record_file.write(file_of(tmp_path), header, b"record", sync=False)

    assert await record_of(store, SAVED.session_id) == b"record"
    kept = record_file.read_header(file_of(tmp_path))
    assert kept is not None
    assert kept.forgotten_unix_seconds == header.forgotten_unix_seconds


async def test_a_folder_that_is_gone_is_no_unknown_session(
    store: DirectoryStore, tmp_path: Path
) -> None:
    """If the folder is gone, the store is unavailable instead of not having the session."""
    await store.save([SAVED])
    folder = file_of(tmp_path).parent
    folder.rename(tmp_path / "away")

    with pytest.raises(StoreUnavailable, match="No such file or directory"):
        await store.claim(SAVED.session_id)
    with pytest.raises(StoreUnavailable, match=str(tmp_path)):
        await store.save([SAVED])
    (tmp_path / "away").rename(folder)
    assert await record_of(store, SAVED.session_id) == SAVED.record


async def test_a_lock_that_is_never_let_go_holds_nobody_up(tmp_path: Path) -> None:
    """Only its sessions wait, and not for ever; then the store has all its threads again."""
    store = DirectoryStore(tmp_path, sync=False, timeout_seconds=0.3)
    folder = file_of(tmp_path).parent
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        began = time.monotonic()
        refused = await asyncio.gather(
            *(store.save([SAVED]) for _ in range(40)), return_exceptions=True
        )
        assert [type(each) for each in refused] == [StoreUnavailable] * 40
        assert "did not answer within 0.3 s" in str(refused[0])
        assert time.monotonic() - began < 40 * 0.3 / 2, "they did not wait together"

    deadline = time.monotonic() + 10
    while True:
        try:
            assert await store.save([SAVED]) == [True]
            break
        except StoreUnavailable:
            assert time.monotonic() < deadline
    await store.close()


async def test_a_later_save_stays_whichever_gets_the_lock_first(
    store: DirectoryStore, tmp_path: Path
) -> None:
    """Two threads wait for it; chance decides, so they are let go many times."""
    folder, epoch = file_of(tmp_path).parent, 1
    for _ in range(20):
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            saves = [
                asyncio.create_task(store.save([SAVED._replace(epoch=epoch, record=record)]))
                for record in (b"early", b"later")
            ]
            await asyncio.wait(saves, timeout=0.02)  # both wait by now

        assert await asyncio.gather(*saves) == [[True], [True]]
        epoch, record = await claimed(store, SAVED.session_id)
        assert record == b"later"


async def test_what_is_over_is_removed_at_the_start(tmp_path: Path) -> None:
    """Sessions past their time and half-written files; damaged ones stay for a claim to tell."""
    store = DirectoryStore(tmp_path, sync=False)
    batch = [Saved(f"short {n}", 1, b"record", 0.001) for n in range(20)]
    await store.save([*batch, SAVED, Saved("damaged", 1, b"record", LONG)])
    await store.close()
    os.truncate(file_of(tmp_path, "damaged"), 20)
    file_of(tmp_path, "killed").with_suffix(WRITING).write_bytes(b"half")

    store = DirectoryStore(tmp_path, sync=False)
    expected = sorted([name_of(SAVED.session_id), name_of("damaged")])
    await until(lambda: contents(tmp_path) == expected)
    with pytest.raises(CheckpointDamaged):
        await store.claim("damaged")
    await store.close()


async def test_what_is_over_is_removed_now_and_then(tmp_path: Path, clock: Clock) -> None:
    """Whatever is asked of the store, once enough time has gone by."""
    store = DirectoryStore(tmp_path, sync=False, clock=clock)
    await store.save([SAVED])
    clock.seconds += 601

    assert await store.claim("another") is None
    await until(lambda: contents(tmp_path) == [])
    await store.close()


def pipe(path: Path) -> None:
    """A pipe that nobody writes into."""
    os.mkfifo(path)


def unreadable(path: Path) -> None:
    """A file that its owner may not read."""
    path.touch(mode=0)  # at once: the store's first sweep may still remove what it finds


FOREIGN: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("hello"),
    "empty file": lambda path: path.touch(),
    "folder": lambda path: path.mkdir(),
    "full folder": lambda path: (path / "inside").mkdir(parents=True),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "pipe": pipe,
    "unreadable file": unreadable,
}
"""What may lie in a folder of the store besides records."""


def neighbours() -> list[Saved]:
    """Sessions whose files are in the folder of `SAVED`."""
    folder = name_of(SAVED.session_id)[:2]
    ids = (f"session {number}" for number in itertools.count())
    near = (each for each in ids if name_of(each).startswith(folder))
    return [SAVED._replace(session_id=each) for each in itertools.islice(near, 3)]


@pytest.mark.parametrize("what", FOREIGN)
async def test_a_foreign_file_costs_its_session_alone(
    store: DirectoryStore, tmp_path: Path, what: str
) -> None:
    """Sessions that are saved together with it are kept, and it makes way for its session."""
    FOREIGN[what](file_of(tmp_path))
    batch = [*neighbours(), SAVED, SAVED._replace(session_id="elsewhere")]
    assert await store.save(batch) == [True] * len(batch)

    for session in batch:
        assert await record_of(store, session.session_id) == session.record


@pytest.mark.parametrize("what", FOREIGN)
async def test_a_foreign_file_is_damage_to_its_session(
    store: DirectoryStore, tmp_path: Path, what: str
) -> None:
    """A claim says so once, and then the session is unknown; it can be deleted too."""
    FOREIGN[what](file_of(tmp_path))
    if what != "link to nothing":
        if what == "unreadable file" and os.access(file_of(tmp_path), os.R_OK):
            pytest.skip("this user may read every file")
        with pytest.raises(CheckpointDamaged):
            await store.claim(SAVED.session_id)
    assert await store.claim(SAVED.session_id) is None
    assert await store.epoch(SAVED.session_id) == 0
    await store.delete(SAVED.session_id, 1, LONG)


@pytest.mark.parametrize("suffix", ["", WRITING, DAMAGED])
@pytest.mark.parametrize("what", FOREIGN)
async def test_a_foreign_file_keeps_no_other_from_being_removed(
    tmp_path: Path, clock: Clock, what: str, suffix: str
) -> None:
    """Sessions of its folder that are over are removed."""
    store = DirectoryStore(tmp_path, sync=False, clock=clock)
    over = neighbours()
    await store.save(over)
    for name in ("0", "f" * 64, "~"):
        FOREIGN[what](file_of(tmp_path).with_name(name + suffix))
    clock.seconds += 601
    await store.claim("another")
    await until(lambda: not any(file_of(tmp_path, each.session_id).exists() for each in over))
    await store.close()
