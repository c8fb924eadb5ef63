"""The five tasks' sequences, against the paper's description of them."""

from __future__ import annotations

import numpy as np
import pytest

from export.evaluation import score
from ntm_tasks import (
    TASKS,
    Purpose,
    generator_for,
    size_text,
)
from ntm_tasks.tasks.associative_recall import associative_recall
from ntm_tasks.tasks.copy import copy
from ntm_tasks.tasks.ngrams import ngrams
from ntm_tasks.tasks.priority_sort import priority_sort
from ntm_tasks.tasks.repeat_copy import normalised_count, repeat_copy


def test_copy_shows_vectors_then_a_delimiter_then_silence() -> None:
    """Channels 0 to 7 carry the vectors, channel 8 the delimiter, and nothing else is set."""
    batch = copy(np.random.default_rng(1), 3, (5,))

    assert batch.inputs.shape == (11, 3, 9)
    assert set(np.unique(batch.inputs[:5, :, :8])) == {0.0, 1.0}
    assert not batch.inputs[:5, :, 8].any()
    assert batch.inputs[5, 0].tolist() == [0.0] * 8 + [1.0]
    assert not batch.inputs[6:].any()


def test_copy_wants_the_vectors_back_in_order() -> None:
    """The last L steps, and only they, count, and their targets are the vectors shown."""
    batch = copy(np.random.default_rng(1), 3, (5,))

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
    first, again = (copy(generator_for(Purpose.TRAINING, 3, 7), 2, (4,)) for _ in range(2))

    np.testing.assert_array_equal(first.inputs, again.inputs)


@pytest.mark.parametrize(
    "other", [(Purpose.VALIDATION, 3, 7), (Purpose.TRAINING, 4, 7), (Purpose.TRAINING, 3, 8)]
)
def test_no_two_streams_are_shared(other: tuple[Purpose, int, int]) -> None:
    """Another purpose, seed or update has other sequences."""
    first, second = (
        copy(generator_for(*stream), 2, (20,)) for stream in ((Purpose.TRAINING, 3, 7), other)
    )

    assert (first.inputs != second.inputs).any()


def test_blank_vectors_come_at_their_rate_and_are_due_as_zeros() -> None:
    """Half of the vectors are made zero in inputs and targets alike; the delimiter stays."""
    batch = copy(np.random.default_rng(4), 100, (20,), blank_rate=0.5)
    blank = ~batch.inputs[:20, :, :8].any(axis=2)

    assert 0.45 < blank.mean() < 0.55
    assert not batch.targets[21:][blank].any()
    assert batch.inputs[20, :, 8].all()


def test_without_a_blank_rate_the_sequences_are_the_papers() -> None:
    """Every vector is random: about one in 256 is zero by chance."""
    batch = copy(np.random.default_rng(4), 1000, (20,))
    blank = ~batch.inputs[:20, :, :8].any(axis=2)

    assert 0.003 < blank.mean() < 0.005


def test_repeat_copy_shows_the_vectors_then_the_count() -> None:
    """The count is alone on channel 8, in one step, and silence follows to the end."""
    batch = repeat_copy(np.random.default_rng(1), 2, (3, 4))

    assert batch.inputs.shape == (3 + 1 + 12 + 1, 2, 9)
    assert batch.inputs[3, 1].tolist() == [0.0] * 8 + [np.float32(normalised_count(4))]
    assert not batch.inputs[:3, :, 8].any()
    assert not batch.inputs[4:].any()


def test_repeat_copy_wants_every_repeat_and_then_one_end_marker() -> None:
    """Outputs 0 to 7 are the sequence four times over; output 8 is due in the last step alone."""
    batch = repeat_copy(np.random.default_rng(1), 2, (3, 4))
    vectors = batch.inputs[:3, :, :8]

    for repeat in range(4):
        due = batch.targets[4 + 3 * repeat : 7 + 3 * repeat, :, :8]
        np.testing.assert_array_equal(due, vectors)
    assert batch.targets[:, 0, 8].tolist() == [0.0] * 16 + [1.0]
    assert not batch.targets[-1, :, :8].any()
    assert batch.mask[:, 0].tolist() == [0.0] * 4 + [1.0] * 13


def test_the_repeat_count_has_mean_0_and_variance_1_in_training() -> None:
    """Over the counts 1 to 10, each as likely, what the network sees is normalised."""
    counts = [normalised_count(repeats) for repeats in range(1, 11)]

    assert np.mean(counts) == pytest.approx(0, abs=1e-12)
    assert np.var(counts) == pytest.approx(1)


def test_repeat_copy_draws_length_and_repeats_apart() -> None:
    """All 100 pairs of a length and a count from 1 to 10 are drawn."""
    generator = np.random.default_rng(1)
    pairs = set()
    for _ in range(3000):
        batch = TASKS["repeat-copy"].draw(generator, 1)
        length = int(np.flatnonzero(batch.mask[:, 0])[0]) - 1
        pairs.add((length, (int(batch.mask.sum()) - 1) // length))

    assert pairs == {(length, repeats) for length in range(1, 11) for repeats in range(1, 11)}


def test_associative_recall_bounds_items_and_query_by_their_own_delimiters() -> None:
    """Channel 6 alone starts each item; channel 7 alone starts and ends the query."""
    batch = associative_recall(np.random.default_rng(1), 2, (4,))

    assert batch.inputs.shape == (4 * 4 + 8, 2, 8)
    assert np.flatnonzero(batch.inputs[:, 0, 6]).tolist() == [0, 4, 8, 12]
    assert np.flatnonzero(batch.inputs[:, 0, 7]).tolist() == [16, 20]
    delimiters = batch.inputs[[0, 4, 8, 12, 16, 20], 0]
    assert delimiters.sum() == 6
    assert not batch.inputs[21:].any()
    assert batch.mask[:, 1].tolist() == [0.0] * 21 + [1.0] * 3


def test_associative_recall_wants_the_item_after_the_one_asked_for() -> None:
    """The query is one of the items but the last, each as likely, and names one item only."""
    batch = associative_recall(np.random.default_rng(1), 3000, (4,))
    items = np.stack([batch.inputs[4 * item + 1 : 4 * item + 4, :, :6] for item in range(4)])
    query = batch.inputs[17:20, :, :6]
    same = (items == query).all((1, 3))

    assert (same.sum(0) == 1).all()
    asked = same.argmax(0)
    assert sorted(set(asked.tolist())) == [0, 1, 2]
    assert np.bincount(asked).min() > 900
    following = items[asked + 1, :, np.arange(3000)].transpose(1, 0, 2)
    np.testing.assert_array_equal(batch.targets[-3:], following)


def test_no_other_item_equals_the_one_asked_for_even_when_vectors_are_rare() -> None:
    """With nearly all vectors blank, items are drawn anew until the query is unambiguous."""
    batch = associative_recall(np.random.default_rng(1), 200, (3,), blank_rate=0.9)
    items = np.stack([batch.inputs[4 * item + 1 : 4 * item + 4, :, :6] for item in range(3)])

    assert ((items == batch.inputs[13:16, :, :6]).all((1, 3)).sum(0) == 1).all()


def test_ngrams_want_the_next_bit_at_every_step() -> None:
    """Each target is the next input, and every step counts."""
    batch = ngrams(np.random.default_rng(1), 3, (200, 5))

    assert batch.inputs.shape == batch.targets.shape == (200, 3, 1)
    np.testing.assert_array_equal(batch.targets[:-1], batch.inputs[1:])
    assert batch.mask.all()


def test_ngrams_follow_a_table_of_their_own() -> None:
    """After one context, the rate of ones over sequences has mean 1/2 and variance 1/8."""
    batch = ngrams(np.random.default_rng(1), 400, (3000, 5))
    bits = batch.inputs[:, :, 0].astype(int)
    context = np.stack([bits[shift : shift - 6] << (4 - shift) for shift in range(5)]).sum(0)
    rates = []
    for sequence in range(400):
        after = bits[5:-1, sequence][context[:, sequence] == 9]
        if len(after) > 60:
            rates.append(after.mean())

    assert len(rates) > 150
    assert np.mean(rates) == pytest.approx(0.5, abs=0.08)
    # Beta(1/2, 1/2) has variance 1/8; counting adds at most 1/240.
    assert np.var(rates) == pytest.approx(0.125, abs=0.03)


def test_the_first_five_bits_are_fair() -> None:
    """Before there is a context, ones are as likely as zeros."""
    first = ngrams(np.random.default_rng(1), 4000, (6, 5)).inputs[:5, :, 0]

    assert first.mean(1) == pytest.approx([0.5] * 5, abs=0.03)


def test_the_optimum_is_equation_10() -> None:
    """The best prediction is (N1 + 1/2) / (N1 + N0 + 1), counted here with a dictionary."""
    batch = ngrams(np.random.default_rng(2), 3, (200, 5))
    best = batch.optimum
    assert best is not None
    for sequence in range(3):
        bits = [int(bit) for bit in batch.inputs[:, sequence, 0]]
        bits.append(int(batch.targets[-1, sequence, 0]))
        seen: dict[tuple[int, ...], list[int]] = {}
        for step in range(200):
            context = tuple(bits[max(0, step - 4) : step + 1])
            zeros, ones = seen.setdefault(context, [0, 0]) if len(context) == 5 else (0, 0)
            expected = (ones + 0.5) / (ones + zeros + 1)
            assert best[step, sequence, 0] == pytest.approx(expected, abs=1e-6)
            if len(context) == 5:
                seen[context][bits[step + 1]] += 1


def test_the_optimum_is_the_expectation_of_the_target() -> None:
    """Where it says 70 to 80 per cent, a 1 follows as often, and so for every tenth."""
    batch = ngrams(np.random.default_rng(4), 2000, (100, 3))
    assert batch.optimum is not None
    for tenth in range(10):
        chosen = (batch.optimum >= tenth / 10) & (batch.optimum < (tenth + 1) / 10)

        assert batch.targets[chosen].mean() == pytest.approx(batch.optimum[chosen].mean(), abs=0.01)


def test_the_optimum_costs_what_it_was_computed_to_cost() -> None:
    """Over 3,000 sequences, 200 predictions cost about 132.6 bits (standard error 0.7)."""
    batch = ngrams(np.random.default_rng(3), 3000, (200, 5))
    assert batch.optimum is not None
    cost = score(batch.optimum, batch.targets, batch.mask).bits

    # 132.98 with five bits of 1 each (20,000 sequences); here four, and one more of the others.
    assert cost.mean() == pytest.approx(132.6, abs=2.0)
    assert cost.std() == pytest.approx(36, abs=2)


def test_priority_sort_wants_the_highest_sixteen_in_order() -> None:
    """The targets are the vectors sorted by falling priority, cut after sixteen of twenty."""
    batch = priority_sort(np.random.default_rng(1), 5, (20,))

    assert batch.inputs.shape == (20 + 1 + 16, 5, 10)
    for sequence in range(5):
        shown = [(float(step[8]), step[:8].tolist()) for step in batch.inputs[:20, sequence]]
        best = [vector for _, vector in sorted(shown, key=lambda each: -each[0])][:16]
        assert batch.targets[21:, sequence].tolist() == best
    assert batch.inputs[20, 0].tolist() == [0.0] * 9 + [1.0]
    assert not batch.inputs[:20, :, 9].any()
    assert not batch.inputs[21:].any()
    assert batch.mask[:, 0].tolist() == [0.0] * 21 + [1.0] * 16


def test_priorities_are_uniform_from_minus_1_to_1() -> None:
    """Mean 0, variance 1/3, and the ends are approached."""
    priorities = priority_sort(np.random.default_rng(1), 500, (20,)).inputs[:20, :, 8]

    assert priorities.mean() == pytest.approx(0, abs=0.03)
    assert priorities.var() == pytest.approx(1 / 3, abs=0.02)
    assert -1 <= priorities.min() < -0.99
    assert 0.99 < priorities.max() <= 1


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_has_the_widths_that_it_states(name: str) -> None:
    """Inputs and targets are as wide as the task says, and nothing is due where none counts."""
    task = TASKS[name]
    batch = task.draw(np.random.default_rng(1), 2)

    assert batch.inputs.shape[1:] == (2, task.input_width)
    assert batch.targets.shape[1:] == (2, task.output_width)
    assert set(np.unique(batch.targets)) <= {0.0, 1.0}
    assert not (batch.targets * (1 - batch.mask[..., None])).any()
    assert len(task.size_names) == len(task.smallest) == len(task.largest) == len(task.easiest)


@pytest.mark.parametrize(("progress", "maximum"), [(0.0, 2), (0.5, 11), (0.99, 20)])
def test_a_curriculum_grows_from_the_easiest_size(progress: float, maximum: int) -> None:
    """Before its end, sizes are drawn from the easiest to one in proportion to the progress."""
    generator = np.random.default_rng(1)
    task = TASKS["priority-sort"]
    sizes = {
        int(np.flatnonzero(task.draw(generator, 1, progress=progress).inputs[:, 0, 9])[0])
        for _ in range(400)
    }

    assert sizes == set(range(2, maximum + 1))


def test_after_a_curriculum_the_sizes_are_the_papers() -> None:
    """At its end every sequence has twenty items."""
    assert len(TASKS["priority-sort"].draw(np.random.default_rng(1), 1, progress=1.0).inputs) == 37


def test_sizes_are_written_as_people_write_them() -> None:
    """One number stands alone, two are joined by an x."""
    assert (size_text((20,)), size_text((10, 20))) == ("20", "10x20")
