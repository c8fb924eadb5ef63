"""What a store of sessions promises; `directory_store` and `redis_store` keep the promise."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Saved(NamedTuple):
    """A session as a store is to keep it."""

    session_id: str
    epoch: int
    """Of the owner that saves it: 1 for who opened the session, one more with each `claim`."""
    record: bytes
    seconds: float
    """How long it is to be kept at least, unless it is saved again; then it may be forgotten."""


def name_of(session_id: str) -> str:
    """What stores call a session, 64 hexadecimal digits: who knows an id may use the session."""
    return hashlib.sha256(session_id.encode()).hexdigest()


class StoreUnavailable(Exception):
    """The store does not answer, or not in time; what was asked may or may not have been done."""


class Store(Protocol):
    """
    Keeps records of sessions, each owned by one replica at a time.

    A store never sees two owners of one epoch: `claim` gives each a later one, and what an earlier
    owner asks for after that is refused. All methods may be called any number of times at once, and
    none blocks the event loop. All raise StoreUnavailable.
    """

    async def save(self, sessions: Sequence[Saved]) -> list[bool]:
        """
        Keep these records in the place of earlier ones of the same sessions, each all or nothing.

        For each, whether it is kept as firmly as the store promises; False if it was refused, since
        another replica has claimed the session. A session that the store does not know is kept at
        any epoch.
        """

    async def claim(self, session_id: str) -> tuple[int, bytes] | None:
        """
        Become a session's owner: the new epoch and the last record; None if there is none.

        A claim does not lengthen how long the record is kept. One whose answer is lost and that is
        asked for again may raise the epoch twice.

        Raises:
            CheckpointDamaged: what was kept can no longer be read.
            CheckpointTooNew: it was written by a later server, in a layout unknown here.
        """

    async def delete(self, session_id: str, epoch: int) -> None:
        """Forget a session, unless another replica has claimed it."""

    async def close(self) -> None:
        """Let go of files and connections. Nothing may be asked of the store after that."""
