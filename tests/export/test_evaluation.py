"""The measures, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from export.configuration import Trial
from export.evaluation import answers_of, ends, evaluate, score, table
from ntm_tasks import TASKS, Batch, Float32, Purpose


class Scripted:
    """Answers the copy task from a list kept in its state, with one bit wrong in one sequence."""

    def start(self, batch: int, locations: int) -> list[Float32]:
        """Nothing heard yet."""
        return []

    def step(self, x: Float32, state: list[Float32]) -> tuple[Float32, list[Float32]]:
        """Hear until the delimiter, then repeat from the front."""
        ended = any(heard[0, 8] for heard in state)
        y = np.full((len(x), 8), 0.5, np.float32)
        if ended:
            y = 0.25 + 0.5 * state[0][:, :8]
            if state[1][0, 8]:
                y[0, 0] = 1 - y[0, 0]
            return y, state[1:]
        return y, [*state, x]


def test_bits_are_the_cross_entropy_of_what_counts() -> None:
    """A half costs one bit, a quarter two; only steps in the mask cost or count."""
    probabilities = np.array([[[0.5, 0.25]], [[0.9, 0.9]]], np.float32)
    targets = np.array([[[1, 1]], [[0, 0]]], np.float32)

    scores = score(probabilities, targets, np.array([[1], [0]], np.float32))

    assert scores.bits.tolist() == [3.0]
    assert scores.wrong.tolist() == [2.0]


def test_a_certain_error_costs_a_finite_price() -> None:
    """A probability of exactly 0 for what came costs about 23 bits, not infinity."""
    one = np.ones((1, 1, 1), np.float32)

    assert score(1 - one, one, one[0]).bits[0] == pytest.approx(23.25, abs=0.01)


def test_false_ends_are_counted_apart_from_other_bits() -> None:
    """A step marked as the end by mistake counts as that; its other outputs do not count."""
    targets = np.zeros((4, 1, 3), np.float32)
    targets[3, 0, 2] = 1
    found = np.array([[[1, 1, 1]], [[1, 0, 0]], [[1, 1, 1]], [[0, 1, 0]]], np.float32)
    mask = np.array([[0], [1], [1], [1]], np.float32)

    assert ends(found, targets, mask, end_bit=2) == (1, 1, 2)


@pytest.mark.parametrize(("certain", "expected"), [(0.0, (0, 50)), (1.0, (300, 0))])
def test_a_trial_of_repeats_tells_how_the_ends_were_marked(
    certain: float, expected: tuple[int, int]
) -> None:
    """A network that never ends misses every end; one that always ends has only false ends."""

    def answers(batch: Batch, _locations: int) -> Float32:
        return np.full_like(batch.targets, certain)

    task, trial = TASKS["repeat-copy"], Trial((2, 3), 9, 50)
    result = evaluate(answers, task, trial, Purpose.EVALUATION, 1)

    assert (result.false_ends, result.missed_ends) == expected
    # Where all is one, the eight other outputs are wrong in the 50 steps that are true ends.
    assert result.wrong_before_ends == (50 * 8 if certain else result.wrong_bits - 50)
    assert "false ends  missed ends  other wrong bits" in table([result])


def test_a_trial_sums_up_all_its_sequences() -> None:
    """Bits are a mean, wrong bits a total, and exactness a share, over all batches of the trial."""
    result = evaluate(
        answers_of(Scripted()), TASKS["copy"], Trial((3,), 9, 50), Purpose.EVALUATION, 1
    )

    # 50 sequences run as 40 and 10: one wrong bit in each of the two batches.
    assert result.wrong_bits == 2
    assert result.exact_match_rate == pytest.approx(48 / 50)
    right, wrong = -np.log2(0.75), 2.0
    expected = (24 * 50 - 2) * right / 50 + 2 * wrong / 50
    assert result.bits_per_sequence == pytest.approx(expected, rel=1e-5)


def test_the_table_shows_every_result() -> None:
    """A printed result has its length, memory size, sequences and measures."""
    result = evaluate(
        answers_of(Scripted()), TASKS["copy"], Trial((3,), 9, 40), Purpose.EVALUATION, 1
    )

    assert ["3", "9", "40", f"{result.bits_per_sequence:.6f}", "1", "97.5%"] == table(
        [result]
    ).splitlines()[1].split()
