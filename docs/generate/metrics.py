"""The page of all metrics of the server."""

from __future__ import annotations

from docs.generate.markdown import cell, head, table
from service.telemetry.metrics import DECLARATIONS

INTRODUCTION = """
The server exposes these on `http://localhost:9464/metrics`, beside those of the Python process.
[Operating](../operating.md#metrics-and-health) has the port, the health checks and the dashboards.
A histogram NAME has the series `NAME_bucket`, `NAME_count` and `NAME_sum`.

"""


def page() -> str:
    """Name, type, labels and description of each metric, in order of declaration."""
    rows = [
        [f"`{metric.name}`", metric.type, ", ".join(metric.labels), cell(metric.help)]
        for metric in DECLARATIONS
    ]
    columns = ("metric", "type", "labels", "what")
    return head("Metrics", "service/telemetry/metrics.py") + INTRODUCTION + table(columns, rows)
