"""Write the rules as a PrometheusRule object: `python -m deploy.generate.prometheus_rule`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ntm_lab.outputs import write_text

FOLDER = Path(__file__).parents[1]
RULES = FOLDER / "prometheus" / "rules"
FILE = FOLDER / "kubernetes" / "monitoring" / "prometheus-rule.yaml"


def text() -> str:
    """Return the object with every group of every file of rules."""
    groups = [
        group
        for path in sorted(RULES.glob("*.yml"))
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
    ]
    rule: dict[str, Any] = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "ntm"},
        "spec": {"groups": groups},
    }
    program = "python -m deploy.generate.prometheus_rule"
    head = f"# Written by `{program}` from deploy/prometheus/rules.\n"
    return head + yaml.safe_dump(rule, sort_keys=False, width=100)


if __name__ == "__main__":
    write_text(FILE, text())
