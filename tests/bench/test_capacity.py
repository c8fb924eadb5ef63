"""The tables of docs/capacity.md follow from docs/capacity.json."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import pytest

from bench import capacity
from service.settings import Settings, variable

DATA = json.loads(capacity.DATA.read_text())


def test_the_pages_tables_are_what_the_measurements_make() -> None:
    """The page stays the same when its tables are written again from docs/capacity.json."""
    page = capacity.PAGE.read_text()

    assert capacity.written(page, DATA) == page
    assert all(DATA["costs"][name] > 0 for name in DATA["costs"])


def test_other_measurements_make_another_page() -> None:
    """Other costs change the tables and leave the text between them as it is."""
    page = capacity.PAGE.read_text()
    costs = {name: 2 * value for name, value in DATA["costs"].items()}
    written = capacity.written(page, {**DATA, "costs": costs})

    def by_hand(text: str) -> str:
        return re.sub(r"(<!-- [^/].*? -->).*?(<!-- /)", r"\1\2", text, flags=re.DOTALL)

    assert written != page
    assert by_hand(written) == by_hand(page)


def test_a_page_without_a_tables_place_is_refused() -> None:
    """The error gives the name of the table that has no place."""
    page = capacity.PAGE.read_text().replace("<!-- /takeovers -->", "")

    with pytest.raises(ValueError, match="no place for the table 'takeovers'"):
        capacity.written(page, DATA)


def test_settings_that_the_page_names_exist() -> None:
    """Each NTM_ variable of the page is a setting of the server."""
    named = set(re.findall(r"\bNTM_[A-Z_]+", capacity.PAGE.read_text()))

    assert len(named) > 5
    assert named - {variable(setting) for setting in fields(Settings)} == set()
