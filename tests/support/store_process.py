"""
`python -m tests.support.store_process`: a process that uses a store until it is killed or done.

    write STORE SYNC        saves all sessions again and again, a line for each batch that is kept
    race STORE SYNC SEED    prints `ready`, waits for a line, claims and saves the sessions in
                            random turns, then prints what it did
"""

from __future__ import annotations

import asyncio
import json
import random
import sys

from service.settings import Settings
from service.stores.base import Saved, Store
from service.stores.opening import open_store

SESSIONS = [f"session-{number}" for number in range(16)]
RACED = SESSIONS[:3]
_TURNS = 200
_WIDTH = 8


def record(number: int) -> bytes:
    """12 KB that tell whether they are all of one save, and of which."""
    return b"%0*d" % (_WIDTH, number) * 1_500


def number_of(record: bytes) -> int:
    """Which save a record is of, having checked that it is whole."""
    number = int(record[:_WIDTH])
    assert record == b"%0*d" % (_WIDTH, number) * 1_500
    return number


async def write(store: Store) -> None:
    """Save until killed."""
    number = 0
    while True:
        number += 1
        saved = [Saved(session, 1, record(number), 60.0) for session in SESSIONS]
        assert all(await store.save(saved))
        print(number, flush=True)  # noqa: T201 - for the test


async def race(store: Store, seed: int) -> None:
    """Once told to go, claim and save, and print both as [kind, session, epoch, record]."""
    # A process takes longer to start than to race: without a signal one may be through by then.
    print("ready", flush=True)  # noqa: T201 - for the test
    sys.stdin.readline()
    chance = random.Random(seed)  # noqa: S311 - no secret
    epochs: dict[str, int] = {}
    done: list[tuple[str, str, int, str]] = []
    for turn in range(_TURNS):
        session = chance.choice(RACED)
        if session not in epochs or chance.random() < 0.2:
            claimed = await store.claim(session)
            assert claimed is not None
            epochs[session] = claimed[0]
            done.append(("claim", session, claimed[0], claimed[1].decode()))
        else:
            epoch, text = epochs[session], f"{seed}:{turn}"
            (kept,) = await store.save([Saved(session, epoch, text.encode(), 60.0)])
            done.append(("kept" if kept else "refused", session, epoch, text))
    print(json.dumps(done))  # noqa: T201 - for the test


async def main(kind: str, setting: str, sync: str, seed: str = "0") -> None:
    """Open the store and do it."""
    store = open_store(Settings(store=setting, store_sync=sync, store_timeout_seconds=30.0))
    assert store is not None
    await (write(store) if kind == "write" else race(store, int(seed)))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
