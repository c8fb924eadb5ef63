"""The page about modules of somebody's own: its commands and programs, as a reader runs them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export.modules import export_module
from tests.support.served import ROOT, served

PAGE = (ROOT / "docs" / "your-module.md").read_text()

BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
PROGRAMS = [text for kind, text in BLOCKS if kind == "python"]
COMMANDS = [
    line for kind, text in BLOCKS if not kind for line in text.splitlines() if line[:4] == "ntm-"
]


def run_as(command: str, folder: Path) -> None:
    """Run a command of this package as the page has it."""
    name, *arguments = shlex.split(command)
    assert name == "ntm-export"
    # Not in the checkout, whose packages the environment names.
    subprocess.run([sys.executable, "-m", "export", *arguments], cwd=folder, check=True)


def test_from_an_empty_folder_to_served_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module, the export, the server, the client and what it prints are those of the page."""
    packages = [str(ROOT / name) for name in ("", "client", "tasks")]
    monkeypatch.setenv("PYTHONPATH", ":".join(packages))
    (tmp_path / "my_nets.py").write_text(PROGRAMS[0])
    export, serve, again = COMMANDS
    run_as(export, tmp_path)
    assert serve == "ntm-service --models-dir models"
    with served(tmp_path / "models") as client:
        program = PROGRAMS[1].replace("localhost:50051", client.target)
        command = [sys.executable, "-c", program]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    (printed,) = re.findall(r"^```\n(\[\[.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert run.stdout == printed

    torch.save({"scale": torch.full((2,), 2.0)}, tmp_path / "weights.pt")
    run_as(again, tmp_path)
    with served(tmp_path / "models") as client, client.create_session("running-mean") as session:
        np.testing.assert_allclose(session.step(np.array([[1, 10]])).array, [[2, 20]])


def test_the_layers_of_the_page_are_written(tmp_path: Path) -> None:
    """The function that makes PyTorch's own layers works as it stands."""
    names = {"nn": nn, "torch": torch}
    exec(PROGRAMS[2], names)  # noqa: S102 - the page's own program
    made = names["layers"]

    folder = export_module(*made(), models=tmp_path)  # type: ignore[operator]
    assert folder == tmp_path / "lstm"


def test_the_call_of_the_page_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function is imported and called as the page says."""
    monkeypatch.chdir(tmp_path)
    module, x = nn.GRUCell(3, 2), torch.zeros(4, 3)
    names = {"module": module, "x": x, "state": torch.zeros(4, 2), "recorded": torch.ones(5, 3)}
    exec(PROGRAMS[3], names)  # noqa: S102 - the page's own program

    assert (tmp_path / "models" / "running-mean" / "model.onnx").is_file()
