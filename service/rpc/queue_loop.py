"""
An event loop that waits for gRPC's events itself.

gRPC's threads put what happens on calls into a queue. grpc.aio has a thread that waits on the
queue and wakes the event loop through a socket: two threads wake up for each message. This loop
waits on the queue instead of on sockets.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

_EVENTS_SECONDS = 0.005
"""
After this time of events, callbacks get their turn, also if a call brings one event after another.
The 64 events of as many streams take less, and so are for one batch.
"""

_CALLBACKS_SECONDS = 0.005
"""After this time of callbacks, those that can wait do, until events were looked for again."""

_OVER = cygrpc.CompletionType.queue_timeout

Ready = list[tuple[selectors.SelectorKey, int]]


class QueueLoop(asyncio.SelectorEventLoop):
    """
    Waits on `queue`, and on what asyncio waits for: sockets, timers and other threads.

    An event of the queue has a function as its tag, which is called with the event, between two
    callbacks of the loop. It must not raise.
    """

    def __init__(self) -> None:
        """Make the queue."""
        self._queue_selector = _QueueSelector()
        self.queue = self._queue_selector.queue
        super().__init__(self._queue_selector)

    @property
    def has_time(self) -> bool:
        """Whether what may take long can begin, or else leaves the queue its turn first."""
        return time.monotonic() < self._queue_selector.callbacks_until

    async def turn(self) -> None:
        """Wait until the loop has time."""
        while not self.has_time:  # noqa: ASYNC110 - it comes with the next round, by no event
            await asyncio.sleep(0)

    def call_in_turn(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Call `callback` soon, as `call_soon`, but not before the loop has time."""
        self.call_soon(self._call_or_wait, callback, arguments)

    def _call_or_wait(self, callback: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        if self.has_time:
            callback(*arguments)
        else:
            self.call_soon(self._call_or_wait, callback, arguments)

    def _write_to_self(self) -> None:
        """Wake the loop, on behalf of `call_soon_threadsafe`. asyncio would write to a socket."""
        self._queue_selector.wake()


class _QueueSelector(selectors.BaseSelector):
    """
    Takes the events of a queue and of files. A thread watches the files, and wakes the queue.

    Files are few: the sockets of a store, and the one that signals wake.
    """

    def __init__(self) -> None:
        self.queue = cygrpc.CompletionQueue()
        self._call: Any = _finished_call(self.queue)
        self._files = selectors.DefaultSelector()
        self._closing, closed = socket.socketpair()
        self._files.register(closed, selectors.EVENT_READ)
        self._closed = closed
        self._ready: Ready = []
        self._are_taken = False
        self._watching = threading.Semaphore(0)
        self.callbacks_until = 0.0
        """When callbacks have had their time, by the monotonic clock."""
        self._thread = threading.Thread(target=self._watch, name="files", daemon=True)
        self._thread.start()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._files.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._files.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._files.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._files.get_map()

    def wake(self) -> None:
        """End the wait, from any thread: a batch of nothing is done at once."""
        if call := self._call:
            call.start_server_batch((), _nothing)

    def select(self, timeout: float | None = None) -> Ready:
        if self._are_taken:
            # Their callbacks have run, so that what is still ready is new.
            self._are_taken = False
            self._watching.release()
        poll = self.queue.poll
        event = poll(None if timeout is None else time.time() + timeout if timeout > 0 else 0)
        until = time.monotonic() + _EVENTS_SECONDS
        while event.completion_type != _OVER:
            event.tag(event)
            if time.monotonic() > until:
                break
            # Before the queue is asked again, nothing may keep an event of a call that has ended.
            event = None
            event = poll(0)
        self.callbacks_until = time.monotonic() + _CALLBACKS_SECONDS
        if not self._ready:
            return []
        ready, self._ready, self._are_taken = self._ready, [], True
        # What was unregistered meanwhile has no callback any more.
        registered = self._files.get_map()
        return [(key, events) for key, events in ready if registered.get(key.fileobj) == key]

    def close(self) -> None:
        self._closing.close()
        self._watching.release()
        self._thread.join()
        self._files.close()
        self._closed.close()
        self._call = None
        self.queue.shutdown()
        while not isinstance(self.queue.poll(), cygrpc.ConnectivityEvent):
            pass

    def _watch(self) -> None:
        while True:
            ready = self._files.select()
            if any(key.fileobj is self._closed for key, _ in ready):
                return
            if not ready:
                continue  # of a file that was unregistered meanwhile
            self._ready = ready
            self.wake()
            self._watching.acquire()


def _finished_call(queue: Any) -> Any:
    """
    A call on this queue, which is over. It is made by a server for a moment, and a client of it.

    A batch of operations of any call comes into the queue when it is done.
    """
    server = cygrpc.Server((), False)
    server.register_completion_queue(queue)
    port = server.add_http2_port(b"127.0.0.1:0")
    server.start()
    server.request_call(queue, queue, _nothing)
    options = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        wake: Any = channel.unary_unary("/wake")
        asked = wake.future(b"")
        call = queue.poll().call
        asked.cancel()
    server.shutdown(queue, _nothing)
    while not isinstance(queue.poll(), cygrpc.ServerShutdownEvent):
        pass
    server.destroy()
    return call


def _nothing(event: object) -> None:
    """What is done at an event of which nothing is expected."""
