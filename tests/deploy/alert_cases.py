"""What a test of an alert consists of."""

from __future__ import annotations

from dataclasses import dataclass

A = 'job="ntm", instance="a"'


@dataclass(frozen=True)
class Case:
    """Series, in promtool's notation, and how many alerts of a name fire after some time."""

    alert: str
    what: str
    after: str
    fires: int
    series: dict[str, str]
    every: str = "1m"
