"""A real Prometheus scrapes real servers under load, and every expression has data."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from deploy.generate import stack
from ntm_client import CapacityExceeded, Client, ModelVersionUnknown, SessionFailed
from tests.deploy.gpu_exporters import replayed
from tests.deploy.tools import ALERTMANAGER, PROMETHEUS
from tests.deploy.watched import rules, shown
from tests.support.served import MODELS
from tests.support.tiny_models import RUN_FAILS, ledger

pytestmark = [*PROMETHEUS, *ALERTMANAGER, pytest.mark.slow]

VARIABLES = {"$instance": ".*", "$model": ".*", "$__rate_interval": "15s"}

ABSENT = {
    "ntm_certificate_expiry_timestamp_seconds": "the server has no certificate",
    'reason=~"UNAUTHENTICATED|PERMISSION_DENIED"': "nobody has to authenticate here",
}
"""Parts of expressions without data, and the reason."""

SELECTOR = re.compile(r"(?<![\w:])(?:ntm[:_]|process_|DCGM_|up\b)[\w:]*(?:\{[^}]*\})?")


@dataclass(frozen=True)
class Watch:
    """A Prometheus and an Alertmanager that watch servers under load."""

    prometheus: stack.Prometheus
    alertmanager: str


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """Watch two servers of one store under load, with a failed run, and replayed GPUs."""
    folder = tmp_path_factory.mktemp("watched")
    models = folder / "models"
    shutil.copytree(MODELS / "copy-ntm-lstm", models / "copy-ntm-lstm")
    (models / "ledger").mkdir()
    (models / "ledger" / "model.onnx").write_bytes(ledger())
    flags = (
        f"--models-dir={models}",
        "--device=cpu",
        "--max-sessions=30",
        "--max-awake-sessions=22",
    )
    with (
        stack.replicas(folder, *flags) as servers,
        stack.alertmanager(folder) as alertmanager,
        replayed() as gpus,
        stack.prometheus(
            folder, [*(server.monitoring for server in servers), gpus], [alertmanager]
        ) as prometheus,
        stack.process(
            [
                *(sys.executable, "-m", "deploy.generate.load", "--seconds=100"),
                *(server.address for server in servers),
            ],
            folder / "load.log",
        ),
    ):
        stack.wait_until(lambda: failed(servers[0].address), 20, "a run failed")
        ask_for_a_version_that_is_nowhere(servers[0].address)
        yield Watch(prometheus, alertmanager)


def failed(address: str) -> bool:
    """Open a session and make its run fail, if the server has room for one."""
    try:
        with Client(address, resume=None) as client, client.create_session("ledger") as session:
            session.step([[RUN_FAILS, 0.0]])
    except SessionFailed:
        return True
    except CapacityExceeded:
        return False
    raise AssertionError("the run did not fail")


def ask_for_a_version_that_is_nowhere(address: str) -> None:
    """Ask for a version that the server does not have."""
    with Client(address, resume=None) as client, pytest.raises(ModelVersionUnknown):
        client.create_session("ledger", content_hash="0" * 64)


def answered(prometheus: stack.Prometheus, expr: str) -> bool:
    """Return whether an expression gives a number now."""
    samples = prometheus.query(expr)
    return any(not math.isnan(float(sample["value"][1])) for sample in samples)


def unanswered(
    prometheus: stack.Prometheus, exprs: dict[str, str], seconds: float
) -> dict[str, str]:
    """Return the expressions that gave no number at any time, polled until all did."""
    open_questions = dict(exprs)

    def all_answered() -> bool:
        for name, expr in list(open_questions.items()):
            if answered(prometheus, expr):
                del open_questions[name]
        return not open_questions

    try:
        stack.wait_until(all_answered, seconds, "every expression has data")
    except TimeoutError:
        return open_questions
    return {}


def excused(expr: str) -> bool:
    """Return whether an expression may have no data."""
    return any(absent in expr for absent in ABSENT)


def test_every_panel_has_data(watch: Watch) -> None:
    """Each target of each panel gives a number, with all replicas and models selected."""
    exprs = {name: filled_in(expr) for name, expr in shown().items() if not excused(expr)}

    assert len(exprs) > 100
    assert unanswered(watch.prometheus, exprs, 60) == {}


def test_every_recording_rule_records(watch: Watch) -> None:
    """Each recording rule has a value under its name."""
    exprs = {rule["record"]: rule["record"] for rule in rules("record")}

    assert unanswered(watch.prometheus, exprs, 20) == {}


def test_every_alert_looks_at_something(watch: Watch) -> None:
    """Each series in the expression of an alert exists, whether or not the alert fires."""
    exprs = {
        f"{rule['alert']}: {selector}": selector
        for rule in rules("alert")
        for selector in SELECTOR.findall(rule["expr"])
        if not excused(selector)
    }

    assert {name.split(":")[0] for name in exprs} | {
        rule["alert"] for rule in rules("alert") if excused(rule["expr"])
    } == {rule["alert"] for rule in rules("alert")}
    assert unanswered(watch.prometheus, exprs, 20) == {}


def test_prometheus_evaluates_every_rule(watch: Watch) -> None:
    """Prometheus reports no error and no warning for any rule."""
    groups = watch.prometheus.get("rules")["groups"]
    evaluated = [rule for group in groups for rule in group["rules"]]

    assert len(evaluated) == len(rules("record")) + len(rules("alert"))
    assert [rule for rule in evaluated if rule["health"] != "ok"] == []


def test_an_error_of_a_gpu_becomes_an_alert(watch: Watch) -> None:
    """The alert names the GPU and the number that the DCGM exporter gives; other GPUs have none."""
    firing = 'ALERTS{alertname="NtmGpuErrors", alertstate="firing"}'
    stack.wait_until(lambda: bool(watch.prometheus.query(firing)), 20, "NtmGpuErrors fires")

    (alert,) = watch.prometheus.query(firing)
    assert (alert["metric"]["Hostname"], alert["metric"]["gpu"]) == ("gpu-node-3", "0")


def test_the_alert_that_should_fire_reaches_its_receiver(watch: Watch) -> None:
    """After a failed run, a ticket names the model, and Alertmanager sends it to the tickets."""

    def arrived() -> list[dict[str, Any]]:
        address = f"http://{watch.alertmanager}/api/v2/alerts?filter=alertname%3DNtmRunsFail"
        with urllib.request.urlopen(address, timeout=10) as response:
            alerts: list[dict[str, Any]] = json.load(response)
            return alerts

    stack.wait_until(lambda: bool(arrived()), 20, "NtmRunsFail reaches Alertmanager")
    (alert,) = arrived()
    assert alert["receivers"] == [{"name": "tickets"}]
    assert alert["labels"]["model"] == "ledger"
    assert alert["annotations"]["summary"].startswith("Runs of ledger failed on 127.0.0.1:")


def filled_in(expr: str) -> str:
    """Return an expression with Grafana's variables filled in."""
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return expr
