"""The expressions of the dashboards and rules, read from their files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))

METRIC = re.compile(r"(?<![\w:])(?:ntm|process|python)_\w+")


def panels(file: Path) -> Iterator[dict[str, Any]]:
    """Return the panels of a dashboard, without its rows."""
    board = json.loads(file.read_text())
    return (panel for panel in board["panels"] if panel["type"] != "row")


def shown() -> dict[str, str]:
    """Return the expression of each target of each panel, by dashboard, title and letter."""
    return {
        f"{file.stem}: {panel['title']} ({target['refId']})": target["expr"]
        for file in DASHBOARDS
        for panel in panels(file)
        for target in panel["targets"]
    }


def rules(kind: str) -> list[dict[str, Any]]:
    """Return the rules of all files with this key: `alert` or `record`."""
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def metrics(expr: str) -> set[str]:
    """Return the metrics in an expression, without the suffixes of histograms."""
    return {re.sub("_(bucket|sum|count)$", "", name) for name in METRIC.findall(expr)}
