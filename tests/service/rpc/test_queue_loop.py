"""The event loop on gRPC's queue does what asyncio's own loop does."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from service.rpc.queue_loop import QueueLoop


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """A loop of the test's own, which is closed at the end."""
    with asyncio.Runner(loop_factory=QueueLoop) as runner:
        yield runner


def test_another_thread_wakes_the_loop(runner: asyncio.Runner) -> None:
    """A loop that waits for nothing else goes on when a thread asks it to, each time."""

    async def thousand_times() -> list[int]:
        loop = asyncio.get_running_loop()
        heard: list[int] = []
        for number in range(1000):
            woken = asyncio.Event()
            ask = (heard.append, number), (lambda: woken.set(),)  # noqa: B023
            threading.Thread(
                target=lambda: [loop.call_soon_threadsafe(*each) for each in ask]  # noqa: B023
            ).start()
            await woken.wait()
        return heard

    assert runner.run(thousand_times()) == list(range(1000))


def test_sockets_are_read_and_written(runner: asyncio.Runner) -> None:
    """More than fits into a socket's buffers comes back as it was sent, both ends in the loop."""
    sent = os.urandom(4 << 20)
    echoed = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while content := await reader.read(65_536):
                writer.write(content)
                await writer.drain()
            writer.close()
            await writer.wait_closed()
        finally:
            echoed.set()

    async def sent_and_received() -> bytes:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            reading = asyncio.create_task(reader.readexactly(len(sent)))
            writer.write(sent)
            received = await reading
            writer.close()
            await writer.wait_closed()
            await echoed.wait()  # else its end is still open when the loop is closed
        return received

    assert runner.run(sent_and_received()) == sent


def test_a_reader_that_leaves_bytes_is_called_again(runner: asyncio.Runner) -> None:
    """A file stays ready until it is read, and is heard no more once its reader is removed."""

    async def calls_of_a_reader() -> int:
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        calls, enough = 0, asyncio.Event()

        def read() -> None:
            nonlocal calls
            calls += 1
            if calls == 3:
                loop.remove_reader(reading)
                enough.set()

        loop.add_reader(reading, read)
        os.write(writing, b"x")
        await enough.wait()
        for _ in range(100):
            await asyncio.sleep(0)
        os.close(reading)
        os.close(writing)
        return calls

    assert runner.run(calls_of_a_reader()) == 3


def test_timers_fire_in_their_order(runner: asyncio.Runner) -> None:
    """Each not before its time, and a timer that is due does not wait for anything else."""

    async def fired() -> list[str]:
        loop = asyncio.get_running_loop()
        begun, order, late = loop.time(), list[str](), asyncio.Event()
        loop.call_later(0.02, late.set)
        loop.call_later(0.02, order.append, "second")
        loop.call_later(0.01, order.append, "first")
        await late.wait()
        await asyncio.sleep(0)
        assert loop.time() - begun >= 0.02
        return order

    assert runner.run(fired()) == ["first", "second"]


def test_signals_are_heard(runner: asyncio.Runner) -> None:
    """A loop that waits for nothing else hears a signal to its process."""

    async def heard() -> bool:
        loop, hears = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, hears.set)
        threading.Timer(0.0, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        try:
            return await hears.wait()
        finally:
            loop.remove_signal_handler(signal.SIGUSR1)

    assert runner.run(heard())


def test_events_do_not_keep_callbacks_waiting(runner: asyncio.Runner) -> None:
    """An event that always brings another one lets the loop's callbacks and timers run."""

    async def goes_on() -> int:
        loop: Any = asyncio.get_running_loop()
        selector = loop._queue_selector
        events = 0

        def another(event: object) -> None:
            nonlocal events
            events += 1
            if not timer.is_set():
                selector._call.start_server_batch((), another)

        timer = asyncio.Event()
        another(None)
        loop.call_later(0.01, timer.set)
        await timer.wait()
        return events

    assert runner.run(goes_on()) > 1


def test_a_closed_loop_hears_a_late_thread_no_more() -> None:
    """As asyncio's own loop refuses what comes from a thread after its end."""
    with asyncio.Runner(loop_factory=QueueLoop) as runner:
        loop = runner.get_loop()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon_threadsafe(print)


def test_files_are_watched_after_one_was_unregistered(runner: asyncio.Runner) -> None:
    """An event of a file that is no longer registered does not end the watching of the others."""

    async def heard() -> bytes:
        loop: Any = asyncio.get_running_loop()
        files = loop._queue_selector._files
        reader, writer = socket.socketpair()
        looked, got = threading.Event(), loop.create_future()
        with reader, writer:
            loop.add_reader(reader, lambda: got.done() or got.set_result(reader.recv(1)))
            select = files.select

            def looking() -> Any:
                looked.set()
                return select()

            files.select = looking
            key = files._fd_to_key.pop(reader.fileno())  # as between the kernel and its watcher
            writer.send(b"x")
            assert await asyncio.to_thread(looked.wait, 10)
            files._fd_to_key[reader.fileno()] = key
            try:
                return await asyncio.wait_for(got, 10)
            finally:
                loop.remove_reader(reader)

    assert runner.run(heard()) == b"x"


@pytest.mark.parametrize("how", ["turn", "call_in_turn"])
def test_what_takes_long_leaves_the_queue_its_turn(runner: asyncio.Runner, how: str) -> None:
    """Of callbacks that are ready together, an event waits for those of a few ms, not for all."""
    loop = runner.get_loop()
    assert isinstance(loop, QueueLoop)
    order: list[str] = []

    def costly(name: str, done: asyncio.Event) -> None:
        if not order:
            loop._queue_selector._call.start_server_batch((), lambda event: order.append("event"))
        order.append(name)
        until = time.monotonic() + 0.006
        while time.monotonic() < until:
            pass
        done.set()

    async def in_turn(name: str) -> None:
        done = asyncio.Event()
        if how == "turn":
            await loop.turn()
            costly(name, done)
        else:
            loop.call_in_turn(costly, name, done)
        await done.wait()

    async def sixteen() -> None:
        await asyncio.gather(*(in_turn(f"{number}") for number in range(16)))

    runner.run(sixteen())
    assert order == ["0", "event", *(f"{number}" for number in range(1, 16))]
