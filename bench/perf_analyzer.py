"""Load for Triton by its own client, perf_analyzer, which is written in C++."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WINDOW_MILLISECONDS = 1000
"""perf_analyzer measures at least three windows."""

LIMIT_SECONDS = 60


@dataclass(frozen=True)
class Measured:
    """Results of perf_analyzer at one number of sequences."""

    steps_a_second: float
    p50_microseconds: float
    p99_microseconds: float


def measure(
    command: Sequence[str], address: str, model: str, inputs: Path, sequences: int
) -> Measured:
    """
    Stream `sequences` sequences at a time. Each sends its next step when it gets a reply.

    Args:
        command: starts perf_analyzer.
        inputs: JSON file with the steps of a few sequences, which are sent repeatedly.
    """
    report = inputs.with_name(f"measured-{sequences}.csv")
    report.unlink(missing_ok=True)
    workload = ["-m", model, "-u", address, "-i", "grpc", "--streaming"]
    workload += ["--input-data", str(inputs), "--concurrency-range", str(sequences)]
    windows = ["--measurement-mode", "time_windows"]
    windows += ["--measurement-interval", str(WINDOW_MILLISECONDS)]
    # Any three windows are enough: the rounds show the stability, for us as for Triton.
    windows += ["--stability-percentage", "999"]
    done = subprocess.run(
        [*command, *workload, *windows, "-f", str(report)],
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_SECONDS,
        check=False,
    )
    if done.returncode or not report.exists():
        raise RuntimeError(f"perf_analyzer failed:\n{done.stdout}{done.stderr}")
    return parse(report.read_text("utf-8"))


def parse(report: str) -> Measured:
    """Parse the table that perf_analyzer writes. It has one line."""
    (line,) = csv.DictReader(report.splitlines())
    return Measured(
        float(line["Inferences/Second"]), float(line["p50 latency"]), float(line["p99 latency"])
    )
