"""The copy task's sequences."""

from __future__ import annotations

import numpy as np
import pytest

from export.tasks import TASKS, Purpose, copy, generator_for


def test_copy_shows_vectors_then_a_delimiter_then_silence() -> None:
    """Channels 0 to 7 carry the vectors, channel 8 the delimiter, and nothing else is set."""
    batch = copy(np.random.default_rng(1), 3, 5)

    assert batch.inputs.shape == (11, 3, 9)
    assert set(np.unique(batch.inputs[:5, :, :8])) == {0.0, 1.0}
    assert not batch.inputs[:5, :, 8].any()
    assert batch.inputs[5, 0].tolist() == [0.0] * 8 + [1.0]
    assert not batch.inputs[6:].any()


def test_copy_wants_the_vectors_back_in_order() -> None:
    """The last L steps, and only they, count, and their targets are the vectors shown."""
    batch = copy(np.random.default_rng(1), 3, 5)

    assert batch.targets.shape == (11, 3, 8)
    np.testing.assert_array_equal(batch.targets[6:], batch.inputs[:5, :, :8])
    assert not batch.targets[:6].any()
    assert batch.mask[:, 2].tolist() == [0.0] * 6 + [1.0] * 5


def test_training_lengths_are_uniform_from_1_to_20() -> None:
    """Every length from 1 to 20 is drawn about equally often, one length to a batch."""
    generator = np.random.default_rng(1)
    lengths = [(len(TASKS["copy"].draw(generator, 1).inputs) - 1) // 2 for _ in range(4000)]
    counts = np.bincount(lengths)

    assert len(counts) == 21
    assert counts[0] == 0
    assert counts[1:].min() > 140
    assert counts[1:].max() < 260


def test_a_seed_fixes_the_sequences() -> None:
    """Equal streams give equal sequences."""
    first, again = (copy(generator_for(Purpose.TRAINING, 3, 7), 2, 4) for _ in range(2))

    np.testing.assert_array_equal(first.inputs, again.inputs)


@pytest.mark.parametrize(
    "other", [(Purpose.VALIDATION, 3, 7), (Purpose.TRAINING, 4, 7), (Purpose.TRAINING, 3, 8)]
)
def test_no_two_streams_are_shared(other: tuple[Purpose, int, int]) -> None:
    """Another purpose, seed or update has other sequences."""
    first, second = (
        copy(generator_for(*stream), 2, 20) for stream in ((Purpose.TRAINING, 3, 7), other)
    )

    assert (first.inputs != second.inputs).any()


def test_blank_vectors_come_at_their_rate_and_are_due_as_zeros() -> None:
    """Half of the vectors are made zero in inputs and targets alike; the delimiter stays."""
    batch = copy(np.random.default_rng(4), 100, 20, blank_rate=0.5)
    blank = ~batch.inputs[:20, :, :8].any(axis=2)

    assert 0.45 < blank.mean() < 0.55
    assert not batch.targets[21:][blank].any()
    assert batch.inputs[20, :, 8].all()


def test_without_a_blank_rate_the_sequences_are_the_papers() -> None:
    """Every vector is random: about one in 256 is zero by chance."""
    batch = copy(np.random.default_rng(4), 1000, 20)
    blank = ~batch.inputs[:20, :, :8].any(axis=2)

    assert 0.003 < blank.mean() < 0.005
