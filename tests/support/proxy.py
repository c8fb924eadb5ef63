"""An HTTP proxy for tests, which connects to one address whatever it is asked for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def proxy(address: str) -> Iterator[tuple[str, list[str]]]:
    """Its URL, and the first lines of what it was asked; every connection goes to the address."""
    host, _, port = address.rpartition(":")
    asked: list[str] = []
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                request = b""
                while not request.endswith(b"\r\n\r\n"):
                    request += client.recv(4096)
                asked.append(request.decode().splitlines()[0])
                server = socket.create_connection((host, int(port)))
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                for one, other in ((client, server), (server, client)):
                    start(lambda one=one, other=other: carry(one, other))

        def carry(source: socket.socket, sink: socket.socket) -> None:
            with suppress(OSError):
                while data := source.recv(65536):
                    sink.sendall(data)
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
            source.close()

        def start(work: object) -> None:
            threads.append(threading.Thread(target=work))  # type: ignore[arg-type]
            threads[-1].start()

        start(serve)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
