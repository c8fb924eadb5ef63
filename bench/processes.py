"""The processes under test, each apart from the load generator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent


@contextmanager
def server(model: str) -> Iterator[str]:
    """The address of a server of that model, as a user would start it."""
    flags = ["--port=0", "--metrics-port=0", f"--models={model}", "--device=cpu"]
    with _started("service", *flags) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if '"serving"' in line:
                yield json.loads(line)["address"]
                return
    raise RuntimeError("the server did not start")


@contextmanager
def echo() -> Iterator[str]:
    """The address of a server that only sends back what it gets."""
    with _started("bench.echo") as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


@contextmanager
def _started(module: str, *flags: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", module, *flags],
        cwd=ROOT,
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=30)


def cores() -> int:
    """Processors that this machine lets us use."""
    return len(os.sched_getaffinity(0))
