"""What the unary RPCs and the stream share: opening sessions and stepping chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from service import codec
from service.catalogue import Catalogue
from service.engine import Engine
from service.metrics import Metrics
from service.pb import ntm_pb2
from service.sessions import Session
from service.spans import Spans
from service.work import Chunk, Operation, Work
from service.worker import Worker


class Steps:
    """Decodes what reaches the engine and encodes what comes back, counting bytes."""

    def __init__(
        self, catalogue: Catalogue, engine: Engine, worker: Worker, metrics: Metrics, spans: Spans
    ) -> None:
        """Reach the engine through its worker."""
        self.spans = spans
        self._catalogue = catalogue
        self._engine = engine
        self._worker = worker
        self._metrics = metrics

    async def open(self, request: ntm_pb2.CreateSessionRequest, owner: str) -> ntm_pb2.Session:
        """Open a session; the first of a model waits until its network is loaded."""
        timeout = codec.idle_timeout_seconds(request)
        await self._catalogue.load(request.model)
        view = await self._worker.call(
            self._engine.open, request.model, request.locations, timeout, owner
        )
        return codec.session(view)

    async def step(self, message: ntm_pb2.Chunk) -> ntm_pb2.StepResponse:
        """Make the steps of a chunk."""
        self._metrics.received_bytes.inc(len(message.inputs))
        chunk = codec.chunk(message)
        if parent := self.spans.parent():
            chunk.runs = []
        try:
            await self._worker.ask(chunk)
        finally:
            if parent:
                self.spans.record(chunk, parent)
        response = ntm_pb2.StepResponse()
        sent = codec.write_reply(chunk, response.reply)
        self.replied([chunk], sent)
        return response

    def replied(self, chunks: Sequence[Chunk], sent_bytes: int) -> None:
        """Count that gRPC has taken the replies to chunks, of so many bytes."""
        now = self._engine.now()
        for chunk in chunks:
            seconds = now - chunk.finished_seconds
            self._metrics.reply_seconds.labels(chunk.model).observe([seconds])
        self._metrics.sent_bytes.inc(sent_bytes)

    def submit(self, works: Sequence[Work]) -> None:
        """Queue work; its `answered` is called when it is finished."""
        self._worker.submit(works)

    def closing(self, session_id: str) -> Operation:
        """The closing of a session, as work that waits for the session's chunks."""
        return Operation(session_id, self._engine.close)

    def operate(self, session_id: str, action: Callable[[Session], Any]) -> asyncio.Future[Any]:
        """Queue an operation behind the session's chunks; the future gets its result."""
        return self._worker.ask(Operation(session_id, action))
