"""The dashboards are fresh and complete, and their metrics exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from deploy.generate.dashboards.__main__ import texts
from deploy.generate.dashboards.model import model
from deploy.generate.dashboards.others import others
from deploy.generate.dashboards.overview import overview
from deploy.generate.dashboards.replica import replica
from deploy.generate.dashboards.sessions import sessions
from service.telemetry.metrics import DECLARATIONS, SECONDS, Declaration, Metrics
from tests.conftest import Running
from tests.deploy.watched import DASHBOARDS, metrics, panels, rules, shown


def test_the_dashboards_are_as_the_program_writes_them() -> None:
    """Running `python -m deploy.generate.dashboards` changes nothing."""
    assert {file.name: file.read_text() for file in DASHBOARDS} == texts()


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_every_panel_says_what_it_shows(file: Path) -> None:
    """Each panel has a title, a description, a unit, and a place of its own within 24 columns."""
    taken: set[tuple[int, int]] = set()
    for panel in panels(file):
        assert panel["title"]
        assert re.fullmatch(r"[A-Z0-9].{10,160}\.", panel["description"]), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        place = panel["gridPos"]
        cells = {
            (place["x"] + column, place["y"] + row)
            for column in range(place["w"])
            for row in range(place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


async def test_every_metric_named_is_one_that_the_server_has(running: Running) -> None:
    """Every metric in dashboards and rules is a metric of the server."""
    exprs = [
        *shown().values(),
        *(rule["expr"] for kind in ("alert", "record") for rule in rules(kind)),
    ]
    named = set.union(*map(metrics, exprs))

    assert named - served(running) == set()


async def test_every_metric_of_the_server_is_on_a_dashboard(running: Running) -> None:
    """Each metric of the server is in some panel."""
    named = set.union(*map(metrics, shown().values()))
    missing = served(running) - named

    assert not missing, (
        f"no dashboard shows {sorted(missing)}: run `make dashboards`, which gives each a panel "
        "on the replica's, or add a panel to a file of deploy/generate/dashboards before"
    )


@pytest.mark.parametrize(
    ("new", "expr", "unit"),
    [
        (
            Declaration(Counter, "ntm_doors_total", "Doors of the house.", ("model",)),
            'sum by (model) (rate(ntm_doors_total{instance=~"$instance", model=~"$model"}'
            "[$__rate_interval]))",
            "ops",
        ),
        (
            Declaration(Gauge, "ntm_door_bytes", "Doors of the house."),
            'ntm_door_bytes{instance=~"$instance"}',
            "bytes",
        ),
        (
            Declaration(Histogram, "ntm_door_seconds", "Doors of the house.", buckets=SECONDS),
            "histogram_quantile(0.5, sum by (le) "
            '(rate(ntm_door_seconds_bucket{instance=~"$instance"}[$__rate_interval])))',
            "s",
        ),
    ],
    ids=["counter", "gauge", "histogram"],
)
def test_a_metric_that_no_panel_shows_gets_one(new: Declaration[Any], expr: str, unit: str) -> None:
    """The panel shows the metric as its type asks; the metrics shown already get no second one."""
    (panel,) = others([replica(), overview(), sessions(), model()], (*DECLARATIONS, new))
    built = json.loads(JSONEncoder().encode(panel.build()))

    assert built["targets"][0]["expr"] == expr
    assert built["fieldConfig"]["defaults"]["unit"] == unit
    assert built["description"] == "Doors of the house."


def served(running: Running) -> set[str]:
    """Return the names of the server's metrics, counters with their suffix."""
    return {
        metric.name + "_total" * (metric.type == "counter")
        for metric in running.server.registry.collect()
    }


def test_every_bound_asked_for_is_a_bucket_of_its_histogram() -> None:
    """Each `le` in an expression is a bound of the histogram's buckets."""
    registry = CollectorRegistry()
    Metrics(registry).step_seconds.labels("any").observe([1.0])
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    bounds = {sample.labels["le"] for sample in samples if sample.name == "ntm_step_seconds_bucket"}
    exprs = [*shown().values(), *(rule["expr"] for rule in rules("record"))]
    asked = [(expr, le) for expr in exprs for le in re.findall(r'\ble="([^"]*)"', expr)]

    assert len(asked) > 7
    assert all("ntm_step_seconds_bucket" in expr for expr, _ in asked)
    assert {le for _, le in asked} <= bounds
    assert {float(bound) for bound in bounds} == {*SECONDS, float("inf")}
