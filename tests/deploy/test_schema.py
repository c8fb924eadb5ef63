"""The dashboards fit the types that Grafana publishes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.deploy.tools import NPM, passes, run
from tests.deploy.watched import DASHBOARDS, DEPLOY

pytestmark = [*NPM, pytest.mark.slow]

CHECK = DEPLOY / "grafana" / "check"


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the folder of the check, with its packages, beside a copy of the dashboards."""
    folder = tmp_path_factory.mktemp("grafana")
    shutil.copytree(CHECK, folder / "check", ignore=shutil.ignore_patterns("node_modules"))
    (folder / "dashboards").mkdir()
    for file in DASHBOARDS:
        shutil.copy(file, folder / "dashboards")
    passes(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder / "check")
    return folder / "check"


def test_the_dashboards_have_grafanas_types(check: Path) -> None:
    """The TypeScript compiler accepts all dashboards by Grafana's types."""
    passes(["npm", "run", "check"], check)


@pytest.mark.parametrize(
    ("key", "value"), [("refreshEvery", "30s"), ("panels", [{"title": 1}]), ("tags", "ntm")]
)
def test_the_check_sees_what_is_wrong(check: Path, key: str, value: object) -> None:
    """An unknown key and values of a wrong type are refused."""
    file = check.parent / "dashboards" / "model.json"
    good = file.read_text()
    try:
        file.write_text(json.dumps({**json.loads(good), key: value}))
        assert run(["npm", "run", "check"], check).returncode != 0
    finally:
        file.write_text(good)
