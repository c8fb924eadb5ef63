"""What the engine leaves for the loop around it: answers to give, and work for the store."""

from __future__ import annotations

from typing import NamedTuple

from service.engine.durability import Snapshot
from service.engine.work import Work


class Ended(NamedTuple):
    """A session that ended here and may be deleted from the store."""

    session_id: str
    epoch: int
    """Of this replica's ownership."""
    idle_timeout_seconds: float


class Effects(NamedTuple):
    """All that is to be done outside the engine since it was last asked, each list in order."""

    finished: list[Work]
    """To be answered."""
    absent: list[Work]
    """Of sessions that may be in the store; to be submitted again once these are awake."""
    snapshots: list[Snapshot]
    """To be stored."""
    ended: list[Ended]
    """To be deleted from the store."""


class Outbox:
    """Collects effects until they are taken; the parts of the engine append to its lists."""

    def __init__(self) -> None:
        self.finished: list[Work] = []
        self.absent: list[Work] = []
        self.snapshots: list[Snapshot] = []
        self.ended: list[Ended] = []

    def take(self) -> Effects:
        """The effects so far; the lists start anew."""
        effects = Effects(self.finished, self.absent, self.snapshots, self.ended)
        self.finished, self.absent, self.snapshots, self.ended = [], [], [], []
        return effects
