"""Heads that move softly over a memory, by the equations of the paper."""

from __future__ import annotations

import numpy as np
import pytest

from ntm_client.values import Memory
from ntm_lab.decipher.mechanism.soft_memory import Actions, SoftMemory


def state() -> SoftMemory:
    """One session of four locations, each head on location 0."""
    memory = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32)
    head = np.array([[1, 0, 0, 0]], np.float32)
    return SoftMemory(Memory(0, memory, head, head), 1)


def actions(gate: float, shift: tuple[float, float, float], add: tuple[float, float]) -> Actions:
    """Both heads do the same; the key is like location 1, and half is erased."""
    two = np.ones((1, 2, 1), np.float32)
    return Actions(
        key=np.tile(np.array([0, 1], np.float32), (1, 2, 1)),
        strength=20 * two,
        gate=gate * two,
        shift=np.tile(np.array(shift, np.float32), (1, 2, 1)),
        sharpening=two,
        erase=np.full((1, 1, 2), 0.5, np.float32),
        add=np.array([[add]], np.float32),
    )


def test_a_closed_gate_leaves_the_head_to_its_shift() -> None:
    """A shift of +1 reads the next location, and writes there what was left of it and more."""
    memory = state()
    memory.step(actions(0, (0, 0, 1), (0.25, 0)))

    assert memory.weightings[0, 0] == pytest.approx([0, 1, 0, 0], abs=1e-6)
    assert memory.reads[0, 0] == pytest.approx([0, 1], abs=1e-6)
    assert memory.memory[0, 1] == pytest.approx([0.25, 0.5], abs=1e-6)
    assert memory.memory[0, 0] == pytest.approx([1, 0], abs=1e-6)


def test_an_open_gate_goes_where_the_content_is_like_the_key() -> None:
    """Then the head shifts from there, on a ring."""
    memory = state()
    memory.step(actions(1, (1, 0, 0), (0, 0)))

    assert memory.weightings[0, 0].argmax() == 0
    memory.step(actions(1, (0, 1, 0), (0, 0)))
    assert memory.weightings[0, 0].argmax() == 1
