"""Finds the mechanism of a served network, and measures how true it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ntm_client.values import Float32
from ntm_lab.decipher.interventions import (
    Bits,
    Changed,
    Effect,
    Intervention,
    InterventionKind,
    MovedHeads,
    Respond,
    effects,
)
from ntm_lab.decipher.mechanism.disturbed import disturbed_trials
from ntm_lab.decipher.mechanism.fitting import fitted
from ntm_lab.decipher.mechanism.model import Mechanism
from ntm_lab.decipher.mechanism.running import answers
from ntm_lab.decipher.mechanism.silence import TOLERATED, Silence, silence, without_idle_heads
from ntm_lab.decipher.mechanism.trials import TRACES, changed_trials, plain_trials
from ntm_lab.decipher.mechanism.wording import MechanismLine, pseudo_code
from ntm_lab.decipher.phases import Phases
from ntm_lab.decipher.program import Program
from ntm_lab.decipher.samples import ServedNetwork, Stage, in_range
from ntm_tasks import TaskSequence

SILENCED = 20
"""Sequences on which the dropped heads are silenced in the network."""

AFTER_CHANGES = 100
"""About so many sequences with a change on which the mechanism does not need a dropped head."""

DISTURBED = 3
"""How often each sequence is disturbed all the time."""

MEMORY_STATE = frozenset({"memory", "weighting", "read_vector"})
"""The state of a network whose controller has none of its own."""


@dataclass(frozen=True)
class Alike:
    """On how many sequences a mechanism and its network have every bit alike."""

    sizes: str
    sequences: int
    agreeing: int


FOUND = 0.9
"""A mechanism counts as found if it is alike on at least this share of the fresh sequences."""


@dataclass(frozen=True)
class Study:
    """What is known of a network's mechanism."""

    phases: Phases
    lines: tuple[MechanismLine, ...]
    """The pseudo-code."""
    coefficients: int
    """The numbers in the mechanism's layer."""
    alike: tuple[Alike, ...]
    silence: Silence | None
    """The proof that dropped heads do nothing; None if none was dropped."""
    effects: tuple[Effect, ...]
    """Of the same changes as the program's, with the same outcomes of the network."""

    @property
    def found(self) -> bool:
        """Whether it is a mechanism, or only the best that was tried."""
        return self.alike[0].agreeing >= FOUND * self.alike[0].sequences


def study(
    program: Program | MovedHeads,
    phases: Phases,
    network: ServedNetwork,
    fresh: Sequence[tuple[str, Sequence[TaskSequence]]],
    made: Mapping[InterventionKind, Sequence[Changed]],
    seed: int,
    count: int,
) -> Study | None:
    """
    Find the mechanism from `count` sequences of its own, each without a change, with a change of
    every kind, and disturbed all the time; and judge it on `fresh` ones and changes `made`.

    `program` names the heads that moves move. None if the network lacks a trace that this needs.
    """
    if not set(TRACES) <= {trace.name for trace in network.model.traces}:
        return None
    sequences = in_range(network.model.task, count, seed, Stage.INDUCTION)
    plain = plain_trials(network, sequences, phases)
    changed = changed_trials(network, sequences, phases, program, seed)
    disturbed = disturbed_trials(network, [*sequences] * DISTURBED, phases, seed)
    trials = [*plain, *changed]
    with network.session() as session:
        start = session.read_memory()
    remembers = any(tensor.name not in MEMORY_STATE for tensor in network.model.state)
    whole = fitted([*trials, *disturbed], start, phases, remembers=remembers, seed=seed)
    some = [*plain[:SILENCED], *changed[:: max(1, len(changed) // AFTER_CHANGES)]]
    mechanism = without_idle_heads(whole, some, program)
    proof = silence(mechanism, network, sequences[:SILENCED]) if mechanism.dropped else None
    if proof is not None and proof.changed > TOLERATED * proof.bits:
        # The network needs them, though the mechanism does not.
        mechanism, proof = whole, None
    return Study(
        phases,
        pseudo_code(mechanism, trials),
        mechanism.coefficients,
        tuple(_alike(mechanism, network, each, sizes) for sizes, each in fresh),
        proof,
        tuple(effects(made, _responding(mechanism, program))),
    )


def _alike(
    mechanism: Mechanism, network: ServedNetwork, sequences: Sequence[TaskSequence], sizes: str
) -> Alike:
    inputs = [one.inputs for one in sequences]
    agreeing = sum(
        bool((((own > 0) == (other > 0.5))[one.mask > 0]).all())
        for one, own, other in zip(
            sequences, answers(mechanism, inputs), network.outputs(inputs), strict=True
        )
    )
    return Alike(sizes, len(sequences), agreeing)


def _responding(mechanism: Mechanism, program: Program | MovedHeads) -> Respond:
    def respond(
        inputs: Sequence[Float32], changes: Sequence[Intervention | None]
    ) -> Sequence[Bits]:
        found = answers(mechanism, inputs, changes, program)
        return [np.asarray(one > 0) for one in found]

    return respond
