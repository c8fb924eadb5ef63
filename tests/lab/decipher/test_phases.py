"""How flags divide sequences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ntm_client.values import Float32
from ntm_lab.decipher.phases import Moment, Opener, Phases, find_phases, moments


def steps(*rows: Sequence[float]) -> Float32:
    """Inputs [T, width]."""
    return np.array(rows, np.float32)


SHORT = steps([1, 1, 0], [0, 0, 2], [0, 0, 0])
LONG = steps([1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0])


def test_a_flag_is_what_is_only_ever_set_alone() -> None:
    """Input 2 is; input 0 is set alone once, but not always."""
    found = find_phases([SHORT, LONG])

    assert found == Phases((2,), (0, 1), (Opener(None, again=False), Opener(2, again=False)))


def test_a_flag_that_comes_more_often_in_some_begins_one_phase_again() -> None:
    """Two items or three are one phase; the query and its end, always two, are two."""
    item, ask, vector = [0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0]
    two = steps(item, vector, item, vector, ask, vector, ask, [0] * 4)
    three = steps(item, vector, item, vector, item, vector, ask, vector, ask, [0] * 4)

    found = find_phases([two, three])
    assert found is not None
    assert found.openers == (
        Opener(2, again=True),
        Opener(3, again=False),
        Opener(3, again=False),
    )
    assert [(m.phase, m.offset) for m in moments(found, two)] == [
        (0, 0), (0, 1), (0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1),
    ]  # fmt: skip


def test_moments_have_lengths_and_what_the_flag_showed() -> None:
    """The flag's own step is step 0 of the phase that it begins."""
    found = find_phases([SHORT, LONG])
    assert found is not None

    assert moments(found, SHORT) == [
        Moment(0, 0, (1,), (0.0,)),
        Moment(1, 0, (1, 1), (0.0, 2.0)),
        Moment(1, 1, (1, 2), (0.0, 2.0)),
    ]


def test_a_single_input_is_no_flag() -> None:
    """The only input of a network is not a flag."""
    found = find_phases([steps([1], [0], [1])])

    assert found == Phases((), (0,), (Opener(None, again=False),))


def test_sequences_without_a_common_order_have_no_phases() -> None:
    """Sequences whose flags come in different orders have no phases."""
    one = steps([1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1])
    other = steps([1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0])

    assert find_phases([one, other]) is None
