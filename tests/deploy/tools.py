"""Marks for tests that need programs which not every machine has."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def needs(mark: pytest.MarkDecorator, program: str, package: str) -> list[pytest.MarkDecorator]:
    """Return a mark, and a skip with the name of the package if the program is missing."""
    reason = f"{program} is not installed; Debian's package {package} has it"
    return [mark, pytest.mark.skipif(shutil.which(program) is None, reason=reason)]


PROMETHEUS = needs(pytest.mark.prometheus, "promtool", "prometheus")
ALERTMANAGER = needs(pytest.mark.prometheus, "amtool", "prometheus-alertmanager")
NPM = needs(pytest.mark.npm, "npm", "npm")


def run(command: Sequence[object], folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in the project's folder or another."""
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def passes(command: Sequence[object], folder: Path = ROOT) -> None:
    """Fail with the output of a command unless its exit status is 0."""
    ended = run(command, folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
