"""The client and its command line against a server with TLS and authentication."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ntm_client import (
    AsyncClient,
    Client,
    PermissionDenied,
    SessionUnknown,
    Stream,
    StreamBroken,
    Unauthenticated,
    Unavailable,
    tls,
)
from ntm_lab.cli import main
from service.auth.principal import READ, STEP
from tests.conftest import Running, Serve
from tests.support.certificates import Authority
from tests.support.tokens import token_line, write

AUTHORITY = Authority()


@dataclass
class Secured:
    """A server, and what a client needs to be let in."""

    running: Running
    address: str
    ca: Path
    certificate: Path
    key: Path
    token: Path
    by_token: bool


@pytest.fixture(params=["token", "certificate"])
async def secured(
    serve: Serve, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Secured]:
    """One that knows Alice by her token or, in the other half of the tests, by her certificate."""
    shown, key = AUTHORITY.signed("server").written(tmp_path, "server")
    certificate, own_key = AUTHORITY.signed("alice").written(tmp_path, "alice")
    ca, lines, token = (tmp_path / name for name in ("ca.pem", "tokens.jsonl", "token"))
    write(ca, AUTHORITY.certificate.decode())
    write(lines, token_line("alice", "tok-alice", READ, STEP) + token_line("r", "tok-r", READ))
    write(token, "tok-alice\n")
    settings = {"tls_certificate": str(shown), "tls_key": str(key), "tokens_file": str(lines)}
    if request.param == "certificate":
        settings["tls_client_ca"] = str(ca)
        del settings["tokens_file"]
    credentials = tls(ca, certificate, own_key)
    async with serve(credentials.credentials, **settings) as running:
        address = f"localhost:{running.server.port}"
        yield Secured(running, address, ca, certificate, own_key, token, request.param == "token")


async def test_both_clients_and_the_stream_are_let_in(secured: Secured) -> None:
    """Both clients and the stream reach Alice's session."""
    credentials = tls(secured.ca, secured.certificate, secured.key)

    def step() -> str:
        with Client(secured.address, credentials=credentials, token=token) as client:
            session = client.create_session("ledger")
            assert session.step([[1, 2]]).array.tolist() == [[1, 2]]
            return session.id

    token = "tok-alice" if secured.by_token else None
    session_id = await asyncio.to_thread(step)
    async with AsyncClient(secured.address, credentials=credentials, token=token) as client:
        assert [session.id for session in await client.sessions()] == [session_id]
        async with client.stream() as stream:
            assert isinstance(stream, Stream)
            session = await stream.session(session_id)
            assert (await session.step([[1, 2]])).array.tolist() == [[2, 4]]
            await session.delete()


async def test_who_is_not_let_in_learns_it(serve: Serve, tmp_path: Path) -> None:
    """
    A missing token, a wrong one, one without the scope, and another's session each have an error.
    """
    lines = tmp_path / "tokens.jsonl"
    write(
        lines,
        token_line("alice", "tok-alice", READ, STEP)
        + token_line("bob", "tok-bob", READ, STEP)
        + token_line("r", "tok-r", READ),
    )
    async with serve(tokens_file=str(lines)) as running:
        for token, kind in (
            (None, Unauthenticated),
            ("wrong", Unauthenticated),
            ("tok-r", PermissionDenied),
        ):
            async with AsyncClient(running.address, token=token) as client:
                with pytest.raises(kind):
                    await client.create_session("ledger")
                with pytest.raises(StreamBroken) as broken:
                    async with client.stream() as stream:
                        await stream.open("ledger")
                expected = "PERMISSION_DENIED" if token == "tok-r" else "UNAUTHENTICATED"
                assert broken.value.reason == expected
        async with (
            AsyncClient(running.address, token="tok-alice") as alice,
            AsyncClient(running.address, token="tok-bob") as bob,
            await alice.create_session("ledger") as session,
        ):
            with pytest.raises(SessionUnknown):
                await bob.session(session.id)


async def test_a_server_that_cannot_be_trusted_gets_no_token(secured: Secured) -> None:
    """The handshake fails before anything is sent."""
    other = secured.ca.with_name("other.pem")
    write(other, Authority("other").certificate.decode())
    async with AsyncClient(secured.address, credentials=tls(other), token="tok-alice") as client:
        with pytest.raises(Unavailable):
            await client.models()
    assert secured.running.metric("ntm_errors_total", reason="UNAUTHENTICATED") == 0


async def test_the_command_line_is_let_in(
    secured: Secured, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line is admitted by a token in a file or a variable, or by a certificate."""
    monkeypatch.delenv("NTM_TOKEN", raising=False)
    server = ["--server", secured.address, "--ca", str(secured.ca)]
    shown = ["--cert", str(secured.certificate), "--key", str(secured.key)]
    let_in = ["--token-file", str(secured.token)] if secured.by_token else shown

    async def status(*arguments: str) -> int:
        return await asyncio.to_thread(main, ["models", *arguments])

    assert await status(*server, *let_in) == 0
    assert "ledger" in capsys.readouterr().out
    assert await status(*server) == 2
    missing = "NTM_TOKEN or --token-file" if secured.by_token else "--cert and --key"
    assert missing in capsys.readouterr().err
    assert await status("--server", secured.address, "--tls", *let_in) == 2  # not trusted
    assert await status(*server, "--cert", str(secured.certificate)) == 2
    assert "--cert and --key go together; give both" in capsys.readouterr().err
    if secured.by_token:
        monkeypatch.setenv("NTM_TOKEN", "tok-alice")
        assert await status(*server) == 0
        monkeypatch.setenv("NTM_TOKEN", "tok-wrong")
        assert await status(*server) == 2
        assert await status(*server, *let_in) == 0
        captured = capsys.readouterr()
        assert "does not accept the token that was sent" in captured.err
        assert "tok-" not in captured.out + captured.err
        assert await status("--server", "ntm.example:1", *let_in) == 2
        assert "connect with TLS" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (None, "wants a token, and none was sent; give one .*NTM_TOKEN or --token-file"),
        ("tok-wrong", "does not accept the token that was sent; it may be mistyped, expired"),
    ],
)
async def test_a_missing_and_a_wrong_token_are_told_apart(
    secured: Secured, token: str | None, said: str
) -> None:
    """By both clients and by a stream; no token is in what they say."""
    if not secured.by_token:
        pytest.skip("this server takes no tokens")
    credentials = tls(secured.ca)

    def ask() -> None:
        with Client(secured.address, credentials=credentials, token=token) as client:
            client.models()

    with pytest.raises(Unauthenticated, match=said) as blocking:
        await asyncio.to_thread(ask)
    async with AsyncClient(secured.address, credentials=credentials, token=token) as client:
        with pytest.raises(Unauthenticated, match=said) as asynchronous:
            await client.models()
        async with client.stream() as stream:
            with pytest.raises(StreamBroken, match=said) as streaming:
                await stream.open("ledger")
    for raised in (blocking, asynchronous, streaming):
        assert raised.value.reason == "UNAUTHENTICATED"
        assert "tok-" not in str(raised.value)
