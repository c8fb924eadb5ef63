"""Programs that not every machine has, and the marks of the tests that need them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def needs(mark: pytest.MarkDecorator, program: str, package: str) -> list[pytest.MarkDecorator]:
    """The mark, and a skip that says which package has the program where it is missing."""
    reason = f"{program} is not installed; Debian's package {package} has it"
    return [mark, pytest.mark.skipif(shutil.which(program) is None, reason=reason)]


PROMETHEUS = needs(pytest.mark.prometheus, "promtool", "prometheus")
ALERTMANAGER = needs(pytest.mark.prometheus, "amtool", "prometheus-alertmanager")
NPM = needs(pytest.mark.npm, "npm", "npm")


def run(command: Sequence[object], folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A command run to its end, in the project's folder or another."""
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def passes(command: Sequence[object], folder: Path = ROOT) -> None:
    """Fail with what a command says unless it ends with status 0."""
    ended = run(command, folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
