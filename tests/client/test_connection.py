"""The metadata of a connection: its token, which is never sent where others could read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ntm_client import AsyncClient, Client, InvalidRequest, TokenNotSent, tls
from ntm_client.connection import Authorization, Connection, target_of
from tests.client.conftest import Running
from tests.support.certificates import Authority

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
NO_ADDRESSES = {
    "": "must be the address of a server",
    " localhost:50051": "blank",
    "localhost:50051\n": "blank",
    "http://localhost:50051": "it is a URL; write 'localhost:50051'",
    "https://localhost:50051/": "it is a URL; write 'localhost:50051'",
    "localhost:0": "its port is '0'",
    "localhost:65536": "its port is '65536'",
    "localhost:http": "its port is 'http'",
    "localhost:": "its port is ''",
    ":50051": "it has no host",
    "::1:50051": r"write an IPv6 address as \[::1\]:50051",
    "[::1:50051": r"write an IPv6 address as \[ADDRESS\]:PORT",
    "[localhost]:50051": "only an IPv6 address has brackets",
    "a:b:c": "write HOST:PORT",
    "300.1.1.1:50051": "no IPv4 address",
    "a/b:50051": "no name of a host",
    "dns:///": "it is empty",
    "dns:///localhost:0": "its port is '0'",
    "ipv4:localhost:50051": "after ipv4: stand IP addresses",
    "unix:": "it names no socket",
    "unix://relative": "write unix:///PATH",
    f"unix:/{'a' * 107}": "its path has 108 bytes; 107 are allowed",
}


@pytest.mark.parametrize("target", LOCAL)
def test_a_token_may_stay_on_this_machine_unencrypted(target: str) -> None:
    """A token is sent to this machine without encryption, but not through a proxy."""
    connection = Connection(target, None, "secret", None)
    assert connection.authorization.metadata() == (("authorization", "Bearer secret"),)
    assert ("grpc.enable_http_proxy", 0) in connection.options


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
    assert Authorization("s3cret", target_of(target), tls().credentials).metadata()
    assert Authorization(None, target_of(target), None).metadata() == ()


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
    authorization = Authorization(lambda: next(tokens), target_of("localhost"), None)
    assert [authorization.metadata()[0][1] for _ in range(2)] == ["Bearer first", "Bearer second"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A missing file raises the error of opening it, which has the path."""
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem"):
        tls(tmp_path / "nowhere.pem")


@pytest.mark.parametrize("target", NO_ADDRESSES)
@pytest.mark.parametrize("made", [Client, AsyncClient])
async def test_what_is_no_address_is_refused(made: Callable[..., Any], target: str) -> None:
    """Both clients refuse it when they are made, and say what to write."""
    with pytest.raises(InvalidRequest, match=NO_ADDRESSES[target]):
        made(target)


@pytest.mark.parametrize(
    ("written", "given"),
    [
        ("localhost", "localhost:50051"),
        ("::1", "[::1]:50051"),
        ("[fe80::1%25eth0]:1", "[fe80::1%eth0]:1"),
        ("dns:///ntm.example", "dns:///ntm.example:50051"),
        ("ipv4:127.0.0.1:1,10.0.0.1", "ipv4:127.0.0.1:1,10.0.0.1:50051"),
        ("unix:///run/ntm.sock", "unix:/run/ntm.sock"),
        ("dns://8.8.8.8/localhost", "dns://8.8.8.8/localhost"),
    ],
)
def test_an_address_without_a_port_gets_the_servers(written: str, given: str) -> None:
    """Not gRPC's own default, 443; schemes that the client does not know are left to gRPC."""
    assert target_of(written).text == given


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ca": "text"}, "text must be a PEM file of the CAs to trust"),
        ({"certificate": "client.pem", "key": "text"}, "text must be .* one of them is"),
        ({"certificate": "client.pem", "key": "other.key"}, "client.pem, .*: it is another's"),
        ({"certificate": "client.pem"}, "give both, or neither"),
        ({"key": "client.key"}, "give both, or neither"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(
    options: dict[str, str], message: str, tmp_path: Path
) -> None:
    """gRPC itself would only fail to connect."""
    authority = Authority()
    authority.signed("client").written(tmp_path, "client")
    authority.signed("other").written(tmp_path, "other")
    (tmp_path / "text").write_text("no certificate")
    with pytest.raises(InvalidRequest, match=message):
        tls(**{name: str(tmp_path / file) for name, file in options.items()})
