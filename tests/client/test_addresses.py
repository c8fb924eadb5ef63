"""Addresses are read and written by one file, which every part uses."""

from __future__ import annotations

import re

import pytest

from ntm.addresses import Address, AddressInvalid, listening, parse
from tests.test_boundaries import ROOT, SOURCES, sources

GLUED = re.compile(
    r"""\{[^{}]*(host|addr)[^{}]*\}:\{ | partition\(":"\) | split\(":" | strip\("\[\]"\)""",
    re.VERBOSE,
)
"""What glues an address from its parts, or takes it apart."""

ALLOWED = {
    "bench/envoy.py",  # its own servers, on 127.0.0.1
    "bench/triton.py",  # likewise
    "client/ntm/addresses.py",
    "export/configuration.py",  # sizes of a trial
    "export/modules/refusal.py",  # a line, after its file
    "service/auth/authentication.py",  # how gRPC writes a caller, without the port
    "service/probe.py",  # only in a sentence about what cannot be read
    "service/stores/opening.py",  # the kind of a store, before its place
    "tasks/ntm_tasks/places.py",  # a name, after its module
}


def test_no_other_file_glues_addresses_or_takes_them_apart() -> None:
    """So none forgets the brackets of an IPv6 address, or a Unix domain socket."""
    found = {
        path.relative_to(ROOT).as_posix()
        for package in SOURCES
        for path in sources(package)
        if GLUED.search(path.read_text(encoding="utf-8"))
    }

    assert found == ALLOWED


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost", Address("localhost", 50051)),
        ("ntm_1.example.:7", Address("ntm_1.example.", 7)),
        ("127.0.0.1:65535", Address("127.0.0.1", 65535)),
        ("::1", Address("::1", 50051)),
        ("[::1]", Address("::1", 50051)),
        ("[::ffff:10.0.0.1]:1", Address("::ffff:10.0.0.1", 1)),
        ("[fe80::1%eth0]:1", Address("fe80::1%eth0", 1)),
        ("fe80::1%25eth0", Address("fe80::1%eth0", 50051)),
        ("unix:ntm.sock", Address("", 0, "ntm.sock")),
        ("unix:/run/ntm.sock", Address("", 0, "/run/ntm.sock")),
        ("unix:///run/ntm.sock", Address("", 0, "/run/ntm.sock")),
        ("unix-abstract:ntm", Address("", 0, "\0ntm")),
    ],
)
def test_an_address_is_read_and_written(text: str, address: Address) -> None:
    """What is written is read as the same address."""
    assert parse(text) == address
    assert parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "localhost:1x",
        "localhost:-1",
        "localhost:+1",
        "localhost:\N{ARABIC-INDIC DIGIT ONE}",
        "localhost:1_0",
        "a:1e3",
    ],
)
def test_a_port_is_decimal_digits(text: str) -> None:
    """Python would read some of these as numbers."""
    with pytest.raises(AddressInvalid, match="a port is a number from 1 to 65535"):
        parse(text)


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("0.0.0.0", "127.0.0.1:7"),  # noqa: S104
        ("::", "[::1]:7"),
        ("[::]", "[::1]:7"),
        ("10.0.0.1", "10.0.0.1:7"),
        ("ntm.example", "ntm.example:7"),
        ("unix:/run/ntm.sock", "unix:/run/ntm.sock"),
    ],
)
def test_a_machine_reaches_its_own_server(host: str, reached: str) -> None:
    """What stands for every address is reached at the loopback address of its family."""
    assert str(listening(host, 7).reached()) == reached
