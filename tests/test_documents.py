"""The README's tables say what the code says."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from prometheus_client import CollectorRegistry

from service.metrics import Metrics
from service.settings import Settings, variable

ROOT = Path(__file__).parent.parent


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading of the README, without its head."""
    section = (ROOT / "README.md").read_text().split(f"\n### {heading}\n")[1]
    table = re.findall(r"^\|(.*)\|$", section.split("\n#")[0], re.MULTILINE)
    return [[cell.strip().strip("`") for cell in row.split("|")] for row in table[2:]]


def test_the_settings_table_is_complete_and_true() -> None:
    """Flag, variable, default and description of every setting, in order."""
    expected = [
        [
            "--" + setting.name.replace("_", "-"),
            variable(setting),
            str(setting.default),
            setting.metadata["help"],
        ]
        for setting in fields(Settings)
    ]
    assert rows("Settings") == expected


def test_the_metrics_table_is_complete_and_true() -> None:
    """Name, type and description of every metric, in order."""
    registry = CollectorRegistry()
    Metrics(registry)
    expected = [
        [metric.name + "_total" * (metric.type == "counter"), metric.type, metric.documentation]
        for metric in registry.collect()
    ]
    assert [[name, kind, what] for name, kind, _, what in rows("Metrics")] == expected


def test_the_changelog_has_the_next_version_on_top() -> None:
    """Changes are noted as they are made."""
    first = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first[1] == "Unreleased"
