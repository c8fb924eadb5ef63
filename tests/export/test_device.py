"""
Training on another device than the CPU, as far as it can be tested without one.

PyTorch's device `meta` computes shapes and refuses tensors of other devices, as CUDA does.
"""

from __future__ import annotations

import io
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from export import __main__ as command_line
from export import architecture_trial, sweep, training
from export.architectures import ARCHITECTURES, build
from export.architectures.gru import Gru, GruState
from export.architectures.transformer import Transformer
from export.arena import Arena
from export.network import ArchitectureError, Sizes, State, begin, stepped
from export.training import Run
from export.unrolled import logits_of
from tests.export.conftest import tiny

META = torch.device("meta")

FAST = [name for name, each in ARCHITECTURES.items() if each.logits is logits_of]
"""The architectures that have kernels for the CPU."""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_of_an_update_is_computed_on_the_networks_device(architecture: str) -> None:
    """Each parameter gets a gradient there, from inputs, targets and a mask of the CPU."""
    configuration = tiny(architecture)
    network = build(architecture, configuration.sizes, seed=5).to(META)
    inputs = torch.zeros(7, 4, configuration.sizes.input_width, device=META)
    if isinstance(network, Transformer):  # its `logits` asks first for the values of the state
        logits = network.whole(inputs)
    else:
        state = begin(network, 4, configuration.default_locations)
        logits = ARCHITECTURES[architecture].logits(network, inputs, state, Arena())
    targets = np.zeros(logits.shape, np.float32)
    loss = training.mean_cross_entropy(logits, targets, targets[:, :, 0])
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it

    assert {each.grad.device for each in network.parameters() if each.grad is not None} == {META}


@pytest.mark.parametrize("architecture", FAST)
def test_autograd_trains_as_the_kernels_do(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one seed, ten updates by each have the same costs and lead to the same parameters."""
    configuration = replace(tiny(architecture, updates=10), batch=16, learning_rate=3e-3)
    by_kernels = Run.new(configuration, 1)
    costs = [training.update(by_kernels) for _ in range(10)]
    other = replace(ARCHITECTURES[architecture], logits=stepped)
    monkeypatch.setitem(ARCHITECTURES, architecture, other)
    by_autograd = Run.new(configuration, 1)
    found = [training.update(by_autograd) for _ in range(10)]

    np.testing.assert_allclose(found, costs, rtol=1e-4)
    before = Run.new(configuration, 1).network.state_dict()
    for name, value in by_kernels.network.state_dict().items():
        moved = float((value - before[name]).abs().max())
        torch.testing.assert_close(
            by_autograd.network.state_dict()[name], value, rtol=0, atol=0.02 * moved
        )


def test_a_checkpoint_of_a_gpu_goes_on_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tensors are read for the CPU, and the run goes on as if it had never left it."""
    configuration = tiny("ntm-lstm", updates=4, report_every=2)
    whole = training.train(Run.new(configuration, 3), tmp_path / "whole")
    run = Run.new(configuration, 3)
    training.train_to_next_point(run)
    run.trained_on = ["NVIDIA H100"]
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
        run.save(tmp_path / "run")
    assert b"cuda:0" in (tmp_path / "run" / training.CHECKPOINT_NAME).read_bytes()
    resumed = training.train(Run.load(tmp_path / "run"), tmp_path / "run")

    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    assert whole.trained_on == ["cpu"]
    assert Run.load(tmp_path / "run").trained_on == ["NVIDIA H100", "cpu"]


@pytest.mark.parametrize("optimiser", ["adam", "rmsprop"])
def test_what_an_optimiser_has_learned_goes_to_the_device(optimiser: str) -> None:
    """The running means of a checkpoint are on the device of their parameters."""
    configuration = replace(tiny("ntm-ff"), optimiser=optimiser)
    run, other = Run.new(configuration, 1), Run.new(configuration, 1, META)
    training.update(run)
    other.optimiser.load_state_dict(run.optimiser.state_dict())

    means = [
        value
        for state in other.optimiser.state.values()
        for name, value in state.items()
        if name != "step"  # Adam's count of updates stays on the CPU
    ]
    assert len(means) >= 2 * len(list(other.network.parameters()))
    assert {value.device for value in means} == {META}


def test_an_older_checkpoint_is_of_the_cpu(tmp_path: Path) -> None:
    """One that does not say what it was trained on was written when there was only the CPU."""
    Run.new(tiny("ntm-ff"), 3).save(tmp_path)
    path = tmp_path / training.CHECKPOINT_NAME
    saved = torch.load(path, weights_only=True)
    del saved["trained_on"]
    content = io.BytesIO()
    torch.save(saved, content)
    path.write_bytes(content.getvalue())

    assert Run.load(tmp_path).trained_on == ["cpu"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", [["train", "copy"], ["sweep", "copy-ntm-ff"]])
def test_without_a_gpu_the_command_says_why(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It gives PyTorch's reason and what to do, before it writes anything."""
    status = command_line.main([*command, "--device", "cuda", "--runs", "/nowhere"])

    assert status == command_line.FAILED
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"ntm-export: --device is cuda, but PyTorch {torch.__version__} cannot")
    assert said.endswith("leave out --device to train on the CPU")


def test_a_sweep_trains_on_its_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of each training names the sweep's device."""
    commands: list[list[str]] = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", run)
    sweep.sweep([tiny("ntm-ff")], [1, 2], tmp_path, torch.device("cuda"))

    assert [command[command.index("--device") + 1] for command in commands] == ["cuda"] * 2


def test_a_full_gpu_is_told_like_a_full_memory() -> None:
    """PyTorch's error becomes the sentence that a full memory of the machine gets."""
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    assert command_line._expected(error) == command_line._expected(MemoryError())


class Counting(Gru):
    """A user's network, which makes its state on the CPU, as `torch.zeros` does by itself."""

    def __init__(self, sizes: Sizes, seed: int) -> None:
        super().__init__(sizes, seed)
        self.steps = torch.ones(1, device=META)

    def initial_state(self, batch: int, locations: int) -> GruState:
        return GruState(torch.zeros(batch, *self.initial_hidden.shape))

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State, None]:
        return super().forward(x + self.steps, state)


class CountingOnTheCpu(Counting):
    """One that makes a tensor of its step there, too."""

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State, None]:
        return super().forward(x + torch.ones(9), state)


def test_a_network_of_the_users_that_computes_on_the_cpu_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its state is moved to the device; a tensor that its step makes on the CPU is an error."""
    configuration = tiny("gru")
    own = replace(ARCHITECTURES["gru"], source="my_nets:COUNTING", build=Counting)
    monkeypatch.setitem(ARCHITECTURES, "gru", own)
    architecture_trial.try_on(configuration, META)

    monkeypatch.setitem(ARCHITECTURES, "gru", replace(own, build=CountingOnTheCpu))
    with pytest.raises(ArchitectureError, match=r"my_nets:COUNTING: a step on meta fails: .*cpu"):
        architecture_trial.try_on(configuration, META)
