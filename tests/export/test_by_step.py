"""What is seen of errors and heads in each step of a trial."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export import __main__ as command_line
from export import by_step, evaluation
from export.configuration import Trial
from export.verification import OnnxRunner
from ntm_tasks import TASKS, Purpose

MODELS = Path(__file__).parents[2] / "models"


def watched(size: int, locations: int) -> tuple[by_step.Watched, evaluation.Result]:
    """A trial of the copy network that ships, watched."""
    runner = OnnxRunner((MODELS / "copy-ntm-ff" / "model.onnx").read_bytes())
    watching = by_step.Watching(runner)
    trial = Trial((size,), locations, 45)  # more than run at once
    result = evaluation.evaluate(watching, TASKS["copy"], trial, Purpose.EVALUATION, 0)
    return watching.seen(), result


def test_errors_are_seen_in_the_steps_in_which_they_are_made() -> None:
    """Copying in too small a memory errs; the shares add up to the wrong bits of the trial."""
    seen, result = watched(12, 8)

    assert np.isnan(seen.wrong[:13]).all()
    assert np.nansum(seen.wrong) * 45 * 8 == pytest.approx(result.wrong_bits)
    assert result.wrong_bits > 0


def test_the_focus_is_that_of_each_head() -> None:
    """The write head is at one place while vectors are shown, the read head while they are due."""
    seen, result = watched(12, 128)

    assert result.wrong_bits == 0
    assert list(seen.focus) == ["read head", "write head"]
    assert {len(focus) for focus in seen.focus.values()} == {25}
    assert seen.focus["write head"][:12].min() > 0.9
    assert seen.focus["read head"][13:].min() > 0.9


def test_a_picture_is_drawn_of_a_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`evaluate --picture` writes a PNG beside its table; a network without heads has none."""
    picture = tmp_path / "steps.png"
    arguments = ["--sizes", "3", "--sequences", "2", "--picture", str(picture)]

    assert command_line.main(["evaluate", str(MODELS / "copy-ntm-ff"), *arguments]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert command_line.main(["evaluate", str(MODELS / "copy-lstm"), *arguments]) == 2
    assert "has no heads that could be drawn" in capsys.readouterr().err
    missing = str(tmp_path / "missing" / "steps.png")
    assert command_line.main(["evaluate", str(MODELS / "copy-ntm-ff"), "--picture", missing]) == 2
    assert f"there is no folder {tmp_path / 'missing'}; make it first" in capsys.readouterr().err
    arguments += ["--server", "localhost:1"]
    assert command_line.main(["evaluate", str(MODELS / "copy-ntm-ff"), *arguments]) == 2
    assert "leave out --server or --picture" in capsys.readouterr().err
