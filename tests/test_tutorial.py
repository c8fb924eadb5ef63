"""The page about a task of your own does what it says, from an empty folder to a served network."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from export import __main__ as trainer
from export import card, configurations, verification
from ntm_lab import cli
from ntm_tasks import TASKS
from tests.support.own_tasks import here
from tests.support.served import served

__all__ = ["here"]

ROOT = Path(__file__).parent.parent

PAGE = (ROOT / "docs" / "your-own-task.md").read_text(encoding="utf-8")

COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]

PROGRAM = re.compile(r"```python\n(.*?)```", re.DOTALL)

FEW = ("--set", "updates=4", "--set", "report_every=2", "--set", "batch=4")
"""A training of a second, in place of two minutes."""


def programs() -> dict[str, str]:
    """The files of the page: each program has the name that was last mentioned before it."""
    return {
        re.findall(r"`(\w+\.py)`", PAGE[: found.start()])[-1]: found[1]
        for found in PROGRAM.finditer(PAGE)
    }


def run(line: str) -> None:
    """Run a command of the page, as in a process of its own but for a program of the page."""
    TASKS._tasks.pop("brackets", None)
    TASKS._tasks.pop("recorded", None)
    command, *arguments = shlex.split(line)
    if command == "ntm-export":
        more = FEW if arguments[0] == "train" else ()
        assert trainer.main([*arguments, *more]) == 0, line
    elif command == "ntm":
        assert cli.main(arguments) == 0, line
    else:
        assert command == "python"
        subprocess.run([sys.executable, *arguments], check=True)


@pytest.mark.slow
def test_the_commands_of_the_page_work_in_its_order(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With few updates, and verified over few steps."""
    monkeypatch.setattr(card, "VERIFIED_LOCATIONS", (16, 20))
    monkeypatch.setattr(verification.verify, "__defaults__", ((1, 7), 20))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    threads = torch.get_num_threads()
    files = programs()
    assert set(files) == {"brackets.py", "ask.py", "record.py"}
    for name, text in files.items():
        (here / name).write_text(text)
    server = COMMANDS.index("python ask.py")  # before which the page starts it
    for line in COMMANDS[:server]:
        run(line)
    with served(here / "models") as client:
        (here / "ask.py").write_text(files["ask.py"].replace("localhost:50051", client.target))
        monkeypatch.setenv("NTM_SERVER", client.target)
        for line in COMMANDS[server:]:
            run(line)
    torch.set_num_threads(threads)
    said = capfd.readouterr().out

    assert "brackets-ntm-lstm: seed 1, 59,734 parameters, 16 sequences" in said
    assert "brackets-ntm-lstm: 16 steps, 128 locations" in said
    assert "The paper has no task brackets" in said
    assert "loaded and stepped as by a server" in said
    assert (here / "heads.png").exists()
    assert (here / "models" / "recorded-lstm" / "model.onnx").exists()
    assert "| recorded-lstm |" not in (here / "models" / "REPORT.md").read_text()
    assert "| brackets-ntm-lstm | brackets | 12 | 128 | 1,000 |" in (
        (here / "models" / "REPORT.md").read_text()
    )


def test_the_settings_of_the_page_are_settings() -> None:
    """Each `--set` that it names is read, for the task that it describes."""
    named = re.findall(r"--set (\w+)=([^`\s]+)", PAGE)
    copy = configurations.of_task(TASKS["copy"], "ntm-lstm")
    lstm = configurations.of_task(TASKS["copy"], "lstm")

    assert len(named) >= 6
    for name, value in named:
        network = lstm if value.startswith("24:0:") else copy
        network.with_settings({name: value})
