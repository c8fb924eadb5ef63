"""Metrics follow Prometheus' naming rules."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Histogram

from service.telemetry.meters import GpuCollector
from service.telemetry.metrics import (
    DECLARATIONS,
    SECONDS,
    BatchHistogram,
    Declaration,
    Metrics,
)


@pytest.mark.parametrize("declared", DECLARATIONS, ids=lambda declared: declared.name)
def test_names_have_the_namespace_and_help_is_a_sentence(declared: Declaration[Any]) -> None:
    """The prefix is ntm_, counters end in _total, and the help ends in a full stop."""
    assert re.fullmatch(r"ntm(_[a-z]+)+", declared.name)
    assert declared.name.endswith("_total") == (declared.type == "counter")
    assert re.fullmatch(r"[A-Z0-9].*\.", declared.help)


def test_a_scrape_has_what_is_declared() -> None:
    """Name, type and help of every metric, in the order of the declarations."""
    registry = CollectorRegistry()
    Metrics(registry)
    GpuCollector(registry)

    assert [
        (metric.name + "_total" * (metric.type == "counter"), metric.type, metric.documentation)
        for metric in registry.collect()
    ] == [(declared.name, declared.type, declared.help) for declared in DECLARATIONS]


@pytest.mark.parametrize("declared", DECLARATIONS, ids=lambda declared: declared.name)
def test_a_metric_has_the_labels_that_are_declared(declared: Declaration[Any]) -> None:
    """With a value for each label, the metric counts."""
    registry = CollectorRegistry()
    metric = declared.register(registry)
    (metric.labels(*declared.labels) if declared.labels else metric)
    samples = [sample for family in registry.collect() for sample in family.samples]

    assert samples
    assert all(
        {**sample.labels, "le": ""} == {**{each: each for each in declared.labels}, "le": ""}
        for sample in samples
    )


def test_series_exist_from_the_start() -> None:
    """At 0, where every value of every label is declared."""
    registry = CollectorRegistry()
    Metrics(registry)

    assert registry.get_sample_value("ntm_sessions_opened_total", {"model": "copy"}) is None
    for outcome in ("stored", "refused", "failed"):
        assert registry.get_sample_value("ntm_checkpoints_total", {"outcome": outcome}) == 0


def test_series_exist_once_the_values_of_their_labels_are_known() -> None:
    """At 0, for each pair of values; metrics with a label that is still unknown have none."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.sessions_opened.labels("copy").inc()

    metrics.exist(model=["copy"], trace=(name for name in ("read", "write")))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("ntm_sessions_opened_total", model="copy") == 1
    assert value("ntm_traces_total", model="copy", trace="read") == 0
    assert value("ntm_traces_total", model="copy", trace="write") == 0
    assert value("ntm_tick_seconds_count", model="copy") == 0
    assert value("ntm_wakes_total", model="copy", source="elsewhere") == 0
    assert value("ntm_rpcs_ended_total", method="Step", code="OK") is None


def test_two_servers_in_one_process_do_not_clash() -> None:
    """Each has a registry of its own."""
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


BORDERS = {
    "model": "a folder's name: service.spec.is_name",
    "trace": "the spec: texts in it are printable",
    "content_hash": "made here",
    "provider": "onnxruntime's",
    "method": "the methods of the servicer",
    "code": "gRPC's",
    "reason": "the classes of errors",
    "version": "of the server",
    "onnxruntime": "its version",
    "file": "two words",
}
"""Labels whose values are not declared, and where their values come from or are checked."""


def test_every_label_has_a_border() -> None:
    """A value that is no UTF-8 would break /metrics, so each is checked where it comes in."""
    open_labels = {
        label
        for each in vars(Metrics).values()
        if isinstance(each, Declaration)
        for label in set(each.labels) - set(each.values)
    }
    assert open_labels == set(BORDERS)
