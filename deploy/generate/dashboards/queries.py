"""PromQL that the dashboards share; `$model`, `$instance` and intervals are Grafana's to fill."""

from __future__ import annotations

from dataclasses import dataclass

INSTANCE = 'instance=~"$instance"'
MODEL = f'{INSTANCE}, model=~"$model"'

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True)
class Query:
    """An expression, and the legend of each series that it gives (Grafana's `{{label}}`)."""

    expr: str
    legend: str


def rate(metric: str, labels: str = MODEL) -> str:
    """The rate a second of each series of a counter."""
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def total(inner: str, by: str = "") -> str:
    """The sum of an expression's series, by these labels."""
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


def share(part: str, whole: str) -> str:
    """A part of a whole, from 0 to 1: their sums' ratio, and 0 where no part has been counted."""
    return f"({total(part)} or vector(0)) / {total(whole)}"


def quantile(metric: str, which: float, labels: str = MODEL, by: str = "") -> str:
    """A quantile of a histogram, estimated within its bucket."""
    labelled = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({which}, {total(rate(f'{metric}_bucket', labels), labelled)})"


def quantiles(metric: str, labels: str = MODEL) -> tuple[Query, ...]:
    """The four quantiles that every latency is shown by."""
    return tuple(Query(quantile(metric, q, labels), name) for name, q in QUANTILES.items())


def mean(metric: str, labels: str = MODEL, by: str = "") -> str:
    """The mean of what a histogram was told."""
    summed, counted = (total(rate(f"{metric}_{part}", labels), by) for part in ("sum", "count"))
    return f"{summed} / {counted}"
