"""The training curve: as numbers to compute with, as a picture to look at."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from export.training import Point

LOWEST_SHOWN = 1e-3
"""The logarithmic axis starts here; a zero is drawn on it."""


def write_csv(path: Path, curve: Sequence[Point]) -> None:
    """Write one row for each point, the names above."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Point._fields)
        writer.writerows([f"{value:.6g}" if isinstance(value, float) else value for value in point]
                         for point in curve)  # fmt: skip


def write_png(path: Path, curve: Sequence[Point], title: str) -> None:
    """Draw bits and wrong bits per sequence against the sequences trained on."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    sequences = [point.sequences for point in curve]
    for label, values, colour in (
        ("cross-entropy, bits per sequence", [p.bits_per_sequence for p in curve], "tab:blue"),
        (
            f"wrong bits per sequence (none: drawn at {LOWEST_SHOWN:g})",
            [p.wrong_bits for p in curve],
            "tab:red",
        ),
    ):
        shown = [max(value, LOWEST_SHOWN) for value in values]
        axes.plot(sequences, shown, label=label, color=colour, linewidth=1.2)
    axes.set_yscale("log")
    axes.set_ylim(bottom=LOWEST_SHOWN / 1.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("sequences")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120, metadata={"Software": None})
