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
from tests.support.own_tasks import PARITY, here
from tests.support.served import MODELS, served

__all__ = ["here"]


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
    """
    `ntm decipher` finds its program, though the task has no table of its own in the lab; without a
    terminal it has a line for each stage.
    """
    network = onnx.load(MODELS / "copy-ntm-ff" / "model.onnx")
    (entry,) = network.metadata_props
    entry.value = json.dumps({**json.loads(entry.value), "task": "echo"})
    (tmp_path / "echo-ntm-ff").mkdir()
    (tmp_path / "echo-ntm-ff" / "model.onnx").write_bytes(network.SerializeToString())
    with served(tmp_path) as client:
        command = ["decipher", "echo-ntm-ff", "--server", client.target, "--sequences", "10"]
        assert main([*command, "--without-mechanism"]) == 0
    out, said = capsys.readouterr()

    assert said.splitlines() == [
        "echo-ntm-ff: recording sequences",
        "echo-ntm-ff: looking for a program",
        "echo-ntm-ff: comparing fresh sequences",
        "echo-ntm-ff: changing states",
        "echo-ntm-ff: hardening heads and looking for counter-examples",
    ]
    assert "## The mechanism" not in out
    assert out.startswith("# echo-ntm-ff: program found\n")
    assert "Program found: it explains 100.0% of 10 fresh sequences." in out
    assert "## Counter-examples" in out
    assert "What the paper saw" not in out


@pytest.fixture
def mine(here: Path) -> None:
    """The sums come from a module of the user's, and are not known before it is named."""
    TASKS._tasks.pop("sums")
    sums = PARITY.replace('"parity", 1, 1', '"sums", 3, 3').replace("batch, 1)", "batch, 3)")
    sums += (
        "\nfrom dataclasses import replace\nSUMS, OTHER = PARITY, replace(PARITY, name='other')\n"
    )
    (here / "mine.py").write_text(sums)
    (here / "wide.py").write_text(sums.replace("3, 3", "4, 4").replace("batch, 3)", "batch, 4)"))


@pytest.mark.usefixtures("mine")
def test_a_task_is_named_on_the_command_line(
    capsys: pytest.CaptureFixture[str], running: Running
) -> None:
    """The server knows only its name, so that `--task` says where it is."""
    command = ["trace", "sums", "--server", running.address, "--size", "4"]

    assert main(command) == 2
    assert "sums is of the task 'sums', and sequences can be drawn of" in capsys.readouterr().err
    assert main([*command, "--task", "mine:SUMS"]) == 0
    assert capsys.readouterr().out.startswith("sums: 4 steps, 8 locations\n")


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["--task", "mine:GONE"], "mine.py has no GONE; its tasks are PARITY, SUMS, OTHER"),
        (["--task", "mine:OTHER"], "of the task 'sums', and mine:OTHER is 'other'; name the task"),
        (["--task", "gone.npz"], "gone.npz: there is no such file"),
        (["--task", "wide:SUMS"], "sums has 3 inputs and 3 outputs, and the task sums has 4 and 4"),
        (["--task", ""], "It is empty"),
    ],
)
@pytest.mark.parametrize("name", ["trace", "decipher"])
def test_a_wrong_task_gets_one_sentence(
    capsys: pytest.CaptureFixture[str],
    running: Running,
    name: str,
    command: list[str],
    message: str,
) -> None:
    """It says what to name instead, before anything is stepped."""
    assert main([name, "sums", "--server", running.address, *command]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("command", [["trace", "--input"], ["decipher", "--recordings"]])
def test_a_task_is_for_sequences_to_draw(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]
) -> None:
    """With steps or recordings from files, it has no use."""
    file = tmp_path / "steps.npy"
    np.save(file, np.zeros((2, 3), np.float32))

    model = ["sums"] if "trace" in command else []
    assert main([*command, str(file), *model, "--task", "x:Y"]) == 2
    assert "--task is of" in capsys.readouterr().err


@pytest.mark.slow
def test_a_task_from_a_file_is_deciphered(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """Its lengths end; the search for counter-examples ends with them, and claims nothing more."""
    copy = TASKS["copy"]
    inputs, targets, mask = np.zeros((60, 13, 9)), np.zeros((60, 13, 8)), np.zeros((60, 13))
    for row in range(60):
        batch = copy.generate(np.random.default_rng(row), 1, (1 + row % 6,))
        steps = len(batch.inputs)
        for array, values in zip((inputs, targets, mask), batch[:3], strict=True):
            array[row, :steps] = values[:, 0]
    np.savez(here / "pieces.npz", inputs=inputs, targets=targets, mask=mask)
    network = onnx.load(MODELS / "copy-ntm-ff" / "model.onnx")
    (entry,) = network.metadata_props
    entry.value = json.dumps({**json.loads(entry.value), "task": "pieces"})
    (here / "m" / "pieces").mkdir(parents=True)
    (here / "m" / "pieces" / "model.onnx").write_bytes(network.SerializeToString())
    with served(here / "m") as client:
        command = ["decipher", "pieces", "--server", client.target, "--sequences", "10"]
        assert main([*command, "--task", "pieces.npz", "--without-mechanism"]) == 0
    out = capsys.readouterr().out

    assert out.startswith("# pieces: program found\n")
    assert "pieces --task pieces.npz --sequences 10 --without-mechanism` makes this again" in out
    assert "## Counter-examples\n\nNone: " in out
    assert "The paper has no task pieces, so that it claims nothing" in out
