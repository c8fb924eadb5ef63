"""PromQL of the dashboards. Grafana fills in `$model`, `$instance` and intervals."""

from __future__ import annotations

from dataclasses import dataclass

INSTANCE = 'instance=~"$instance"'
MODEL = f'{INSTANCE}, model=~"$model"'

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True)
class Query:
    """An expression, and the legend of its series (with Grafana's `{{label}}`)."""

    expr: str
    legend: str


def rate(metric: str, labels: str = MODEL) -> str:
    """Return the rate a second of each series of a counter."""
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def total(inner: str, by: str = "") -> str:
    """Return the sum of the series of an expression, by labels."""
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


def share(part: str, whole: str) -> str:
    """Return the ratio of two sums, 0 to 1. It is 0 while the part has no series."""
    return f"({total(part)} or vector(0)) / {total(whole)}"


def quantile(metric: str, which: float, labels: str = MODEL, by: str = "") -> str:
    """Return a quantile of a histogram, interpolated within its bucket."""
    labelled = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({which}, {total(rate(f'{metric}_bucket', labels), labelled)})"


def quantiles(metric: str, labels: str = MODEL) -> tuple[Query, ...]:
    """Return the four quantiles that every latency panel shows."""
    return tuple(Query(quantile(metric, q, labels), name) for name, q in QUANTILES.items())


def mean(metric: str, labels: str = MODEL, by: str = "") -> str:
    """Return the mean of the observations of a histogram."""
    summed, counted = (total(rate(f"{metric}_{part}", labels), by) for part in ("sum", "count"))
    return f"{summed} / {counted}"
