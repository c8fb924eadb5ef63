"""What people are told to install."""

from __future__ import annotations

import re

from tests.test_boundaries import MODULES, ROOT

FROM_AN_INDEX = re.compile(r"pip install [^`\n]*\bntm-(client|service|tasks|lab|export)\b")

PLACES = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *MODULES.values()]


def test_nobody_is_sent_to_an_index_for_the_projects_packages() -> None:
    """No index has them, so that anybody could put something else there by their names."""
    found = [path for path in PLACES if FROM_AN_INDEX.search(path.read_text(encoding="utf-8"))]
    assert found == []
