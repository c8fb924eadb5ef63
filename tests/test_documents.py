"""The README's tables say what the code says."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from prometheus_client import CollectorRegistry

from service.settings import Settings, variable
from service.telemetry.meters import GpuCollector
from service.telemetry.metrics import Metrics

ROOT = Path(__file__).parent.parent


def rows(heading: str, file: str = "README.md") -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    section = re.split(rf"\n#+ {heading}\n", (ROOT / file).read_text())[1]
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
    GpuCollector(registry)
    expected = [
        [metric.name + "_total" * (metric.type == "counter"), metric.type, metric.documentation]
        for metric in registry.collect()
    ]
    assert [[name, kind, what] for name, kind, _, what in rows("Metrics")] == expected


def test_the_models_table_is_the_reports() -> None:
    """What it says of a measure is what the report says, for every task."""
    reported = {tuple(row[:6]) for row in rows("Against the paper", "models/REPORT.md")}
    shown = [tuple(row) for row in rows("Models")]

    assert [row for row in shown if row not in reported] == []
    assert {row[0] for row in shown} == {row[0] for row in reported}


def test_the_changelog_has_the_next_version_on_top() -> None:
    """Changes are noted as they are made."""
    first = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first[1] == "Unreleased"


def test_the_tests_that_show_security_exist() -> None:
    """Every test that docs/security.md names."""
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "security.md").read_text()))
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    existing = set(re.findall(r"def (test_\w+)\(", tests))

    assert len(named) > 10
    assert named - existing == set()
