"""Tasks are found by their modules, by registration, and in packages that are installed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import ntm_tasks
from ntm_tasks import TASKS, TaskError, register
from ntm_tasks.registry import PAPER

PACKAGE = Path(ntm_tasks.__file__).parent


def test_every_module_of_tasks_is_registered_in_the_papers_order() -> None:
    """A new file in the folder of tasks is a new task, without another line elsewhere."""
    files = {path.stem.replace("_", "-") for path in (PACKAGE / "tasks").glob("[a-z]*.py")}

    assert list(TASKS)[: len(PAPER)] == list(PAPER)
    assert set(TASKS) == files
    assert all(TASKS[name].name == name for name in TASKS)


def test_a_name_is_registered_once() -> None:
    """A second task of the same name is refused, and the first stays."""
    copy = TASKS["copy"]

    with pytest.raises(TaskError, match="there is a task 'copy' already"):
        register(replace(copy, input_width=3))
    assert TASKS["copy"] is copy


def tasks_with(folder: Path, module: str, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program beside an installed package whose entry point names `mine:ECHO`."""
    (folder / "mine.py").write_text(module)
    (folder / "mine-1.dist-info").mkdir()
    (folder / "mine-1.dist-info" / "entry_points.txt").write_text("[ntm_tasks]\necho=mine:ECHO\n")
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(PACKAGE.parent)])},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.parametrize("first", ["ntm_tasks", "mine"])
def test_an_installed_package_adds_a_task(tmp_path: Path, first: str) -> None:
    """It imports what it likes of ntm_tasks, and may itself be imported first."""
    module = (
        "from dataclasses import replace\nfrom ntm_tasks import TASKS, Task\n"
        "ECHO: Task = replace(TASKS['copy'], name='echo')\n"
    )
    found = tasks_with(
        tmp_path, module, f"import {first}; from ntm_tasks import TASKS; print(*TASKS)"
    )

    assert found.stdout.split() == [*TASKS, "echo"]
    assert found.stderr == ""


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("1 / 0", "division by zero"),
        ("ECHO =", "invalid syntax (mine.py, line 1)"),
        ("import nowhere", "No module named 'nowhere'"),
        ("import sys; sys.exit('bye')", "bye"),
        ("", "module 'mine' has no attribute 'ECHO'"),
        ("ECHO = 5", "it is a int, and must be a Task"),
        ("import ntm_tasks; ECHO = ntm_tasks.TASKS['copy']", "there is a task 'copy' already"),
    ],
)
def test_a_task_that_cannot_be_loaded_is_left_out(tmp_path: Path, module: str, why: str) -> None:
    """A warning names it and the reason, and the others are there."""
    found = tasks_with(tmp_path, module, "from ntm_tasks import TASKS; print(*TASKS)")

    assert found.stdout.split() == list(TASKS)
    assert f"the task echo = 'mine:ECHO' cannot be loaded: {why}" in found.stderr


def test_tasks_need_numpy_alone() -> None:
    """A trainer, a lab or a notebook draws sequences without a client or a server."""
    imported = {
        name.partition(".")[0]
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }

    assert imported - sys.stdlib_module_names == {"numpy", "ntm_tasks"}
