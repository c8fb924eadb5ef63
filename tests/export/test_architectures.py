"""An architecture costs one registration and a row of the configurations."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from export import __main__ as command_line
from export import architectures, card, configurations, report, verification
from export.configuration import Configuration, Trial
from export.layers import Affine
from export.network import Architecture, Network, Sizes, State
from export.training import Run
from tests.support.served import MODELS

NAME = "minimal-gru"


class MinimalState(NamedTuple):
    """What the network carries from step to step."""

    hidden: Tensor
    """[B, C]"""


class MinimalGru(Network):
    """A gated recurrent unit with one gate, without memory and without a fast path."""

    def __init__(self, sizes: Sizes, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        inputs, size = sizes.input_width, sizes.controller_size
        self.gate = Affine(inputs + size, size, generator)
        self.candidate = Affine(inputs, size, generator)
        self.output = Affine(size, sizes.output_width, generator)
        self.initial_hidden = nn.Parameter(torch.zeros(size))

    def initial_state(self, batch: int, locations: int) -> MinimalState:
        return MinimalState(self.initial_hidden.repeat(batch, 1))

    def starts(self) -> dict[str, str]:
        return {"hidden": "initial_hidden"}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State, None]:
        (hidden,) = state
        gate = torch.sigmoid(self.gate(torch.cat([x, hidden], 1)))
        hidden = gate * hidden + (1 - gate) * torch.tanh(self.candidate(x))
        return self.output(hidden), MinimalState(hidden), None


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Register the network, with a row for copy; verify over few steps."""
    architectures.register(Architecture(name=NAME, title="Minimal GRU", build=MinimalGru))
    row = Configuration(
        "copy",
        NAME,
        controller_size=12,
        locations=(0,),
        default_locations=0,
        learning_rate=1e-2,
        batch=4,
        updates=40,
        report_every=20,
        validation=(Trial((3,), 0, 2),),
        evaluation=(Trial((3,), 0, 4),),
    )
    monkeypatch.setitem(configurations.CONFIGURATIONS, row.name, row)
    monkeypatch.setattr(verification.verify, "__defaults__", ((1, 7), 20))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    del architectures.ARCHITECTURES[NAME]


def test_it_is_trained_exported_verified_and_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of every other model make it learn, write its folder and give its measures."""
    arguments = ["train", "copy", "--architecture", NAME, "--seed", "2", "--runs", str(tmp_path)]
    assert command_line.main(arguments) == 0
    run = Run.load(tmp_path / f"copy-{NAME}" / "seed-2")
    assert run.curve[-1].validation_bits < run.curve[0].validation_bits
    folder = tmp_path / "models" / f"copy-{NAME}"
    arguments = ["export", str(tmp_path / f"copy-{NAME}"), "--models", str(tmp_path / "models")]
    assert command_line.main(arguments) == 0
    comparisons = card.read(folder)["verification"]["comparisons"]
    assert {each["runtime"] for each in comparisons} == {"onnxruntime", "onnx reference"}
    assert all(each["step_difference"] <= 1e-5 for each in comparisons)
    capsys.readouterr()
    assert command_line.main(["evaluate", str(folder)]) == 0
    assert "as on the card" in capsys.readouterr().out

    loaded = card.load(folder)
    for name, value in run.best.items():
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_it_has_its_column_in_the_report(tmp_path: Path) -> None:
    """Its title stands beside the others', and its model is missing until it is exported."""
    shutil.copytree(MODELS / "copy-ntm-ff", tmp_path / "copy-ntm-ff")
    text = report.write(tmp_path).read_text()

    titles = [each.title for each in architectures.ARCHITECTURES.values()]
    assert titles[:3] == ["NTM, feedforward", "NTM, LSTM", "LSTM"]
    assert titles[-1] == "Minimal GRU"
    assert f"| {' | '.join(titles)} |" in text
    (missing,) = (line for line in text.splitlines() if line.startswith("Missing models"))
    assert f"copy-{NAME}" in missing
    assert f"ngrams-{NAME}" not in missing


def test_a_name_is_registered_once() -> None:
    """A second architecture of a name is refused, and the first one stays."""
    first = architectures.ARCHITECTURES[NAME]
    with pytest.raises(ValueError, match=f"there is an architecture '{NAME}' already"):
        architectures.register(replace(first, title="another"))

    assert architectures.ARCHITECTURES[NAME] is first
