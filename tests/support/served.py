"""A server in a process of its own, and a client of it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ntm_client import Client

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
"""The models that ship."""


@contextmanager
def served(models_dir: Path, *flags: str) -> Iterator[Client]:
    """A client of a new server of these models, with these flags, which ends with the block."""
    command = [sys.executable, "-m", "service", f"--models-dir={models_dir}", "--device=cpu"]
    ports = ["--port=0", "--metrics-port=0"]
    with subprocess.Popen(
        [*command, *ports, *flags], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if '"message": "serving"' in line)
            # A pipe that nobody reads would fill, and stop the server.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            with Client(json.loads(line)["address"]) as client:
                yield client
        finally:
            process.terminate()
            process.wait()
