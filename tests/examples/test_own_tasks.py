"""The three tasks of examples/own_tasks have the answers that they promise."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import numpy as np
import pytest

from ntm_tasks import Task
from tests.deploy.tools import ROOT

FOLDER = ROOT / "examples" / "own_tasks"


@pytest.fixture(scope="module")
def tasks() -> Iterator[dict[str, Task]]:
    """The tasks by name. They are imported, not registered, because other tests list all tasks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        module = import_module("own_tasks")
        yield {task.name: task for task in (module.REVERSE, module.PARENTHESES, module.ADDITION)}


def test_vectors_come_back_in_reverse(tasks: dict[str, Task]) -> None:
    """The last vector before the flag is the first one due after it."""
    drawn = tasks["reverse"].generate(np.random.default_rng(0), 3, (4,), 0)

    assert drawn.inputs[4, :, 4].tolist() == [1, 1, 1]
    assert np.array_equal(drawn.targets[5:], drawn.inputs[3::-1, :, :4])
    assert drawn.mask.sum(0).tolist() == [4, 4, 4]


def test_parentheses_are_balanced_when_all_are_closed(tasks: dict[str, Task]) -> None:
    """Once one too many is closed, nothing is balanced any more."""
    drawn = tasks["parentheses"].generate(np.random.default_rng(0), 200, (20,), 0)
    for row in range(200):
        depths = np.cumsum(drawn.inputs[:, row, 0] - drawn.inputs[:, row, 1])
        valid = np.minimum.accumulate(depths) >= 0
        assert np.array_equal(drawn.targets[:, row, 0] > 0, valid & (depths == 0))
    assert 0.05 < drawn.targets.mean() < 0.5


def test_the_answer_is_the_sum(tasks: dict[str, Task]) -> None:
    """Of the numbers before and after the flag, the lowest bit first, with the last carry."""
    drawn = tasks["addition"].generate(np.random.default_rng(0), 50, (6,), 0)
    powers = 2 ** np.arange(7)
    first, second = drawn.inputs[:6, :, 0], drawn.inputs[7:13, :, 0]
    sums = drawn.targets[7:, :, 0]

    assert np.array_equal(powers[:6] @ first + powers[:6] @ second, powers @ sums)
