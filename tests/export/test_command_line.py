"""The command line, from training to a measured model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from export import __main__ as command_line
from export import card, configurations, verification
from export.training import Run
from tests.export.conftest import tiny


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The table's row for ntm-ff is a tiny network, verified over few steps."""
    monkeypatch.setitem(configurations.CONFIGURATIONS, "copy-ntm-ff", tiny("ntm-ff"))
    monkeypatch.setattr(card, "VERIFIED_LOCATIONS", (16, 20))
    monkeypatch.setattr(verification.verify, "__defaults__", ((1, 7), 20))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


TRAIN = ("train", "copy", "--architecture", "ntm-ff", "--seed", "2", "--eager", "--runs")


def test_train_export_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The three commands in a row leave a model's folder and print its measures."""
    assert command_line.main([*TRAIN, str(tmp_path)]) == 0
    run_folder = tmp_path / "copy-ntm-ff" / "seed-2"
    assert command_line.main(["export", str(run_folder), "--models", str(tmp_path / "m")]) == 0
    folder = tmp_path / "m" / "copy-ntm-ff"
    assert {"model.onnx", "card.json", "curve.csv", "curve.png"} == {
        path.name for path in folder.iterdir()
    }
    capsys.readouterr()
    arguments = ["evaluate", str(folder), "--sizes", "2", "3", "--locations", "16"]
    assert command_line.main([*arguments, "--sequences", "4"]) == 0

    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:3] for row in rows[1:]] == [["2", "16", "4"], ["3", "16", "4"]]
    described = json.loads((folder / "card.json").read_text())
    result = described["evaluation"]["results"][0]
    assert f"{result['bits_per_sequence']:.6f}" == rows[2][3]
    assert tuple(
        described["training"][name] for name in ("seed", "seeds_trained", "sequences")
    ) == (2, [2], 16)
    loaded, best = card.load(folder).state_dict(), Run.load(run_folder).best
    assert all(torch.equal(value, best[name]) for name, value in loaded.items())
    (folder / "model.onnx").write_bytes(b"another")
    with pytest.raises(ValueError, match="not the file that the card describes"):
        card.load(folder)


def test_nothing_is_written_when_verification_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An export that differs from PyTorch says so and leaves no folder."""
    command_line.main([*TRAIN, str(tmp_path)])
    monkeypatch.setattr(verification, "LARGEST_DIFFERENCE", 1e-12)
    run_folder = tmp_path / "copy-ntm-ff" / "seed-2"

    assert command_line.main(["export", str(run_folder), "--models", str(tmp_path / "m")]) == 1
    assert "differs from PyTorch by" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_a_run_of_another_configuration_is_not_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same folder is refused to other numbers, instead of mixing two runs."""
    command_line.main([*TRAIN, str(tmp_path)])

    assert command_line.main([*TRAIN, str(tmp_path), "--set", "batch=5"]) == 1
    assert "another configuration" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["batch", "batch=x", "task=1", "nothing=1"])
def test_a_setting_that_is_no_number_is_refused(setting: str, tmp_path: Path) -> None:
    """Only numbers of the configuration can be replaced, and only by numbers."""
    assert command_line.main([*TRAIN, str(tmp_path), "--set", setting]) == 1


@pytest.mark.parametrize("command", [[], ["train"], ["evaluate"], ["export"]])
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """--help explains each command."""
    with pytest.raises(SystemExit, match="0"):
        command_line.main([*command, "--help"])

    assert "usage: python -m export" in capsys.readouterr().out
