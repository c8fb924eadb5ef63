"""Access to /metrics. Access to calls is tested over real channels, in tests/e2e."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.auth.authentication import scraping
from service.auth.principal import METRICS, READ, STEP
from service.errors import FileInvalid
from tests.support.tokens import token_line


def test_metrics_need_a_token_where_there_is_a_file_of_them(tmp_path: Path) -> None:
    """The token must have the scope metrics; a changed file counts at the next scrape."""
    file = tmp_path / "tokens.jsonl"
    file.write_text(
        token_line("scraper", "s3cret", METRICS) + token_line("alice", "other", READ, STEP)
    )
    may_scrape = scraping(str(file))

    for wrong in ("", "Bearer", "Bearer x", "Bearer other", "Basic s3cret", "s3cret"):
        assert not may_scrape(wrong)
    assert may_scrape("Bearer s3cret")
    assert may_scrape("bearer s3cret")
    file.write_text(token_line("scraper", "renewed", METRICS))
    assert not may_scrape("Bearer s3cret")
    assert may_scrape("Bearer renewed")


def test_metrics_are_open_where_there_is_no_file_of_tokens() -> None:
    """Prometheus then scrapes without a token."""
    assert scraping("")("")


def test_a_missing_file_of_tokens_for_metrics_is_named(tmp_path: Path) -> None:
    """The error has the flag and the path."""
    with pytest.raises(FileInvalid, match=r"--metrics-token-file: cannot read .*/none: No such"):
        scraping(str(tmp_path / "none"))
