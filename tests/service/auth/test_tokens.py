"""The tokens file: what it says, what is refused, and the command that makes its lines."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from service import tokens
from service.auth.principal import Principal
from service.auth.tokens import Tokens
from tests.conftest import Clock


def line(token: str = "secret", **changes: Any) -> str:
    """An entry for that token."""
    digest = hashlib.sha256(token.encode()).hexdigest()
    return json.dumps({"principal": "alice", "scopes": ["read"], "sha256": digest, **changes})


def test_a_token_finds_its_principal() -> None:
    """And no other token does, the hash itself least of all."""
    found = Tokens([line("one"), "", line("two", principal="bob", scopes=["read", "step"])])

    assert found.principal("one") == Principal("token:alice", frozenset(["read"]))
    assert found.principal("two") == Principal("token:bob", frozenset(["read", "step"]))
    digest = hashlib.sha256(b"one").hexdigest()
    assert [found.principal(token) for token in ("", "on", "one ", "One", digest)] == [None] * 5


def test_a_token_ends_when_it_expires(clock: Clock) -> None:
    """To the second; a moment without a zone is UTC's."""
    for expires in ("1970-01-01T00:20:00", "1970-01-01T00:20:00Z", "1970-01-01T01:20:00+01:00"):
        clock.seconds = 1199.0
        found = Tokens([line(expires=expires)], clock)
        assert found.principal("secret") == Principal("token:alice", frozenset(["read"]), 1200.0)
        clock.seconds = 1200.0
        assert found.principal("secret") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alice:abc", "line 2: Expecting value"),
        ("[]", "line 2: an entry has principal, scopes, sha256 and, if it ends, expires"),
        (line(role="root"), "line 2: an entry has principal, scopes, sha256 and"),
        (line(principal=" "), "line 2: principal is ' '; it must be a name"),
        (line(scopes=[]), "line 2: scopes are .*must be a list of some of .'read', 'step'"),
        (line(scopes=["admin"]), "line 2: scopes are .'admin'.; it must be"),
        (line(scopes=[["read"]]), "line 2: scopes are "),
        (line(sha256="ABC"), "line 2: sha256 must be 64 hexadecimal digits"),
        (line(expires="soon"), "line 2: expires is 'soon'; it must be like 2027-"),
        (line(expires=5), "line 2: expires is 5; it must be like 2027-"),
        (line("first"), "line 2: this token stands there twice"),
    ],
)
def test_a_wrong_line_is_named(text: str, message: str) -> None:
    """With its number and what it must be."""
    with pytest.raises(ValueError, match=message):
        Tokens([line("first"), text])


def test_the_command_makes_a_line_and_tells_the_token_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The line on standard output has the hash only; the token goes to standard error."""
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
    """They may step and read, and do not expire, unless asked for otherwise."""
    made = []
    for _ in range(3):
        tokens.main(["alice"])
        captured = capsys.readouterr()
        made.append(captured.err)
        assert json.loads(captured.out).keys() == {"principal", "scopes", "sha256"}
        assert json.loads(captured.out)["scopes"] == ["read", "step"]
    assert len(set(made)) == 3


def test_the_command_refuses_an_empty_name(capsys: pytest.CaptureFixture[str]) -> None:
    """With the sentence that the server would say."""
    with pytest.raises(SystemExit):
        tokens.main([" "])
    assert "principal is ' '; it must be a name" in capsys.readouterr().err
