"""Clients and replicas that a test turns by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from service import codec
from service.engine.checkpoint import Checkpoint
from service.engine.durability import Durability, Policy, Snapshot
from service.engine.effects import Ended
from service.engine.engine import Engine
from service.engine.sessions import Operation
from service.engine.turn import Turn
from service.engine.work import Chunk, Work
from service.errors import (
    NotStored,
    NtmError,
    SessionExpired,
    SessionFailed,
    SessionMoved,
    SessionUnknown,
    StepIndexMismatch,
)
from service.session_ref import SessionRef
from service.spec import Float32
from tests.support.driving import OWNER, outputs
from tests.support.memory_store import MemoryStore

LOCATIONS = 5
"""Of every session."""


def inputs(seed: int, first_step: int, steps: int) -> Float32:
    """Whole numbers, so that sums are exact: [steps, 2]."""
    return np.array([[seed, step + 1] for step in range(first_step, first_step + steps)], "f4")


@dataclass(eq=False)
class Client:
    """A client that knows the outputs before step `known`, and asks again until it is answered."""

    id: str
    seed: int
    durability: Durability
    epoch: int
    known: int = 0
    durable: int = 0
    steps: int = 0
    """How many it wants now; 0 when it has all that it wanted."""
    replayed: int = 0
    """Where it has to begin again, below `known` if the session was set back."""
    start: int = 0
    """The step that it was set back to last, and the sums there."""
    sums: tuple[float, float] = (0.0, 0.0)
    setting_back: Checkpoint | None = None
    """Where it wants to be set back to, until it is told that it is."""
    asked: Work | None = None
    gone: type[NtmError] | None = None
    """Why it no longer asks."""

    @property
    def ref(self) -> SessionRef:
        """Its session, as it names it now."""
        return SessionRef(self.id, OWNER, self.epoch)

    @property
    def has_answers(self) -> bool:
        """Whether it has all that it wanted."""
        return not self.steps and self.setting_back is None

    def work(self, engine: Engine) -> Work:
        """What it asks an engine for now."""
        work: Work
        if self.setting_back is not None:
            work = Operation(self.ref, partial(engine.lifecycle.restore, taken=self.setting_back))
        else:
            # The same as before until it has an answer, if need be after others.
            size = self.steps if self.replayed == self.known else 1
            values = inputs(self.seed, self.replayed, size).reshape(-1)
            work = Chunk(self.ref, values, self.replayed)
        return work

    def expected(self, first: int, steps: int) -> list[list[float]]:
        """The outputs of these steps."""
        made = inputs(self.seed, self.start, first + steps - self.start)
        totals: list[list[float]] = (np.array(self.sums) + np.cumsum(made, axis=0)).tolist()
        return totals[first - self.start :]

    def total(self) -> list[float]:
        """The sums where it is."""
        return self.expected(self.known - 1, 1)[0] if self.known > self.start else [*self.sums]

    def answer(self, work: Work, store: MemoryStore) -> None:
        """What a client makes of an answer; wrong outputs fail the test."""
        if isinstance(work.error, StepIndexMismatch):
            expected = int(work.error.metadata["expected"])
            assert expected <= self.known, "a lost answer is always given again"
            if self.durability.policy is Policy.NONE:
                self.gone = StepIndexMismatch  # it is told that steps are lost, and keeps none
                return
            assert self.durable <= expected, "durable steps are never lost"
            self.replayed = expected
        elif isinstance(work.error, SessionUnknown):
            is_undurable = self.durability.policy is Policy.NONE
            assert is_undurable or store.record(self.id) is None
            self.gone = SessionUnknown
        elif isinstance(work.error, (SessionExpired, SessionFailed)):
            self.gone = type(work.error)
        elif work.error is not None:
            assert isinstance(work.error, (NotStored, SessionMoved)), work.error
        elif isinstance(work, Chunk):
            self.answer_steps(work, store)
        else:
            self.answer_set_back(work)

    def answer_steps(self, chunk: Chunk, store: MemoryStore) -> None:
        """The outputs are those of a session that nothing ever happened to."""
        first, made = chunk.outcome.first_step, len(chunk.outcome.outputs)
        assert outputs(chunk) == self.expected(first, made)
        assert chunk.epoch >= self.epoch
        self.epoch = chunk.epoch
        if self.durability.policy is Policy.SYNCHRONOUS:
            kept = store.record(self.id)
            assert kept is not None
            assert codec.decode_record(kept).checkpoint.next_step >= first + made
            assert chunk.durable_step >= first + made
        self.durable = max(self.durable, chunk.durable_step)
        self.replayed = first + made
        if self.replayed > self.known:
            self.known, self.steps = self.replayed, 0

    def answer_set_back(self, work: Work) -> None:
        """From now on all steps are those from there."""
        view, there = work.outcome, self.setting_back
        assert there is not None
        assert view.next_step == there.next_step
        assert view.epoch >= self.epoch
        self.epoch, self.setting_back = view.epoch, None
        self.start = self.known = self.replayed = self.durable = there.next_step
        self.sums = (float(there.state["total"][0]), float(there.state["total"][1]))


@dataclass(eq=False)
class Replica:
    """A server: an engine, its turns, and what is on its way from it to the store."""

    engine: Engine
    turns: list[Turn] = field(default_factory=list)
    saving: list[Snapshot] = field(default_factory=list)
    deleting: list[Ended] = field(default_factory=list)
    absent: list[Work] = field(default_factory=list)
