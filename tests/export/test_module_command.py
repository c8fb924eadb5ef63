"""The command that writes a module of somebody's own, and what it says of what it cannot read."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

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


class Branch(Adder):
    def forward(self, x, state):
        if x.sum() > 0:
            x = -x
        return self.layer(x), state + x


def branch():
    return Branch(), torch.zeros(4, 3), torch.zeros(4, 3)
'''

RIGHT = {"layer.weight": torch.eye(2, 3), "layer.bias": torch.ones(2)}
"""Weights of `Adder`."""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The current folder has my_nets.py, which another test's import does not hide."""
    (tmp_path / "my_nets.py").write_text(NETS)
    (tmp_path / "broken_nets.py").write_text("import torch\n\nx = torch.zeros(3) @ 7\n")
    (tmp_path / "unclosed_nets.py").write_text("def make(\n")
    (tmp_path / "lacking_nets.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for name in ("my_nets", "broken_nets", "unclosed_nets", "lacking_nets"):
        sys.modules.pop(name, None)


def test_a_module_is_written_with_weights_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The function makes the module, the file has its weights, and the folder the network."""
    torch.save(RIGHT, tmp_path / "weights.pt")
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
    ("source", "message"),
    [
        ("my_nets", "'my_nets' is not MODULE:NAME, such as my_nets:make; "),
        ("my_nets.py:make", "'my_nets.py:make' is not MODULE:NAME, such as .* without .py$"),
        ("no_such_nets:make", "no_such_nets:make: there is no module no_such_nets, neither in "),
        ("lacking_nets:make", "lacking_nets.py:1: .* No module named 'a_package_that_nobody_has'"),
        ("broken_nets:make", "broken_nets.py:3: broken_nets:make cannot be imported: TypeError"),
        ("unclosed_nets:make", "unclosed_nets.py:1: unclosed_nets:make cannot be .* SyntaxError"),
        ("my_nets:constant", "my_nets:constant is an int, not a function"),
        ("my_nets:absent", "my_nets:absent: .*my_nets.py has no absent; its functions are make, l"),
        ("my_nets:number", r"my_nets:number returns int; it must return \(module, x, state\)"),
        ("my_nets:wrong_key", ".* with colour; it may have batch_axes, inputs, locations, module,"),
        ("my_nets:without_x", "my_nets:without_x returns a dictionary without x"),
        ("my_nets:raises", "my_nets.py:40: my_nets:raises fails: KeyError: 'no file of weights'"),
    ],
)
def test_a_source_that_makes_no_module_is_refused_in_one_line(
    source: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be imported, called or used is named; first the line of the user's."""
    assert command_line.main(["module", source]) == command_line.FAILED

    (said,) = capsys.readouterr().err.splitlines()
    assert re.match(f"ntm-export: {message}", said), said
    assert not Path("models").exists()


def test_what_pytorch_prints_of_a_graph_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    """Of a step that depends on values nothing is said but one sentence, with its line."""
    assert command_line.main(["module", "my_nets:branch"]) == command_line.FAILED

    (said,) = capfd.readouterr().err.splitlines()
    assert said.startswith("ntm-export: my_nets.py:48: what a step does depends on values here, ")


WEIGHTS: dict[str, tuple[Any, str]] = {
    "another file": (b"not weights", "is no file that torch.save wrote, or is damaged; write it"),
    "an empty file": (b"", "is no file that torch.save wrote, or is damaged; write it with"),
    "a pickled module": (
        nn.Linear(3, 2),
        "holds objects of torch.nn.modules.linear.Linear, whose code would have to run to read "
        "them; only tensors are read: write it with torch.save(module.state_dict(), FILE)",
    ),
    "a tensor": (torch.ones(2), "holds a Tensor, not tensors by name; write it with"),
    "no tensors": ({"epoch": 3}, "holds a dictionary of 'epoch', not tensors by name; write it"),
    "nested": (
        {"epoch": 3, "ema": {"layer.bias": torch.ones(2)}, "model": dict(RIGHT), "lr": 0.1},
        "holds a dictionary of 'epoch', 'ema', 'model' and 1 more; the weights seem to be its part "
        "'model', so save that alone: torch.save(torch.load(FILE)['model'], OTHER_FILE)",
    ),
    "a part": ({"layer.bias": torch.ones(2)}, "lacks layer.weight; make the module that the"),
    "of another": (
        {f"module.{name}": value for name, value in RIGHT.items()},
        "lacks layer.weight, layer.bias and has module.layer.weight, module.layer.bias, which the "
        "module has not; make the module that the weights are of, or save the weights of this one",
    ),
    "of other sizes": (
        {**RIGHT, "layer.bias": torch.ones(3)},
        "has layer.bias of shape [3], and the module has it of shape [2]; make the module of the",
    ),
    "NaN": (
        {**RIGHT, "layer.bias": torch.tensor([1.0, torch.nan])},
        "has NaN in layer.bias; its training diverged, so take the weights of before",
    ),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_a_file_that_has_no_weights_of_the_module_is_refused(
    case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence says what the file holds, and what to do; nothing in it is called."""
    content, message = WEIGHTS[case]
    if isinstance(content, bytes):
        Path("weights.pt").write_bytes(content)
    else:
        torch.save(content, "weights.pt")
    arguments = ["module", "my_nets:make", "--weights", "weights.pt"]
    assert command_line.main(arguments) == command_line.FAILED

    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"ntm-export: weights.pt {message}")


def test_a_module_has_no_results_to_measure_again(capsys: pytest.CaptureFixture[str]) -> None:
    """The command that compares a model with its card says that this one was not trained here."""
    assert command_line.main(["module", "my_nets:make"]) == 0
    capsys.readouterr()
    assert command_line.main(["evaluate", "models/adder"]) == command_line.FAILED

    error = capsys.readouterr().err
    assert error == (
        "ntm-export: models/adder/card.json is of a module that was not trained by ntm-export, and "
        "has no results\n"
    )
