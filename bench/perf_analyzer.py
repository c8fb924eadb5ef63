"""Load on Triton by its own client, perf_analyzer, which is written in C++."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WINDOW_MILLISECONDS = 1000
"""perf_analyzer reports on three windows at least."""

LIMIT_SECONDS = 60


@dataclass(frozen=True)
class Measured:
    """What perf_analyzer saw at one number of sequences."""

    steps_a_second: float
    p50_microseconds: float
    p99_microseconds: float


def measure(
    command: Sequence[str], address: str, model: str, inputs: Path, sequences: int
) -> Measured:
    """
    Stream that many sequences at a time, each sending its next step when it gets a reply.

    Args:
        command: what starts perf_analyzer.
        inputs: JSON file with the steps of a few sequences, which are sent again and again.
    """
    report = inputs.with_name(f"measured-{sequences}.csv")
    report.unlink(missing_ok=True)
    workload = ["-m", model, "-u", address, "-i", "grpc", "--streaming"]
    workload += ["--input-data", str(inputs), "--concurrency-range", str(sequences)]
    windows = ["--measurement-mode", "time_windows"]
    windows += ["--measurement-interval", str(WINDOW_MILLISECONDS)]
    # Any three windows do: rounds show how stable it is, for us and for Triton alike.
    windows += ["--stability-percentage", "999"]
    done = subprocess.run(
        [*command, *workload, *windows, "-f", str(report)],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    if done.returncode or not report.exists():
        raise RuntimeError(f"perf_analyzer failed:\n{done.stdout}{done.stderr}")
    return parse(report.read_text())


def parse(report: str) -> Measured:
    """Read the table that perf_analyzer writes, of one line."""
    (line,) = csv.DictReader(report.splitlines())
    return Measured(
        float(line["Inferences/Second"]), float(line["p50 latency"]), float(line["p99 latency"])
    )
