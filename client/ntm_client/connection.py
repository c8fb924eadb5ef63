"""The parts that blocking and asynchronous connections to a server share."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import grpc
from google.protobuf.message import Message

from ntm.addresses import Address, AddressInvalid, parse
from ntm.v1 import ntm_pb2 as pb
from ntm.v1.ntm_pb2_grpc import NtmServiceStub
from ntm_client import arguments
from ntm_client.diagnosis import diagnosed, is_direct
from ntm_client.encryption import Tls
from ntm_client.errors import (
    InvalidArgument,
    InvalidRequest,
    NtmClientError,
    StreamBroken,
    TokenNotSent,
    Unauthenticated,
    Unreachable,
)
from ntm_client.failures import stream_broken
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


_SCHEMES = ("dns:///", "dns:", "ipv4:", "ipv6:")
_OF_ADDRESSES = ("ipv4:", "ipv6:")
"""Schemes of lists of IP addresses, for replicas."""

_LEFT_TO_GRPC = ("dns://", "xds:", "vsock:", "google-c2p:")


class Target(NamedTuple):
    """A server as gRPC finds it, and where that is, as far as the client can say."""

    text: str
    """What gRPC is given."""
    addresses: tuple[Address, ...]
    """All that the text names; empty for schemes that are left to gRPC."""

    @property
    def is_local(self) -> bool:
        """Whether it is certainly on this machine."""
        return bool(self.addresses) and all(address.is_local for address in self.addresses)


class Connection:
    """How a client reaches its server; both kinds of clients have one."""

    def __init__(
        self,
        target: str,
        credentials: Tls | grpc.ChannelCredentials | None,
        token: Token | None,
        resume: Resume | None,
    ) -> None:
        """Prepare to connect. Raises as the clients do."""
        self._target = target_of(target)
        self._tls = credentials
        self.target = self._target.text
        self.credentials = credentials.credentials if isinstance(credentials, Tls) else credentials
        self.authorization = Authorization(token, self._target, self.credentials)
        self.options = channel_options(resume)
        if self._target.addresses and all(map(is_direct, self._target.addresses)):
            # A proxy could not reach a server of this machine, and would see its tokens.
            self.options.append(("grpc.enable_http_proxy", 0))
        if isinstance(credentials, Tls) and credentials.server_name:
            self.options.append(("grpc.ssl_target_name_override", credentials.server_name))

    @staticmethod
    def looks_at(error: NtmClientError) -> bool:
        """Whether `explained` looks at the connection, which takes a while, for this error."""
        return isinstance(_cause_of(error), Unreachable)

    def explained(self, error: NtmClientError) -> NtmClientError:
        """
        The error that says why no server was reached, or why the caller was not let in.

        It looks at the connection, and blocks for some seconds at most. Any other error is returned
        as it is.
        """
        refused = _cause_of(error)
        why: NtmClientError
        if isinstance(refused, Unauthenticated):
            why = self._unauthenticated(refused)
        elif isinstance(refused, Unreachable):
            why = diagnosed(refused, self._target.addresses, self._tls)
            if why is refused:
                return error
        else:
            return error
        why.__cause__ = refused.__cause__
        found = stream_broken(why) if isinstance(error, StreamBroken) else why
        for note in getattr(error, "__notes__", ()):
            found.add_note(note)
        return found

    def _unauthenticated(self, error: Unauthenticated) -> Unauthenticated:
        """The same error, which says whether a token was sent."""
        told = (
            f"the server at {self.target} does not accept the token that was sent; it may be "
            "mistyped, expired, or of another server"
            if self.authorization.sends_token
            else f"the server at {self.target} wants a token, and none was sent; give one "
            "(`token=TOKEN`, or the variable NTM_TOKEN or --token-file), or a certificate that the "
            "server accepts"
        )
        return Unauthenticated(
            told,
            code=error.code,
            reason=error.reason,
            metadata=error.metadata,
            request_id=error.request_id,
        )


def _cause_of(error: NtmClientError) -> BaseException | None:
    return error.__cause__ if isinstance(error, StreamBroken) else error


class Authorization:
    """Sends the caller's token with each call."""

    def __init__(
        self, token: Token | None, target: Target, credentials: grpc.ChannelCredentials | None
    ) -> None:
        """
        Prepare to send a token to the server at `target`; None sends no token.

        Raises:
            TokenNotSent: the connection would carry it unencrypted to another machine.
        """
        if token is not None and credentials is None and not target.is_local:
            raise TokenNotSent(
                f"the token would travel to {target.text} for everyone to read; connect with TLS "
                "(`credentials=tls()`, or --tls)"
            )
        self._token = token
        self.sends_token = token is not None

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


def check_connection(
    target: object, credentials: object, token: object, timeout_seconds: object, resume: object
) -> None:
    """Raise InvalidArgument unless a client can be made of these."""
    arguments.text("target", target, "the address of a server, such as 'localhost:50051'")
    if credentials is not None and not isinstance(credentials, Tls):
        needed = "credentials as `tls` makes them, those of gRPC, or None"
        arguments.instance("credentials", credentials, grpc.ChannelCredentials, needed)
    if token is not None and not callable(token) and not isinstance(token, str):
        # The value may be a secret, so the error does not show it.
        kind = type(token).__name__
        raise InvalidArgument(f"token must be text, or a function that returns it, not {kind}")
    arguments.call_seconds("timeout_seconds", timeout_seconds)
    if resume is not None:
        arguments.instance("resume", resume, Resume, "a Resume, or None to try once")


def channel_options(resume: Resume | None) -> list[tuple[str, int | str]]:
    """The options of a channel, given how the client resumes."""
    # A channel is made before the server tells how large its messages are. The client asks for no
    # larger replies than it wants; what it asks for, it receives.
    options: list[tuple[str, int | str]] = [("grpc.max_receive_message_length", -1)]
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


def target_of(text: str) -> Target:
    """
    Read the address of a server.

    `HOST:PORT` and `unix:PATH` may be written with gRPC's schemes `dns:///`, `ipv4:` and `ipv6:`.
    Other schemes of gRPC are left to gRPC. Raises InvalidRequest for what is no address.
    """
    if text.startswith(_LEFT_TO_GRPC) and not text.startswith("dns:///"):
        return Target(text, ())
    scheme = next((each for each in _SCHEMES if text.startswith(each)), "")
    rest = text.removeprefix(scheme)
    try:
        found = tuple(
            parse(each) for each in (rest.split(",") if scheme in _OF_ADDRESSES else [rest])
        )
    except AddressInvalid as error:
        raise InvalidRequest(str(error)) from error
    if scheme in _OF_ADDRESSES and not all(_is_ip(address.host) for address in found):
        raise InvalidRequest(f"{text!r} is no address: after {scheme} stand IP addresses")
    return Target(scheme + ",".join(map(str, found)), found)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
