"""Training by autograd on a device, beside the kernels that are compiled for the CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from bench.training import ours_a_second
from export.architectures import ARCHITECTURES, register
from export.configuration import Configuration
from export.configurations import CONFIGURATIONS
from export.device import opened
from export.network import stepped
from export.training import Run, denormals_as_zeros, update

ROW = CONFIGURATIONS["copy-ntm-lstm"]
LOCATIONS = 128
BATCHES = {"cpu": (32, 256), "cuda": (32, 256, 2_048, 8_192)}
"""By device. A larger batch does not fit the memory of many machines without a GPU."""

UPDATES = 200
"""Of the loss curves."""

POINT = 20
"""Updates of one point of a curve."""


def findings(device: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield sequences a second of both ways to train by batch, then their costs by update."""
    ends = time.monotonic() + 0.7 * seconds
    torch.set_num_threads(1)
    by_autograd = replace(ARCHITECTURES[ROW.architecture], name="by-autograd", logits=stepped)
    register(by_autograd)
    batches = BATCHES[device]
    share = 0.3 * seconds / (len(batches) + 1)
    kernels = replace(ROW, locations=(LOCATIONS,))
    rate = _sequences_a_second(Run.new(kernels, 1), share)
    yield {"trained by": "kernels on a CPU core", "batch": ROW.batch, "sequences/s": rate}
    chosen = opened(device)
    for batch in batches:
        row = replace(kernels, architecture=by_autograd.name, batch=batch)
        found = {"trained by": f"autograd on {device}", "batch": batch}
        try:
            found["sequences/s"] = _sequences_a_second(Run.new(row, 1, chosen), share)
        except torch.OutOfMemoryError:
            found["note"] = "this batch does not fit the GPU's memory"
        yield found
    yield from _curves(replace(ROW, architecture=by_autograd.name), chosen, ends)


def _sequences_a_second(run: Run, seconds: float) -> float:
    """Return the speed of updates, after one to warm up."""
    update(run)
    return ours_a_second(run, seconds)


@denormals_as_zeros()
def _curves(
    by_autograd: Configuration, device: torch.device, ends: float
) -> Iterator[dict[str, Any]]:
    """Yield the mean costs of the next updates by both, from one seed, until a time."""
    kernels, autograd = Run.new(ROW, 1), Run.new(by_autograd, 1, device)
    while not kernels.update or (kernels.update < UPDATES and time.monotonic() < ends):
        one, other = (
            sum(update(run)[0] for _ in range(POINT)) / POINT for run in (kernels, autograd)
        )
        yield {"updates": kernels.update, "kernels, bits": one, "autograd, bits": other}
