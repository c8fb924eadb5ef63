"""
Measure how many live callers one core carries: through a server, and in the package's own loop.

    python measure.py speech.wav --models models --onnx silero_vad.onnx

A core makes a step of 512 samples 31.25 times a second for each caller. The server's part is the
processor time of its process; the callers run in this one. The two are measured in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from listen import RATE, STEP, Samples, calls, loaded, of_caller, package_loop, steps_of

STEPS_PER_SECOND = RATE / STEP


@contextmanager
def serving(models: Path) -> Iterator[tuple[str, int]]:
    """Start a server of a folder of models; give its address and process."""
    command = [sys.executable, "-m", "service", f"--models-dir={models}", "--device=cpu"]
    command += ["--port=0", "--metrics-port=0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if '"message": "serving"' in line)
            yield json.loads(line)["address"], process.pid
        finally:
            process.terminate()


def processor_seconds(process: int) -> float:
    """Return the processor time of a process so far, as Linux tells it."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def through_a_server(address: str, process: int, model: str, recordings: list[Samples]) -> float:
    """Return the server's processor time for a step, with all callers at once."""
    before = processor_seconds(process)
    asyncio.run(calls(address, model, recordings, live=False))
    return (processor_seconds(process) - before) / sum(map(len, recordings))


def in_the_loop(session: Any, steps: Samples) -> float:
    """Return the processor time of a step in the package's loop, of one caller."""
    before = time.process_time()
    package_loop(session, steps)
    return (time.process_time() - before) / len(steps)


def shown(what: str, costs: list[float]) -> str:
    """Return what steps cost, and the callers that a core carries."""
    middle, least, most = statistics.median(costs), min(costs), max(costs)
    carried = [1 / cost / STEPS_PER_SECOND for cost in (middle, most, least)]
    return (
        f"{what:>24}: {1e6 * middle:.0f} us a step, {carried[0]:.0f} callers a core "
        f"({carried[1]:.0f} to {carried[2]:.0f})"
    )


def main() -> None:
    """Measure both in turn."""
    parser = argparse.ArgumentParser(description="Measure how many callers one core carries.")
    parser.add_argument("file", type=Path, help="recording: WAV, 16 kHz, one channel, 16 bits")
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of models")
    parser.add_argument("--model", default="silero_vad", help="name of the model")
    parser.add_argument("--onnx", type=Path, required=True, help="the package's file")
    parser.add_argument("--callers", type=int, default=64, help="how many speak at once")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    options = parser.parse_args()
    steps = steps_of(options.file)[:200]
    recordings = [of_caller(steps, number) for number in range(options.callers)]
    served, alone, session = [], [], loaded(options.onnx)
    with serving(options.models) as (address, process):
        asyncio.run(calls(address, options.model, recordings, live=False))  # loads the model
        for _ in range(options.rounds):
            served.append(through_a_server(address, process, options.model, recordings))
            alone.append(in_the_loop(session, steps))
    print(shown(f"server, {options.callers} callers", served))
    print(shown("the package's own loop", alone))


if __name__ == "__main__":
    main()
