"""The tokens file: what its lines mean, which are refused, and how one is made."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from service.auth.principal import Principal
from service.auth.tokens import Tokens, new_token, watched
from tests.conftest import Clock


def line(token: str = "secret", **changes: Any) -> str:
    """An entry for that token."""
    digest = hashlib.sha256(token.encode()).hexdigest()
    return json.dumps({"principal": "alice", "scopes": ["read"], "sha256": digest, **changes})


def test_a_token_finds_its_principal() -> None:
    """No other token finds it, and neither does its hash."""
    found = Tokens([line("one"), "", line("two", principal="bob", scopes=["read", "step"])])

    assert found.principal("one") == Principal("token:alice", frozenset(["read"]))
    assert found.principal("two") == Principal("token:bob", frozenset(["read", "step"]))
    digest = hashlib.sha256(b"one").hexdigest()
    assert [found.principal(token) for token in ("", "on", "one ", "One", digest)] == [None] * 5


def test_a_token_ends_when_it_expires(clock: Clock) -> None:
    """It ends at that second; a time without a zone is in UTC."""
    for expires in ("1970-01-01T00:20:00", "1970-01-01T00:20:00Z", "1970-01-01T01:20:00+01:00"):
        clock.seconds = 1199.0
        found = Tokens([line(expires=expires)], clock)
        assert found.principal("secret") == Principal("token:alice", frozenset(["read"]), 1200.0)
        clock.seconds = 1200.0
        assert found.principal("secret") is None


@pytest.mark.parametrize("text", ["", line("two", expires="2020-01-31")])
def test_a_file_without_a_valid_token_takes_all_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """It is read like any other, and the log warns of it."""
    path = tmp_path / "tokens"
    expired = line("three", expires="2020-01-31")
    path.write_text(f"{expired}\n{line()}\n")
    found = watched("--tokens-file", path)
    assert found.value().principal("secret") is not None
    assert not caplog.records

    path.write_text(text + "\n")
    assert found.value().principal("secret") is None
    (record,) = (each for each in caplog.records if each.levelname == "WARNING")
    assert record.getMessage() == "the file has no valid token, and none is accepted"
    assert (vars(record)["setting"], vars(record)["path"]) == ("--tokens-file", str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alice:abc", "line 2 is not JSON: Expecting value"),
        ("[]", "line 2: it must have the fields principal, scopes, sha256 and no other but"),
        (line(role="root"), "line 2: it must have the fields principal, scopes, sha256 and"),
        (line(principal=" "), "line 2: principal is ' '; it must be a name"),
        (line(scopes=[]), "line 2: scopes are .*they must be a list of some of .'read', 'step'"),
        (line(scopes=["admin"]), "line 2: scopes are .'admin'.; they must be"),
        (line(scopes=[["read"]]), "line 2: scopes are "),
        (line(sha256="ABC"), "line 2: sha256 must be 64 hexadecimal digits"),
        (line(expires="soon"), "line 2: expires is 'soon'; it must be like 2027-"),
        (line(expires=5), "line 2: expires is 5; it must be like 2027-"),
        (line("first"), "line 2: the token is in the file already; delete one"),
    ],
)
def test_a_wrong_line_is_named(text: str, message: str) -> None:
    """The error has its number and what it must be."""
    with pytest.raises(ValueError, match=message):
        Tokens([line("first"), text])


def test_a_new_token_has_a_line_that_allows_it() -> None:
    """The line has the token's hash and not the token; an expiry is in it if there is one."""
    expires = datetime(2027, 1, 31, tzinfo=UTC)
    token, line = new_token("alice", ["read"], expires)

    assert token not in line
    assert json.loads(line)["expires"] == "2027-01-31T00:00:00+00:00"
    found = Tokens([line], lambda: 0.0).principal(token)
    assert found == Principal("token:alice", frozenset(["read"]), expires.timestamp())


@pytest.mark.parametrize(
    ("name", "scopes", "message"),
    [
        ("", ["read"], "principal is ''; it must be a name"),
        ("alice", [], "scopes are ..; they must be a list of some of"),
        ("alice", ["root"], "scopes are .'root'.; they must be a list of some of"),
    ],
)
def test_a_token_that_the_file_could_not_hold_is_not_made(
    name: str, scopes: list[str], message: str
) -> None:
    """The error is the one that the server would report for the line."""
    with pytest.raises(ValueError, match=message):
        new_token(name, scopes)
