"""Tasks of a user's own, in an empty current folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ntm_tasks import TASKS

PARITY = """
import numpy as np
from ntm_tasks import Batch, Task


def parity(generator, batch, size, blank_rate=0):
    bits = generator.integers(0, 2, (*size, batch, 1))
    return Batch(bits, bits.cumsum(0) % 2, np.ones((*size, batch)))


PARITY = Task(
    "parity", 1, 1, ("bits",), smallest=(1,), largest=(6,), easiest=(1,), least=(1,),
    generate=parity,
)
"""
"""A module with a task: has the number of ones so far been odd?"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; tasks and modules that are loaded from it are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TASKS, "_tasks", dict(TASKS))
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    own = {path.stem for path in tmp_path.iterdir()}
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in own:
            del sys.modules[name]


def arrays(sequences: int = 40) -> dict[str, npt.NDArray[Any]]:
    """
    Parity as the arrays of a file: sequences of 2 to 6 bits, filled up to 8 steps.

    The first input tells the sequence: 2 to 41 in the second channel of its first step.
    """
    generator = np.random.default_rng(3)
    inputs = np.zeros((sequences, 8, 2))
    inputs[:, :, 0] = generator.integers(0, 2, (sequences, 8))
    lengths = 2 + np.arange(sequences) % 5
    mask = np.arange(8) < lengths[:, None]
    inputs[~mask] = 0
    inputs[:, 0, 1] = 2 + np.arange(sequences)
    targets = inputs[:, :, :1].cumsum(1) % 2 * mask[:, :, None]
    return {"inputs": inputs, "targets": targets, "mask": mask}


def save(path: Path, **changed: Any) -> None:
    """Write `arrays` to a file, with some changed; None leaves one out."""
    content = {**arrays(), **changed}
    kept: dict[str, Any] = {name: each for name, each in content.items() if each is not None}
    np.savez(path, **kept)
