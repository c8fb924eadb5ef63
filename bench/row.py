"""What a benchmark gives: a ratio, the goal it is held to, and what it was taken from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Options:
    """How benchmarks are run."""

    rounds: int = 5
    device: str = "cpu"
    """Where the server and the networks in this process run."""
    checkout: Path = ROOT
    """The project whose server is measured."""


class Unavailable(Exception):
    """A benchmark cannot run on this machine; the message says why."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    workload: str
    ratio: float
    goal: float
    at_least: bool
    """Whether the ratio should be at least the goal, or at most."""
    samples: dict[str, list[float]]
    """What was measured, one value a round, by name with the unit."""

    @property
    def reached(self) -> bool:
        """Whether the goal is reached."""
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal

    @property
    def margin(self) -> float:
        """How many times better than the goal: 1 at the goal, below 1 short of it."""
        return self.ratio / self.goal if self.at_least else self.goal / self.ratio

    def text(self) -> str:
        """The line, and below it each median with its spread."""
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
    Take every measure once a round, after a round that does not count; the values by name.

    A measure that gives several values by name adds each under both names.
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
