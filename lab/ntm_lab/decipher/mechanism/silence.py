"""Finds the heads of a mechanism that do nothing, and silences them in the served network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ntm_client import checkpoint
from ntm_client.values import Float32
from ntm_lab.decipher.interventions import MovedHeads
from ntm_lab.decipher.mechanism.model import Mechanism
from ntm_lab.decipher.mechanism.running import answers
from ntm_lab.decipher.mechanism.trials import Trial
from ntm_lab.decipher.program import Program
from ntm_lab.decipher.samples import ServedNetwork
from ntm_lab.recordings.contents import write
from ntm_tasks import TaskSequence

TOLERATED = 0.001
"""A head does nothing if no more than this part of the bits is otherwise without it."""


@dataclass(frozen=True)
class Silence:
    """The bits of a network whose dropped heads were silenced in every step."""

    heads: tuple[str, ...]
    sequences: int
    bits: int
    changed: int
    """Bits that differ from those of the network with all its heads."""


def without_idle_heads(
    mechanism: Mechanism, trials: Sequence[Trial], program: Program | MovedHeads
) -> Mechanism:
    """
    The mechanism without the heads that its outputs in these trials do not need, neither in
    sequences without a change nor after changes of the heads that `program` names, or of memory.
    """
    inputs = [one.inputs for one in trials]
    changes = [one.change for one in trials]
    counted = [one.counts > 0 for one in trials]
    whole = answers(mechanism, inputs, changes, program)
    bits = sum(int(mask.sum()) for mask in counted) * whole[0].shape[1]
    for head in range(mechanism.read_heads + mechanism.write_heads):
        fewer = mechanism.without(head)
        without = answers(fewer, inputs, changes, program)
        differing = sum(
            int(((one > 0) != (other > 0))[mask].sum())
            for one, other, mask in zip(without, whole, counted, strict=True)
        )
        if differing <= TOLERATED * bits:
            mechanism = fewer
    return mechanism


def silence(
    mechanism: Mechanism, network: ServedNetwork, sequences: Sequence[TaskSequence]
) -> Silence:
    """
    Silence the dropped heads in the network itself, through checkpoint and restore.

    After every step, what a dropped write head wrote is left out of the memory, and what a dropped
    read head read is forgotten. Within the step that reads it, the output still sees it.
    """

    def changed(sequence: TaskSequence) -> tuple[int, int]:
        with network.session() as session:
            plain = session.step(sequence.inputs).array > 0.5
        silenced = _silenced(mechanism, network, sequence.inputs) > 0.5
        counted = sequence.mask > 0
        return int((silenced != plain)[counted].sum()), plain[counted].size

    found = network.each(changed, sequences)
    reads = mechanism.read_heads
    names = tuple(
        f"read head {head + 1}" if head < reads else f"write head {head - reads + 1}"
        for head in sorted(mechanism.dropped)
    )
    return Silence(names, len(sequences), sum(bits for _, bits in found), sum(c for c, _ in found))


def _silenced(mechanism: Mechanism, network: ServedNetwork, inputs: Float32) -> Float32:
    reads = mechanism.read_heads
    forgotten = [head for head in mechanism.dropped if head < reads]
    writing = [
        head for head in range(mechanism.write_heads) if head + reads not in mechanism.dropped
    ]
    outputs = []
    with network.session() as session:
        before = checkpoint.decode(session.checkpoint()).tensor("memory", session.model).T
        for x in inputs:
            step = session.step(x, traces=["write_weighting", "erase_vector", "add_vector"])
            outputs.append(step.array)
            before = write(
                before,
                step.traces["write_weighting"][writing],
                step.traces["erase_vector"][writing],
                step.traces["add_vector"][writing],
            )
            state = checkpoint.decode(session.checkpoint())
            read = state.tensor("read_vector", session.model)
            read[forgotten] = 0
            session.restore(checkpoint.encode(state.changed(memory=before.T, read_vector=read)))
    return np.stack(outputs)
