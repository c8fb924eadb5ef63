"""A task that is not the paper's is traced and deciphered like those that are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from ntm_lab.cli import main
from ntm_lab.recordings.files import load
from ntm_tasks import TASKS, Batch, Size, Task, register
from tests.client.conftest import Running
from tests.support.served import MODELS, served


def running_sums(
    generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0.0
) -> Batch:
    """Bits in, and out what the fake server's model of sums gives."""
    inputs = generator.integers(0, 2, (size[0], batch, 3)).astype(np.float32)
    return Batch(inputs, inputs.cumsum(0), np.ones((size[0], batch), np.float32))


SUMS = Task(
    "sums",
    3,
    3,
    ("length",),
    smallest=(2,),
    largest=(6,),
    easiest=(2,),
    least=(1,),
    generate=running_sums,
)

ECHO = Task(
    "echo",
    9,
    8,
    ("vectors",),
    smallest=(1,),
    largest=(12,),
    easiest=(1,),
    least=(1,),
    generate=TASKS["copy"].generate,
)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both tasks are known during a test."""
    monkeypatch.setattr(TASKS, "_tasks", dict(TASKS))
    register(SUMS)
    register(ECHO)


def test_an_own_task_is_traced(
    capsys: pytest.CaptureFixture[str], running: Running, tmp_path: Path
) -> None:
    """`ntm trace` draws a sequence of it, of the size and the seed asked for."""
    file = tmp_path / "sums.npz"
    command = ["trace", "sums", "--server", running.address, "--size", "4", "--seed", "1"]

    assert main([*command, "--save", str(file)]) == 0
    assert capsys.readouterr().out.startswith("sums: 4 steps, 8 locations\n")
    assert load(file).target is not None


@pytest.mark.slow
def test_an_own_task_is_deciphered(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`ntm decipher` finds its program, though the task has no table of its own in the lab."""
    network = onnx.load(MODELS / "copy-ntm-ff" / "model.onnx")
    (entry,) = network.metadata_props
    entry.value = json.dumps({**json.loads(entry.value), "task": "echo"})
    (tmp_path / "echo-ntm-ff").mkdir()
    (tmp_path / "echo-ntm-ff" / "model.onnx").write_bytes(network.SerializeToString())
    with served(tmp_path) as client:
        command = ["decipher", "echo-ntm-ff", "--server", client.target, "--sequences", "10"]
        assert main(command) == 0
    out = capsys.readouterr().out

    assert out.startswith("# echo-ntm-ff: program found\n")
    assert "Program found: it explains 100.0% of 10 fresh sequences." in out
    assert "## Counter-examples" in out
    assert "What the paper saw" not in out
