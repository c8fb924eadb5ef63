"""A file of sequences is a task: three parts, lengths that differ, nothing unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ntm_tasks import Purpose, TaskError, TaskSequence, load
from ntm_tasks.sequences_file import FileTask, read
from tests.support.own_tasks import arrays, here, save

__all__ = ["here"]


def task_of(**changed: Any) -> FileTask:
    """The task of a file in the current folder, with some arrays changed; None leaves one out."""
    path = Path("mine.npz")
    save(path, **changed)
    return read(path)


def shown(task: FileTask, purpose: Purpose) -> list[int]:
    """Which sequences of `arrays` the part of a purpose has."""
    count = task.available(purpose, task.largest)
    batches = task.batches(purpose, 1, task.largest, count, 3)
    return [int(tag) for batch in batches for tag in batch.inputs[0, :, 1]]


def test_a_sequence_ends_with_the_last_step_that_counts(here: Path) -> None:
    """What is drawn to look at has its own length, and the values of the file."""
    task = task_of()
    load("mine.npz")
    sequence = TaskSequence.draw("mine", seed=1)
    row = int(sequence.inputs[0, 1]) - 2

    assert (task.name, task.input_width, task.output_width) == ("mine", 2, 1)
    # The part for evaluation has none of 2 or 3 steps.
    assert (task.least, task.largest, task.most) == ((4,), (6,), (6,))
    assert len(sequence.inputs) == 2 + row % 5
    np.testing.assert_array_equal(sequence.inputs, arrays()["inputs"][row][: len(sequence.inputs)])
    np.testing.assert_array_equal(sequence.target, sequence.inputs[:, :1].cumsum(0) % 2)


def test_no_sequence_is_in_two_parts(here: Path) -> None:
    """Validation and evaluation take a tenth each, every sequence once, and training the rest."""
    task = task_of()
    validation, evaluation = (
        shown(task, purpose) for purpose in (Purpose.VALIDATION, Purpose.EVALUATION)
    )
    trained: set[int] = set()
    for seed in range(40):
        batch = task.draw(np.random.default_rng(seed), 16)
        trained |= {int(tag) for tag in batch.inputs[0, :, 1]}
    looked_at = {
        int(task.example(np.random.default_rng(seed), task.largest).inputs[0, 0, 1])
        for seed in range(40)
    }

    assert looked_at == set(evaluation)
    assert (len(validation), len(evaluation)) == (4, 4)
    assert len({*validation, *evaluation}) == 8
    assert trained == set(range(2, 42)) - {*validation, *evaluation}


def test_a_batch_has_sequences_of_at_most_its_size(here: Path) -> None:
    """The shorter ones are filled up with steps that do not count."""
    batch = task_of().generate(np.random.default_rng(1), 50, (4,))

    lengths = batch.mask.sum(0)
    assert batch.inputs.shape == (4, 50, 2)
    assert set(lengths) == {2, 3, 4}
    assert (batch.mask == (np.arange(4)[:, None] < lengths)).all()


def test_more_sequences_than_a_part_has_are_refused(here: Path) -> None:
    """A measure counts no sequence twice."""
    task = task_of()

    with pytest.raises(TaskError, match=r"mine.npz has 4 sequences of .* for evaluation, not 5"):
        list(task.batches(Purpose.EVALUATION, 1, (6,), 5, 10))
    with pytest.raises(TaskError, match="must be at most 6, not 7"):
        load("mine.npz") and TaskSequence.draw("mine", (7,))


class Bomb:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("unpickled"),))


INPUTS, TARGETS, MASK = (arrays()[name] for name in ("inputs", "targets", "mask"))
OBJECTS = np.array([Bomb()] * 40, object)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mask": None}, "it has no mask; it must have inputs .*, targets .* and mask"),
        ({"mask": None, "targets": None}, "it has no targets and no mask; "),
        ({"inputs": OBJECTS}, "inputs is an array of Python objects, which are not read, .* fill"),
        ({"targets": np.full(TARGETS.shape, "0")}, "targets is an array of <U1; it must be one of"),
        ({"targets": TARGETS[:39]}, "inputs has 40 sequences and targets has 39; give them as man"),
        ({"mask": MASK[:, :7]}, "inputs has 8 steps and mask has 7; give them as many"),
        ({"inputs": INPUTS[:, :, 0]}, r"inputs has the shape \(40, 8\); its axes must be"),
        ({"mask": MASK[:, :, None]}, r"mask has the shape \(40, 8, 1\); its axes must be"),
        ({"inputs": INPUTS[:, :, :0]}, r"inputs has the shape \(40, 8, 0\), and so no channels"),
        ({"mask": MASK[:0]}, r"mask has the shape \(0, 8\), and so no sequences; give some"),
        ({"targets": TARGETS + 1}, "targets has the value [12]; its values must be 0 or 1"),
        ({"inputs": INPUTS + np.inf}, "inputs has values that are not finite"),
        ({"mask": MASK * 0}, "mask is 0 in every step of a sequence"),
        (
            {"inputs": INPUTS[:9], "targets": TARGETS[:9], "mask": MASK[:9]},
            "it has 9 sequences; .* it needs 10 at least",
        ),
    ],
)
def test_a_file_that_is_no_task_gets_one_sentence(
    here: Path, changed: dict[str, Any], message: str
) -> None:
    """It names the file and what to change; objects in it are never unpickled."""
    with pytest.raises(TaskError, match=f"mine.npz: {message}") as error:
        task_of(**changed)
    assert "\n" not in str(error.value)
    assert not Path("unpickled").exists()


def test_a_file_that_is_none_gets_one_sentence(here: Path) -> None:
    """One that is missing, of another kind or cut off says so."""
    task_of()
    whole = Path("mine.npz").read_bytes()
    Path("text.npz").write_text("inputs, targets")
    Path("cut.npz").write_bytes(whole[:3000])
    middle = len(whole) // 4
    Path("bent.npz").write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    np.save("one.npy", INPUTS)
    Path("one.npy").rename("one.npz")
    Path("folder.npz").mkdir()

    for name, message in {
        "none.npz": "none.npz: there is no such file",
        "text.npz": "text.npz: it is not an .npz file",
        "cut.npz": "cut.npz: it is not an .npz file",
        "bent.npz": "bent.npz: inputs is damaged",
        "one.npz": "one.npz: it holds one array",
        "folder.npz": "folder.npz: it cannot be read: Is a directory",
        "a b.npz": "'a b' cannot be a name; rename it",
    }.items():
        with pytest.raises(TaskError, match=message):
            load(name)
