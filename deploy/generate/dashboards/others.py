"""Panels of the metrics that no other panel shows, made from their declarations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.generate.dashboards.panels import Panel, lines
from deploy.generate.dashboards.queries import INSTANCE, MODEL, Query, quantiles, rate, total
from service.telemetry.metrics import Declaration

_METRIC = re.compile(r"\bntm_\w+?(?=(?:_bucket|_sum|_count)?\b)")

_UNITS = {"seconds": "s", "bytes": "bytes", "ratio": "percentunit"}
"""Grafana's units, by the last word of a metric's name."""


def others(
    boards: Sequence[Dashboard], declarations: Iterable[Declaration[Any]]
) -> Iterator[Panel]:
    """Yield a panel for each of the declared metrics that is in no expression of the boards."""
    shown = set(_METRIC.findall(JSONEncoder().encode(list(boards))))
    return (_panel(metric) for metric in declarations if metric.name not in shown)


def _panel(metric: Declaration[Any]) -> Panel:
    labels = MODEL if "model" in metric.labels else INSTANCE
    name = metric.name.removeprefix("ntm_").removesuffix("_total")
    title = name.replace("_", " ").capitalize()
    unit = _UNITS.get(name.rpartition("_")[2], "none")
    legend = ", ".join(f"{{{{{label}}}}}" for label in metric.labels) or title
    if metric.type == "histogram":
        return lines(title, metric.help, unit, *quantiles(metric.name, labels))
    if metric.type == "counter":
        each = total(rate(metric.name, labels), ", ".join(metric.labels))
        unit = "Bps" if unit == "bytes" else "ops"
        return lines(f"{title} a second", metric.help, unit, Query(each, legend))
    return lines(title, metric.help, unit, Query(f"{metric.name}{{{labels}}}", legend))
