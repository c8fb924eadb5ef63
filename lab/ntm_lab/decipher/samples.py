"""Draws sequences of a task, and runs them through a served network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from threading import Event
from typing import TypeVar

import numpy as np

from ntm_client.blocking import Client, Session
from ntm_client.values import Float32, Model
from ntm_lab.recordings.recording import Recording, record_task
from ntm_tasks import TASKS, Size, TaskSequence

SESSIONS_AT_ONCE = 8
"""Sessions that are stepped at the same time. More would not make the server faster."""


class Stage(IntEnum):
    """
    The stage of deciphering that sequences are drawn for. Each stage has its own random stream.
    """

    INDUCTION = 0
    AGREEMENT = 1
    CHANGES = 2
    SIZES = 3


T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class ServedNetwork:
    """A served model at one memory size. Each sequence runs in a new session."""

    client: Client
    name: str
    locations: int | None = None
    """Memory locations of the sessions; None for the model's default."""

    @cached_property
    def model(self) -> Model:
        """The model as the server describes it."""
        return self.client.model(self.name)

    @property
    def memory_locations(self) -> int:
        """Memory locations of the sessions; 0 for a network without memory."""
        return self.model.default_locations if self.locations is None else self.locations

    def session(self) -> Session:
        """Open a new session; use it in a `with` block."""
        return self.client.create_session(self.name, self.locations)

    def outputs(self, inputs: Sequence[Float32]) -> list[Float32]:
        """Probabilities [T, output width] for each sequence of inputs [T, input width]."""
        return self.each(self._answer, inputs)

    def recordings(self, sequences: Sequence[TaskSequence]) -> list[Recording]:
        """Run each sequence through the network, and record it with every trace."""
        return self.each(self._record, sequences)

    def each(self, work: Callable[[T], U], items: Sequence[T]) -> list[U]:
        """
        Apply `work` to each item, several at once; the results are in the order of the items.

        Once an item fails, no other is begun: each would wait as long for a server that is gone.
        """
        has_failed = Event()

        def begun(item: T) -> U:
            if has_failed.is_set():
                raise CancelledError  # not seen: the item that failed comes before this one
            try:
                return work(item)
            except BaseException:
                has_failed.set()
                raise

        with ThreadPoolExecutor(SESSIONS_AT_ONCE) as pool:
            return list(pool.map(begun, items))

    def _answer(self, inputs: Float32) -> Float32:
        with self.session() as session:
            outputs: Float32 = session.step(inputs).array
            return outputs

    def _record(self, sequence: TaskSequence) -> Recording:
        with self.session() as session:
            return record_task(session, sequence)


def in_range(task: str, count: int, seed: int, purpose: Stage) -> list[TaskSequence]:
    """
    Draw `count` sequences whose sizes are distributed as in training. `seed` and `purpose` decide
    them.
    """
    chosen = TASKS[task]
    generator = np.random.default_rng([seed, purpose])
    bounds = list(zip(chosen.smallest, chosen.largest, strict=True))
    sizes = [
        tuple(int(generator.integers(low, high + 1)) for low, high in bounds) for _ in range(count)
    ]
    seeds = generator.integers(2**32, size=count)
    return [
        TaskSequence.draw(task, size, int(number))
        for size, number in zip(sizes, seeds, strict=True)
    ]


def of_size(task: str, size: Size, count: int, seed: int) -> list[TaskSequence]:
    """Draw `count` sequences of one size."""
    seeds = np.random.default_rng([seed, Stage.SIZES, *size]).integers(2**32, size=count)
    return [TaskSequence.draw(task, size, int(number)) for number in seeds]
