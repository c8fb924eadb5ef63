"""Checkpoints of pytorch-ntm: read, converted, verified by its equations, served and deciphered."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from export import __main__ as command_line
from export import card, to_onnx
from export.comparison import VerificationFailed
from export.evaluation import TorchRunner, outputs
from export.pytorch_ntm import checkpoint as files
from export.pytorch_ntm import verification
from export.pytorch_ntm.checkpoint import CheckpointInvalid
from export.pytorch_ntm.equations import Equations
from export.pytorch_ntm.network import ACTIVATIONS, Activations, PytorchNtm, spec_of
from export.verification import OnnxRunner
from ntm_lab.decipher.report import decipher
from ntm_lab.recordings.recording import record
from ntm_tasks import Batch, Size, Task
from ntm_tasks.registry import register
from tests.support.own_tasks import here
from tests.support.served import ROOT, served

__all__ = ["here"]

N, M, SIZE, LAYERS = 16, 5, 12, 2
PAGE = ROOT / "docs" / "pytorch-ntm.md"

Tensors = dict[str, Tensor]


def drawn(*heads: str, inputs: int = 9, outputs: int = 8, scale: float = 0.8) -> Tensors:
    """The tensors that an `EncapsulatedNTM` of these heads saves, with random values."""
    generator = torch.Generator().manual_seed(1)

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * scale

    reads = heads.count("read")
    tensors = {f"ntm.read{row}_bias": some(1, M) for row in range(reads)}
    tensors["ntm.controller.lstm_h_bias"] = some(LAYERS, 1, SIZE)
    tensors["ntm.controller.lstm_c_bias"] = some(LAYERS, 1, SIZE)
    for layer in range(LAYERS):
        fed = SIZE if layer else inputs + reads * M
        tensors[f"ntm.controller.lstm.weight_ih_l{layer}"] = some(4 * SIZE, fed)
        tensors[f"ntm.controller.lstm.weight_hh_l{layer}"] = some(4 * SIZE, SIZE)
        tensors[f"ntm.controller.lstm.bias_ih_l{layer}"] = some(4 * SIZE)
        tensors[f"ntm.controller.lstm.bias_hh_l{layer}"] = some(4 * SIZE)
    memory = some(N, M)
    tensors["ntm.memory.mem_bias"] = tensors["memory.mem_bias"] = memory
    for index, kind in enumerate(heads):
        rows = M + 6 + (2 * M if kind == "write" else 0)
        tensors[f"ntm.heads.{index}.memory.mem_bias"] = memory
        tensors[f"ntm.heads.{index}.fc_{kind}.weight"] = some(rows, SIZE)
        tensors[f"ntm.heads.{index}.fc_{kind}.bias"] = some(rows)
    tensors["ntm.fc.weight"] = some(outputs, SIZE + reads * M)
    tensors["ntm.fc.bias"] = some(outputs)
    return tensors


def saved(folder: Path, content: Any) -> Path:
    """A file of `torch.save`."""
    path = folder / "a-checkpoint.model"
    torch.save(content, path)
    return path


def changed(tensors: Tensors, **values: Tensor | None) -> Tensors:
    """Other tensors in the place of some, whose names have _ for a dot; None removes one."""
    named = {name.replace(".", "_"): name for name in tensors}
    found = {**tensors, **{named.get(name, name): value for name, value in values.items()}}
    return {name: value for name, value in found.items() if value is not None}


HEADS = [
    ("read", "write"),
    ("read", "write", "read", "write"),
    ("write", "read", "read"),
    ("read", "write", "write"),
]


@pytest.mark.parametrize("activations", ACTIVATIONS)
@pytest.mark.parametrize("heads", HEADS, ids="-".join)
def test_the_network_computes_the_equations(
    tmp_path: Path, heads: tuple[str, ...], activations: Activations
) -> None:
    """In double precision, 50 steps of the network are those of the equations to 1e-9."""
    read = files.read(saved(tmp_path, drawn(*heads)))
    network, equations = PytorchNtm(read, activations), Equations(read, activations)
    state, sequence = network.initial_state(1, N), equations.start()
    spec = spec_of(network, "any")
    generator = np.random.default_rng(2)

    for _ in range(50):
        x = generator.standard_normal(9)
        with torch.no_grad():
            values = to_onnx.ServedStep(network)(torch.from_numpy(x[None]), state)
        state = type(state)._make(values[1 : 1 + len(state)])
        y, sequence, acted = equations.step(x, sequence)
        expected = equations.named(y, sequence, acted)
        found = dict(zip(to_onnx.output_names(spec), values, strict=True))
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][0].numpy(), value, rtol=1e-9, atol=1e-9)


def test_the_graph_computes_the_equations(tmp_path: Path) -> None:
    """All outputs, states and traces of the file, over sequences of several batches."""
    read = files.read(saved(tmp_path, drawn("read", "write", "read", "write")))
    network = PytorchNtm(read, "softplus").float()
    content = to_onnx.convert(network, spec_of(network, "any")).SerializeToString()

    found = list(verification.verify(content, network, Equations(read, "softplus")))

    assert [(each.batch, each.steps) for each in found] == [(1, 50), (7, 50), (8, 50), (2, 300)]
    assert all(each.step_difference < 1e-5 for each in found)


def test_a_small_weighting_is_not_made_whole(tmp_path: Path) -> None:
    """Powers whose sum is near 1e-16 sum to less than 1, in the graph as in the repository."""
    tensors = drawn("read", "write", scale=0.1)
    for index, kind in enumerate(("read", "write")):
        bias = tensors[f"ntm.heads.{index}.fc_{kind}.bias"]
        bias[M], bias[M + 5] = -20.0, 13.3  # a flat weighting, and its 14th power
        bias[M + 1] = 20.0
    read = files.read(saved(tmp_path, tensors))
    network = PytorchNtm(read, "softplus").float()
    runner = OnnxRunner(to_onnx.convert(network, spec_of(network, "any")).SerializeToString())
    x = np.zeros((1, 9), np.float32)
    found = runner.everything(x, runner.start(1, N))["weighting_next"][0]
    _, after, _ = Equations(read, "softplus").step(
        x[0].astype(float), Equations(read, "softplus").start()
    )

    assert 0.1 < after.weightings[0].sum() < 0.9
    np.testing.assert_allclose(found, np.stack(after.weightings), rtol=1e-3)


def test_a_graph_of_other_values_is_refused(tmp_path: Path) -> None:
    """The verification notices one weight that is not the checkpoint's."""
    read = files.read(saved(tmp_path, drawn("read", "write")))
    network = PytorchNtm(read, "softplus").float()
    model = to_onnx.convert(network, spec_of(network, "any"))
    for initializer in model.graph.initializer:
        if initializer.name == "heads.bias":
            values = numpy_helper.to_array(initializer).copy()
            values[0] += 1e-3
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))

    with pytest.raises(VerificationFailed, match="differs from the equations at batch 1"):
        list(verification.verify(model.SerializeToString(), network, Equations(read, "softplus")))


def test_the_folder_is_served_traced_and_deciphered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server steps the model as the equations do; its traces are theirs; decipher reads it."""
    path = saved(tmp_path, drawn("read", "write"))
    models = tmp_path / "models"
    arguments = ["import", "pytorch-ntm", str(path), "--models", str(models), "--name", "theirs"]
    assert command_line.main([*arguments, "--task", "copy"]) == 0
    printed = capsys.readouterr().out
    assert "9 inputs, 8 outputs, LSTM of 2 x 12, memory of 16 x 5, heads: read, write" in printed
    assert "taken as trained with softplus, which the file does not tell; --act" in printed
    described = card.read(models / "theirs")
    assert described["imported"]["heads"] == ["read", "write"]
    learned = [
        value.numel()
        for name, value in drawn("read", "write").items()
        if not name.endswith(("mem_bias", "read0_bias"))
    ]
    assert described["parameters"] == sum(learned)
    assert command_line.main(["evaluate", str(models / "theirs")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "as on the card"

    equations = Equations(files.read(path), "softplus")
    sequence, inputs = equations.start(), np.eye(9, dtype=np.float32)
    with served(models) as client:
        with client.create_session("theirs") as session:
            recording = record(session, inputs)
        report = decipher(client, "theirs", sequences=5)
    for step, x in enumerate(inputs.astype(float)):
        y, sequence, acted = equations.step(x, sequence)
        expected = equations.named(y, sequence, acted)
        np.testing.assert_allclose(recording.outputs[step], y, atol=1e-5)
        shift = recording.traces["write_shift"][step]
        np.testing.assert_allclose(shift, expected["shift"][1:], atol=1e-5)
        weighting = recording.traces["read_weighting"][step]
        np.testing.assert_allclose(weighting, expected["weighting_next"][:1], atol=1e-5)
    assert recording.after is not None
    np.testing.assert_allclose(recording.after.memory, sequence.memory, atol=1e-4)
    assert not report.found  # its parameters are random


def test_the_activations_that_answer_the_task_are_taken(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network that was trained with others than today's is told by its mistakes."""
    tensors = drawn("read", "write")
    tensors["ntm.fc.weight"] *= 40  # outputs near 0 and 1
    read = files.read(saved(here, tensors))
    network = PytorchNtm(read, "relu").float()

    def answered(
        generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0.0
    ) -> Batch:
        inputs = generator.integers(0, 2, (*size, batch, 9)).astype(np.float32)
        mask = np.ones((*size, batch), np.float32)
        shown = outputs(TorchRunner(network), Batch(inputs, inputs[:, :, :8], mask), N)
        return Batch(inputs, np.round(shown), mask)

    register(Task("answered", 9, 8, ("steps",), (1,), (9,), (1,), (1,), generate=answered))
    arguments = ["import", "pytorch-ntm", "a-checkpoint.model", "--name", "theirs"]
    assert command_line.main([*arguments, "--task", "answered"]) == 0

    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith("bits a sequence of answered with each kind of activations: softplus")
    assert said[2].startswith("taken as trained with relu, which the file does not tell; ")
    assert card.read(Path("models/theirs"))["imported"]["activations"] == "relu"


class Whole(torch.nn.Module):
    """A module that is saved as a whole, with its class."""


T = drawn("read", "write")

REFUSED: list[tuple[str, Callable[[], Any], str]] = [
    ("a module", Whole, "holds objects of tests.export.test_pytorch_ntm.Whole, whose code would"),
    ("a list", lambda: [torch.zeros(1)], "holds no tensors by name"),
    ("nested", lambda: {"state_dict": T}, "holds no tensors by name"),
    ("no heads", lambda: {"weight": torch.zeros(1)}, "has no 'ntm.heads.0.fc_read.weight' and"),
    ("nothing", dict, "has no 'ntm.heads.0.fc_read.weight' and"),
    (
        "missing",
        lambda: changed(T, ntm_controller_lstm_bias_hh_l1=None),
        "has no tensor 'ntm.controller.lstm.bias_hh_l1'",
    ),
    ("no memory", lambda: changed(T, ntm_memory_mem_bias=None), "has no tensor 'ntm.memory.mem"),
    (
        "contradiction",
        lambda: changed(T, ntm_fc_weight=torch.zeros(8, 18)),
        r"has 'ntm.fc.weight' of shape \[8, 18\]; its other tensors need \[8, 17\]",
    ),
    (
        "no inputs",
        lambda: changed(T, ntm_controller_lstm_weight_ih_l0=torch.zeros(48, 5)),
        "for 5 inputs; 1 read vectors of width 5 leave no input",
    ),
    ("axes", lambda: changed(T, ntm_memory_mem_bias=torch.zeros(3)), r"it must be \[N, M\]"),
    (
        "no locations",
        lambda: changed(T, ntm_memory_mem_bias=torch.zeros(0, 5)),
        r"of shape \[0, 5\]; it must be \[N, M\]",
    ),
    ("NaN", lambda: changed(T, ntm_fc_bias=torch.full((8,), torch.nan)), "has NaN or infinity in"),
    (
        "too large",
        lambda: changed(T, ntm_fc_bias=torch.full((8,), 1e39, dtype=torch.float64)),
        "has NaN or infinity in 'ntm.fc.bias'",
    ),
    ("integers", lambda: changed(T, ntm_fc_bias=torch.zeros(8).int()), "of type torch.int32"),
    ("another", lambda: changed(T, other=torch.zeros(1)), "tensors of another kind of network: 'o"),
    (
        "two memories",
        lambda: changed(T, ntm_heads_1_memory_mem_bias=torch.zeros(N, M)),
        "has 'ntm.heads.1.memory.mem_bias' other than 'ntm.memory.mem_bias'",
    ),
    (
        "a gap",
        lambda: {name.replace("heads.1.", "heads.2."): value for name, value in T.items()},
        "has the heads 0, 2; they must be numbered",
    ),
    (
        "both kinds",
        lambda: {**T, "ntm.heads.1.fc_read.weight": torch.zeros(11, SIZE)},
        "has head 1 both as a read head and as a write head",
    ),
]


@pytest.mark.parametrize(
    ("content", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_is_no_checkpoint_is_refused_in_one_sentence(
    tmp_path: Path,
    content: Callable[[], Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The sentence names the file and what is wrong in it, and nothing is written."""
    path = saved(tmp_path, content())
    arguments = ["import", "pytorch-ntm", str(path), "--models", str(tmp_path / "models")]

    assert command_line.main(arguments) == command_line.FAILED
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert str(path) in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"PK\x03\x04 and then nothing"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    """Whatever the bytes are, the sentence is ours, not the reader's."""
    path = tmp_path / "file"
    path.write_bytes(content)

    with pytest.raises(CheckpointInvalid, match=r"is no file that torch\.save wrote, or is"):
        files.read(path)


def test_a_pickle_with_code_runs_nothing(tmp_path: Path) -> None:
    """A file that would run a command when it is unpickled is refused, and runs none."""
    marker = tmp_path / "ran"

    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    path = saved(tmp_path, {"ntm.fc.bias": Runs()})

    with pytest.raises(CheckpointInvalid, match="whose code would have to run to read them"):
        files.read(path)
    assert not marker.exists()


def test_a_task_of_other_widths_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its repeat copy has a channel more than ours; the sentence says both."""
    path = saved(tmp_path, drawn("read", "write", inputs=10, outputs=9))
    arguments = ["import", "pytorch-ntm", str(path), "--models", str(tmp_path / "models")]

    assert command_line.main([*arguments, "--task", "repeat-copy"]) == 2
    error = capsys.readouterr().err
    assert "has 10 inputs and 9 outputs; the task repeat-copy has 9 and 9" in error


def test_a_checkpoint_of_half_precision_is_read(tmp_path: Path) -> None:
    """Sizes follow from the shapes; values from whatever floats there are."""
    halves = {name: value.half() for name, value in drawn("read", "write").items()}
    read = files.read(saved(tmp_path, halves))

    assert replace(read, tensors={}) == files.Checkpoint(
        {}, ("read", "write"), 9, 8, N, M, SIZE, LAYERS
    )
    assert read.tensors["ntm.fc.bias"].dtype == np.float64
    assert (read.tensors["ntm.fc.bias"] == halves["ntm.fc.bias"].double().numpy()).all()


@pytest.mark.long
def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    """In order, with a checkpoint of the page's name and a server of the models they write."""
    checkpoint = "copy-task-1000-batch-40000.model"
    saved(tmp_path, drawn("read", "write")).rename(tmp_path / checkpoint)
    commands = [
        line.split("  #")[0].strip()
        for block in re.findall(r"```\n(.*?)```", PAGE.read_text(), re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith(("ntm-export ", "ntm "))
    ]
    written = [line for line in commands if line.startswith("ntm-export import")]
    asked = [line for line in commands if line not in written]
    assert written
    assert any(line.startswith("ntm trace ") for line in asked)
    assert any(line.startswith("ntm decipher ") for line in asked)

    for line in written:
        run(line, tmp_path)
    assert onnx.load(tmp_path / "models" / "their-copy" / "model.onnx").graph.node
    with served(tmp_path / "models") as client:
        for line in asked:
            server = [] if line.startswith("ntm-export") else ["--server", client.target]
            run(line, tmp_path, *server)
    assert (tmp_path / "heads.png").stat().st_size > 0


def run(line: str, folder: Path, *more: str) -> None:
    """Run a command of a page, by the Python of the tests."""
    program, *arguments = shlex.split(line)
    module = {"ntm-export": "export", "ntm": "ntm_lab"}[program]
    command = [sys.executable, "-m", module, *arguments, *more]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, (line, done.stderr)
