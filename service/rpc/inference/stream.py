"""One ModelStreamInfer call: requests in, an answer to each, those of a sequence in order."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import NamedTuple

from service.auth.principal import Principal
from service.engine.work import Chunk, Work
from service.errors import Cancelled, InvalidRequest, NtmError, SessionMoved
from service.inference.v2 import inference_pb2 as pb
from service.rpc.bidirectional import BidirectionalStream
from service.rpc.calls import Calls
from service.rpc.inference.inferences import Inference, Inferences
from service.rpc.transport import Call
from service.settings import Settings


class Named(NamedTuple):
    """What an error says of its request."""

    request_id: str
    model: str
    version: str


class Stream(BidirectionalStream[pb.ModelInferRequest, bytes]):
    """Reads requests and writes answers; no sequence waits for another."""

    def __init__(
        self,
        calls: Calls,
        inferences: Inferences,
        context: Call,
        principal: Principal,
        settings: Settings,
    ) -> None:
        """Prepare to serve the call of `context`."""
        what = "ModelStreamInfer, a request"
        super().__init__(calls, context, pb.ModelInferRequest, settings, what)
        self._inferences = inferences
        self._principal = principal
        self._max_message_bytes = settings.max_message_bytes

    def _begin(self, request: pb.ModelInferRequest) -> None:
        self._unanswered += 1
        self._infer(request)
        self._read()

    def _infer(self, request: pb.ModelInferRequest) -> None:
        # Decoding takes the id out.
        request_id, version = request.id, request.model_version
        try:
            inference = self._inferences.take(request, self._principal)
        except NtmError as error:
            named = Named(request_id, request.model_name, version)
            self._fail(named, error, "")
            return
        asked, session = inference.asked, inference.session
        named = Named(request_id, asked.form.model, version)
        sequences = self._inferences.sequences
        try:
            chunk = sequences.at_once(session, asked, self._principal)
        except NtmError as error:
            self._fail(named, self._inferences.failed(inference, error), session)
            return
        if chunk is None:
            self._infer_in_turn(inference, named)
            return
        self._metrics.received_bytes.inc(len(asked.inputs))
        answered = partial(self._do, self._finish, inference, named)
        if self._parent:
            chunk.runs = []
        works: list[Work] = [chunk]
        if asked.form.is_end:
            works.append(sequences.closing(chunk, answered))
        else:
            chunk.answered = answered
        self._pending.add(chunk)
        self._calls.worker.submit(works)

    def _infer_in_turn(self, inference: Inference, named: Named) -> None:
        task = self._inferences.sequences.in_turn(
            inference.session, inference.asked, self._principal
        )
        self._tasks.add(task)
        task.add_done_callback(partial(self._do, self._made, inference, named))

    def _finish(self, inference: Inference, named: Named, chunk: Chunk) -> None:
        self._pending.discard(chunk)
        if self._parent:
            self._calls.spans.record(chunk, self._parent)
        error = chunk.error
        if isinstance(error, SessionMoved):  # this replica's copy was old
            self._infer_in_turn(inference, named)
            return
        if error is None and chunk.outcome is None:
            error = Cancelled(f"the request was cancelled after {chunk.done} of its steps")
        if error is not None:
            self._fail(named, self._inferences.failed(inference, error), inference.session)
        else:
            self._answer(inference, named, chunk)

    def _made(self, inference: Inference, named: Named, task: asyncio.Task[Chunk]) -> None:
        self._tasks.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            self._fail(named, self._inferences.failed(inference, error), inference.session)
        else:
            self._answer(inference, named, task.result())

    def _answer(self, inference: Inference, named: Named, chunk: Chunk) -> None:
        answer = pb.ModelStreamInferResponse()
        response = answer.infer_response
        self._inferences.answer(inference, chunk, response)
        response.parameters["triton_final_response"].bool_param = True
        content = answer.SerializeToString()
        if len(content) > self._max_message_bytes:
            error = InvalidRequest(
                f"the answer takes {len(content)} bytes, more than a message may have, "
                f"{self._max_message_bytes}; ask for fewer steps, or start the server with a "
                "larger --max-message-bytes",
                limit="max_message_bytes",
            )
            self._fail(named, error, "")
            return
        self._put_answer(content)

    def _fail(self, named: Named, error: NtmError, session: str) -> None:
        """Answer a request with an error, which is logged and counted as a failed call is."""
        self._note(error, session)
        answer = pb.ModelStreamInferResponse(error_message=error.message)
        response = answer.infer_response
        response.id, response.model_name, response.model_version = named
        response.parameters["triton_final_response"].bool_param = True
        self._put_answer(answer.SerializeToString())

    def _put_answer(self, content: bytes) -> None:
        self._unsent_bytes += len(content)
        self._put(content)

    def _write(self) -> None:
        """Write one answer: a message takes no more."""
        content = self._ready.popleft()
        written = partial(self._do, self._written, len(content))
        self._context.send(content, written, has_more=bool(self._ready))

    def _written(self, size: int) -> None:
        self._is_writing = False
        self._unanswered -= 1
        self._unsent_bytes -= size
        self._write_ready()
        self._read()
        self._end_if_answered()
