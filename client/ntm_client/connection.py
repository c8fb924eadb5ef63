"""The parts that blocking and asynchronous connections to a server share."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message

from ntm.v1 import ntm_pb2 as pb
from ntm.v1.ntm_pb2_grpc import NtmServiceStub
from ntm_client import arguments
from ntm_client.errors import InvalidArgument, TokenNotSent
from ntm_client.resume import Resume

DEFAULT_TIMEOUT_SECONDS = 60.0

SESSION_HEADER = "x-session-id"
"""
Metadata key of a call's session id. With it, a load balancer can send all calls of a session to one
replica without reading messages.
"""

Token: TypeAlias = str | Callable[[], str]
"""The caller's token, or a function that is called for each call, so that tokens can be renewed."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class Authorization:
    """Sends the caller's token with each call."""

    def __init__(
        self, token: Token | None, target: str, credentials: grpc.ChannelCredentials | None
    ) -> None:
        """
        Prepare to send a token to the server at `target`; None sends no token.

        Raises:
            TokenNotSent: the connection would carry it unencrypted to another machine.
        """
        if token is not None and credentials is None and not _is_local(target):
            raise TokenNotSent(
                f"the token would travel to {target} for everyone to read; connect with TLS "
                "(`credentials=tls()`, or --tls)"
            )
        self._token = token
        # A proxy could be on another machine even if the server is on this one.
        needs_no_proxy = token is not None and credentials is None
        self.options = [("grpc.enable_http_proxy", 0)] if needs_no_proxy else []
        """Channel options that keep the token on this machine."""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """
        The metadata of a call. Raises TokenNotSent if the token is empty or has invalid characters.
        """
        if self._token is None:
            return ()
        token = self._token() if callable(self._token) else self._token
        if not isinstance(token, str):
            raise TokenNotSent(f"the function for the token returned {type(token).__name__}")
        if not _TOKEN.fullmatch(token):
            raise TokenNotSent(
                f"the token of {len(token)} characters is empty or holds characters that no token "
                "has, such as a line break"
            )
        return (("authorization", f"Bearer {token}"),)


def tls(
    ca: Path | str | None = None,
    certificate: Path | str | None = None,
    key: Path | str | None = None,
) -> grpc.ChannelCredentials:
    """
    Credentials for an encrypted connection.

    Args:
        ca: PEM file of the CAs to trust; None for gRPC's own.
        certificate: PEM file of the client certificate, for a server that asks for one.
        key: PEM file of the client certificate's private key.

    Raises:
        OSError: a file cannot be read.
    """
    contents = [
        None if path is None else arguments.path(name, path).read_bytes()
        for name, path in (("ca", ca), ("key", key), ("certificate", certificate))
    ]
    return grpc.ssl_channel_credentials(*contents)


def check_connection(
    target: object, credentials: object, token: object, timeout_seconds: object, resume: object
) -> None:
    """Raise InvalidArgument unless a client can be made of these."""
    arguments.text("target", target, "the address of a server, such as 'localhost:50051'")
    if credentials is not None:
        needed = "credentials as `tls` makes them, or None"
        arguments.instance("credentials", credentials, grpc.ChannelCredentials, needed)
    if token is not None and not callable(token) and not isinstance(token, str):
        # The value may be a secret, so the error does not show it.
        kind = type(token).__name__
        raise InvalidArgument(f"token must be text, or a function that returns it, not {kind}")
    arguments.call_seconds("timeout_seconds", timeout_seconds)
    if resume is not None:
        arguments.instance("resume", resume, Resume, "a Resume, or None to try once")


def channel_options(resume: Resume | None) -> list[tuple[str, int]]:
    """The options of a channel, given how the client resumes."""
    # A channel is made before the server tells how large its messages are. The client asks for no
    # larger replies than it wants; what it asks for, it receives.
    options = [("grpc.max_receive_message_length", -1)]
    if resume is None:
        return options
    # By default gRPC waits up to two minutes between connections, and attempts in between fail at
    # once.
    return [
        *options,
        ("grpc.initial_reconnect_backoff_ms", int(resume.first_backoff_seconds * 1000)),
        ("grpc.max_reconnect_backoff_ms", int(resume.largest_backoff_seconds * 1000)),
    ]


def session_of(request: Message) -> str:
    """The id of the session that a request names; empty if it names none."""
    if isinstance(request, pb.StepRequest):
        return request.chunk.session_id
    return str(getattr(request, "session_id", ""))


def route(session_id: str) -> tuple[tuple[str, str], ...]:
    """The metadata for a load balancer; empty if the id is empty or is not valid in metadata."""
    if not session_id or not session_id.isascii() or not session_id.isprintable():
        return ()
    return ((SESSION_HEADER, session_id),)


def stub_of(channel: grpc.Channel | grpc.aio.Channel) -> NtmServiceStub:
    """The generated stub on a channel."""
    return NtmServiceStub(channel)


def method_for(stub: NtmServiceStub, request: Message) -> Callable[..., Any]:
    """The stub's method for a request: `Step` for a `StepRequest`."""
    method: Callable[..., Any] = getattr(stub, type(request).__name__.removesuffix("Request"))
    return method


def _is_local(target: str) -> bool:
    """Whether a target is certainly on this machine."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    for scheme in ("dns:///", "dns:", "ipv4:", "ipv6:"):
        target = target.removeprefix(scheme)
    host = target.rpartition(":")[0] if re.search(r"(^[^:]*|\]):\d+$", target) else target
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
