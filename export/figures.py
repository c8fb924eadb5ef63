"""The pictures of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from export import evaluation
from export.architectures import ARCHITECTURES
from export.curve import LOWEST_SHOWN, Curves
from export.verification import OnnxRunner
from ntm_tasks import TASKS, Float32, Purpose, Size, generator_for, size_text

EXAMPLES: Mapping[str, Sequence[Size]] = {
    "copy": ((10,), (20,), (30,), (50,), (120,)),
    "repeat-copy": ((10, 10), (20, 10), (10, 20)),
}
"""The sizes of which a sequence is drawn, as in figures 4, 5 and 8 of the paper."""

EXAMPLE_SEED = 4


def learning(
    path: Path, task: str, curves: Mapping[str, tuple[int, Curves]], optimum: float | None
) -> None:
    """
    Draw the bits per sequence of every architecture against the sequences trained on.

    `curves` has the shipped seed, whose line is strong, and the curves of all seeds, by
    architecture. `optimum` is the cost of the optimal predictor, drawn as a line.
    """
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for arch, (shipped, of_seeds) in curves.items():
        for seed, points in of_seeds.items():
            strong = seed == shipped
            axes.plot(
                [point.sequences / 1000 for point in points],
                [max(point.bits_per_sequence, LOWEST_SHOWN) for point in points],
                color=ARCHITECTURES[arch].colour,
                label=_legend(arch) if strong else None,
                linewidth=1.8 if strong else 0.7,
                alpha=1 if strong else 0.35,
                zorder=3 if strong else 2,
            )
    if optimum is None:
        axes.set_yscale("log")
    else:
        axes.axhline(optimum, color="black", linestyle="--", linewidth=1, label="optimal estimator")
    axes.set_xlim(left=0)
    axes.set_xlabel("thousand sequences")
    axes.set_ylabel("bits per sequence")
    axes.set_title(f"{task}: cost while learning (thin lines: other seeds)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def by_items(path: Path, bits: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """Draw the bits of associative recall by number of items, as figure 11 of the paper."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    maximum = max(TASKS["associative-recall"].largest)
    axes.axvspan(0, maximum + 0.5, color="0.93", label=f"trained on (2 to {maximum} items)")
    for arch, values in bits.items():
        items, costs = zip(*values, strict=True)
        axes.plot(
            items, costs, "o-", color=ARCHITECTURES[arch].colour, label=_legend(arch), linewidth=1.5
        )
    axes.set_xlim(1.5, 20.5)
    axes.set_ylim(bottom=-0.5)
    axes.set_xlabel("items in the sequence")
    axes.set_ylabel("bits per sequence")
    axes.set_title("associative-recall: cost beyond the items trained on")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def examples(path: Path, task: str, models: Mapping[str, Path], sizes: Sequence[Size]) -> None:
    """
    Draw the targets and the answers of each network to one sequence of each size.

    `models` has the ONNX file of each architecture. Wrong bits are red.
    """
    columns = [_steps_due(task, size) for size in sizes]
    figure = Figure(figsize=(max(11.0, min(20.0, sum(columns) / 22)), 1 + 1.15 * (1 + len(models))),
                    layout="constrained")  # fmt: skip
    grid = figure.subplots(
        1 + len(models), len(sizes), squeeze=False, width_ratios=[max(c, 18) for c in columns]
    )
    for column, size in enumerate(sizes):
        batch = TASKS[task].generate(generator_for(Purpose.EVALUATION, EXAMPLE_SEED), 1, size)
        due = batch.mask[:, 0] > 0
        targets = batch.targets[due, 0].T
        _picture(grid[0][column], targets, "target" if column == 0 else "")
        grid[0][column].set_title(size_text(size), fontsize=9)
        for row, (arch, file) in enumerate(models.items(), 1):
            runner = OnnxRunner(file.read_bytes())
            found = evaluation.outputs(runner, batch, runner.spec.default_locations)[due, 0].T
            axes = grid[row][column]
            _picture(axes, found, _legend(arch).replace(", ", ",\n") if column == 0 else "")
            wrong = np.argwhere((found > 0.5) != (targets > 0.5))
            axes.plot(wrong[:, 1], wrong[:, 0], "s", color="red", markersize=1.6)
            axes.set_xlabel(f"{len(wrong)} of {targets.size} wrong", fontsize=8)
    figure.suptitle(f"{task}: answers to one sequence of each size; red: wrong bits", fontsize=11)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _legend(name: str) -> str:
    architecture = ARCHITECTURES[name]
    return architecture.legend or architecture.title


def _picture(axes: Axes, values: Float32, label: str) -> None:
    axes.imshow(values, aspect="auto", cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)


def _steps_due(task: str, size: Size) -> int:
    """Return the number of steps in which an answer is due."""
    return int(TASKS[task].generate(np.random.default_rng(0), 1, size).mask.sum())
