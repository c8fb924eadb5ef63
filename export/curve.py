"""The training curves, as a CSV file and as a picture."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_type_hints

from matplotlib.figure import Figure

from export.training import Point

LOWEST_SHOWN = 1e-3
"""The start of the logarithmic axis. Zeros are drawn here."""

Curves = Mapping[int, Sequence[Point]]
"""The points of the curve by seed."""


def write_csv(path: Path, curves: Curves) -> None:
    """Write a header, and one row for each point: its seed, then its fields."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("seed", *Point._fields))
        for seed, points in curves.items():
            writer.writerows(
                [seed, *(f"{value:.6g}" if isinstance(value, float) else value for value in point)]
                for point in points
            )


def read_csv(path: Path) -> dict[int, list[Point]]:
    """Read the curves that `write_csv` wrote. Raises ValueError if the file has none."""
    kinds = get_type_hints(Point)
    curves: dict[int, list[Point]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                point = Point(*(kinds[name](row[name]) for name in Point._fields))
                curves.setdefault(int(row["seed"]), []).append(point)
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise ValueError(
            f"{path} is not a training curve, or is damaged; export the model again"
        ) from error
    return curves


def write_png(path: Path, curves: Curves, shipped: int, title: str) -> None:
    """Draw bits and wrong bits per sequence; the curves of other seeds are thin."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for seed, points in curves.items():
        strong = seed == shipped
        sequences = [point.sequences / 1000 for point in points]
        for label, values, colour in (
            ("cross-entropy, bits per sequence", [p.bits_per_sequence for p in points], "tab:blue"),
            (
                f"wrong bits per sequence (none: drawn at {LOWEST_SHOWN:g})",
                [p.wrong_bits for p in points],
                "tab:red",
            ),
        ):
            axes.plot(
                sequences,
                [max(value, LOWEST_SHOWN) for value in values],
                label=label if strong else None,
                color=colour,
                linewidth=1.4 if strong else 0.6,
                alpha=1.0 if strong else 0.4,
                zorder=3 if strong else 2,
            )
    axes.set_yscale("log")
    lowest = min(
        max(min(p.bits_per_sequence, p.wrong_bits), LOWEST_SHOWN)
        for points in curves.values()
        for p in points
    )
    axes.set_ylim(bottom=lowest / 1.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("thousand sequences")
    others = f"; thin: {len(curves) - 1} other seeds" if len(curves) > 1 else ""
    axes.set_title(f"{title}, seed {shipped}{others}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120, metadata={"Software": None})
