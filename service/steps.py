"""What the unary RPCs and the stream share: opening sessions and stepping chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from service import codec
from service.catalogue import Catalogue
from service.engine import Engine
from service.metrics import Metrics
from service.pb import ntm_pb2
from service.sessions import Session
from service.work import Chunk, ChunkOutcome, Operation
from service.worker import Worker


class Steps:
    """Decodes what reaches the engine and encodes what comes back, counting bytes."""

    def __init__(
        self, catalogue: Catalogue, engine: Engine, worker: Worker, metrics: Metrics
    ) -> None:
        """Reach the engine through its worker."""
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

    def chunk(self, message: ntm_pb2.Chunk) -> Chunk:
        """The chunk of a message; it may have an error already."""
        self._metrics.received_bytes.inc(len(message.inputs))
        return codec.chunk(message)

    def submit(self, chunk: Chunk) -> asyncio.Future[Any]:
        """Queue a chunk; the future gets its `ChunkOutcome` or its error."""
        return self._worker.submit(chunk)

    def reply(self, chunk: Chunk, outcome: ChunkOutcome) -> ntm_pb2.Reply:
        """The answer to a chunk."""
        message = codec.reply(chunk.session_id, outcome)
        sent = len(message.outputs) + sum(
            len(trace.values) + len(trace.locations) for trace in message.traces
        )
        self._metrics.sent_bytes.inc(sent)
        return message

    def operate(self, session_id: str, action: Callable[[Session], Any]) -> asyncio.Future[Any]:
        """Queue an operation behind the session's chunks; the future gets its result."""
        return self._worker.submit(Operation(session_id, action))

    def close(self, session_id: str) -> asyncio.Future[Any]:
        """Queue the closing of a session behind its chunks."""
        return self.operate(session_id, self._engine.close)
