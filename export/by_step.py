"""Where in a sequence a network errs, and how sharp its heads are there; as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from export.verification import OnnxRunner
from ntm_tasks import Batch, Float32

SMALLEST_SHARE = 1e-4
"""The start of the logarithmic axis of wrong bits. None at all are drawn here."""


class Watched(NamedTuple):
    """What was seen in each of T steps, over all sequences."""

    wrong: Float32
    """[T]: the share of the outputs that count that is wrong; NaN where none counts."""
    focus: Mapping[str, Float32]
    """[T] by head: the mean of its largest weight, which is 1 if it is at one location alone."""


class Watching:
    """Answers as a runner does (see `evaluation.Answers`), and keeps what was seen in each step."""

    def __init__(self, runner: OnnxRunner) -> None:
        """Raises ValueError for a network without heads."""
        traces = {trace.name: trace for trace in runner.spec.traces}
        kinds = {kind: traces.get(f"{kind}_weighting") for kind in ("read", "write")}
        self._heads = [
            f"{kind} head {number + 1}" if trace.heads > 1 else f"{kind} head"
            for kind, trace in kinds.items()
            if trace is not None
            for number in range(trace.heads)
        ]
        if not self._heads:
            raise ValueError("the model has no heads that could be drawn; leave out --picture")
        self._runner = runner
        self._wrong: list[Float32] = []
        self._counted: list[Float32] = []
        self._focus: list[Float32] = []

    def __call__(self, batch: Batch, locations: int) -> Float32:
        """Run whole sequences, all calls of one size; return the probabilities [T, B, Y]."""
        state = self._runner.start(batch.inputs.shape[1], locations)
        rows, focus = [], []
        for x in batch.inputs:
            y, state = self._runner.step(x, state)
            rows.append(y)
            focus.append(state["weighting"].max(2))
        answers = np.stack(rows)
        errors = (answers > 0.5) != (batch.targets > 0.5)
        self._wrong.append(errors.mean(2, dtype=np.float32) * batch.mask)
        self._counted.append(batch.mask)
        self._focus.append(np.stack(focus))
        return answers

    def seen(self) -> Watched:
        """Return what was seen since the start, and forget it."""
        wrong, counted = (np.concatenate(each, 1) for each in (self._wrong, self._counted))
        focus = np.concatenate(self._focus, 1).mean(1)
        for kept in (self._wrong, self._counted, self._focus):
            kept.clear()
        share = np.full(len(wrong), np.nan, np.float32)
        np.divide(wrong.sum(1), counted.sum(1), out=share, where=counted.any(1))
        return Watched(share, dict(zip(self._heads, focus.T, strict=True)))


def draw(path: Path, watched: Mapping[str, Watched], title: str) -> None:
    """Draw some trials, by their names, one column each, into a PNG file."""
    figure = Figure(figsize=(1.5 + 4 * len(watched), 5), layout="constrained")
    axes = figure.subplots(2, len(watched), squeeze=False, sharex="col", sharey="row")
    for (name, seen), (errors, sharpness) in zip(watched.items(), axes.T, strict=True):
        steps = np.arange(len(seen.wrong))
        errors.plot(steps, np.maximum(seen.wrong, SMALLEST_SHARE), ".", ms=2, color="tab:red")
        errors.set_yscale("log")
        errors.set_ylim(SMALLEST_SHARE / 2, 1.5)
        errors.set_title(name)
        for head, focus in seen.focus.items():
            sharpness.plot(steps, focus, lw=1, label=head)
        sharpness.set_ylim(0, 1.05)
        sharpness.set_xlabel("step")
    axes[0, 0].set_ylabel(f"share of wrong bits\n(none: {SMALLEST_SHARE:g})")
    axes[1, 0].set_ylabel("largest weight of a head")
    axes[1, 0].legend(frameon=False)
    for each in axes.flat:
        each.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path, dpi=110, metadata={"Software": None})
