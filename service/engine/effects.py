"""Effects: what the loop around the engine has to do, such as answers and work for the store."""

from __future__ import annotations

from typing import NamedTuple

from service.engine.durability import Snapshot
from service.engine.work import Work


class Ended(NamedTuple):
    """A session that ended here and may be deleted from the store."""

    session_id: str
    epoch: int
    """The epoch in which this replica owned the session."""
    idle_timeout_seconds: float


class Effects(NamedTuple):
    """
    Everything that is to be done outside the engine since the last `take`, each list in order.
    """

    finished: list[Work]
    """Work that is to be answered."""
    absent: list[Work]
    """
    Work for sessions that may be in the store. It is to be submitted again once they are awake.
    """
    snapshots: list[Snapshot]
    """Snapshots that are to be stored."""
    ended: list[Ended]
    """Sessions that are to be deleted from the store."""


class Outbox:
    """Collects effects until they are taken; the parts of the engine append to its lists."""

    def __init__(self) -> None:
        self.finished: list[Work] = []
        self.absent: list[Work] = []
        self.snapshots: list[Snapshot] = []
        self.ended: list[Ended] = []

    def take(self) -> Effects:
        """Return the effects so far, and begin with empty lists."""
        effects = Effects(self.finished, self.absent, self.snapshots, self.ended)
        self.finished, self.absent, self.snapshots, self.ended = [], [], [], []
        return effects
