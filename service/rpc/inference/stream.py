"""One ModelStreamInfer call: requests in, an answer to each, those of a sequence in order."""

from __future__ import annotations

import asyncio
from functools import partial

from service.auth.principal import Principal
from service.engine.work import Chunk
from service.errors import Cancelled, InvalidRequest, NtmError, SessionMoved
from service.inference.v2 import inference_pb2 as pb
from service.rpc.bidirectional import BidirectionalStream
from service.rpc.calls import Calls
from service.rpc.inference.inferences import Inference, Inferences
from service.rpc.transport import Call
from service.settings import Settings


class Stream(BidirectionalStream[pb.ModelInferRequest, "tuple[pb.ModelStreamInferResponse, int]"]):
    """Reads requests and writes answers, with their sizes; no sequence waits for another."""

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
            self._metrics.received_bytes.inc(len(asked.inputs))
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
        self._put_answer(answer, size)

    def _fail(self, named: pb.ModelInferResponse, error: NtmError, session: str) -> None:
        """Answer a request with an error, which is logged and counted as a failed call is."""
        self._note(error, session)
        named.parameters["triton_final_response"].bool_param = True
        answer = pb.ModelStreamInferResponse(error_message=error.message, infer_response=named)
        self._put_answer(answer, answer.ByteSize())

    def _put_answer(self, answer: pb.ModelStreamInferResponse, size: int) -> None:
        self._unsent_bytes += size
        self._put((answer, size))

    def _write(self) -> None:
        """Write one answer: a message takes no more."""
        answer, size = self._ready.popleft()
        written = partial(self._do, self._written, size)
        self._context.send(answer, written, has_more=bool(self._ready))

    def _written(self, size: int) -> None:
        self._is_writing = False
        self._unanswered -= 1
        self._unsent_bytes -= size
        self._write_ready()
        self._read()
        self._end_if_answered()
