"""One sequence of a task: what a seed and a size decide, and what fits a model."""

from __future__ import annotations

import numpy as np
import pytest

from ntm_tasks import TASKS, Size, TaskError, TaskSequence


@pytest.mark.parametrize("task", TASKS)
def test_a_sequence_of_each_task(task: str) -> None:
    """It is as long as the longest in training, and names only steps that it has."""
    sequence = TaskSequence.draw(task)
    steps = len(sequence.inputs)

    assert sequence.size == TASKS[task].largest
    assert sequence.inputs.shape == (steps, TASKS[task].input_width)
    assert sequence.target.shape == (steps, TASKS[task].output_width)
    assert sequence.mask.shape == (steps,)
    assert all(0 <= step < steps for step in sequence.marks)


@pytest.mark.parametrize(
    ("task", "size", "steps", "marks"),
    [
        ("copy", (3,), 7, {3: "delimiter"}),
        ("repeat-copy", (2, 3), 10, {2: "3 times", 9: "end"}),
        ("associative-recall", (2,), 16, {0: "item", 4: "item", 8: "query", 12: "delimiter"}),
        ("ngrams", (9, 2), 9, {}),
        ("priority-sort", (5,), 10, {5: "delimiter"}),
    ],
)
def test_steps_have_names(task: str, size: Size, steps: int, marks: dict[int, str]) -> None:
    """The steps in which a channel of its own speaks are named, at every size."""
    sequence = TaskSequence.draw(task, size)

    assert len(sequence.inputs) == steps
    assert sequence.marks == marks


@pytest.mark.parametrize("task", ["copy", "repeat-copy", "priority-sort", "associative-recall"])
def test_the_named_step_is_the_last_before_the_answer(task: str) -> None:
    """What counts comes right after the mark of the end of the question."""
    sequence = TaskSequence.draw(task)
    first = int(sequence.mask.argmax())

    assert first - 1 in sequence.marks
    assert sequence.mask[first:].all()


def test_a_seed_decides() -> None:
    """The same seed gives the same sequence, another one another, none a new one each time."""
    first, again = (TaskSequence.draw("copy", (20,), seed=1) for _ in range(2))
    other = TaskSequence.draw("copy", (20,), seed=2)
    drawn = [TaskSequence.draw("copy", (20,)).inputs.tobytes() for _ in range(2)]

    np.testing.assert_array_equal(first.inputs, again.inputs)
    assert (first.inputs != other.inputs).any()
    assert drawn[0] != drawn[1]


def test_the_answer_is_the_part_that_counts() -> None:
    """Outputs become bits in the steps that the task asks for; others are left out."""
    sequence = TaskSequence.draw("copy", (2,), seed=1)
    outputs = np.full((5, 8), 0.7, np.float32)
    outputs[3] = 0.3

    assert sequence.answer(outputs).tolist() == [[0.0] * 8, [1.0] * 8]
    np.testing.assert_array_equal(sequence.due, sequence.inputs[:2, :8])


def test_the_optimum_is_known_where_bits_are_guessed() -> None:
    """Of the N-grams there are the best probabilities, of what can be known none."""
    sequence = TaskSequence.draw("ngrams", (30, 2))

    assert sequence.optimum is not None
    assert sequence.optimum.shape == (30, 1)
    assert TaskSequence.draw("copy").optimum is None


@pytest.mark.parametrize(
    ("task", "size", "message"),
    [
        ("tetris", None, "no task is called 'tetris'; there are copy, repeat-copy"),
        ("copy", (3, 4), r"size of copy is its length, not 3x4"),
        ("repeat-copy", (3,), r"size of repeat-copy is its length and repeats, not 3"),
        ("associative-recall", (1,), r"its items, must be at least 2, not 1"),
        ("repeat-copy", (3, 0), r"at least 1x1, not 3x0"),
    ],
)
def test_what_cannot_be_drawn(task: str, size: Size | None, message: str) -> None:
    """An unknown task, and a size that it does not have, are refused with what there is."""
    with pytest.raises(TaskError, match=message):
        TaskSequence.draw(task, size)
