"""What a benchmark gives: a ratio, the goal it is held to, and what it was taken from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Options:
    """How benchmarks are run."""

    rounds: int
    device: str


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

    def text(self) -> str:
        """The line, and below it each median with its spread."""
        sign = ">=" if self.at_least else "<="
        verdict = "ok" if self.reached else "short"
        lines = [
            f"{self.name:14}{self.ratio:8.2f}   {sign} {self.goal:<6}{verdict:8}{self.workload}"
        ]
        for name, values in self.samples.items():
            lines.append(
                f"    {name:40}{median(values):12.1f}   ({min(values):.1f} - {max(values):.1f})"
            )
        return "\n".join(lines)


def alternated(rounds: int, measures: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Take every measure once a round, after a round that does not count; the values by name."""
    samples: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds + 1):
        for name, measure in measures.items():
            value = measure()
            if number:
                samples[name].append(value)
    return samples
