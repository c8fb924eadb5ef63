"""
Runs sequences through a served network whose state is disturbed all the time.

A mechanism that runs by itself meets states that the network never was in: its own small errors,
and what comes of a change. How the network goes on from there is seen nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ntm_client import checkpoint
from ntm_client.checkpoint import Checkpoint
from ntm_client.values import Float32, Model, StepResult
from ntm_lab.decipher.interventions import (
    DISTANCES,
    INTERVENTION_KINDS,
    Intervention,
    MovedHeads,
)
from ntm_lab.decipher.mechanism.trials import TRACES, Trial
from ntm_lab.decipher.phases import Phases
from ntm_lab.decipher.samples import ServedNetwork
from ntm_tasks import TaskSequence

NOISE = (0.01, 0.5)
"""
The noise on what was read, as a standard deviation between these, another in each sequence. What
networks read is mostly between -1 and 1.
"""

IN_MEMORY = 0.3
"""The noise on the memory, as a part of that on what was read."""

CHANGES = 2
"""So many changes of memory or heads are made in a sequence on average."""


def disturbed_trials(
    network: ServedNetwork, sequences: Sequence[TaskSequence], phases: Phases, seed: int
) -> list[Trial]:
    """
    The sequences, with noise on what was read in each step, and now and then with a change.

    A change adds noise to the memory, or is of any kind of `interventions`, of any head.
    """
    numbered = list(enumerate(sequences))
    return network.each(
        lambda one: _trial(network, one[1], phases, np.random.default_rng([seed, one[0]])),
        numbered,
    )


def _trial(
    network: ServedNetwork, sequence: TaskSequence, phases: Phases, luck: np.random.Generator
) -> Trial:
    inputs = sequence.inputs
    size = float(np.exp(luck.uniform(*np.log(NOISE))))
    parts: list[StepResult] = []
    added: list[Float32] = []
    written: set[int] = set()
    with network.session() as session:
        for step in range(len(inputs)):
            state = checkpoint.decode(session.checkpoint())
            read = state.tensor("read_vector", session.model)
            # Before the first step, nothing was read that could be disturbed.
            noise = luck.normal(0, size if step else 0, read.shape).astype(np.float32)
            state = state.changed(read_vector=read + noise)
            if step and luck.random() < CHANGES / len(inputs):
                state = _changed(state, session.model, sorted(written), size, luck)
            session.restore(checkpoint.encode(state))
            part = session.step(inputs[step : step + 1], traces=[*TRACES, "write_weighting"])
            written.update(int(place) for place in part.traces["write_weighting"][0].argmax(1))
            parts.append(part)
            added.append(noise)
    return Trial.of(sequence, phases, parts, noise=np.array(added))


def _changed(
    state: Checkpoint, model: Model, written: list[int], size: float, luck: np.random.Generator
) -> Checkpoint:
    """The state with one change of memory or heads; noise where there is nothing to exchange."""
    memory = state.tensor("memory", model)
    weighting = state.tensor("weighting", model)
    kinds = INTERVENTION_KINDS if len(written) > 1 else INTERVENTION_KINDS[2:]
    choice = int(luck.integers(len(kinds) + 1))
    if choice == len(kinds):
        memory += luck.normal(0, IN_MEMORY * size, memory.shape).astype(np.float32)
    else:
        kind = kinds[choice]
        if kind in ("overwrite", "swap"):
            one, other = (int(place) for place in luck.permutation(written)[:2])
        else:
            one, other = int(luck.choice(DISTANCES)), 0
        heads = MovedHeads(
            int(luck.integers(model.read_heads)), int(luck.integers(model.write_heads))
        )
        change = Intervention(kind, 0, one, other)
        change.to_state(memory.T, weighting, model.read_heads, heads)
    return state.changed(memory=memory, weighting=weighting)
