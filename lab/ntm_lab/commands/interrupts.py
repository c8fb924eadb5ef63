"""Signals that end a command: Ctrl-C, SIGTERM, and the SIGHUP of a terminal that closes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

ENDING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
"""Windows has no SIGHUP."""

STANDARD_ERROR = 2

WAITING = b"ending once the steps on their way are answered; press Ctrl-C again to end at once\n"


@contextmanager
def raised() -> Iterator[None]:
    """
    Let SIGTERM and SIGHUP end the block as Ctrl-C does, by an exception, so that it can clean up.

    The exception is SystemExit with the status that a shell gives for the signal. A signal that is
    ignored, as under nohup, stays ignored.
    """

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with _handled(end, [number for number in ENDING if number != signal.SIGINT]):
        yield


@contextmanager
def held_back() -> Iterator[Sequence[int]]:
    """
    Let the block end before a signal does. A second signal ends it at once.

    So what the block began on the server, and what it writes of it, stay of the same length. The
    block gets a sequence that is empty until a signal came: then it begins nothing more.
    """
    caught: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)
        os.write(STANDARD_ERROR, WAITING)  # print is not safe here: it may be interrupted itself

    with _handled(note, ENDING):
        yield caught
    if caught:
        signal.raise_signal(caught[0])


@contextmanager
def _handled(
    handler: Callable[[int, FrameType | None], None], numbers: Sequence[int]
) -> Iterator[None]:
    """Handle signals in the block. Outside the main thread Python gives no signals to handle."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, handler)
        for number in numbers
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
