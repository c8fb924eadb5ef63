"""A real Prometheus watches a real server under load, and every question has an answer."""

from __future__ import annotations

import math
import re
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from client import CapacityExceeded, Client, SessionFailed
from deploy import stack
from tests.conftest import MODELS
from tests.deploy.tools import PROMETHEUS
from tests.deploy.watched import rules, shown
from tests.tiny_models import RUN_FAILS, ledger

pytestmark = [*PROMETHEUS, pytest.mark.slow]

VARIABLES = {"$instance": ".*", "$model": ".*", "$__rate_interval": "15s"}

ABSENT = {
    "ntm_certificate_expiry_timestamp_seconds": "the server has no certificate",
    "ntm_gpu_": "there need not be a GPU",
    'reason=~"UNAUTHENTICATED|PERMISSION_DENIED"': "nobody has to authenticate here",
}
"""What an expression without data asks for, and why there is none."""

SELECTOR = re.compile(r"(?<![\w:])(?:ntm[:_]|process_|up\b)[\w:]*(?:\{[^}]*\})?")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.Prometheus]:
    """It has watched a server that serves two models, under load, from the start of both."""
    folder = tmp_path_factory.mktemp("watched")
    models = folder / "models"
    shutil.copytree(MODELS / "copy-ntm-lstm", models / "copy-ntm-lstm")
    (models / "ledger").mkdir()
    (models / "ledger" / "model.onnx").write_bytes(ledger())
    flags = (f"--models-dir={models}", "--device=cpu", "--max-sessions=30")
    with (
        stack.server(folder, *flags) as server,
        stack.prometheus(folder, server.monitoring) as watching,
        stack.process(
            [sys.executable, "-m", "deploy.load", server.address, "--seconds=100"],
            folder / "load.log",
        ),
    ):
        stack.wait_until(lambda: failed(server.address), 20, "a run failed")
        yield watching


def failed(address: str) -> bool:
    """Open a session and make its run fail, if there is room for one."""
    try:
        with Client(address) as client, client.create_session("ledger") as session:
            session.step([[RUN_FAILS, 0.0]])
    except SessionFailed:
        return True
    except CapacityExceeded:
        return False
    raise AssertionError("the run did not fail")


def answered(prometheus: stack.Prometheus, expr: str) -> bool:
    """Whether an expression gives a number now."""
    samples = prometheus.query(expr)
    return any(not math.isnan(float(sample["value"][1])) for sample in samples)


def unanswered(
    prometheus: stack.Prometheus, exprs: dict[str, str], seconds: float
) -> dict[str, str]:
    """The expressions that gave no number at any time, asked until all did."""
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
    """Whether there is a reason for an expression to have no data."""
    return any(absent in expr for absent in ABSENT)


def test_every_panel_has_data(prometheus: stack.Prometheus) -> None:
    """Each target of each panel of each dashboard, with all replicas and models chosen."""
    exprs = {name: filled_in(expr) for name, expr in shown().items() if not excused(expr)}

    assert len(exprs) > 100
    assert unanswered(prometheus, exprs, 60) == {}


def test_every_recording_rule_records(prometheus: stack.Prometheus) -> None:
    """Under its name there is a number."""
    exprs = {rule["record"]: rule["record"] for rule in rules("record")}

    assert unanswered(prometheus, exprs, 20) == {}


def test_every_alert_looks_at_something(prometheus: stack.Prometheus) -> None:
    """Each series that its expression selects exists, whether or not the alert fires."""
    exprs = {
        f"{rule['alert']}: {selector}": selector
        for rule in rules("alert")
        for selector in SELECTOR.findall(rule["expr"])
        if not excused(selector)
    }

    assert {name.split(":")[0] for name in exprs} | {
        rule["alert"] for rule in rules("alert") if excused(rule["expr"])
    } == {rule["alert"] for rule in rules("alert")}
    assert unanswered(prometheus, exprs, 20) == {}


def test_prometheus_evaluates_every_rule(prometheus: stack.Prometheus) -> None:
    """None has an error, and none warns."""
    groups = prometheus.get("rules")["groups"]
    evaluated = [rule for group in groups for rule in group["rules"]]

    assert len(evaluated) == len(rules("record")) + len(rules("alert"))
    assert [rule for rule in evaluated if rule["health"] != "ok"] == []


def test_the_alert_that_should_fire_does(prometheus: stack.Prometheus) -> None:
    """A run failed, and within one evaluation somebody is told which model's."""

    def firing() -> list[dict[str, Any]]:
        alerts = prometheus.get("alerts")["alerts"]
        return [alert for alert in alerts if alert["labels"]["alertname"] == "NtmRunsFail"]

    stack.wait_until(lambda: bool(firing()), 10, "NtmRunsFail fires")
    (alert,) = firing()
    assert alert["state"] == "firing"
    assert alert["labels"]["severity"] == "ticket"
    assert alert["annotations"]["summary"].startswith("Runs of ledger failed on 127.0.0.1:")


def filled_in(expr: str) -> str:
    """An expression as Grafana would send it."""
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return expr
