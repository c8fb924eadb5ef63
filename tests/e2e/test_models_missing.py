"""A command that cannot find models says where they can be had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_process import flags, ports, started
from tests.support.served import ROOT

COMMANDS = {
    "service": ["--port=0", "--metrics-port=0"],
    "service --models-dir": ["--port=0", "--metrics-port=0", "--models-dir=elsewhere"],
    "export evaluate": ["models/copy-ntm-lstm"],
    "export report": [],
    "ntm_lab decipher": ["--all", "models"],
}
"""Every command that reads a folder of models, and its arguments in a folder that has none."""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_where_models_can_be_had(
    command: str, models_dir: Path, tmp_path: Path
) -> None:
    """In a folder without models, as after an installation from wheels."""
    (tmp_path / "models" / "copy-ntm-lstm").mkdir(parents=True)
    module, *rest = command.split()
    arguments = [part for part in rest if not part.startswith("--")] + COMMANDS[command]
    with started("-m", "service", *flags(models_dir)) as process:
        if module == "ntm_lab":
            arguments += ["--server", ports(process)[0]]
        paths = [ROOT, *(ROOT / name for name in ("client", "tasks", "lab"))]
        ended = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(map(str, paths))},
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert ended.returncode in (1, 2)
    said = [line for line in ended.stderr.splitlines() if not line.startswith("{")]  # the log
    assert len(said) == 1
    assert "the folder models of a checkout" in said[0]
