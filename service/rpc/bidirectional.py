"""A bidirectional streaming call, which reads messages and writes answers by callbacks."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from service import decoding
from service.engine.work import Work
from service.errors import Draining, InvalidRequest, NtmError
from service.rpc import status
from service.rpc.calls import Calls
from service.rpc.transport import Call
from service.settings import Settings
from service.telemetry.logs import call_fields, session_tag
from service.telemetry.metrics import Metrics

MAX_UNANSWERED = 1024
"""The most messages or operations without a written answer. Then the stream is not read."""

_MAX_UNSENT_MESSAGES = 2
"""Reading stops while unsent answers would fill this many messages of the largest size."""

Request = TypeVar("Request", bound=Message)
Ready = TypeVar("Ready")


class BidirectionalStream(ABC, Generic[Request, Ready]):
    """
    Reads requests, and writes what is ready when gRPC takes it.

    Reading stops while too much is unanswered, or the answers are too large together, so a client
    that reads slowly is slowed down and costs a bounded memory.
    """

    def __init__(
        self, calls: Calls, context: Call, request: type[Request], settings: Settings, what: str
    ) -> None:
        """Prepare to serve the call of `context`. Logs name a failed part of it by `what`."""
        self._calls = calls
        self._context = context
        self._request = request
        self._what = what
        self._metrics = calls.metrics
        self._fields = call_fields.get()
        self._parent = calls.spans.parent()
        self._max_unsent_bytes = _MAX_UNSENT_MESSAGES * settings.max_message_bytes
        self._pending: set[Work] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ready: deque[Ready] = deque()
        self._unanswered = 0
        self._unsent_bytes = 0
        """The bytes of large answers that are not sent yet, whether they are made or not."""
        self._is_reading = False
        self._is_writing = False
        self._is_write_due = False
        self._has_ended = False
        """Whether nothing more is read."""
        self._end_error: Exception | None = None
        """What the call fails with once every answer is written."""
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self) -> None:
        """Stop reading; `run` then writes what is ready and fails the call as draining."""
        self._stop_reading(Draining("this server is stopping; open a stream to another replica"))

    async def run(self) -> None:
        """
        Serve until the client ends the stream or `end` is called; then answer what is left.

        This only waits: what comes is begun and what is ready is written by callbacks, because a
        task that wakes up for each message costs as much as gRPC itself.
        """
        self._read()
        try:
            await self._ended
        finally:
            self._ended.cancel()
            for task in self._tasks:
                task.cancel()
            for work in self._pending:
                work.cancelled = True

    @abstractmethod
    def _begin(self, request: Request) -> None:
        """Begin what a request asks for, and read on."""

    @abstractmethod
    def _write(self) -> None:
        """Write of what is ready as much as one message takes."""

    @property
    def _is_answered(self) -> bool:
        """Whether everything that was read has its answer written."""
        return not self._unanswered

    @property
    def _is_full(self) -> bool:
        """Whether so much is unanswered that no more is begun."""
        return self._unanswered >= MAX_UNANSWERED or self._unsent_bytes >= self._max_unsent_bytes

    def _do(self, action: Callable[..., None], *arguments: Any) -> None:
        """Call a method, unless the call is over. Its error is the call's."""
        if self._ended.done():
            return
        try:
            action(*arguments)
        except Exception as error:  # as if `run` had raised it
            self._ended.set_exception(error)

    def _read(self) -> None:
        """Read the next message, if there is room."""
        if not (self._is_reading or self._has_ended or self._is_full):
            self._is_reading = True
            self._context.receive(partial(self._do, self._take))

    def _take(self, content: bytes | None) -> None:
        """Begin what a message asks for; None is the end of the stream."""
        self._is_reading = False
        if self._has_ended:
            return
        if content is None:
            self._stop_reading(None)
            return
        try:
            request = decoding.request(self._request, content)
        except InvalidRequest as error:
            self._stop_reading(error)
            return
        self._begin(request)

    def _put(self, ready: Ready) -> None:
        """Have an answer written, together with those that become ready with it."""
        self._ready.append(ready)
        if not (self._is_writing or self._is_write_due):
            self._is_write_due = True
            self._calls.worker.once_answered(partial(self._do, self._write_due))

    def _write_due(self) -> None:
        self._is_write_due = False
        self._write_ready()

    def _write_ready(self) -> None:
        if self._ready and not self._is_writing:
            self._is_writing = True
            self._write()

    def _note(self, error: NtmError, session: str) -> None:
        """Count and log an error that ends no stream, as that of a failed call."""
        self._metrics.errors.labels(error.reason).inc()
        self._calls.access_log.note(
            status.code(error).name,
            lambda: {
                **self._fields.by_name(),
                "method": self._what,
                "session": session_tag(session) if session else "",
                "reason": error.reason,
                "peer": self._context.peer(),
            },
        )

    def _stop_reading(self, error: Exception | None) -> None:
        """Read no more. The call fails with the error, if there is one and no earlier end."""
        if not self._has_ended:
            self._has_ended, self._end_error = True, error
            self._end_if_answered()

    def _end_if_answered(self) -> None:
        if self._has_ended and self._is_answered and not self._ended.done():
            if self._end_error:
                self._ended.set_exception(self._end_error)
            else:
                self._ended.set_result(None)


class OpenStreams:
    """The streams of a service that are open, which are counted."""

    def __init__(self, metrics: Metrics) -> None:
        self._streams: set[BidirectionalStream[Any, Any]] = set()
        self._metrics = metrics

    async def serve(self, stream: BidirectionalStream[Any, Any]) -> None:
        """Run a stream to its end."""
        self._streams.add(stream)
        self._metrics.streams.inc()
        try:
            await stream.run()
        finally:
            self._streams.discard(stream)
            self._metrics.streams.dec()

    def end(self) -> None:
        """End every stream with UNAVAILABLE once its answers are written."""
        for stream in self._streams:
            stream.end()
