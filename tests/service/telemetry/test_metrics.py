"""Metrics follow Prometheus' naming rules."""

from __future__ import annotations

from itertools import pairwise

import pytest
from prometheus_client import CollectorRegistry, Histogram, Metric

from service.telemetry.metrics import SECONDS, BatchHistogram, Metrics


def collected() -> list[Metric]:
    """Every metric of the server."""
    registry = CollectorRegistry()
    Metrics(registry)
    return list(registry.collect())


@pytest.mark.parametrize("metric", collected(), ids=lambda metric: metric.name)
def test_names_have_the_namespace_and_help_is_a_sentence(metric: Metric) -> None:
    """Prefix ntm_, and a sentence that says what is counted."""
    assert metric.name.startswith("ntm_")
    assert metric.documentation.endswith(".")


def test_two_servers_in_one_process_do_not_clash() -> None:
    """There is no global registry."""
    Metrics(CollectorRegistry())
    Metrics(CollectorRegistry())


def test_buckets_reach_from_50_microseconds_to_a_minute() -> None:
    """Geometric, so that quantiles are as precise for short times as for long ones."""
    assert SECONDS[0] == 50e-6
    assert 60 < SECONDS[-1] < 100
    ratios = [after / before for before, after in pairwise(SECONDS)]
    assert all(ratio == pytest.approx(1.8, rel=0.01) for ratio in ratios)


def test_many_values_at_a_time_are_counted_as_prometheus_counts_them() -> None:
    """A bucket has the values up to its bound, the bound itself among them."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    bounds, values = (1.0, 2.5, 10.0), [0.5, 1.0, 1.1, 2.5, 9.0, 11.0]
    counted = BatchHistogram("waits", "Waits.", bounds, ours).labels("copy")
    counted.observe(values[:4])
    counted.observe([])
    counted.observe(values[4:])
    histogram = Histogram("waits", "Waits.", ["model"], buckets=bounds, registry=theirs)
    for value in values:
        histogram.labels("copy").observe(value)

    def samples(registry: CollectorRegistry) -> set[tuple[str, str, float]]:
        return {
            (sample.name, sample.labels.get("le", ""), sample.value)
            for metric in registry.collect()
            for sample in metric.samples
            if not sample.name.endswith("_created")
        }

    assert samples(ours) == samples(theirs)
