"""Run a list of trainings one after another. A failure does not stop the others."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from export.configuration import Configuration
from export.device import CPU
from export.training import CHECKPOINT_NAME, CheckpointInvalid, Run, folder_of


class Outcome(NamedTuple):
    """The outcome of one training."""

    name: str
    seed: int
    status: int | None
    """The exit status of its process; None if the training was already finished."""
    run: Run | None
    """The last checkpoint, if there is one of the configuration of this name."""

    @property
    def finished(self) -> bool:
        """Whether all updates are made."""
        return self.run is not None and self.run.finished


def sweep(
    rows: Sequence[Configuration],
    seeds: Sequence[int],
    runs: Path,
    device: torch.device = CPU,
    replaced: Sequence[str] = (),
) -> list[Outcome]:
    """
    Train every configuration with every seed, except trainings that are already finished.

    Args:
        rows: The configurations, with their settings replaced.
        seeds: The seeds of each.
        runs: The folder of the checkpoints.
        device: The device to train on.
        replaced: What was replaced in each row of the table, as NAME=VALUE.
    """
    started = time.monotonic()
    outcomes = []
    trainings = [(row, seed) for row in rows for seed in seeds]
    for number, (row, seed) in enumerate(trainings, 1):
        minutes = (time.monotonic() - started) / 60
        print(
            f"[{number} of {len(trainings)}, {minutes:.0f} min] {row.name}, seed {seed}", flush=True
        )
        status = None
        run = _checkpoint(runs, row, seed)
        if run is None or not run.finished:
            status = _train(row, seed, runs, device, replaced)
            run = _checkpoint(runs, row, seed)
        outcomes.append(Outcome(row.name, seed, status, run))
        print(_state(outcomes[-1]), flush=True)
    return outcomes


def _train(
    row: Configuration, seed: int, runs: Path, device: torch.device, replaced: Sequence[str]
) -> int:
    """Train in a separate process, so that its crash does not end the sweep."""
    command = [sys.executable, "-m", "export", "train", row.task]
    command += ["--architecture", row.architecture, "--seed", str(seed), "--runs", str(runs)]
    command += ["--device", device.type, *(f"--set={text}" for text in replaced)]
    return subprocess.run(command, check=False).returncode  # noqa: S603  # our own command


def _checkpoint(runs: Path, row: Configuration, seed: int) -> Run | None:
    """Return the run of a training; None if there is none, or one that it cannot go on from."""
    folder = folder_of(runs, row.name, seed)
    if not (folder / CHECKPOINT_NAME).exists():
        return None
    try:
        return Run.load_to_go_on(folder, row, seed)
    except (CheckpointInvalid, OSError):
        return None  # the training says why when it fails


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as a text table, with the sum of the restarts."""
    lines = [
        f"{'training':<28} {'seed':>4} {'sequences':>10} {'restarts':>8} {'passed':>6} "
        f"{'bits':>9} {'seconds':>8}  state"
    ]
    for outcome in outcomes:
        run = outcome.run
        quality = run.best_quality if run else None
        lines.append(
            f"{outcome.name:<28} {outcome.seed:>4} {run.sequences if run else 0:>10,} "
            f"{run.restarts if run else 0:>8} {quality.passed if quality else '-':>6} "
            f"{f'{-quality.negative_bits:.3f}' if quality else '-':>9} "
            f"{run.seconds if run else 0:>8.0f}  {_state(outcome)}"
        )
    restarts = sum(outcome.run.restarts for outcome in outcomes if outcome.run)
    lines.append(f"restarts after values that are not finite, over all: {restarts}")
    return "\n".join(lines)


def _state(outcome: Outcome) -> str:
    if outcome.finished:
        return "finished" if outcome.status is not None else "finished before"
    if outcome.status is not None and outcome.status < 0:
        return f"failed: killed by signal {-outcome.status}"
    return f"failed: exit status {outcome.status}"
