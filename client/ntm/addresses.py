"""
Addresses of servers, as people write them: of the server's ports, of its probe and of its clients.

An address is `HOST:PORT` or a Unix domain socket. HOST is a name, an IPv4 address, or an IPv6
address in brackets, which may have a zone: `[fe80::1%eth0]:50051`.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Any

DEFAULT_PORT = 50051
"""The port of the server's API, where an address names none."""

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised here, not listened on
"""What stands for every address of a machine, and the address at which its own programs find it."""

_MAX_SOCKET_BYTES = 107
"""What the system allows for the path of a Unix domain socket."""

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?")


class AddressInvalid(ValueError):
    """A text that is no address."""

    def __init__(self, text: str, why: str, source: str = "") -> None:
        """
        `why` completes a sentence about the text, and says what to write; `source` starts it.
        """
        super().__init__(f"{source}{text!r} is no address: {why}")
        self.text = text
        self.why = why


@dataclass(frozen=True)
class Address:
    """A host and a port, or a Unix domain socket. As text it is what gRPC takes."""

    host: str
    """A name, or an IP address without brackets; empty for a Unix domain socket."""
    port: int
    """1 to 65535; 0 for any free port to listen on, and for a Unix domain socket."""
    socket_path: str = ""
    """Path of the Unix domain socket; an abstract one starts with a zero byte."""

    def __str__(self) -> str:
        if self.socket_path.startswith("\0"):
            return f"unix-abstract:{self.socket_path[1:]}"
        if self.socket_path:
            return f"unix:{self.socket_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine can be at it, or reach it."""
        try:
            return bool(self.socket_path) or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    @property
    def is_any(self) -> bool:
        """Whether it stands for every address of the machine."""
        return self.host in _ANY

    def reached(self) -> Address:
        """The address at which programs of the same machine find a server that listens on this."""
        return Address(_ANY.get(self.host, self.host), self.port, self.socket_path)

    def at(self, port: int) -> Address:
        """The same host at another port."""
        return Address(self.host, port, self.socket_path)

    def places(self) -> list[tuple[socket.AddressFamily, Any]]:
        """
        The family and the address of each socket that this can be, IPv4 first.

        Raises:
            OSError: no such name is known.
        """
        if self.socket_path:
            return [(socket.AF_UNIX, self.socket_path)]
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        places = [(family, place) for family, _, _, _, place in found]
        return sorted(places, key=lambda each: each[0] != socket.AF_INET)


def parse(text: str, default_port: int = DEFAULT_PORT) -> Address:
    """
    The address of a server to connect to; without a port, it gets the default one.

    Raises:
        AddressInvalid: it cannot be read, or its port is not one from 1 to 65535.
    """
    _check_characters(text)
    if text.startswith(("unix:", "unix-abstract:")):
        return _unix(text)
    host, given = _split(text, text)
    return Address(_host(host, text), default_port if given is None else port(given, text))


def port(text: str, address: str) -> int:
    """The port in an address. Raises AddressInvalid unless it is a number from 1 to 65535."""
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) <= 65535):
        raise AddressInvalid(address, f"its port is {text!r}; a port is a number from 1 to 65535")
    return int(text)


def listening(host: str, port: int) -> Address:
    """
    The address of a server that listens on a port of a host, or on a Unix domain socket.

    Args:
        host: A name, an IP address with or without brackets, or `unix:PATH`.
        port: The port; 0 for any free one.

    Raises:
        AddressInvalid: the host cannot be read, or has a port in it.
    """
    _check_characters(host)
    if host.startswith(("unix:", "unix-abstract:")):
        return _unix(host)
    name, given = _split(host, host)
    if given is not None:
        raise AddressInvalid(host, f"the port {given!r} goes into the setting of the port")
    return Address(_host(name, host), port)


def _check_characters(text: str) -> None:
    if not text:
        raise AddressInvalid(text, "it is empty")
    if any(character.isspace() or not character.isprintable() for character in text):
        raise AddressInvalid(text, "it holds a blank or a control character")
    scheme, mark, rest = text.partition("://")
    if mark and scheme != "unix":
        raise AddressInvalid(text, f"it is a URL; write {rest.partition('/')[0] or 'HOST:PORT'!r}")


def _unix(text: str) -> Address:
    scheme, _, path = text.partition(":")
    if scheme == "unix-abstract":
        path = f"\0{path}"
    elif path.startswith("//"):
        path = path[2:]
        if not path.startswith("/"):
            raise AddressInvalid(text, "after unix:// stands a whole path; write unix:///PATH")
    if not path.strip("\0"):
        raise AddressInvalid(text, f"it names no socket; write {scheme}:PATH")
    if len(path.encode()) > _MAX_SOCKET_BYTES:
        raise AddressInvalid(
            text, f"its path has {len(path.encode())} bytes; {_MAX_SOCKET_BYTES} are allowed"
        )
    return Address("", 0, path)


def _split(text: str, whole: str) -> tuple[str, str | None]:
    """The host and the text of the port; None without a port."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise AddressInvalid(whole, "write an IPv6 address as [ADDRESS]:PORT")
        if ":" not in host:
            raise AddressInvalid(whole, "only an IPv6 address has brackets")
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        if not _is_ipv6(text):
            host, _, port = text.rpartition(":")
            if _is_ipv6(host):
                raise AddressInvalid(whole, f"write an IPv6 address as [{host}]:{port}")
            raise AddressInvalid(whole, "write HOST:PORT, and an IPv6 address as [ADDRESS]:PORT")
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _host(host: str, whole: str) -> str:
    if ":" in host:
        host = host.replace("%25", "%", 1)  # as URLs have the sign before a zone
        if not _is_ipv6(host):
            raise AddressInvalid(whole, f"{host!r} is no IPv6 address")
        return host
    if re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise AddressInvalid(whole, f"{host!r} is no IPv4 address") from None
        return host
    if not _NAME.fullmatch(host):
        raise AddressInvalid(whole, f"{host!r} is no name of a host" if host else "it has no host")
    return host
