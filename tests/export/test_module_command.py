"""The command that writes a module of somebody's own, and what it says of what it cannot read."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from export import __main__ as command_line
from export import card
from export.verification import OnnxRunner

NETS = '''
"""Networks of somebody's own."""

import torch
from torch import nn


class Adder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x, state):
        total = state + x
        return self.layer(total), total


def make():
    torch.manual_seed(5)
    return Adder(), torch.zeros(4, 3), torch.zeros(4, 3)


def layers():
    return {"module": nn.GRUCell(3, 2), "x": torch.zeros(4, 3), "name": "given", "task": "copy"}


def number():
    return 7


def wrong_key():
    return {"module": Adder(), "x": torch.zeros(4, 3), "colour": "red"}


def without_x():
    return {"module": Adder()}


def raises():
    raise KeyError("no file of weights")


constant = 3
'''


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The current folder has my_nets.py, which another test's import does not hide."""
    (tmp_path / "my_nets.py").write_text(NETS)
    (tmp_path / "broken_nets.py").write_text("import torch\n\nx = torch.zeros(3) @ 7\n")
    (tmp_path / "lacking_nets.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for name in ("my_nets", "broken_nets", "lacking_nets"):
        sys.modules.pop(name, None)


def test_a_module_is_written_with_weights_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The function makes the module, the file has its weights, and the folder the network."""
    weights = {"layer.weight": torch.eye(2, 3), "layer.bias": torch.ones(2)}
    torch.save(weights, tmp_path / "weights.pt")
    arguments = ["module", "my_nets:make", "--name", "adder-1", "--weights", "weights.pt"]
    assert command_line.main(arguments) == 0

    out = capsys.readouterr().out
    assert "loaded and stepped as by a server" in out
    assert out.splitlines()[-1] == "models/adder-1"
    runner = OnnxRunner(Path("models", "adder-1", card.MODEL_NAME).read_bytes())
    y, state = runner.step(torch.tensor([[1.0, 2.0, 3.0]]).numpy(), runner.start(1, 0))
    y, _ = runner.step(torch.tensor([[1.0, 2.0, 3.0]]).numpy(), state)
    assert y.tolist() == [[3.0, 5.0]]


def test_a_dictionary_has_further_arguments() -> None:
    """The function may name the model, its task, and all else that export_module takes."""
    assert command_line.main(["module", "my_nets:layers", "--models", "others"]) == 0

    described = json.loads(Path("others", "given", card.CARD_NAME).read_text())
    assert (described["task"], described["architecture"]) == ("copy", "GRUCell")


@pytest.mark.parametrize(
    ("source", "status", "message"),
    [
        ("my_nets", 2, "'my_nets' is not PACKAGE.MODULE:FUNCTION"),
        ("no_such_nets:make", 1, "no_such_nets cannot be imported: ModuleNotFoundError"),
        ("lacking_nets:make", 1, "lacking_nets.py:1: lacking_nets cannot be imported: ModuleNot"),
        ("broken_nets:make", 1, "broken_nets.py:3: broken_nets cannot be imported: TypeError"),
        ("my_nets:constant", 2, "my_nets.py has no function 'constant'"),
        ("my_nets:absent", 2, "my_nets.py has no function 'absent'"),
        ("my_nets:number", 2, "my_nets:number returns int; it must return (module, x, state)"),
        ("my_nets:wrong_key", 2, "with colour; it may have batch_axes, inputs, locations, module,"),
        ("my_nets:without_x", 2, "returns a dictionary without x"),
        (
            "my_nets:raises",
            1,
            "my_nets.py:40: my_nets:raises fails: KeyError: 'no file of weights'",
        ),
    ],
)
def test_a_source_that_makes_no_module_is_refused_in_one_line(
    source: str, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be imported, called or used is named, and where it was raised."""
    assert command_line.main(["module", source]) == status

    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not Path("models").exists()


@pytest.mark.parametrize("content", [b"", b"not weights", b"pickled"])
def test_a_file_that_has_no_weights_of_the_module_is_refused(
    content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another file, a damaged one, or a pickle of an object, of which nothing is called."""
    if content == b"pickled":
        torch.save({"layer.weight": Path("a")}, "weights.pt")
    else:
        Path("weights.pt").write_bytes(content)
    assert command_line.main(["module", "my_nets:make", "--weights", "weights.pt"]) == 2

    error = capsys.readouterr().err
    assert "weights.pt has no weights of the module (" in error
    assert "write it with torch.save(module.state_dict(), FILE)" in error
    assert len(error.splitlines()) == 1


def test_a_module_has_no_results_to_measure_again(capsys: pytest.CaptureFixture[str]) -> None:
    """The command that compares a model with its card says that this one was not trained here."""
    assert command_line.main(["module", "my_nets:make"]) == 0
    capsys.readouterr()
    assert command_line.main(["evaluate", "models/adder"]) == 1

    error = capsys.readouterr().err
    assert error == (
        "ntm-export: models/adder/card.json is of a module that was not trained by ntm-export, and "
        "has no results\n"
    )
