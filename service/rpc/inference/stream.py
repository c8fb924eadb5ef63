"""One ModelStreamInfer call: requests in, an answer to each, those of a sequence in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from service import decoding
from service.auth.principal import Principal
from service.engine.work import Chunk, Work
from service.errors import Cancelled, Draining, InvalidRequest, NtmError, SessionMoved
from service.inference.v2 import inference_pb2 as pb
from service.rpc import status
from service.rpc.calls import Calls
from service.rpc.inference.inferences import Inference, Inferences
from service.rpc.transport import Call
from service.settings import Settings
from service.telemetry.logs import call_fields, session_tag

MAX_UNANSWERED = 1024
"""The most requests without a written answer. At this number the stream is not read."""

_MAX_UNSENT_MESSAGES = 2
"""Reading stops while unsent answers would fill this many messages of the largest size."""


class Stream:
    """
    Reads requests and writes answers; no sequence waits for another.

    A client that reads slowly is slowed down, and costs a bounded memory.
    """

    def __init__(
        self,
        calls: Calls,
        inferences: Inferences,
        context: Call,
        principal: Principal,
        settings: Settings,
    ) -> None:
        """Prepare to serve the call of `context`."""
        self._calls = calls
        self._inferences = inferences
        self._context = context
        self._principal = principal
        self._max_unsent_bytes = _MAX_UNSENT_MESSAGES * settings.max_message_bytes
        self._max_message_bytes = settings.max_message_bytes
        self._fields = call_fields.get()
        self._pending: set[Work] = set()
        self._tasks: set[asyncio.Task[Chunk]] = set()
        self._ready: deque[tuple[pb.ModelStreamInferResponse, int]] = deque()
        """Answers and their sizes."""
        self._unanswered = 0
        self._unsent_bytes = 0
        self._is_reading = False
        self._is_writing = False
        self._is_write_due = False
        self._has_ended = False
        """Whether nothing more is read."""
        self._end_error: Exception | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self) -> None:
        """Stop reading; `run` then writes what is ready and fails the call as draining."""
        self._stop_reading(Draining("this server is stopping; open a stream to another replica"))

    async def run(self) -> None:
        """Serve until the client ends the stream or `end` is called; then answer what is left."""
        self._read()
        try:
            await self._ended
        finally:
            self._ended.cancel()
            for task in self._tasks:
                task.cancel()
            for work in self._pending:
                work.cancelled = True

    def _do(self, action: Callable[..., None], *arguments: Any) -> None:
        """Call a method, unless the call is over. Its error is the call's."""
        if self._ended.done():
            return
        try:
            action(*arguments)
        except Exception as error:  # as if `run` had raised it
            self._ended.set_exception(error)

    def _read(self) -> None:
        """Read on, if there is room."""
        is_full = self._unanswered >= MAX_UNANSWERED or self._unsent_bytes >= self._max_unsent_bytes
        if not (self._has_ended or self._is_reading or is_full):
            self._is_reading = True
            self._context.receive(partial(self._do, self._take))

    def _take(self, content: bytes | None) -> None:
        self._is_reading = False
        if self._has_ended:
            return
        if content is None:
            self._stop_reading(None)
            return
        try:
            request = decoding.request(pb.ModelInferRequest, content)
        except InvalidRequest as error:
            self._stop_reading(error)
            return
        self._unanswered += 1
        self._begin(request)
        self._read()

    def _begin(self, request: pb.ModelInferRequest) -> None:
        named = pb.ModelInferResponse(
            id=request.id, model_name=request.model_name, model_version=request.model_version
        )
        try:
            inference = self._inferences.take(request, self._principal)
        except NtmError as error:
            self._fail(named, error, "")
            return
        asked, sequences = inference.asked, self._inferences.sequences
        chunk = sequences.at_once(inference.session, asked, self._principal)
        if chunk is not None:
            self._calls.metrics.received_bytes.inc(len(asked.inputs))
            chunk.answered = partial(self._do, self._finish, inference, named)
            self._pending.add(chunk)
            self._calls.worker.submit([chunk])
        else:
            self._begin_in_turn(inference, named)

    def _begin_in_turn(self, inference: Inference, named: pb.ModelInferResponse) -> None:
        task = self._inferences.in_turn(inference, self._principal)
        self._tasks.add(task)
        task.add_done_callback(partial(self._do, self._made, inference, named))

    def _finish(self, inference: Inference, named: pb.ModelInferResponse, chunk: Chunk) -> None:
        self._pending.discard(chunk)
        error = chunk.error
        if isinstance(error, SessionMoved):  # this replica's copy was old
            self._begin_in_turn(inference, named)
            return
        if error is None and chunk.outcome is None:
            error = Cancelled(f"the request was cancelled after {chunk.done} of its steps")
        if error is not None:
            self._fail(named, self._inferences.failed(inference, error), inference.session)
        else:
            self._answer(self._inferences.answer(inference, chunk), named)

    def _made(
        self, inference: Inference, named: pb.ModelInferResponse, task: asyncio.Task[Chunk]
    ) -> None:
        self._tasks.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            self._fail(named, self._inferences.failed(inference, error), inference.session)
        else:
            self._answer(self._inferences.answer(inference, task.result()), named)

    def _answer(self, response: pb.ModelInferResponse, named: pb.ModelInferResponse) -> None:
        response.parameters["triton_final_response"].bool_param = True
        answer = pb.ModelStreamInferResponse(infer_response=response)
        if (size := answer.ByteSize()) > self._max_message_bytes:
            error = InvalidRequest(
                f"the answer takes {size} bytes, more than a message may have, "
                f"{self._max_message_bytes}; ask for fewer steps, or start the server with a "
                "larger --max-message-bytes",
                limit="max_message_bytes",
            )
            self._fail(named, error, "")
            return
        self._put(answer, size)

    def _fail(self, named: pb.ModelInferResponse, error: NtmError, session: str) -> None:
        """Answer a request with an error, which is logged and counted as a failed call is."""
        self._calls.metrics.errors.labels(error.reason).inc()
        self._calls.access_log.note(
            status.code(error).name,
            lambda: {
                **self._fields.by_name(),
                "method": "ModelStreamInfer, a request",
                "session": session_tag(session) if session else "",
                "reason": error.reason,
                "peer": self._context.peer(),
            },
        )
        named.parameters["triton_final_response"].bool_param = True
        answer = pb.ModelStreamInferResponse(error_message=error.message, infer_response=named)
        self._put(answer, answer.ByteSize())

    def _put(self, answer: pb.ModelStreamInferResponse, size: int) -> None:
        self._ready.append((answer, size))
        self._unsent_bytes += size
        if not (self._is_writing or self._is_write_due):
            self._is_write_due = True
            self._calls.worker.once_answered(partial(self._do, self._write_due))

    def _write_due(self) -> None:
        self._is_write_due = False
        if not self._is_writing:
            self._write()

    def _write(self) -> None:
        """Write the next answer that is ready; gRPC takes one at a time."""
        if self._ready:
            self._is_writing = True
            answer, size = self._ready.popleft()
            written = partial(self._do, self._written, size)
            self._context.send(answer, written, has_more=bool(self._ready))

    def _written(self, size: int) -> None:
        self._is_writing = False
        self._unanswered -= 1
        self._unsent_bytes -= size
        self._write()
        self._read()
        self._end_if_answered()

    def _stop_reading(self, error: Exception | None) -> None:
        """Read no more. The call fails with the error, if there is one and no earlier end."""
        if not self._has_ended:
            self._has_ended, self._end_error = True, error
            self._end_if_answered()

    def _end_if_answered(self) -> None:
        if self._has_ended and not (self._unanswered or self._ended.done()):
            if self._end_error:
                self._ended.set_exception(self._end_error)
            else:
                self._ended.set_result(None)
