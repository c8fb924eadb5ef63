"""A store in memory, turned by hand, for tests of what replicas do with any store."""

from __future__ import annotations

from collections.abc import Callable

from service.stores.base import epoch_after


class MemoryStore:
    """Implements the contract of `service.stores.base.Store`, one call after another."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Empty, and up."""
        self.is_down = False
        self.owners: dict[tuple[str, int], object] = {}
        """Who was given which epoch: never two the same one."""
        self._clock = clock
        self._kept: dict[str, tuple[int, bytes | None, float, float]] = {}
        """Epoch, record or None for a deletion, for how long it is kept, and until when."""

    def epoch(self, session_id: str) -> int:
        """As `Store.epoch`."""
        kept = self._found(session_id)
        return kept[0] if kept else 0

    def record(self, session_id: str) -> bytes | None:
        """What a claim would give."""
        kept = self._found(session_id)
        return kept[1] if kept else None

    def save(self, session_id: str, epoch: int, record: bytes, seconds: float) -> bool:
        """As `Store.save`, of one."""
        if self.epoch(session_id) > epoch:
            return False
        self._kept[session_id] = epoch, record, seconds, self._clock() + seconds
        return True

    def claim(self, session_id: str, claimant: object) -> tuple[int, bytes] | None:
        """As `Store.claim`; fails the test if the epoch was given before."""
        kept = self._found(session_id)
        if kept is None:
            return None
        before, record, seconds, _ = kept
        if record is None:
            return None
        epoch = epoch_after(before, self._clock())
        assert (session_id, epoch) not in self.owners
        self.owners[session_id, epoch] = claimant
        self._kept[session_id] = epoch, record, seconds, self._clock() + seconds
        return epoch, record

    def delete(self, session_id: str, epoch: int, seconds: float) -> None:
        """As `Store.delete`."""
        if self.epoch(session_id) <= epoch:
            self._kept[session_id] = epoch + 1, None, seconds, self._clock() + seconds

    def _found(self, session_id: str) -> tuple[int, bytes | None, float, float] | None:
        kept = self._kept.get(session_id)
        return kept if kept and kept[3] > self._clock() else None
