"""Runs sequences through a served network, some with a change of its state on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ntm_client.values import Float32, StepResult
from ntm_lab.decipher.interventions import INTERVENTION_KINDS, Intervention, MovedHeads, drawn
from ntm_lab.decipher.phases import Moment, Phases, moments
from ntm_lab.decipher.program import Program
from ntm_lab.decipher.samples import ServedNetwork
from ntm_tasks import TaskSequence

PARAMETERS = ("key", "strength", "gate", "shift", "sharpening")
"""The traces that each head has."""

TRACES = (
    *(f"{kind}_{name}" for kind in ("read", "write") for name in PARAMETERS),
    "read_vector",
    "erase_vector",
    "add_vector",
)
"""What is recorded: all but the weightings, which are the largest and follow from the rest."""

TIMES = {"overwrite": 1, "swap": 1, "move the read head": 2, "move the write head": 3}
"""
How often each sequence is changed in each way. Moves blend contents, and what the network makes of
a blend takes more examples.
"""


@dataclass(frozen=True, eq=False)
class Trial:
    """A sequence of T steps, what was changed before one of them, and what the network did."""

    inputs: Float32
    """[T, input width]"""
    counts: Float32
    """[T]: above 0 in the steps whose outputs count."""
    moments: list[Moment]
    change: Intervention | None
    outputs: Float32
    """[T, output width]"""
    traces: Mapping[str, Float32]
    """`TRACES` [T, heads, width]."""
    noise: Float32 | None = None
    """[T, read heads, width]: what was added before each step to what was read; None for none."""

    @classmethod
    def of(
        cls,
        sequence: TaskSequence,
        phases: Phases,
        parts: Sequence[StepResult],
        change: Intervention | None = None,
        noise: Float32 | None = None,
    ) -> Trial:
        """The trial in which a session made the steps of a sequence in these parts, in order."""
        return cls(
            sequence.inputs,
            sequence.mask,
            moments(phases, sequence.inputs),
            change,
            np.concatenate([part.array for part in parts]),
            {name: np.concatenate([part.traces[name] for part in parts]) for name in TRACES},
            noise,
        )

    @property
    def seen(self) -> Float32:
        """[T, read heads, width]: in each step, what the controller was given as read before it."""
        reads = self.traces["read_vector"]
        before = np.concatenate([np.zeros_like(reads[:1]), reads[:-1]])
        return before if self.noise is None else before + self.noise


def plain_trials(
    network: ServedNetwork, sequences: Sequence[TaskSequence], phases: Phases
) -> list[Trial]:
    """The sequences without a change, and with traces."""
    return network.each(lambda one: _trial(network, one, phases, None, None), sequences)


def changed_trials(
    network: ServedNetwork,
    sequences: Sequence[TaskSequence],
    phases: Phases,
    program: Program | MovedHeads,
    seed: int,
) -> list[Trial]:
    """
    The sequences with changes of every kind, with traces. The program tells where something is
    stored that can be changed; without one it is where the write head was.
    """
    luck = np.random.default_rng(seed)
    changes = [
        (sequence, change)
        for kind in INTERVENTION_KINDS
        for _ in range(TIMES[kind])
        for sequence in sequences
        if (change := drawn(kind, program, network, sequence, luck))
    ]
    return network.each(lambda one: _trial(network, one[0], phases, program, one[1]), changes)


def _trial(
    network: ServedNetwork,
    sequence: TaskSequence,
    phases: Phases,
    program: Program | MovedHeads | None,
    change: Intervention | None,
) -> Trial:
    inputs = sequence.inputs
    with network.session() as session:
        if change is None or program is None:
            parts = [session.step(inputs, traces=TRACES)]
        else:
            parts = [session.step(inputs[: change.step], traces=TRACES)]
            change.to_session(session, program)
            parts.append(session.step(inputs[change.step :], traces=TRACES))
    return Trial.of(sequence, phases, parts, change)
