"""A task of your own is trained, resumed, ended early, exported, measured and reported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from export import __main__ as command_line
from export import card, configurations, training, verification
from export.training import Run
from ntm_tasks import TASKS, load
from tests.support.own_tasks import PARITY, here, save

__all__ = ["here"]

SMALL = ("--set", "controller_size=8", "--set", "batch=4", "--set", "report_every=2")


@pytest.fixture(autouse=True)
def small(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module and a file with a task each, and verification over few steps."""
    (here / "mine.py").write_text(PARITY)
    save(here / "bits.npz")
    monkeypatch.setattr(card, "VERIFIED_LOCATIONS", (16, 20))
    monkeypatch.setattr(verification.verify, "__defaults__", ((1, 7), 20))
    threads = torch.get_num_threads()
    yield here
    torch.set_num_threads(threads)


def forgotten() -> None:
    """As in the next process, nothing of the user's is loaded."""
    for name in ("parity", "bits"):
        TASKS._tasks.pop(name, None)


def run(*arguments: str) -> int:
    """Run a command as a process of its own would."""
    forgotten()
    return command_line.main(arguments)


def train(source: str, *more: str, updates: int = 4, architecture: str = "ntm-ff") -> int:
    """Train a small network."""
    command = ("train", source, "--architecture", architecture, "--set", f"updates={updates}")
    return run(*command, *SMALL, *more)


@pytest.mark.parametrize(
    ("source", "name", "architecture"),
    [("mine:PARITY", "parity", "ntm-ff"), ("bits.npz", "bits", "lstm")],
)
def test_from_a_source_to_a_measured_model(
    small: Path, capsys: pytest.CaptureFixture[str], source: str, name: str, architecture: str
) -> None:
    """The card has the source; each command is told it, and measures what the card says."""
    model = f"{name}-{architecture}"
    assert train(source, architecture=architecture) == 0
    assert run("export", f"runs/{model}", "--task", source) == 0
    capsys.readouterr()
    assert run("evaluate", f"models/{model}", "--task", source) == 0

    assert capsys.readouterr().out.splitlines()[-1] == "as on the card"
    assert {path.name for path in (small / "models" / model).iterdir()} == set(card.WRITTEN)
    described = json.loads((small / "models" / model / "card.json").read_text())
    assert (described["task"], described["task_source"]) == (name, source)
    assert described["configuration"]["table"] == "changed by --set"
    (result,) = described["seeds"][0]["results"]
    assert result["sequences"] == (1000 if name == "parity" else 4)


def test_code_is_run_only_when_it_is_named(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --task, a command says what the file calls the task, and imports nothing."""
    train("mine:PARITY")
    run("export", "runs/parity-ntm-ff", "--task", "mine:PARITY")
    monkeypatch.setattr("ntm_tasks.places.import_module", lambda name: pytest.fail(name))
    for command in (["export", "runs/parity-ntm-ff"], ["evaluate", "models/parity-ntm-ff"]):
        capsys.readouterr()
        assert run(*command) in (1, 2)
        error = capsys.readouterr().err
        assert "of the task 'parity', which is not one of copy, " in error
        assert error.endswith("; name it with --task mine:PARITY\n")


def test_a_training_goes_on(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command makes no update again; with more updates it makes these."""
    assert train("mine:PARITY") == 0
    assert train("mine:PARITY", updates=6) == 0

    assert "going on from 16 sequences" in capsys.readouterr().out
    load("mine:PARITY")
    done = Run.load(Path("runs/parity-ntm-ff/seed-1"))
    assert (done.update, len(done.curve)) == (6, 3)


def test_a_task_of_another_place_is_told(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A training that goes on with a module of another name says whose task it was."""
    assert train("mine:PARITY") == 0
    (small / "moved.py").write_text((small / "mine.py").read_text())
    capsys.readouterr()

    assert train("moved:PARITY", updates=6) == 0
    expected = "going on from 16 sequences; until now it was trained with mine:PARITY"
    assert expected in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("metric", "values"),
    [("validation_bits", [7, 6, 5, 5, 5, 5]), ("trials_passed", [0, 1, 2, 2, 2, 2])],
)
def test_a_training_ends_early(
    small: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    metric: str,
    values: list[int],
) -> None:
    """It ends after as many points without a better value as `stop_patience` says."""
    better = iter([(0, -7.0), (1, -6.0)])
    monkeypatch.setattr(training, "validate", lambda *_: training.Quality(*next(better, (2, -5.0))))
    watch = ("--set", f"stop_metric={metric}")

    assert train("mine:PARITY", *watch, "--set", "stop_patience=3", updates=40) == 0
    said = capsys.readouterr().out
    assert f"ended early: {metric} was not better for 3 points of the curve" in said
    load("mine:PARITY")
    done = Run.load(Path("runs/parity-ntm-ff/seed-1"))
    assert [getattr(point, metric) for point in done.curve] == values
    assert (done.update, done.finished, done.stopped) == (12, True, True)
    assert train("mine:PARITY", *watch, "--set", "stop_patience=5", updates=40) == 0
    assert Run.load(Path("runs/parity-ntm-ff/seed-1")).update == 16


def test_report_has_models_of_other_tasks(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They have a table of their results, a row among the seeds, and their curves."""
    train("bits.npz", architecture="lstm")
    run("export", "runs/bits-lstm", "--task", "bits.npz", "--name", "mine")

    assert run("report") == 0
    text = Path("models/REPORT.md").read_text()
    assert "## Against the paper" not in text
    others = text.partition("## Other models")[2].partition("## Seeds")[0]
    assert "| mine | bits | 6 | 0 | 4 | " in others
    assert "| mine | 1 | " in text.partition("## Seeds")[2]
    assert "\n1 training took 0.0 hours of one core." in text
    assert "![Training curve of mine](mine/curve.png)" in text
    assert not Path("models/report").exists()  # which is for pictures of the paper's tasks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "mine:NONE"], "mine.py has no NONE; its tasks are PARITY"),
        (["train", "gone.npz"], "gone.npz: there is no such file"),
        (["train", ""], "it is empty"),
        (["train", "mine:PARITY", "--architecture", "gnu"], "there is no architecture 'gnu'; ther"),
        (["train", "mine:PARITY", "--paper"], "there is no configuration 'parity-ntm-lstm'; there"),
        (
            ["train", "mine:PARITY", "--set", "stop_metric=loss"],
            "stop_metric is 'loss'; it must be",
        ),
        (
            ["train", "bits.npz", "--set", "validation=6:128:64"],
            "validation is 6:128:64; in 6:128:64, sequences must be from 1 to 4",
        ),
        (["train", "bits.npz", "--set", "validation=9:128:4"], "must be at most 6, not 9"),
        (["train", "bits.npz", "--set", "blank_rate=0.1"], "bits.npz has no vectors to make blank"),
        (["evaluate", "models", "--task", "mine:NONE"], "models has no model.onnx"),
    ],
)
def test_a_mistake_gets_one_sentence(
    small: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """It says what to change, and nothing is written."""
    (small / "models").mkdir()

    assert run(*arguments) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (small / "runs").exists()


def test_settings_of_any_task_fit_every_architecture() -> None:
    """A task without a row in the tables is trained with these."""
    task = TASKS["copy"]

    found = [configurations.of_task(task, each) for each in ("ntm-ff", "ntm-lstm", "lstm")]
    assert [each.default_locations for each in found] == [128, 128, 0]
    assert all(str(each.validation[0]) == f"20:{each.default_locations}:128" for each in found)
