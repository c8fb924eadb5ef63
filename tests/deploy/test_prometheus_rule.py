"""The rules for the Prometheus Operator are the rules of Prometheus."""

from __future__ import annotations

import pytest
import yaml

from deploy.generate import prometheus_rule

pytestmark = pytest.mark.skipif(
    not prometheus_rule.RULES.is_dir(), reason=f"{prometheus_rule.RULES} is not there yet"
)


def test_the_object_is_what_the_rules_would_make_it() -> None:
    """Running `python -m deploy.generate.prometheus_rule` changes nothing."""
    assert prometheus_rule.FILE.read_text() == prometheus_rule.text()


def test_every_alert_is_in_it() -> None:
    """The object has the names of all alerts of all files of rules."""
    written = yaml.safe_load(prometheus_rule.FILE.read_text())["spec"]["groups"]
    names = [rule["alert"] for group in written for rule in group["rules"] if "alert" in rule]
    text = "".join(path.read_text() for path in prometheus_rule.RULES.glob("*.yml"))

    assert len(names) == text.count("alert: ") > 0
