"""A case for a test of an alert."""

from __future__ import annotations

from dataclasses import dataclass

A = 'job="ntm", instance="a"'


@dataclass(frozen=True)
class Case:
    """Series in promtool's notation, and the number of alerts of a name that fire after a time."""

    alert: str
    what: str
    after: str
    fires: int
    series: dict[str, str]
    every: str = "1m"
