"""A task of your own is named by its place in a Python module; a wrong one gets one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ntm_tasks import TASKS, Purpose, TaskError, TaskSequence, load
from tests.support.own_tasks import PARITY, here

__all__ = ["here"]


def test_a_task_is_loaded_from_the_current_folder(here: Path) -> None:
    """It is then known by its name, draws float32, and remembers how it was named."""
    (here / "mine").mkdir()
    (here / "mine" / "tasks.py").write_text(PARITY)

    task = load("mine.tasks:PARITY")

    assert (task.name, task.source) == ("parity", "mine.tasks:PARITY")
    assert TASKS["parity"] is task
    sequence = TaskSequence.draw("parity", (4,), seed=1)
    assert sequence.inputs.dtype == np.float32
    np.testing.assert_array_equal(sequence.target, sequence.inputs.cumsum(0) % 2)
    assert load("mine.tasks:PARITY") == TASKS["parity"]


def test_a_name_loads_what_is_known() -> None:
    """The paper's tasks need no module."""
    assert load("copy") is TASKS["copy"]


def test_training_and_evaluation_draw_other_sequences(here: Path) -> None:
    """Each purpose has a random stream of its own, and a seed its sequences."""
    (here / "mine.py").write_text(PARITY)
    task = load("mine:PARITY")

    drawn = [
        np.concatenate([each.inputs for each in task.batches(purpose, 1, (6,), 20, 8)], 1)
        for purpose in (Purpose.VALIDATION, Purpose.EVALUATION, Purpose.EVALUATION)
    ]
    assert drawn[0].shape == (6, 20, 1)
    assert (drawn[0] != drawn[1]).any()
    np.testing.assert_array_equal(drawn[1], drawn[2])


RETURNS = "Batch(bits, bits.cumsum(0) % 2, np.ones((*size, batch)))"


@pytest.mark.parametrize(
    ("source", "old", "new", "message"),
    [
        ("parity", "", "", "there is no task 'parity'; there are copy, .* MODULE:NAME"),
        ("mine.py:PARITY", "", "", "'mine.py:PARITY' is not MODULE:NAME, such as .* without .py"),
        ("a/mine:PARITY", "", "", "is not MODULE:NAME, such as .* without .py"),
        ("nowhere:PARITY", "", "", "there is no module nowhere, neither in "),
        ("mine:parity_", "", "", r"mine.py has no parity_; its tasks are PARITY"),
        ("mine:Batch", "", "", r"mine:Batch is a class, not a task; .*: Batch = Task\(...\)"),
        ("mine:parity", "", "", "mine:parity is a function, not a task; "),
        ("mine:PARITY", "import numpy as np", "1 / 0", "^mine.py:2: .* division by zero$"),
        ("mine:PARITY", "import numpy as np", "import no_such", "^mine.py:2: .* install that"),
        ("mine:PARITY", "import numpy as np", "raise SystemExit('bye')", "SystemExit: bye"),
        ("mine:PARITY", "import numpy as np", "def", "^mine.py:2: .*: SyntaxError: "),
        ("mine:PARITY", '"parity", 1', '"a/b", 1', "a task's name is letters, .* not 'a/b'"),
        ("mine:PARITY", '"parity", 1', '"copy", 1', "there is a task 'copy' already; give"),
        ("mine:PARITY", '"parity", 1', '"parity", 0', "input_width is 0; it must be a whole"),
        ("mine:PARITY", "largest=(6,)", "largest=6", "largest is 6; it must be a tuple of 1"),
        ("mine:PARITY", "largest=(6,)", "largest=(0,)", r"largest is \(0,\); its numbers must"),
        ("mine:PARITY", "smallest=(1,)", "smallest=(7,)", r"largest is \(6,\); it must not be les"),
        ("mine:PARITY", RETURNS, "bits", r"generate returns ndarray; return Batch\(inputs"),
        ("mine:PARITY", RETURNS, "1 / 0", r"generate fails for .* division by zero \(.*line 8\)"),
        ("mine:PARITY", RETURNS, "Batch(bits[0], bits, bits)", r"inputs has the shape \(2, 1\)"),
        ("mine:PARITY", RETURNS, "Batch(bits, bits, bits)", r"mask has the shape \(\d, 2, 1\); it"),
        (
            "mine:PARITY",
            RETURNS,
            "Batch(bits[:0], bits[:0], bits[:0, :, 0])",
            r"inputs has the shape \(0, 2, 1\); it must be \('at least 1', 2, 1\): steps, sequence",
        ),
        ("mine:PARITY", RETURNS, "Batch(list(bits), bits, bits)", "inputs is .*list.*numpy array"),
        (
            "mine:PARITY",
            RETURNS,
            "Batch(bits.astype(object), bits, bits)",
            "inputs is an array of object; it must be a numpy array of numbers",
        ),
        (
            "mine:PARITY",
            RETURNS,
            "Batch(bits * np.nan, bits, bits[:, :, 0])",
            "inputs has values that are not finite",
        ),
        (
            "mine:PARITY",
            RETURNS,
            "Batch(bits, bits + 2, np.ones((*size, batch)))",
            "targets has the value [23]; its values must be 0 or 1",
        ),
        (
            "mine:PARITY",
            RETURNS,
            "Batch(bits, bits, np.zeros((*size, batch)))",
            "mask is 0 in every step of a sequence",
        ),
        (
            "mine:PARITY",
            "generator.integers",
            "np.random.default_rng().integers",
            "generate draws other sequences from the same generator",
        ),
    ],
)
def test_what_is_no_task_gets_one_sentence(
    here: Path, source: str, old: str, new: str, message: str
) -> None:
    """It names the place and says what to change; the task is not known afterwards."""
    (here / "mine.py").write_text(PARITY.replace(old, new) if old else PARITY)

    with pytest.raises(TaskError, match=message) as error:
        load(source)
    assert "\n" not in str(error.value)
    assert "parity" not in TASKS


def test_a_batch_is_checked_whenever_it_is_drawn(here: Path) -> None:
    """A size that only an evaluation asks for may be the one that fails."""
    limited = PARITY.replace("bits = ", "assert size[0] < 9, 'too long'; bits = ")
    (here / "mine.py").write_text(limited)
    task = load("mine:PARITY")

    with pytest.raises(TaskError, match=r"fails for 3 sequences of size \(9,\): .* too long"):
        task.generate(np.random.default_rng(1), 3, (9,))
