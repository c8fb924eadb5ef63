"""Draw all rows with their distance from the goal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from bench.row import Row
from ntm_lab.outputs import replacing

matplotlib.use("Agg")
REACHED, SHORT = "#2b7a4b", "#b5462f"


def draw(rows: Sequence[Row], path: Path, title: str) -> None:
    """Draw the margin of each row as a bar on a logarithmic axis, and write a PNG."""
    figure = Figure(figsize=(9, 0.42 * len(rows) + 1.4), layout="constrained")
    axes = figure.add_subplot()
    upside_down = list(reversed(rows))
    axes.barh(
        [row.name for row in upside_down],
        [row.margin - 1 for row in upside_down],
        left=1,
        color=[REACHED if row.reached else SHORT for row in upside_down],
    )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axvline(1, color="black", linewidth=1)
    furthest = 1.6 * max(2.0, *(max(row.margin, 1 / row.margin) for row in rows))
    axes.set_xlim(1 / furthest, furthest)
    for place, row in enumerate(upside_down):
        sign = ">=" if row.at_least else "<="
        axes.annotate(
            f" {row.ratio:.2f} ({sign} {row.goal:g}) ",
            (row.margin, place),
            va="center",
            ha="left" if row.margin >= 1 else "right",
            fontsize=8,
        )
    axes.set_xlabel("factor better than the goal (below 1: goal missed)")
    axes.set_title(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)
