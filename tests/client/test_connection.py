"""The metadata of a connection: its token, which is never sent where others could read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ntm_client import AsyncClient, Client, TokenNotSent, tls
from ntm_client.connection import Authorization
from tests.client.conftest import Running

LOCAL = [
    "localhost:50051",
    "localhost",
    "127.0.0.1:50051",
    "127.3.2.1:1",
    "[::1]:50051",
    "::1",
    "dns:///localhost:50051",
    "dns:localhost:50051",
    "ipv4:127.0.0.1:50051",
    "ipv6:[::1]:50051",
    "unix:/run/ntm.sock",
    "unix-abstract:ntm",
]
ELSEWHERE = [
    "ntm.example:50051",
    "10.0.0.1:50051",
    "0.0.0.0:50051",
    "[2001:db8::1]:50051",
    "localhost.example:50051",
    "127.0.0.1.example:50051",
    "dns:///ntm.example",
    "dns://8.8.8.8/localhost:50051",
    "ipv4:127.0.0.1:50051,10.0.0.1:50051",
    "xds:///localhost",
]


@pytest.mark.parametrize("target", LOCAL)
def test_a_token_may_stay_on_this_machine_unencrypted(target: str) -> None:
    """A token is sent to this machine without encryption, but not through a proxy."""
    authorization = Authorization("secret", target, None)
    assert authorization.metadata() == (("authorization", "Bearer secret"),)
    assert authorization.options == [("grpc.enable_http_proxy", 0)]


@pytest.mark.parametrize("target", ELSEWHERE)
@pytest.mark.parametrize("made", [Client, AsyncClient])
async def test_a_token_is_not_sent_elsewhere_unencrypted(
    made: Callable[..., Any], target: str
) -> None:
    """
    Both clients refuse before they connect. The error says what to do and does not show the token.
    """
    with pytest.raises(TokenNotSent, match="connect with TLS") as error:
        made(target, token="s3cret")
    assert "s3cret" not in str(error.value)
    assert Authorization("s3cret", target, tls()).metadata()
    assert Authorization(None, target, None).metadata() == ()


@pytest.mark.parametrize("token", ["", "two words", "line\n", "ü", "a=b", "a,b"])
def test_what_is_no_token_is_not_sent(running: Running, token: str) -> None:
    """An invalid token is refused here, because gRPC's error would show it."""
    with (
        Client(running.address, token=token) as client,
        pytest.raises(TokenNotSent, match=f"the token of {len(token)} characters") as error,
    ):
        client.models()
    assert not token or token not in str(error.value)


def test_a_function_is_asked_for_each_call() -> None:
    """A function for the token is called for each call, so that a token can be renewed."""
    tokens = iter(["first", "second"])
    authorization = Authorization(lambda: next(tokens), "localhost", None)
    assert [authorization.metadata()[0][1] for _ in range(2)] == ["Bearer first", "Bearer second"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A missing file raises the error of opening it, which has the path."""
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem"):
        tls(tmp_path / "nowhere.pem")
