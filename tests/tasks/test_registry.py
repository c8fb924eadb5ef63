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


def test_an_installed_package_adds_a_task(tmp_path: Path) -> None:
    """Its entry point in the group `ntm_tasks` names the task."""
    module = "from dataclasses import replace\nfrom ntm_tasks.tasks.copy import TASK\n"
    (tmp_path / "mine.py").write_text(f"{module}ECHO = replace(TASK, name='echo')\n")
    (tmp_path / "mine-1.dist-info").mkdir()
    (tmp_path / "mine-1.dist-info" / "entry_points.txt").write_text("[ntm_tasks]\necho=mine:ECHO\n")
    found = subprocess.run(
        [sys.executable, "-c", "from ntm_tasks import TASKS; print(*TASKS)"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(PACKAGE.parent)])},
        capture_output=True,
        text=True,
        check=True,
    )

    assert found.stdout.split() == [*TASKS, "echo"]


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
