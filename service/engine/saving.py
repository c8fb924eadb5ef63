"""Saving: which sessions' states are to be stored, and what waits until they are."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from service.engine.checkpoint import Checkpoint
from service.engine.replays import Replay
from service.engine.work import Chunk, Work
from service.errors import NotStored, StepIndexMismatch

if TYPE_CHECKING:
    from service.engine.sessions import Session
    from service.engine.slabs import Slabs
    from service.engine.views import SessionView


RENEW_SECONDS = 30.0
"""
When a session that goes on slowly is stored again: the store would forget it some time after its
idle timeout, by when it was stored, while it is still in use.
"""


class Policy(Enum):
    """When a session's steps become durable."""

    NONE = "none"
    ASYNCHRONOUS = "asynchronous"
    SYNCHRONOUS = "synchronous"


@dataclass(frozen=True, slots=True)
class Durability:
    """A policy, and with `ASYNCHRONOUS` how many steps lie between two checkpoints, about."""

    policy: Policy = Policy.NONE
    every_steps: int = 0


class Held(NamedTuple):
    """Work that is done, and answered once the session as it then was is durable."""

    work: Work
    version: int


@dataclass(eq=False, slots=True)
class Snapshot:
    """A session as it was at one moment, on its way to the store."""

    session: Session
    durable: Durable
    view: SessionView
    owner: str
    checkpoint: Checkpoint
    replays: tuple[Replay, ...]
    version: int
    puts_to_sleep: bool = False
    """Whether the session leaves its slab once this is stored, unless it has gone on."""


@dataclass(eq=False, slots=True)
class Durable:
    """What of a session is durable, and what is on its way there."""

    durability: Durability
    epoch: int = 1
    """Of this replica's ownership."""
    step: int = 0
    """Steps before this one are stored."""
    version: int = 0
    """Grows with every change of the state."""
    stored_version: int = -1
    stored_seconds: float = -math.inf
    """When it was last stored, by the engine's clock; unknown at first, as that was elsewhere."""
    under_way: Snapshot | None = None
    next: Snapshot | None = None
    """What is to be stored when what is under way has arrived: always the latest."""
    held: deque[Held] = field(default_factory=deque)
    may_be_stored: bool = False
    """Whether the store may have anything of the session."""

    @property
    def is_clean(self) -> bool:
        """Whether the store has the session as it is."""
        return self.stored_version == self.version

    @property
    def is_covered(self) -> bool:
        """Whether the session as it is is stored, or on its way."""
        latest = self.next or self.under_way
        return self.is_clean or (latest is not None and latest.version == self.version)

    def is_due(self, next_step: int, remaining: int, now_seconds: float) -> bool:
        """
        Whether the policy wants a session to be stored that has come so far in its chunk.

        Never inside a chunk: who goes on from there would be ahead of a client that has no answer.
        """
        if remaining:
            return False
        if self.durability.policy is Policy.ASYNCHRONOUS:
            is_old = now_seconds - self.stored_seconds >= RENEW_SECONDS
            has_gone_far = next_step - self.step >= self.durability.every_steps
            return self.under_way is None and (is_old or has_gone_far)
        return self.durability.policy is Policy.SYNCHRONOUS


class Saving:
    """
    Takes snapshots of sessions and holds back what must not be answered before they are stored.

    A session has one snapshot under way at most, so that an earlier one never overtakes a later.
    """

    def __init__(
        self,
        slabs: Slabs,
        look: Callable[[Session], SessionView],
        answer: Callable[[Work], None],
    ) -> None:
        """Snapshots have what `look` tells of a session; work that is done is given to `answer`."""
        self._slabs = slabs
        self._look = look
        self._answer = answer
        self._wanted: list[Snapshot] = []

    def wanted(self) -> list[Snapshot]:
        """Hand out the snapshots that are to be stored now; each is then stored, or not."""
        wanted, self._wanted = self._wanted, []
        return wanted

    def take(self, sessions: Sequence[Session], *, puts_to_sleep: bool = False) -> None:
        """Take a snapshot of each session; none of them may be in a turn that is under way."""
        for session, checkpoint in zip(sessions, self._slabs.checkpoints(sessions), strict=True):
            durable = session.durable
            assert durable is not None, "only where there is a store"
            snapshot = Snapshot(
                session,
                durable,
                self._look(session),
                session.owner,
                checkpoint,
                session.replays.all(),
                durable.version,
                puts_to_sleep,
            )
            if durable.under_way is None:
                self._begin(durable, snapshot)
            else:
                durable.next = snapshot

    def finish(self, session: Session, work: Work, *, set_back: bool = False) -> None:
        """
        Answer work that is done, in its place, as soon as the session's policy lets it.

        A client is told that it is at another step than the session only once the store has shown
        that the session is still ours: if another replica has it, that one knows better. Nor is it
        told that the session is set back before the store, if it has the session, has it so: it
        must not come back as it was before.
        """
        durable = session.durable
        if durable is None:
            self._answer(work)
            return
        is_elsewhere = isinstance(work.error, StepIndexMismatch)
        policy = durable.durability.policy
        comes_back = policy is not Policy.NONE or durable.may_be_stored
        must_be_stored = policy is Policy.SYNCHRONOUS or (set_back and comes_back)
        waits = is_elsewhere or (must_be_stored and work.error is None and not durable.is_clean)
        if is_elsewhere or (waits and not durable.is_covered):
            self.take([session])
        if waits or durable.held:
            durable.held.append(Held(work, durable.version if waits else -1))
        else:
            self._give(durable, work)

    def saved(self, snapshot: Snapshot) -> None:
        """A snapshot is stored: answer what waited for it, and go on with the next one."""
        durable = snapshot.durable
        durable.stored_version = snapshot.version
        durable.step = snapshot.view.next_step
        self._arrived(durable)

    def not_saved(self, snapshot: Snapshot, why: str) -> None:
        """A snapshot could not be stored: whoever waited for it is told; the session goes on."""
        durable = snapshot.durable
        for held in durable.held:
            waited = durable.stored_version < held.version <= snapshot.version
            if waited or isinstance(held.work.error, StepIndexMismatch):
                held.work.error = NotStored(
                    f"session {snapshot.session.id!r} could not be stored: {why}; steps may have "
                    "been made: send the same chunk again"
                )
        self._arrived(durable)

    def close(self, session: Session, error: Callable[[], Exception]) -> None:
        """Tell whoever waits for a session's being stored that it is gone."""
        durable = session.durable
        if durable is None:
            return
        durable.next = None
        for held in durable.held:
            if held.work.error is None or isinstance(held.work.error, StepIndexMismatch):
                held.work.error = error()
            self._answer(held.work)
        durable.held.clear()
        session.durable = None

    def _begin(self, durable: Durable, snapshot: Snapshot) -> None:
        durable.under_way = snapshot
        durable.may_be_stored = True
        self._wanted.append(snapshot)

    def _arrived(self, durable: Durable) -> None:
        durable.under_way = None
        if durable.next is not None:
            snapshot, durable.next = durable.next, None
            self._begin(durable, snapshot)
        held = durable.held
        while held and (held[0].version <= durable.stored_version or held[0].work.error):
            self._give(durable, held.popleft().work)

    def _give(self, durable: Durable, work: Work) -> None:
        if isinstance(work, Chunk):
            work.durable_step = durable.step
            work.epoch = durable.epoch
        self._answer(work)
