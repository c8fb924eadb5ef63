"""The command that makes a token and its line for the tokens file."""

from __future__ import annotations

import json

import pytest

from service import tokens
from service.auth.tokens import Tokens


def test_the_line_goes_to_standard_output_and_the_token_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The line has the hash of the token alone."""
    assert tokens.main(["alice", "--scopes", "read", "metrics", "--days", "2"]) == 0
    captured = capsys.readouterr()
    token = captured.err.strip()
    assert token not in captured.out
    assert len(token) > 40
    found = Tokens(captured.out.splitlines()).principal(token)
    assert found is not None
    assert (found.name, found.scopes) == ("token:alice", frozenset(["read", "metrics"]))
    assert found.expires_unix_seconds is not None


def test_tokens_are_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    """By default a token allows reads and steps, and does not expire."""
    made = []
    for _ in range(3):
        tokens.main(["alice"])
        captured = capsys.readouterr()
        made.append(captured.err)
        assert json.loads(captured.out).keys() == {"principal", "scopes", "sha256"}
        assert json.loads(captured.out)["scopes"] == ["read", "step"]
    assert len(set(made)) == 3


def test_the_command_refuses_an_empty_name(capsys: pytest.CaptureFixture[str]) -> None:
    """The error is the one that the server would report for the line."""
    with pytest.raises(SystemExit):
        tokens.main([" "])
    assert "principal is ' '; it must be a name" in capsys.readouterr().err


@pytest.mark.parametrize("days", ["0", "-1", "nan", "inf", "1e12", "1_0", "36501", "x"])
def test_the_command_refuses_days_that_lead_to_no_date(
    capsys: pytest.CaptureFixture[str], days: str
) -> None:
    """Neither a time that has passed nor one that no calendar holds."""
    with pytest.raises(SystemExit) as ended:
        tokens.main(["alice", f"--days={days}"])

    assert ended.value.code == 2
    sentence = f"--days: {days!r} is not a number above 0 and at most 36500"
    assert sentence in capsys.readouterr().err
