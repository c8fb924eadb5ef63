"""The result of a benchmark: a ratio, its goal, and the samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Options:
    """The options of a run of benchmarks."""

    rounds: int = 5
    device: str = "cpu"
    """The device of the server and of the networks in this process."""
    checkout: Path = ROOT
    """The checkout of the project whose server and client are measured."""
    against: Path | None = None
    """An earlier checkout, to compare with in the rows that can."""


class BenchmarkUnavailable(Exception):
    """A benchmark cannot run on this machine; the message says why."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    workload: str
    ratio: float
    goal: float
    at_least: bool
    """Whether the goal is the least ratio that is good; otherwise it is the greatest."""
    samples: dict[str, list[float]]
    """One value a round, by name with unit."""

    @property
    def reached(self) -> bool:
        """Whether the goal is reached."""
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal

    @property
    def margin(self) -> float:
        """The factor by which the ratio is better than the goal. Below 1, the goal is missed."""
        return self.ratio / self.goal if self.at_least else self.goal / self.ratio

    def text(self) -> str:
        """Return the row as text, followed by each median with its range."""
        sign = ">=" if self.at_least else "<="
        verdict = "ok" if self.reached else "short"
        lines = [
            f"{self.name:24}{self.ratio:8.2f}   {sign} {self.goal:<6}{verdict:8}{self.workload}"
        ]
        for name, values in self.samples.items():
            lines.append(
                f"    {name:44}{median(values):12.1f}   ({min(values):.1f} - {max(values):.1f})"
            )
        return "\n".join(lines)


Measure = Callable[[], float | Mapping[str, float]]


def alternated(rounds: int, measures: Mapping[str, Measure]) -> dict[str, list[float]]:
    """
    Take every measure once a round, after a warm-up round. Return the values by name.

    The values of a measure that returns a mapping have both names, joined.
    """
    samples: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for name, measure in measures.items():
            taken = measure()
            values = (
                {f"{name}{more}": value for more, value in taken.items()}
                if isinstance(taken, Mapping)
                else {name: taken}
            )
            for each, value in values.items():
                if number:
                    samples.setdefault(each, []).append(value)
    return samples
