"""Why no server was reached, told apart by both clients, a stream and the command."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import grpc
import pytest

from ntm_client import (
    AsyncClient,
    Client,
    NtmClientError,
    StreamBroken,
    TlsFailed,
    Unreachable,
    diagnosis,
    tls,
)
from ntm_client.connection import target_of
from ntm_lab.cli import main
from tests.support.certificates import Authority, Pair
from tests.support.ports import free_port
from tests.support.served import ROOT

TRUSTED, OTHER = Authority("trusted"), Authority("other")

CA = "ca"
"""The option of a client that trusts the server's CA."""


@contextmanager
def standing(pair: Pair | None = None, client_ca: bytes | None = None) -> Iterator[str]:
    """The address of a gRPC server without services, with this certificate or without TLS."""
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        credentials = pair and grpc.ssl_server_credentials(
            [(pair.key, pair.certificate)], client_ca, client_ca is not None
        )
        port = (
            server.add_secure_port("127.0.0.1:0", credentials)
            if credentials
            else server.add_insecure_port("127.0.0.1:0")
        )
        server.start()
        try:
            yield f"localhost:{port}"
        finally:
            server.stop(None).wait()


@contextmanager
def absent() -> Iterator[str]:
    """An address at which nobody listens."""
    yield f"127.0.0.1:{free_port()}"


@contextmanager
def unknown() -> Iterator[str]:
    """An address with a name that never exists."""
    yield "ntm.invalid:50051"


@contextmanager
def no_socket() -> Iterator[str]:
    """A Unix domain socket that does not exist."""
    yield "unix:/nowhere/ntm.sock"


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Log nothing."""


@contextmanager
def website() -> Iterator[str]:
    """A server of HTTP/1, as the monitoring port is."""
    with make_server("127.0.0.1", 0, lambda _, start: [], handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Fault:
    """What is wrong, and what is said about it."""

    reason: str
    said: str
    server: Callable[[], AbstractContextManager[str]]
    options: dict[str, Pair | str] = field(default_factory=dict)
    """Of the client, named as in `tls`; none for a connection without TLS."""
    advice: str = ""
    """What the command says to do."""


def shown(pair: Pair) -> dict[str, Pair | str]:
    """The options of a client that trusts the server's CA and shows a certificate."""
    return {CA: TRUSTED.certificate.decode(), "certificate": pair}


TRUSTING: dict[str, Pair | str] = {CA: TRUSTED.certificate.decode()}

FAULTS = {
    "dead": Fault("CONNECTION_REFUSED", "no server answers at 127.0.0.1:", absent, {}, "start one"),
    "dead, TLS": Fault("CONNECTION_REFUSED", "Connection refused", absent, TRUSTING, "start one"),
    "no socket": Fault("CONNECTION_REFUSED", "No such file", no_socket, {}, "start one"),
    "unknown host": Fault("HOST_UNKNOWN", "no host is known .* 'ntm.invalid'", unknown, {}, "give"),
    "website": Fault("NOT_GRPC", "does not speak gRPC", website, {}, "gRPC port"),
    "website, TLS": Fault("NOT_GRPC", "does not speak gRPC", website, TRUSTING, "gRPC port"),
    "plaintext to TLS": Fault(
        "TLS_REQUIRED", "encrypts", lambda: standing(TRUSTED.signed("s")), {}, "--tls"
    ),
    "plaintext to mTLS": Fault(
        "TLS_REQUIRED",
        "encrypts",
        lambda: standing(TRUSTED.signed("s"), TRUSTED.certificate),
        {},
        "--tls",
    ),
    "TLS to plaintext": Fault(
        "TLS_NOT_SPOKEN", "does not encrypt", standing, TRUSTING, "without --tls"
    ),
    "other CA": Fault(
        "CERTIFICATE_UNTRUSTED",
        "not signed by a CA",
        lambda: standing(OTHER.signed("s")),
        TRUSTING,
        "--ca FILE",
    ),
    "expired": Fault(
        "CERTIFICATE_EXPIRED",
        "not valid at this time .*expired",
        lambda: standing(TRUSTED.signed("s", lasts=timedelta(days=-1))),
        TRUSTING,
        "renew it",
    ),
    "other name": Fault(
        "CERTIFICATE_NAME",
        r"not for the name 'localhost'.*\(ntm.example, 127.0.0.1\)",
        lambda: standing(TRUSTED.signed("s", names=("ntm.example",))),
        TRUSTING,
        "--server-name NAME",
    ),
    "other name expected": Fault(
        "CERTIFICATE_NAME",
        "not for the name 'ntm.example'",
        lambda: standing(TRUSTED.signed("s")),
        {**TRUSTING, "server_name": "ntm.example"},
        "--server-name NAME",
    ),
    "no client certificate": Fault(
        "CLIENT_CERTIFICATE_MISSING",
        "shows no certificate",
        lambda: standing(TRUSTED.signed("s"), TRUSTED.certificate),
        TRUSTING,
        "--cert and --key",
    ),
    "client certificate of another CA": Fault(
        "CLIENT_CERTIFICATE_REFUSED",
        "does not accept the certificate of this client",
        lambda: standing(TRUSTED.signed("s"), TRUSTED.certificate),
        shown(OTHER.signed("c")),
        "valid now",
    ),
    "expired client certificate": Fault(
        "CLIENT_CERTIFICATE_REFUSED",
        "does not accept the certificate of this client",
        lambda: standing(TRUSTED.signed("s"), TRUSTED.certificate),
        shown(TRUSTED.signed("c", lasts=timedelta(days=-1))),
        "valid now",
    ),
}


def files(options: dict[str, Pair | str], folder: Path) -> dict[str, str]:
    """The options as `tls` takes them, their certificates written to the folder."""
    found = {name: value for name, value in options.items() if isinstance(value, str)}
    if CA in found:
        (folder / "ca.pem").write_text(found[CA])
        found[CA] = str(folder / "ca.pem")
    pair = options.get("certificate")
    if isinstance(pair, Pair):
        found["certificate"], found["key"] = map(str, pair.written(folder, "client"))
    return found


def blocking(address: str, options: dict[str, str]) -> None:
    with Client(address, credentials=tls(**options) if options else None) as client:
        client.models()


def asynchronous(address: str, options: dict[str, str]) -> None:
    async def ask() -> None:
        credentials = tls(**options) if options else None
        async with AsyncClient(address, credentials=credentials) as client:
            await client.models()

    asyncio.run(ask())


def streaming(address: str, options: dict[str, str]) -> None:
    async def ask() -> None:
        credentials = tls(**options) if options else None
        async with (
            AsyncClient(address, credentials=credentials) as client,
            client.stream() as stream,
        ):
            await stream.open("m")

    asyncio.run(ask())


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("ask", [blocking, asynchronous, streaming])
def test_a_client_says_why_no_server_was_reached(
    ask: Callable[[str, dict[str, str]], None], fault: str, tmp_path: Path
) -> None:
    """Each fault has a reason of its own, and faults of TLS have a class of their own."""
    wrong = FAULTS[fault]
    with wrong.server() as address, pytest.raises(NtmClientError) as raised:
        ask(address, files(wrong.options, tmp_path))

    error = raised.value
    assert re.search(wrong.said, str(error)), error
    assert error.reason == wrong.reason
    if ask is streaming:
        assert isinstance(error, StreamBroken)
        error = error.__cause__  # type: ignore[assignment]
    is_tls = wrong.reason.startswith(("TLS", "CERTIFICATE", "CLIENT"))
    assert type(error) is (TlsFailed if is_tls else Unreachable)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_command_says_what_to_do(fault: str, tmp_path: Path) -> None:
    """It ends with status 2 and one line, which names the option that helps."""
    wrong = FAULTS[fault]
    flags = {"ca": "--ca", "certificate": "--cert", "key": "--key", "server_name": "--server-name"}
    options = files(wrong.options, tmp_path)
    with wrong.server() as address:
        given = [part for name, value in options.items() for part in (flags[name], value)]
        ended = subprocess.run(
            [sys.executable, "-m", "ntm_lab", "models", "--server", address, *given],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=100,
        )

    line = ended.stderr
    assert (ended.returncode, line.count("\n")) == (2, 1), line
    assert re.search(wrong.said, line), line
    assert wrong.advice in line
    assert wrong.reason == "CONNECTION_REFUSED" or "start one" not in line


def test_every_documented_reason_is_tried() -> None:
    """The table has a fault for each reason that the classes name."""
    documented = set(re.findall(r"[A-Z]+_[A-Z_]+", f"{Unreachable.__doc__}{TlsFailed.__doc__}"))

    elsewhere = {"PROXY_FAILED", "NO_ANSWER"}
    assert documented == {fault.reason for fault in FAULTS.values()} | elsewhere


def test_a_port_that_says_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts connections, as a port behind some firewalls does, and never answers."""
    monkeypatch.setattr(diagnosis, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = target_of(f"127.0.0.1:{silent.getsockname()[1]}")
        for how in (None, tls()):
            error = diagnosis.diagnosed(Unreachable("?"), target.addresses, how)
            assert error.reason == "NO_ANSWER"


@pytest.mark.parametrize("ask", [blocking, asynchronous])
def test_a_server_with_another_name_is_reached(
    ask: Callable[[str, dict[str, str]], None], tmp_path: Path
) -> None:
    """With the name that its certificate has, the connection stands."""
    options = files({**TRUSTING, "server_name": "ntm.example"}, tmp_path)
    with (
        standing(TRUSTED.signed("s", names=("ntm.example",))) as address,
        pytest.raises(NtmClientError, match="UNIMPLEMENTED"),
    ):
        ask(address, options)


@pytest.mark.parametrize("server", ["127.0.0.1:1", "http://127.0.0.1:1"])
def test_the_command_names_the_variable_of_the_address(
    server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An address that was set long ago is not in the command line to look at."""
    monkeypatch.setenv("NTM_SERVER", server)
    assert main(["models"]) == 2
    assert capsys.readouterr().err.endswith("; the variable NTM_SERVER has this address\n")
    assert main(["models", "--server", "127.0.0.1:2"]) == 2
    assert "NTM_SERVER" not in capsys.readouterr().err
