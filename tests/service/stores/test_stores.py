"""What every store promises, asked of each of them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.stores.base import Saved, Store
from service.stores.redis_store import RedisStore
from tests.support.any_store import KINDS, LONG, fresh, opened, until_forgotten
from tests.support.claims import claimed, record_of
from tests.support.store_model import Model
from tests.support.store_process import RACED

pytestmark = pytest.mark.parametrize("setting", KINDS, indirect=True)


async def test_a_claim_gives_the_last_record_and_the_next_epoch(
    another: Callable[[], Store],
) -> None:
    """A claim returns the last record and a later epoch."""
    first, second, session = another(), another(), fresh()

    assert await first.save([Saved(session, 1, b"old", LONG)]) == [True]
    assert await first.save([Saved(session, 1, b"new", LONG)]) == [True]
    assert await record_of(second, session) == b"new"
    assert await record_of(first, session) == b"new"


async def test_an_unknown_session_cannot_be_claimed(another: Callable[[], Store]) -> None:
    """There is nothing to go on from, and deleting it does no harm."""
    store, session = another(), fresh()

    await store.delete(session, 1, LONG)
    assert await store.claim(session) is None


async def test_who_lost_a_session_changes_it_no_more(another: Callable[[], Store]) -> None:
    """An earlier owner's save is refused, and its delete does nothing."""
    first, second, session = another(), another(), fresh()
    await first.save([Saved(session, 1, b"first", LONG)])
    epoch, _ = await claimed(second, session)

    assert await first.save([Saved(session, 1, b"late", LONG)]) == [False]
    await first.delete(session, 1, LONG)
    assert await second.save([Saved(session, epoch, b"second", LONG)]) == [True]
    assert await first.save([Saved(session, 1, b"later", LONG)]) == [False]
    assert await record_of(first, session) == b"second"


async def test_the_owner_deletes_a_session(another: Callable[[], Store]) -> None:
    """After its owner deleted a session, the store does not have it."""
    first, second, session = another(), another(), fresh()
    await first.save([Saved(session, 1, b"record", LONG)])
    epoch, _ = await claimed(second, session)

    await second.delete(session, epoch, LONG)
    assert await first.claim(session) is None


async def test_a_late_save_revives_no_deleted_session(another: Callable[[], Store]) -> None:
    """Neither an earlier owner's nor one of the owner's own that was slow; a deletion stays so."""
    first, second, session = another(), another(), fresh()
    await first.save([Saved(session, 1, b"first", LONG)])
    epoch, _ = await claimed(second, session)
    await second.delete(session, epoch, LONG)

    assert await first.save([Saved(session, 1, b"late", LONG)]) == [False]
    assert await second.save([Saved(session, epoch, b"slow", LONG)]) == [False]
    await first.delete(session, 1, LONG)
    await second.delete(session, epoch, LONG)
    assert await second.save([Saved(session, epoch, b"slower", LONG)]) == [False]
    assert await first.claim(session) is None
    assert await first.epoch(session) > epoch


async def test_a_session_that_was_never_saved_is_not_saved_after_its_deletion(
    another: Callable[[], Store],
) -> None:
    """Such as where the first save was given up, and is made at last."""
    store, session = another(), fresh()
    await store.delete(session, 1, LONG)

    assert await store.save([Saved(session, 1, b"slow", LONG)]) == [False]
    assert await store.claim(session) is None


async def test_who_begins_later_may_use_the_id_again(another: Callable[[], Store]) -> None:
    """A session opened later under a deleted id has an epoch after the deletion's."""
    store, session = another(), fresh()
    await store.save([Saved(session, 1, b"first", LONG)])
    await store.delete(session, 1, LONG)
    epoch = await store.epoch(session)

    assert await store.save([Saved(session, epoch, b"second", LONG)]) == [True]
    assert await record_of(store, session) == b"second"


async def test_a_deletion_is_remembered_for_its_time(another: Callable[[], Store]) -> None:
    """Then nothing of the session is left."""
    store, session = another(), fresh()
    await store.save([Saved(session, 1, b"record", LONG)])
    await store.delete(session, 1, 0.2)

    await until_forgotten(store, session)
    assert await store.claim(session) is None


async def test_a_claim_keeps_a_record_for_its_time_again(another: Callable[[], Store]) -> None:
    """An owner has the session for as long as it would have had from a save of its own."""
    store, is_in_time = another(), False
    while not is_in_time:  # else the machine did something else meanwhile, and nothing was seen
        kept, left = fresh(), fresh()
        saving = time.monotonic()
        await store.save([Saved(session, 1, b"record", 1.0) for session in (kept, left)])
        await asyncio.sleep(0.7)
        claiming = time.monotonic()
        record = await record_of(store, kept)
        claimed_seconds = time.monotonic() - saving
        await until_forgotten(store, left)
        epoch = await store.epoch(kept)
        is_in_time = claimed_seconds < 1.0 and time.monotonic() - claiming < 1.0

    assert record == b"record"
    assert epoch > 1


async def test_no_epoch_is_given_twice_though_all_was_forgotten(
    another: Callable[[], Store],
) -> None:
    """No epoch is given twice, even if an early owner saves a forgotten session again."""
    first, second, third, session = another(), another(), another(), fresh()
    await first.save([Saved(session, 1, b"first", LONG)])
    epoch, _ = await claimed(second, session)
    await second.save([Saved(session, epoch, b"second", 0.1)])
    await until_forgotten(second, session)
    assert await first.save([Saved(session, 1, b"first", LONG)]) == [True]

    later, _ = await claimed(third, session)
    assert later > epoch
    assert await second.save([Saved(session, epoch, b"second", LONG)]) == [False]


async def test_the_epoch_is_the_owners(another: Callable[[], Store]) -> None:
    """That of the last save or claim; 0 where nothing is known."""
    store, session = another(), fresh()
    assert await store.epoch(session) == 0

    await store.save([Saved(session, 3, b"record", LONG)])
    assert await store.epoch(session) == 3
    epoch, _ = await claimed(store, session)
    assert await store.epoch(session) == epoch


async def test_an_unknown_session_is_kept_at_any_epoch(another: Callable[[], Store]) -> None:
    """The store takes the owner's word for a session that it has forgotten."""
    store, session = another(), fresh()

    assert await store.save([Saved(session, 7, b"record", LONG)]) == [True]
    assert await store.save([Saved(session, 6, b"late", LONG)]) == [False]
    assert await record_of(store, session) == b"record"


async def test_verdicts_come_in_the_order_of_the_sessions(another: Callable[[], Store]) -> None:
    """A batch keeps what it may and refuses the rest, each by itself."""
    first, second = another(), another()
    sessions = [fresh() for _ in range(200)]
    records = [f"record {number}".encode() for number in range(200)]
    batch = [Saved(*each, LONG) for each in zip(sessions, [1] * 200, records, strict=True)]
    assert await first.save(batch) == [True] * 200
    await asyncio.gather(*(second.claim(session) for session in sessions[::3]))

    assert await first.save(batch) == [number % 3 != 0 for number in range(200)]
    assert await asyncio.gather(*(record_of(second, session) for session in sessions)) == records


async def test_the_last_of_a_session_in_a_batch_is_kept(another: Callable[[], Store]) -> None:
    """A batch may hold a session twice; an empty one asks for nothing."""
    store, session = another(), fresh()

    assert await store.save([]) == []
    assert await store.save([Saved(session, 1, record, LONG) for record in (b"1", b"2")]) == [
        True,
        True,
    ]
    assert await record_of(store, session) == b"2"


async def test_the_save_that_was_asked_for_last_is_kept(another: Callable[[], Store]) -> None:
    """Saves of a session may be under way at once; the later one stays, whichever ends first."""
    store = another()
    sessions = [fresh() for _ in range(8)]

    saves = [
        store.save([Saved(session, 1, bytes([number]) * (40_000 if number < 3 else 1), LONG)])
        for number in range(60)
        for session in sessions
    ]
    assert await asyncio.gather(*saves) == [[True]] * len(saves)
    for session in sessions:
        assert await record_of(store, session) == bytes([59])


async def test_owners_clocks_may_differ(
    another: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new owner's saves are kept though the earlier owner's clock was an hour ahead."""
    session, now = fresh(), time.time_ns()
    with monkeypatch.context() as ahead:
        ahead.setattr(time, "time_ns", lambda: now + 3_600 * 10**9)
        first = another()
    second = another()
    await first.save([Saved(session, 1, b"first", LONG)])
    epoch, _ = await claimed(second, session)

    assert await second.save([Saved(session, epoch, b"second", LONG)]) == [True]
    assert await record_of(first, session) == b"second"


@pytest.mark.parametrize("size", [0, 1, 8 << 20])
async def test_records_have_any_size(another: Callable[[], Store], size: int) -> None:
    """What was saved comes back byte for byte."""
    store, session = another(), fresh()
    record = bytes(range(256)) * (size // 256) + b"\0" * (size % 256)

    assert await store.save([Saved(session, 1, record, LONG)]) == [True]
    assert await record_of(store, session) == record


async def test_a_session_is_forgotten_after_its_time(another: Callable[[], Store]) -> None:
    """Unless it is saved again, for longer."""
    store, forgotten, kept = another(), fresh(), fresh()
    await store.save([Saved(session, 1, b"record", 0.2) for session in (forgotten, kept)])
    await store.save([Saved(kept, 1, b"record", LONG)])

    await until_forgotten(store, forgotten)
    assert await record_of(store, kept) == b"record"
    assert await store.save([Saved(forgotten, 1, b"again", LONG)]) == [True]


Operation = tuple[str, int, int]


@settings(
    max_examples=60,
    deadline=None,
    # The folder or server is shared by the examples, their sessions are not.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    operations=st.lists(
        st.tuples(
            st.sampled_from(["save", "save", "claim", "delete"]),
            st.integers(0, 2),
            st.integers(0, 1),
        ),
        max_size=30,
    )
)
def test_any_order_of_owners_gets_the_answers_of_the_model(
    setting: str, operations: list[Operation]
) -> None:
    """Saves, claims and deletes of three owners, in any order."""

    async def all_of_them() -> None:
        stores = [opened(setting) for _ in range(3)]
        model = Model(stores)
        for operation in operations:
            await model.do(*operation)
        for store in stores:
            await store.close()

    asyncio.run(all_of_them())


def raced(setting: str) -> list[tuple[str, str, int, str]]:
    """What three processes did that claim and save, from when all of them were ready."""
    command = [sys.executable, "-m", "tests.support.store_process", "race", setting, "no"]
    events: list[tuple[str, str, int, str]] = []
    with ExitStack() as running:
        racers = [
            running.enter_context(
                subprocess.Popen(
                    [*command, str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for seed in range(3)
        ]
        for racer in racers:
            running.callback(racer.kill)
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        for racer in racers:
            done, _ = racer.communicate(timeout=100)
            events += json.loads(done)
    return events


async def test_processes_that_race_never_own_a_session_at_once(
    another: Callable[[], Store], setting: str, request: pytest.FixtureRequest
) -> None:
    """Each epoch goes to one process, and a claim gives the last record that was kept before it."""
    store = another()
    if isinstance(store, RedisStore):
        request.getfixturevalue("valkey").command("FLUSHALL")
    await store.save([Saved(session, 1, b"start", LONG) for session in RACED])
    done = await asyncio.to_thread(raced, setting)

    for session in RACED:
        claims = {epoch: text for kind, of, epoch, text in done if (kind, of) == ("claim", session)}
        count = sum((kind, of) == ("claim", session) for kind, of, _, _ in done)
        assert len(claims) == count
        last_kept = {e: text for kind, of, e, text in done if (kind, of) == ("kept", session)}
        expected = "start"
        for epoch in sorted(claims):
            assert claims[epoch] == expected
            expected = last_kept.get(epoch, expected)
    assert any(kind == "refused" for kind, *_ in done)
    assert any(kind == "kept" for kind, *_ in done)


def names_in(setting: str, request: pytest.FixtureRequest) -> list[str]:
    """The paths and the contents of all files, or all keys."""
    if not setting.startswith("redis:"):
        paths = [*Path(setting.partition(":")[2]).parent.rglob("*")]
        contents = [path.read_bytes().decode("latin-1") for path in paths if path.is_file()]
        return [*map(str, paths), *contents]
    keys: list[str] = request.getfixturevalue("valkey").command("KEYS", "*")
    return keys


async def test_ids_are_not_seen_in_the_store(
    another: Callable[[], Store], setting: str, request: pytest.FixtureRequest
) -> None:
    """The store's names are hashes, because an id is enough to use a session."""
    store, session = another(), fresh()
    await store.save([Saved(session, 1, b"record", LONG)])

    names = names_in(setting, request)
    assert len(names) > 0
    assert not any(session in name for name in names)
