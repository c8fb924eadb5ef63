"""What is left behind is found, and what is closed late is waited for."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import weakref

import pytest

from tests.support import leftovers
from tests.support.leftovers import lasting, nothing_left

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for."""
    monkeypatch.setattr(leftovers, "_SECONDS", 0.0)


@on_linux
def test_an_open_socket_is_found() -> None:
    """With its descriptor."""
    with pytest.raises(AssertionError, match=r"left behind: socket:.*descriptor"), nothing_left():
        left = socket.create_server(("127.0.0.1", 0))
    left.close()


@on_linux
def test_a_process_is_found() -> None:
    """With its command."""
    with pytest.raises(AssertionError, match=r"process \d+: sleep 60"), nothing_left():
        left = subprocess.Popen(["sleep", "60"])
    left.kill()
    left.wait()


def test_a_thread_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its name; one that ends meanwhile is none."""
    go_on = threading.Event()
    left = threading.Thread(target=go_on.wait, name="left")
    with pytest.raises(AssertionError, match="thread left"), nothing_left():
        left.start()
    monkeypatch.setattr(leftovers, "_SECONDS", 10.0)
    with nothing_left():
        late = threading.Thread(target=go_on.wait)
        late.start()
        threading.Timer(0.05, go_on.set).start()
    left.join()


def test_what_lasts_is_not_found() -> None:
    """What is made for the whole session may stay."""
    go_on = threading.Event()
    with nothing_left(), lasting():
        threading.Thread(target=go_on.wait).start()
    go_on.set()


def test_garbage_is_collected_in_its_module() -> None:
    """What is only in a circle of references is gone after the block."""
    with nothing_left():
        circle: list[object] = [set()]
        gone = weakref.ref(circle[0])
        circle.append(circle)
        del circle
    assert gone() is None
