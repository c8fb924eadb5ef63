"""The contract of a store of sessions, which `directory` and `redis_store` implement."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Saved(NamedTuple):
    """A session that a store is to keep."""

    session_id: str
    epoch: int
    """
    The epoch of the owner that saves it: 1 for the first owner, and a later one after each `claim`.
    """
    record: bytes
    seconds: float
    """The least time for which the store keeps it, unless it is saved again."""


def name_of(session_id: str) -> str:
    """
    The name of a session in a store, 64 hexadecimal digits.

    It is not the id: without authentication, a person with the id can use the session, and readers
    of the store must not be able to do that.
    """
    return hashlib.sha256(session_id.encode()).hexdigest()


def epoch_after(epoch: int, unix_seconds: float) -> int:
    """
    The epoch of the owner that claims a session after that epoch.

    It is the time in milliseconds, unless the clock is behind. So even if a store forgets a session
    and an early owner saves it again, the next owner's epoch is later than all before.
    """
    return max(epoch + 1, int(unix_seconds * 1_000))


class StoreUnavailable(Exception):
    """The store does not answer, or not in time. The request may or may not have been done."""


class Store(Protocol):
    """
    Keeps records of sessions, each owned by one replica at a time.

    No two owners have the same epoch: `claim` gives each a later one, even if the store had
    forgotten the session meanwhile. After a claim, the requests of earlier owners are refused. All
    methods may be called any number of times at once. None blocks the event loop. All of them can
    raise StoreUnavailable.
    """

    async def save(self, sessions: Sequence[Saved]) -> list[bool]:
        """
        Keep these records in place of earlier ones of the same sessions. Each is kept completely or
        not at all.

        Returns for each record whether it is kept. False means that it was refused, because another
        replica has claimed the session or the session was deleted. A session that the store does
        not have is kept at any epoch.
        """

    async def claim(self, session_id: str) -> tuple[int, bytes] | None:
        """
        Become a session's owner. Returns the new epoch and the last record, or None if there is no
        record.

        The record is kept for at least as long again as it was saved for. If the answer of a claim
        is lost and the claim is repeated, the epoch may grow twice.

        Raises:
            CheckpointDamaged: the record can no longer be read.
            CheckpointTooNew: a later server wrote the record, in a layout unknown here.
        """

    async def open(self, session: Saved) -> tuple[int, bytes] | None:
        """
        Claim a session. If the store does not have it, the store first keeps this record.

        Returns the epoch and the record as `claim` does, or None for a session that was deleted. If
        several callers open a session at once, the record of the first is kept, and each gets an
        epoch of its own. The epoch in `session` is ignored. Raises the errors of `claim`.
        """

    async def epoch(self, session_id: str) -> int:
        """
        The epoch of a session's owner; 0 for a session that the store does not have.

        Raises CheckpointTooNew as `claim` does.
        """

    async def delete(self, session_id: str, epoch: int, seconds: float) -> None:
        """
        Forget a session, unless another replica has claimed it.

        For `seconds`, late saves of this owner and of earlier ones are refused.
        """

    async def close(self) -> None:
        """Close files and connections. No other method may be called after that."""
