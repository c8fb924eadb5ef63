"""What a mechanism knows in a step."""

from __future__ import annotations

import numpy as np
import pytest

from ntm_lab.decipher.mechanism.knowledge import Knowledge, Known
from ntm_lab.decipher.phases import Opener, Phases

PHASES = Phases((1,), (0,), (Opener(None, again=False), Opener(1, again=False)))
"""Input 1 is the flag that begins the second phase."""

INPUTS = np.array([[[7, 0], [8, 0], [0, 3], [0, 0], [0, 0]]], np.float32)
"""One sequence of five steps; its flag has the value 3."""


def knowledge(known: Known) -> list[list[float]]:
    """What is known in each step, after steps that read 10, 20, 30, 40 and 50."""
    whole = Knowledge(known, PHASES, INPUTS, read_width=1)
    return [
        whole.at(step, np.full((1, 1, 1), 10 * (step + 1), np.float32))[0].tolist()
        for step in range(INPUTS.shape[1])
    ]


def test_a_controller_without_a_state_sees_the_input_and_the_last_read() -> None:
    """Nothing else is known."""
    assert knowledge(Known())[1:3] == [[8, 0, 20], [0, 3, 30]]


def test_steps_before_are_known_as_far_as_asked_for() -> None:
    """Before the first step, inputs and reads are zeros."""
    found = knowledge(Known(2))
    assert found[0] == [7, 0, 0, 0, 10, 0]
    assert found[2] == [0, 3, 8, 0, 30, 20]


def test_a_clock_tells_the_phase_and_its_first_steps() -> None:
    """The columns are the two phases, then the first three steps; here each phase begins once."""
    found = [row[3:] for row in knowledge(Known(1, clock=True))]
    assert found[1:4] == [[1, 0, 0, 1, 0], [0, 1, 1, 0, 0], [0, 1, 0, 1, 0]]


def test_what_counts_knows_the_value_the_steps_and_the_sum_of_reads() -> None:
    """Steps and sums are tenths. They begin anew in the second phase, after its first step."""
    found = [row[8:11] for row in knowledge(Known(1, clock=True, counts=True))]
    expected = np.array([[0, 0, 0], [0, 0.1, 2], [3, 0, 0], [3, 0.1, 4], [3, 0.2, 9]])
    assert np.abs(np.array(found) - expected).max() < 1e-6


def test_what_counts_knows_what_was_read_as_it_fades_and_the_phases_before() -> None:
    """Two means go on through both phases. The first phase had two steps, told when it is over."""
    found = np.array([row[11:] for row in knowledge(Known(1, clock=True, counts=True))])
    reads, slow, fast = [10, 20, 30, 40, 50], 0.0, 0.0
    for row, read in zip(found, reads, strict=True):
        fast, slow = 0.75 * fast + 0.25 * read, 0.92 * slow + 0.08 * read
        assert np.abs(row[:2] - [fast, slow]).max() < 1e-4
    assert found[:, 2].tolist() == pytest.approx([0, 0, 0.2, 0.2, 0.2])


def test_what_counts_knows_its_place_in_laps_of_the_phase_before() -> None:
    """The first phase has two steps; so the third step of the second begins its second lap."""
    found = np.array([row[14:] for row in knowledge(Known(1, clock=True, counts=True))])
    assert not found[:2].any()
    laps, hand, first, last = np.split(found[2:], [2, 4, 7], 1)
    assert laps == pytest.approx(np.array([[0, 0], [0, 0.05], [0.1, 0.1]]))
    assert hand == pytest.approx(np.array([[0, 1], [0, -1], [0, 1]]), abs=1e-6)
    assert first.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert last.tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0]]
