"""Heads that a mechanism does not need."""

from __future__ import annotations

import numpy as np

from ntm_client.values import Memory
from ntm_lab.decipher.interventions import Intervention, MovedHeads
from ntm_lab.decipher.mechanism.knowledge import Known
from ntm_lab.decipher.mechanism.model import Layer, Mechanism, columns
from ntm_lab.decipher.mechanism.silence import without_idle_heads
from ntm_lab.decipher.mechanism.trials import Trial
from ntm_lab.decipher.phases import Opener, Phases

MOVED = MovedHeads(read_head=1, write_head=0)


def resting() -> Mechanism:
    """
    Two read heads and a write head that stay where they are, and write nothing.

    Only location 0 holds something. Read head 1 is there, read head 2 beside it. The output is
    positive if head 1 reads something and head 2 does not.
    """
    memory = np.array([[1], [0], [0]], np.float32)
    heads = np.eye(3, dtype=np.float32)
    start = Memory(0, memory, heads[:2], heads[2:])
    parts = columns(start)
    actions = np.zeros((2, parts["add"].stop), np.float32)
    actions[-1, parts["gate"]] = actions[-1, parts["erase"]] = -20
    actions[-1, parts["shift"]] = [0, 20, 0] * 3
    output = np.array([[0], [10], [-20], [-5]], np.float32)
    phases = Phases((), (0,), (Opener(None, again=False),))
    return Mechanism(phases, start, Known(), Layer(np.zeros((4, 1), np.float32), actions, output))


def trial(change: Intervention | None) -> Trial:
    """Three steps that all count."""
    nothing = np.zeros((3, 1), np.float32)
    return Trial(nothing, np.ones(3, np.float32), [], change, nothing, {})


def test_a_head_whose_reads_and_writes_change_nothing_is_dropped() -> None:
    """Read head 2 reads zeros, and the write head writes none; read head 1 is needed."""
    assert without_idle_heads(resting(), [trial(None)], MOVED).dropped == {1, 2}


def test_a_head_that_matters_after_a_change_is_kept() -> None:
    """Read head 2 is moved to where something is."""
    moved = trial(Intervention("move the read head", 1, -1))
    assert without_idle_heads(resting(), [trial(None), moved], MOVED).dropped == {2}
