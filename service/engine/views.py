"""What can be told of a session at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.engine.saving import Durability

if TYPE_CHECKING:
    from service.engine.sessions import Session


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as it was when it was looked at."""

    id: str
    number: int
    model: str
    content_hash: str
    locations: int
    idle_timeout_seconds: float
    next_step: int
    state_bytes: int
    created_unix_seconds: float
    expires_unix_seconds: float
    durability: Durability
    durable_step: int
    epoch: int
    """Of this replica's ownership; 0 where there is no store."""

    @classmethod
    def of(cls, session: Session, now_seconds: float, now_unix_seconds: float) -> SessionView:
        """The session now, by the engine's clock and by the calendar."""
        return cls(
            id=session.id,
            number=session.number,
            model=session.model,
            content_hash=session.slab.network.content_hash,
            locations=session.locations,
            idle_timeout_seconds=session.idle_timeout_seconds,
            next_step=session.next_step,
            state_bytes=session.slab.slot_bytes,
            created_unix_seconds=session.created_unix_seconds,
            expires_unix_seconds=now_unix_seconds + session.deadline_seconds - now_seconds,
            durability=session.durable.durability if session.durable else Durability(),
            durable_step=session.durable.step if session.durable else 0,
            epoch=session.durable.epoch if session.durable else 0,
        )
