"""`ntm trace`: what the networks that ship did, drawn and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from ntm_lab.cli import main
from ntm_lab.recordings.files import load
from ntm_lab.recordings.recording import ADD_VECTOR, ERASE_VECTOR, WRITE_WEIGHTING
from ntm_tasks.registry import PAPER

pytestmark = pytest.mark.slow

DRAWN = Path(__file__).parents[2] / "docs" / "gallery" / "copy-ntm-lstm.png"


def trace(server: str, *arguments: str) -> int:
    """The status of the command."""
    return main(["trace", "--server", server, *arguments])


@pytest.mark.parametrize("controller", ["ntm-ff", "ntm-lstm"])
@pytest.mark.parametrize("task", PAPER)
def test_what_is_recorded_explains_the_memory(
    shipping: str, tmp_path: Path, task: str, controller: str
) -> None:
    """Erasing and adding as the heads say (equations 3 and 4) leads to the memory after."""
    file = tmp_path / "made.npz"
    assert trace(shipping, f"{task}-{controller}", "--seed", "1", "--save", str(file)) == 0

    made = load(file)
    assert made.before is not None
    assert made.after is not None
    memory = made.before.memory.astype(np.float64)
    for step in range(len(made.inputs)):
        weights = made.traces[WRITE_WEIGHTING][step].astype(np.float64)
        erase, add = made.traces[ERASE_VECTOR][step], made.traces[ADD_VECTOR][step]
        memory *= np.prod(1 - weights[:, :, None] * erase[:, None], 0)
        memory += np.einsum("hn,hm->nm", weights, add)
    np.testing.assert_allclose(made.after.memory, memory, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(made.after.write_weightings, made.traces[WRITE_WEIGHTING][-1])


@pytest.mark.parametrize("task", PAPER)
def test_every_task_is_drawn(shipping: str, tmp_path: Path, task: str) -> None:
    """Of a network with heads and of one without, as PNG, as SVG and as a page."""
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "html": b"<!doctype html>"}
    options = [f"--{name}={tmp_path / name}" for name in begins]

    for architecture in ("ntm-ff", "lstm"):
        assert trace(shipping, f"{task}-{architecture}", *options) == 0
        for name, start in begins.items():
            assert (tmp_path / name).read_bytes().startswith(start)
            (tmp_path / name).unlink()


def test_the_picture_of_the_readme_is_true(shipping: str, tmp_path: Path) -> None:
    """Drawn anew it is the same, but for what another machine may round otherwise."""
    file = tmp_path / "trace.png"
    assert trace(shipping, "copy-ntm-lstm", "--seed", "1", "--png", str(file)) == 0

    drawn, kept = imread(file), imread(DRAWN)
    assert drawn.shape == kept.shape
    assert np.abs(drawn - kept).mean() < 0.002
