"""
Finds out why no connection could be made, by trying one with Python's own sockets and TLS.

gRPC has one code for all of it, and details whose words change from release to release.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from typing import Any

import grpc

from ntm.addresses import Address
from ntm_client.encryption import Tls, unverified
from ntm_client.errors import InvalidRequest, TlsFailed, Unreachable

SECONDS = 3.0
"""The longest time that each of up to three connections may take."""

PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
"""The variables in which gRPC looks for a proxy, in this order."""

EXCEPTIONS = ("no_grpc_proxy", "no_proxy")
"""The variables in which gRPC looks for hosts that need no proxy."""

_EXPIRED, _NOT_YET_VALID, _OTHER_NAME, _OTHER_ADDRESS = 10, 9, 62, 64
"""OpenSSL's X509_V_ERR codes."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
"""The first bytes of a client of HTTP/2: its greeting and a SETTINGS frame without settings."""

_ENDED = (ssl.SSLError, ConnectionResetError, BrokenPipeError)
"""Ways in which the other end leaves a connection in whose language it does not speak."""

_SETTINGS, _FRAME_HEADER_BYTES = 4, 9


def diagnosed(
    error: Unreachable, addresses: tuple[Address, ...], tls: Tls | grpc.ChannelCredentials | None
) -> Unreachable:
    """
    The error that says why no server could be reached, or the given one if that is not found out.

    It blocks for some seconds at most, and sends nothing of the caller's.

    Args:
        error: What gRPC said.
        addresses: Where the server was looked for; nothing is tried if this is not one address.
        tls: How the connection was to be encrypted; None if it was not.
    """
    if len(addresses) != 1:
        return error
    (address,) = addresses
    proxy = proxy_of(address)
    if proxy:
        return Unreachable(
            f"no connection to {address} through the proxy that the variable {proxy} names "
            f"({_details(error)}); correct {proxy}, or name the host in no_proxy",
            reason="PROXY_FAILED",
        )
    try:
        context = tls.context() if isinstance(tls, Tls) else None
    except (OSError, InvalidRequest):  # a file of the caller's has gone since
        return error
    return _Trial(address, tls, context).finding() or error


def _details(error: Unreachable) -> str:
    cause = error.__cause__
    return (cause.details() or "") if isinstance(cause, grpc.RpcError) else ""


def proxy_of(address: Address) -> str | None:
    """The variable with the proxy through which gRPC connects to a server; None without one."""
    if is_direct(address):
        return None
    proxy = next((name for name in PROXIES if os.environ.get(name)), None)
    if proxy is None or not os.environ[proxy].lower().startswith("http://"):
        return None  # of other schemes gRPC takes none, and connects without a proxy
    kept = next((os.environ[name] for name in EXCEPTIONS if os.environ.get(name)), "")
    exempt = [entry.strip() for entry in kept.split(",") if entry.strip()]
    return None if any(address.host.endswith(entry) for entry in exempt) else proxy


def is_direct(address: Address) -> bool:
    """Whether a client uses no proxy for a server, whatever the environment names."""
    return address.is_local or address.is_any


class _Trial:
    """Connections to one address."""

    def __init__(
        self,
        address: Address,
        tls: Tls | grpc.ChannelCredentials | None,
        context: ssl.SSLContext | None,
    ) -> None:
        """`context` is that of a `Tls`; None for no TLS, or settings that cannot be seen."""
        self._address = address
        self._tls = tls
        self._context = context

    def finding(self) -> Unreachable | None:
        try:
            return self._encrypted() if self._tls else self._plain()
        except socket.gaierror as error:
            return Unreachable(
                f"no host is known by the name {self._address.host!r} ({error.strerror}); give the "
                "address of a server that runs",
                reason="HOST_UNKNOWN",
            )
        except TimeoutError:
            return Unreachable(
                f"{self._address} does not answer within {SECONDS:.0f} s; is it the gRPC port of a "
                "server that runs, and does no firewall keep it away?",
                reason="NO_ANSWER",
            )
        except OSError as error:
            return Unreachable(
                f"no server answers at {self._address} ({error.strerror or error}); start one with "
                "`python -m service`, or give the address of one that runs",
                reason="CONNECTION_REFUSED",
            )

    def _plain(self) -> Unreachable | None:
        if self._speaks_grpc():
            return None
        if self._shakes_hands():
            return TlsFailed(
                f"the server at {self._address} encrypts its connections, and this client does "
                "not; connect with TLS (`credentials=tls()`, or --tls)",
                reason="TLS_REQUIRED",
            )
        return self._no_grpc()

    def _encrypted(self) -> Unreachable | None:
        if self._context is None or not isinstance(self._tls, Tls):
            return None if self._shakes_hands() else self._without_tls()
        host = self._tls.server_name or self._address.host or "localhost"
        try:
            with (
                self._connected() as connection,
                self._context.wrap_socket(connection, server_hostname=host) as encrypted,
            ):
                return None if _greets(encrypted) else self._refusal()
        except ssl.SSLCertVerificationError as error:
            return self._wrong_certificate(error, host)
        except _ENDED:
            return self._without_tls()

    def _without_tls(self) -> Unreachable:
        if self._speaks_grpc():
            return TlsFailed(
                f"the server at {self._address} does not encrypt its connections, and this client "
                "does; connect without `credentials` (without --tls, --ca, --cert, --key and "
                "--server-name)",
                reason="TLS_NOT_SPOKEN",
            )
        return self._refusal() if self._shakes_hands() else self._no_grpc()

    def _no_grpc(self) -> Unreachable:
        return Unreachable(
            f"what answers at {self._address} does not speak gRPC; give the address of a server's "
            "gRPC port",
            reason="NOT_GRPC",
        )

    def _refusal(self) -> TlsFailed:
        if isinstance(self._tls, Tls) and not self._tls.shows_certificate:
            return TlsFailed(
                f"the server at {self._address} ends the connection of a client that shows no "
                "certificate; show one (`tls(certificate=FILE, key=FILE)`, or --cert and --key)",
                reason="CLIENT_CERTIFICATE_MISSING",
            )
        return TlsFailed(
            f"the server at {self._address} does not accept the certificate of this client; show "
            "one that is valid now, of a CA that the server trusts",
            reason="CLIENT_CERTIFICATE_REFUSED",
        )

    def _wrong_certificate(self, error: ssl.SSLCertVerificationError, host: str) -> TlsFailed:
        its = f"the certificate of the server at {self._address}"
        match error.verify_code:
            case code if code in (_OTHER_NAME, _OTHER_ADDRESS):
                return TlsFailed(
                    f"{its} is not for the name {host!r}; connect to a name that it has"
                    f"{self._names()}, or expect that name (`tls(server_name=NAME)`, or "
                    "--server-name NAME)",
                    reason="CERTIFICATE_NAME",
                )
            case code if code in (_EXPIRED, _NOT_YET_VALID):
                return TlsFailed(
                    f"{its} is not valid at this time ({error.verify_message}); renew it at the "
                    "server, or correct this machine's clock",
                    reason="CERTIFICATE_EXPIRED",
                )
        return TlsFailed(
            f"{its} is not signed by a CA that this client trusts ({error.verify_message}); trust "
            "its CA (`tls(ca=FILE)`, or --ca FILE)",
            reason="CERTIFICATE_UNTRUSTED",
        )

    def _names(self) -> str:
        """The names in a certificate that is trusted, in brackets; empty if it shows none."""
        assert isinstance(self._tls, Tls)
        try:
            context = self._tls.context(checks_name=False)
            with self._connected() as connection, context.wrap_socket(connection) as encrypted:
                shown: Any = (encrypted.getpeercert() or {}).get("subjectAltName", ())
        except (OSError, InvalidRequest):
            return ""
        return f" ({', '.join(value for _, value in shown)})" if shown else ""

    def _speaks_grpc(self) -> bool:
        with self._connected() as connection:
            return _greets(connection)

    def _shakes_hands(self) -> bool:
        try:
            with self._connected() as connection, unverified().wrap_socket(connection):
                return True
        except _ENDED:
            return False

    def _connected(self) -> socket.socket:
        failed: OSError = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        for family, place in self._address.places():
            connection = socket.socket(family)
            connection.settimeout(SECONDS)
            try:
                connection.connect(place)
            except OSError as error:
                connection.close()
                failed = error
            else:
                return connection
        raise failed


def _greets(connection: socket.socket) -> bool:
    """Whether the other end answers as a server of HTTP/2 does, on which gRPC builds."""
    head = b""
    try:
        connection.sendall(_PREFACE)
        while len(head) < _FRAME_HEADER_BYTES:
            part = connection.recv(_FRAME_HEADER_BYTES - len(head))
            if not part:
                return False
            head += part
    except _ENDED:
        return False  # an alert of TLS, such as that a certificate is missing
    return head[3] == _SETTINGS
