"""What a store of sessions promises; `directory` and `redis_store` keep the promise."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Saved(NamedTuple):
    """A session as a store is to keep it."""

    session_id: str
    epoch: int
    """Of the owner that saves it: 1 for the first owner, a later one with each `claim`."""
    record: bytes
    seconds: float
    """How long the store keeps it at least, unless it is saved again."""


def name_of(session_id: str) -> str:
    """
    The name of a session in a store, 64 hexadecimal digits.

    Not its id: where nobody is authenticated, knowing the id is enough to use the session, and a
    reader of the store must not be able to.
    """
    return hashlib.sha256(session_id.encode()).hexdigest()


def epoch_after(epoch: int, unix_seconds: float) -> int:
    """
    The epoch of the owner that claims a session after that epoch.

    It is the time in milliseconds, unless the clock is behind. If a store forgets a session, and an
    early owner saves it again, the epoch of the next owner is still later than all that were given
    before.
    """
    return max(epoch + 1, int(unix_seconds * 1_000))


class StoreUnavailable(Exception):
    """The store does not answer, or not in time; what was asked may or may not have been done."""


class Store(Protocol):
    """
    Keeps records of sessions, each owned by one replica at a time.

    A store never sees two owners of one epoch: `claim` gives each a later one, also where the store
    had forgotten the session meanwhile, and what an earlier owner asks for after that is refused.
    All methods may be called any number of times at once, and none blocks the event loop. All raise
    StoreUnavailable.
    """

    async def save(self, sessions: Sequence[Saved]) -> list[bool]:
        """
        Keep these records in the place of earlier ones of the same sessions, each all or nothing.

        For each, whether it is kept as firmly as the store promises; False if it was refused, since
        another replica has claimed the session, or it was deleted. A session that the store does
        not have is kept at any epoch.
        """

    async def claim(self, session_id: str) -> tuple[int, bytes] | None:
        """
        Become a session's owner: the new epoch and the last record; None if there is none.

        The record is kept for as long again as it was saved for, at least. A claim whose answer is
        lost and that is asked for again may raise the epoch twice.

        Raises:
            CheckpointDamaged: what was kept can no longer be read.
            CheckpointTooNew: it was written by a later server, in a layout unknown here.
        """

    async def open(self, session: Saved) -> tuple[int, bytes] | None:
        """
        Claim a session; if the store has none of that id, it first keeps this record.

        Returns the epoch and the record as `claim`; None for a session that was deleted. If several
        callers open a session at once, the record of the first is kept, and each gets an epoch of
        its own. The epoch in `session` is ignored. Raises as `claim`.
        """

    async def epoch(self, session_id: str) -> int:
        """
        The epoch of a session's owner; 0 for a session that the store does not have.

        Raises CheckpointTooNew as `claim`.
        """

    async def delete(self, session_id: str, epoch: int, seconds: float) -> None:
        """
        Forget a session, unless another replica has claimed it.

        For that many seconds, late saves of this owner or an earlier one are refused.
        """

    async def close(self) -> None:
        """Close files and connections. No other method may be called after that."""
