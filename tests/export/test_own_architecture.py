"""An architecture of your own is trained, exported and measured; mistakes get one sentence."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from export import __main__ as command_line
from export import card, own_architecture, training, verification
from export.architectures import ARCHITECTURES
from export.configurations import of_task
from export.network import ArchitectureError
from export.training import Run
from ntm_tasks import TASKS
from tests.support.own_tasks import here
from tests.support.served import served

__all__ = ["here"]

PAGE = (Path(__file__).parents[2] / "docs" / "your-own-architecture.md").read_text("utf-8")

(KEEPER,) = re.findall(r"`my_nets.py`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)
"""The whole example of the page."""

FEW = ("--set", "updates=4", "--set", "report_every=2", "--set", "batch=4")

MEMORY = '''
from typing import NamedTuple

import torch
from torch import Tensor, nn

from export.network import Architecture, Network
from service.spec import Initial, TraceTensor


class State(NamedTuple):
    memory: Tensor
    weighting: Tensor


class Trace(NamedTuple):
    gate: Tensor


class Net(Network):
    """A queue: each step moves the weighting on, and adds the input where it is."""

    def __init__(self, sizes, seed):
        super().__init__()
        self.width = sizes.memory_width
        self.told = nn.Linear(sizes.input_width, self.width + 1)
        self.output = nn.Linear(self.width, sizes.output_width)

    def initial_state(self, batch, locations):
        weighting = torch.zeros(batch, 2, locations)
        weighting[:, :, 0] = 1
        return State(torch.zeros(batch, self.width, locations), weighting)

    def starts(self):
        return {"memory": Initial("constant", (0.0,)), "weighting": Initial("one_hot")}

    def forward(self, x, state):
        told = self.told(x)
        gate = torch.sigmoid(told[:, :1])[:, None]
        memory = state.memory + told[:, 1:, None] * state.weighting[:, 1:]
        moved = torch.cat([state.weighting[:, :, -1:], state.weighting[:, :, :-1]], 2)
        weighting = gate * moved + (1 - gate) * state.weighting
        read = (memory * weighting[:, :1]).sum(2)
        return self.output(read), State(memory, weighting), Trace(gate)


def traces(sizes):
    return (
        TraceTensor("read_weighting", "weighting_next", 0, 1, "N"),
        TraceTensor("write_weighting", "weighting_next", 1, 1, "N"),
        TraceTensor("gate", "gate", 0, 1, 1),
    )


NET = Architecture(
    "queue", "Queue", Net, over_locations={"memory": 1, "weighting": 1}, traces=traces
)
'''
"""An architecture with a memory and traces."""


@pytest.fixture(autouse=True)
def small(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example in an empty folder, and verification over few steps."""
    (here / "my_nets.py").write_text(KEEPER)
    (here / "queued.py").write_text(MEMORY)
    monkeypatch.setattr(card, "VERIFIED_LOCATIONS", (16, 20))
    monkeypatch.setattr(verification.verify, "__defaults__", ((1, 7), 20))
    threads = torch.get_num_threads()
    yield here
    torch.set_num_threads(threads)
    forgotten()


def forgotten() -> None:
    """As in the next process, nothing of the user's is known."""
    for name in [name for name, each in ARCHITECTURES.items() if each.source]:
        del ARCHITECTURES[name]


def run(*arguments: str) -> int:
    """Run a command as a process of its own would."""
    forgotten()
    return command_line.main(arguments)


def test_the_page_goes_from_a_file_to_a_measured_model(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its commands work in their order; the card has the place of the code."""
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines():
        command, *arguments = shlex.split(line)
        assert command == "ntm-export"
        assert run(*arguments, *(FEW if arguments[0] == "train" else ())) == 0, line

    assert capsys.readouterr().out.splitlines()[-1] == "as on the card"
    described = card.read(Path("models/copy-keeper"))
    assert described["architecture"] == "keeper"
    assert described["architecture_source"] == "my_nets:KEEPER"
    assert len(KEEPER.splitlines()) < 40


def test_it_goes_on_and_its_code_is_run_only_when_it_is_named(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command goes on; an export that does not name the code says what to name."""
    train = ("train", "copy", "--architecture", "my_nets:KEEPER", *FEW)
    assert run(*train) == 0
    assert run(*train, "--set", "updates=6") == 2  # twice the same setting
    assert run(*train[:-2], "--set", "batch=4", "--set", "learning_rate=0.1") == command_line.FAILED
    capsys.readouterr()
    monkeypatch.setattr("ntm_tasks.places.import_module", lambda name: pytest.fail(name))
    assert run("export", "runs/copy-keeper") in (1, 2)
    error = capsys.readouterr().err
    assert "holds a training of the architecture 'keeper', which is not one of ntm-ff, " in error
    assert error.endswith("name it with --architecture my_nets:KEEPER\n")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Kept(values), None", "Kept(values)", "KEEPER: forward returns a tuple; it must return"),
        (
            "self.candidate = nn.Linear(sizes.input_width, size)",
            "self.candidate = nn.Linear(sizes.input_width, size, bias=False)",
            "is of a keeper with other parameters (candidate.bias); give the one that it began",
        ),
    ],
)
def test_code_that_has_changed_is_tried_before_it_goes_on_or_is_exported(
    small: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    """A mistake that came since gets its sentence, and a sound checkpoint is not called damaged."""
    train = ("train", "copy", "--architecture", "my_nets:KEEPER", *FEW)
    assert run(*train) == 0
    before = (small / "runs/copy-keeper/seed-1/checkpoint.pt").read_bytes()
    (small / "changed.py").write_text(KEEPER.replace(old, new))
    assert old in KEEPER
    capsys.readouterr()

    goes_on = [each.replace("my_nets", "changed") for each in train]
    for command in (goes_on, ["export", "runs/copy-keeper", *goes_on[2:4]]):
        assert run(*command) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
    assert not (small / "models").exists()
    assert (small / "runs/copy-keeper/seed-1/checkpoint.pt").read_bytes() == before


def test_code_of_another_place_is_told(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A module of the same architecture that goes on with another's training says whose it was."""
    train = ("train", "copy", "--architecture", "my_nets:KEEPER", *FEW)
    assert run(*train) == 0
    (small / "moved.py").write_text(KEEPER)
    capsys.readouterr()

    goes_on = [each.replace("my_nets", "moved").replace("updates=4", "updates=6") for each in train]
    assert run(*goes_on) == run(*goes_on) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("going on")]
    assert said == [
        "going on from 16 sequences; until now it was trained with my_nets:KEEPER",
        "going on from 24 sequences",
    ]


def test_one_with_a_memory_is_served_at_any_number_of_locations(small: Path) -> None:
    """Its memory, its weightings and its traces reach a client."""
    assert run("train", "copy", "--architecture", "queued:NET", *FEW) == 0
    assert run("export", "runs/copy-queue", "--architecture", "queued:NET") == 0
    with (
        served(small / "models") as client,
        client.create_session("copy-queue", locations=9) as session,
    ):
        result = session.step(torch.ones(3, 9).numpy(), traces=["read_weighting", "gate"])
        assert result.traces["read_weighting"].shape == (3, 1, 9)
        assert result.traces["gate"].shape == (3, 1, 1)
        memory = session.read_memory()
        assert memory.memory.shape == (9, 20)
        assert memory.write_weightings.shape == (1, 9)


def test_settings_that_it_does_not_allow_are_refused(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network that has one layer is not trained as if it had two."""
    more = ("--set", "layers=2")
    assert run("train", "copy", "--architecture", "my_nets:KEEPER", *more) == 2
    assert "layers is 2; it must be 1, since it is a keeper" in capsys.readouterr().err
    text = KEEPER.replace('"layers": (1,)', '"layers": (3, 4)')
    (small / "three.py").write_text(text)
    forgotten()
    own_architecture.load("three:KEEPER")
    assert of_task(TASKS["copy"], "keeper").layers == 3


MISTAKES = [
    # Of the place.
    ("my_nets:NONE", "", "", "my_nets.py has no NONE; its architectures are KEEPER"),
    ("my_nets.py:KEEPER", "", "", "is not MODULE:NAME, such as my_nets:MY_NET"),
    ("gone:KEEPER", "", "", "there is no module gone"),
    ("keeper", "", "", "there is no architecture 'keeper'; there are ntm-ff, ntm-lstm, lstm, "),
    ("my_nets:Keeper", "", "", "is a class, not an architecture; make it an object of export.n"),
    # Of the object.
    ("my_nets:KEEPER", '"keeper"', '"a/b"', "an architecture's name is letters, digits"),
    ("my_nets:KEEPER", '"keeper"', '"lstm"', "there is an architecture 'lstm' already"),
    ("my_nets:KEEPER", '"Keeper"', '""', "title is ''; it must be a printable text"),
    ("my_nets:KEEPER", "build=Keeper", "build=3", "build is 3; it must be a function"),
    ("my_nets:KEEPER", '{"layers"', '{"layer"', "allows names layer; settings are contr"),
    ("my_nets:KEEPER", ", build=Keeper", "", "cannot be imported: TypeError: Architecture.__init"),
    # Of the network.
    ("my_nets:KEEPER", "def forward", "def backward", "build fails: TypeError: Can't instantiate"),
    ("my_nets:KEEPER", "super().__init__()", "pass", "build fails: AttributeError: cannot assign"),
    ("my_nets:KEEPER", "build=Keeper", "build=lambda *_: 1", "build returns a int; it must return"),
    (
        "my_nets:KEEPER",
        "self.gate.out_features",
        "self.gat.out",
        "initial_state fails: AttributeErr",
    ),
    # Of the state.
    (
        "my_nets:KEEPER",
        "return Kept(torch.zeros(batch, self.gate.out_features))",
        "return torch.zeros(batch, 100)",
        "initial_state returns a tensor of float32 and shape [3, 100]; it must be a NamedTuple",
    ),
    (
        "my_nets:KEEPER",
        "torch.zeros(batch,",
        "torch.zeros(1,",
        "initial_state returns values of shape [1, 100] for 3 sequences; its first axis must be",
    ),
    (
        "my_nets:KEEPER",
        "torch.zeros(batch, self.gate.out_features)",
        "[0.0]",
        "initial_state returns values as a list; it must be a tensor of float32",
    ),
    (
        "my_nets:KEEPER",
        "Kept(values), None",
        "Kept(values[:, :50]), None",
        "forward returns values of shape [3, 50]; initial_state returns it of shape [3, 100]",
    ),
    (
        "my_nets:KEEPER",
        "Kept(values), None",
        "Kept(torch.tanh(self.candidate(x))), None",
        "the next values does not depend on the last values",
    ),
    # Of a step.
    ("my_nets:KEEPER", ", None  # logits", "  # logits", "forward returns a tuple; it must return"),
    ("my_nets:KEEPER", "return self.output(values)", "return values", "forward returns logits of"),
    (
        "my_nets:KEEPER",
        "self.output(values), Kept",
        "self.output(values) + torch.rand(1), Kept",
        "forward returns other logits for the same input and state",
    ),
    (
        "my_nets:KEEPER",
        "Kept(values), None",
        "Kept(values), (values,)",
        "traces() names no outputs beside the state; the trace that forward returns must be",
    ),
    (
        "my_nets:KEEPER",
        "self.output(values), Kept",
        "self.output(values) + values.mean(0).sum(), Kept",
        "what forward returns for one sequence depends on the others of its batch",
    ),
    (
        "my_nets:KEEPER",
        "Kept(values), None",
        "Kept(values + state.values.mean(0)), None",
        "what forward returns for one sequence depends on the others of its batch",
    ),
    # Of a memory.
    ("queued:NET", '"memory": 1, ', "", "over_locations names weighting; a network with memory"),
    ("queued:NET", '"weighting": 1}', '"weights": 1}', "over_locations names 'weights'; the state"),
    (
        "queued:NET",
        '"weighting": 1}',
        '"weighting": 2}',
        "by over_locations its last 2 must be 128",
    ),
    (
        "queued:NET",
        '"weighting": 1}',
        '"weighting": 0}',
        "over_locations of weighting is 0; it mus",
    ),
    ("queued:NET", '"weighting": Initial("one_hot")', "", "spans the locations, so that starts()"),
    ("queued:NET", 'Initial("one_hot")', 'Initial("constant", (0.0,))', "returns other values"),
    ("queued:NET", 'Initial("one_hot")', '"first"', "starts from 'first'; the network has no such"),
    ("queued:NET", '"gate", "gate", 0, 1, 1)', '"gate", "gate", 0, 1, 2)', "heads, width 2"),
    ("queued:NET", '"gate", "gate", 0', '"gate", "gates", 0', "traces() names gates beside the st"),
]


@pytest.mark.parametrize(("source", "old", "new", "message"), MISTAKES)
def test_a_mistake_gets_one_sentence(
    small: Path, capsys: pytest.CaptureFixture[str], source: str, old: str, new: str, message: str
) -> None:
    """It says what to change, before anything is trained or written."""
    for name in ("my_nets.py", "queued.py"):
        text = (small / name).read_text()
        if old and source.startswith(name.removesuffix(".py")):
            assert text.count(old) == 1
            (small / name).write_text(text.replace(old, new))

    assert run("train", "copy", "--architecture", source, *FEW) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (small / "runs").exists()


def test_what_cannot_be_converted_is_refused_before_the_training(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step that depends on values in Python names its line."""
    old = "        return self.output(values), Kept(values), None"
    assert old in KEEPER
    text = KEEPER.replace(old, f"        values = values if values.sum() > 0 else -values\n{old}")
    (small / "my_nets.py").write_text(text)

    assert run("train", "copy", "--architecture", "my_nets:KEEPER", *FEW) == 2
    error = capsys.readouterr().err
    line = text[: text.index("if values.sum")].count("\n") + 1
    assert "my_nets:KEEPER: what forward does depends on values, and a graph does" in error
    assert f"(my_nets.py:{line})" in error
    assert len(error.splitlines()) == 1


def test_the_same_place_is_loaded_again_and_another_of_the_name_is_refused(small: Path) -> None:
    """In one process a module is imported once; two networks cannot share a name."""
    first = own_architecture.load("my_nets:KEEPER")
    assert own_architecture.load("my_nets:KEEPER") == first
    (small / "other.py").write_text(KEEPER)
    with pytest.raises(ArchitectureError, match="there is an architecture 'keeper' already"):
        own_architecture.load("other:KEEPER")


def test_a_checkpoint_says_where_its_architecture_was(small: Path) -> None:
    """Where the architecture is not known, the error names its place, and nothing is run."""
    own_architecture.load("my_nets:KEEPER")
    row = of_task(TASKS["copy"], "keeper")
    Run.new(row, 1).save(small / "run")
    forgotten()
    with pytest.raises(training.CheckpointInvalid, match="with --architecture my_nets:KEEPER"):
        Run.load(small / "run")
