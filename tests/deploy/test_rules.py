"""The rules are fresh, explained in the runbook, and valid for Prometheus's tools."""

from __future__ import annotations

import asyncio
import re
import subprocess

import pytest
import yaml
from prometheus_client import generate_latest

from deploy.generate import objectives
from deploy.generate import rules as program
from tests.conftest import Running
from tests.deploy.tools import ALERTMANAGER, PROMETHEUS, passes
from tests.deploy.watched import DEPLOY, RULES, rules

RUNBOOK = (DEPLOY.parent / "docs" / "runbook.md").read_text()


def test_the_rules_of_the_objectives_are_as_the_program_writes_them() -> None:
    """Running `python -m deploy.generate.rules` changes nothing."""
    assert program.FILE.read_text() == program.text()


def test_every_alert_has_a_paragraph_in_the_runbook_and_no_other_has() -> None:
    """Each alert has a paragraph in the runbook, and each paragraph has an alert."""
    headings = re.findall("^## (Ntm.*)$", RUNBOOK, re.MULTILINE)

    assert sorted(headings) == sorted({rule["alert"] for rule in rules("alert")})


@pytest.mark.parametrize("rule", rules("alert"), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    """Each alert has a severity, a summary, a description and the address of its paragraph."""
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{str(rule['alert']).lower()}"


def test_the_runbook_names_the_objectives_as_they_are() -> None:
    """The numbers in the runbook are those of `deploy.generate.objectives`."""
    section = RUNBOOK.split("\n## Objectives\n")[1].split("\n## ")[0]

    assert f"{objectives.FAST_SHARE * 100:g} % of steps" in section
    assert f"within {objectives.FAST_SECONDS * 1000:.1f} ms" in section
    assert f"{objectives.ANSWERED_SHARE * 100:g} % of calls" in section
    assert re.findall("[A-Z]+_?[A-Z]{3,}", section) == objectives.FAULTS.split("|")


def test_alerts_that_silence_others_name_alerts_that_exist() -> None:
    """Each name in an inhibition is the name of an alert."""
    text = (DEPLOY / "prometheus" / "alertmanager.yml").read_text()
    matchers = [
        matcher
        for rule in yaml.safe_load(text)["inhibit_rules"]
        for matcher in rule["source_matchers"] + rule["target_matchers"]
    ]
    named = {name for matcher in matchers for name in re.findall(r"Ntm\w+", matcher)}

    assert named
    assert named <= {rule["alert"] for rule in rules("alert")}


class TestTools:
    """Checks with Prometheus's own tools."""

    pytestmark = PROMETHEUS

    def test_prometheus_accepts_configuration_and_rules(self) -> None:
        """promtool finds no error in the configuration and the rules."""
        passes(["promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yml"])
        passes(["promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULES])

    async def test_the_metrics_follow_the_conventions(self, running: Running) -> None:
        """promtool finds no fault in the names, units and help texts of the metrics."""
        run = await asyncio.to_thread(
            subprocess.run,
            ["promtool", "check", "metrics"],
            input=generate_latest(running.server.registry),
            capture_output=True,
            check=False,
        )

        assert (run.returncode, run.stderr) == (0, b"")


class TestAlertmanager:
    """Checks with Alertmanager's own tool."""

    pytestmark = ALERTMANAGER

    def test_alertmanager_accepts_its_configuration(self) -> None:
        """amtool finds no error in the configuration."""
        passes(["amtool", "check-config", DEPLOY / "prometheus" / "alertmanager.yml"])

    @pytest.mark.parametrize("severity", ["page", "ticket"])
    def test_pages_and_tickets_go_to_their_receivers(self, severity: str) -> None:
        """Pages and tickets go to different receivers."""
        command = ["amtool", "config", "routes", "test", f"severity={severity}"]
        config = DEPLOY / "prometheus" / "alertmanager.yml"
        passes([*command, f"--config.file={config}", f"--verify.receivers={severity}s"])
