"""A name server for tests: names that get addresses, lose them, and get others."""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

_HEADER = struct.Struct("!6H")  # id, flags, questions, answers, authorities, additional
_ADDRESS = struct.Struct("!3HIH4s")  # name, type, class, time to live, length, address
_ASKED_NAME = 0xC00C  # that of the question, which is at byte 12
_A, _IN = 1, 1
_ANSWER, _NO_SUCH_NAME = 0x8580, 0x8583


class Names(dict[str, str]):
    """The address of each name; what is not here does not exist."""

    port = 0


@contextmanager
def names() -> Iterator[Names]:
    """A name server on a port of loopback (RFC 1035, by UDP, addresses of IPv4 alone)."""
    known = Names()

    class Question(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            message, socket = self.request
            socket.sendto(_answer(message, known), self.client_address)

    with socketserver.ThreadingUDPServer(("127.0.0.1", 0), Question) as server:
        known.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield known
        finally:
            server.shutdown()
            thread.join()


def _answer(message: bytes, known: Names) -> bytes:
    number = _HEADER.unpack_from(message)[0]
    labels, at = [], _HEADER.size
    while length := message[at]:
        labels.append(message[at + 1 : at + 1 + length].decode())
        at += 1 + length
    end = at + 5  # the root's label, type and class
    (kind,) = struct.unpack_from("!H", message, at + 1)
    address = known.get(".".join(labels).lower())
    answer = b""
    if address and kind == _A:
        answer = _ADDRESS.pack(_ASKED_NAME, _A, _IN, 0, 4, IPv4Address(address).packed)
    flags = _ANSWER if address else _NO_SUCH_NAME
    header = _HEADER.pack(number, flags, 1, bool(answer), 0, 0)
    return header + message[_HEADER.size : end] + answer
