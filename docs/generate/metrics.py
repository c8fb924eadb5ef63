"""The page of all metrics of the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from docs.generate.markdown import cell, head, table
from service.telemetry.meters import GpuCollector
from service.telemetry.metrics import Metrics

INTRODUCTION = """
The server exposes these on `http://localhost:9464/metrics`, beside those of the Python process.
[Operating](../operating.md#metrics-and-health) has the port, the health checks and the dashboards.
A histogram NAME has the series `NAME_bucket`, `NAME_count` and `NAME_sum`.

"""


class Listed(CollectorRegistry):
    """A registry that remembers its collectors in order."""

    def __init__(self) -> None:
        """Start without collectors."""
        super().__init__()
        self.collectors: list[Collector] = []

    def register(self, collector: Collector) -> None:
        """Register a collector, and remember it."""
        self.collectors.append(collector)
        super().register(collector)


def page() -> str:
    """Name, type, labels and description of each metric, in order of registration."""
    registry = Listed()
    Metrics(registry)
    GpuCollector(registry)
    rows = [_row(*found) for each in registry.collectors for found in _families(each)]
    columns = ("metric", "type", "labels", "what")
    source = "service/telemetry/metrics.py and gpu.py"
    return head("Metrics", source) + INTRODUCTION + table(columns, rows)


def _families(collector: Any) -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """Each metric of a collector with its labels, which only one of the two has."""
    for family in collector.collect():
        labels = getattr(collector, "_labelnames", getattr(family, "_labelnames", ()))
        yield family, labels


def _row(family: Metric, labels: tuple[str, ...]) -> list[str]:
    name = family.name + "_total" * (family.type == "counter")
    return [f"`{name}`", family.type, ", ".join(labels), cell(family.documentation)]
