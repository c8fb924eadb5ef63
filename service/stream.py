"""One StreamSteps call: operations in, outcomes out, as each is ready."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import Any

import grpc
import grpc.aio

from service import status
from service.errors import Draining, InvalidRequest
from service.metrics import Metrics
from service.pb import ntm_pb2
from service.settings import Settings
from service.steps import Steps
from service.work import Chunk

_MOST_OUTCOMES = 1024
"""Outcomes in one message."""


class Stream:
    """
    Reads operations and writes outcomes; no session's outcomes wait for another's.

    Outcomes that are ready together leave in one message. Reading stops while too many operations
    are unanswered, so a client that reads slowly is slowed down and costs a bounded memory.
    """

    def __init__(
        self,
        steps: Steps,
        context: grpc.aio.ServicerContext[Any, Any],
        owner: str,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        """Prepare to serve the call of that context."""
        self._steps = steps
        self._context = context
        self._owner = owner
        self._settings = settings
        self._metrics = metrics
        self._pending: set[asyncio.Future[Any]] = set()
        self._outcomes: deque[ntm_pb2.Outcome] = deque()
        self._unanswered = 0
        self._changed = asyncio.Event()
        self._answered = asyncio.Event()
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Stop reading; `run` then writes what is ready and fails the call as draining."""
        self._ending.set()

    async def run(self) -> None:
        """Serve until the client ends the stream or `end` is called; then answer what is left."""
        reader = asyncio.create_task(self._read())
        ending = asyncio.create_task(self._ending.wait())
        writer = asyncio.create_task(self._write())
        tasks = (reader, ending, writer)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                reader.result()
                await self._all_answered(writer)
            elif ending.done():
                await self._all_answered(writer)
                error = Draining("this server is stopping; open a stream to another replica")
                await self._abort(error)
            else:
                writer.result()
        finally:
            for task in tasks:
                task.cancel()
            for future in self._pending:
                future.cancel()

    async def _abort(self, error: Draining) -> None:
        self._metrics.errors.labels(error.reason).inc()
        trailing = ((status.DETAILS_KEY, status.details(error)),)
        await self._context.abort(status.code(error), error.message, trailing)

    async def _all_answered(self, writer: asyncio.Task[None]) -> None:
        """Wait until every outcome is written, or the writer has failed."""
        while self._unanswered and not writer.done():
            self._answered.clear()
            waiting = asyncio.create_task(self._answered.wait())
            await asyncio.wait((waiting, writer), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()

    async def _read(self) -> None:
        while True:
            request = await self._context.read()
            if not isinstance(request, ntm_pb2.StreamStepsRequest):
                return  # the end of the stream
            for operation in request.operations:
                while self._unanswered >= self._settings.max_stream_operations:
                    self._answered.clear()
                    await self._answered.wait()
                self._unanswered += 1
                self._start(operation)

    def _start(self, operation: ntm_pb2.Operation) -> None:
        kind = operation.WhichOneof("kind") or "none"
        self._metrics.operations.labels(kind).inc()
        chunk: Chunk | None = None
        future: asyncio.Future[Any]
        if kind == "step":
            chunk = self._steps.chunk(operation.step)
            future = self._steps.submit(chunk)
        elif kind == "open":
            future = asyncio.ensure_future(self._steps.open(operation.open, self._owner))
        elif kind == "close":
            future = self._steps.close(operation.close)
        else:
            error = InvalidRequest("the operation asks for nothing; set open, step or close")
            self._put(self._failure(operation.tag, error))
            return
        self._pending.add(future)
        future.add_done_callback(partial(self._finish, operation, chunk))

    def _finish(
        self, operation: ntm_pb2.Operation, chunk: Chunk | None, future: asyncio.Future[Any]
    ) -> None:
        self._pending.discard(future)
        if future.cancelled():
            return  # the stream is gone
        outcome = ntm_pb2.Outcome(tag=operation.tag)
        error = future.exception()
        if error is not None:
            outcome = self._failure(operation.tag, error)
        elif chunk is not None:
            outcome.reply.CopyFrom(self._steps.reply(chunk, future.result()))
        elif operation.WhichOneof("kind") == "open":
            outcome.opened.CopyFrom(future.result())
        else:
            outcome.closed = operation.close
        self._put(outcome)

    def _failure(self, tag: int, error: BaseException) -> ntm_pb2.Outcome:
        known = status.known(error)
        self._metrics.errors.labels(known.reason).inc()
        return ntm_pb2.Outcome(tag=tag, error=status.message(known))

    def _put(self, outcome: ntm_pb2.Outcome) -> None:
        self._outcomes.append(outcome)
        self._changed.set()

    async def _write(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._outcomes:
                outcomes = self._next_outcomes()
                await self._context.write(ntm_pb2.StreamStepsResponse(outcomes=outcomes))
                self._unanswered -= len(outcomes)
                self._answered.set()

    def _next_outcomes(self) -> list[ntm_pb2.Outcome]:
        """Take the outcomes that fit into one message: at least one."""
        taken = [self._outcomes.popleft()]
        room = self._settings.max_message_bytes - taken[0].ByteSize() - 8
        while self._outcomes and len(taken) < _MOST_OUTCOMES:
            room -= self._outcomes[0].ByteSize() + 8  # its tag and length in the message
            if room < 0:
                break
            taken.append(self._outcomes.popleft())
        return taken
