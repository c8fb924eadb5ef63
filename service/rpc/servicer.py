"""The RPCs: each decodes its request, asks the worker, and encodes the answer."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import Message

from ntm.v1 import ntm_pb2, ntm_pb2_grpc
from service import codec
from service.auth.principal import PRINCIPAL
from service.engine import checkpoint
from service.engine.engine import Engine
from service.engine.sessions import Session
from service.engine.views import SessionView
from service.errors import InvalidRequest, NoMemory
from service.loop.keeper import Keeper
from service.loop.worker import Worker
from service.models.catalogue import Catalogue
from service.models.version import Version
from service.rpc.calls import Steps
from service.rpc.spans import Spans
from service.rpc.stream import Stream
from service.settings import Settings
from service.spec import Float32, ModelSpec
from service.telemetry.metrics import Metrics

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_DEFAULT_PAGE, _LARGEST_PAGE = 100, 1000


class NtmServicer(ntm_pb2_grpc.NtmServiceServicer):
    """Implements proto/ntm/v1/ntm.proto, whose comments say what each RPC promises."""

    def __init__(
        self,
        catalogue: Catalogue,
        engine: Engine,
        worker: Worker,
        keeper: Keeper | None,
        settings: Settings,
        metrics: Metrics,
        spans: Spans,
    ) -> None:
        """Serve the catalogue's models with the engine that the worker runs."""
        self._catalogue = catalogue
        self._engine = engine
        self._worker = worker
        self._steps = Steps(catalogue, engine, worker, keeper, metrics, spans)
        self._settings = settings
        self._metrics = metrics
        self._streams: set[Stream] = set()

    def end_streams(self) -> None:
        """End every stream with UNAVAILABLE once its outcomes are written."""
        for stream in self._streams:
            stream.end()

    async def ListModels(  # noqa: N802 - the proto's name, as all below
        self, request: ntm_pb2.ListModelsRequest, context: Context
    ) -> ntm_pb2.ListModelsResponse:
        """See the proto."""
        catalogue = self._catalogue
        current = (catalogue.current(name) for name in catalogue.models)
        return ntm_pb2.ListModelsResponse(models=[self._model(version) for version in current])

    async def GetModel(  # noqa: N802
        self, request: ntm_pb2.GetModelRequest, context: Context
    ) -> ntm_pb2.GetModelResponse:
        """See the proto."""
        version = (
            Version(request.name, request.content_hash)
            if request.content_hash
            else self._catalogue.current(request.name)
        )
        return ntm_pb2.GetModelResponse(model=self._model(version))

    async def CreateSession(  # noqa: N802
        self, request: ntm_pb2.CreateSessionRequest, context: Context
    ) -> ntm_pb2.CreateSessionResponse:
        """See the proto."""
        session = await self._steps.open(request, PRINCIPAL.get())
        return ntm_pb2.CreateSessionResponse(session=session)

    async def GetSession(  # noqa: N802
        self, request: ntm_pb2.GetSessionRequest, context: Context
    ) -> ntm_pb2.GetSessionResponse:
        """See the proto."""
        view = await self._steps.describe(request.session_id, PRINCIPAL.get(), request.epoch)
        return ntm_pb2.GetSessionResponse(session=codec.session(view))

    async def ListSessions(  # noqa: N802
        self, request: ntm_pb2.ListSessionsRequest, context: Context
    ) -> ntm_pb2.ListSessionsResponse:
        """See the proto."""
        after = _page_start(request.page_token)
        size = min(request.page_size or _DEFAULT_PAGE, _LARGEST_PAGE)
        # One more than the page tells whether there is a next one.
        owner = PRINCIPAL.get().name
        views = await self._worker.call(self._engine.owned, owner, after, size + 1)
        page = views[:size]
        return ntm_pb2.ListSessionsResponse(
            sessions=[codec.session(view) for view in page],
            next_page_token=str(page[-1].number) if len(views) > size else "",
        )

    async def ResetSession(  # noqa: N802
        self, request: ntm_pb2.ResetSessionRequest, context: Context
    ) -> ntm_pb2.ResetSessionResponse:
        """See the proto."""
        view = await self._steps.operate(request, self._engine.reset, PRINCIPAL.get())
        return ntm_pb2.ResetSessionResponse(session=codec.session(view))

    async def CheckpointSession(  # noqa: N802
        self, request: ntm_pb2.CheckpointSessionRequest, context: Context
    ) -> ntm_pb2.CheckpointSessionResponse:
        """See the proto."""
        view, taken = await self._steps.operate(request, self._engine.checkpoint, PRINCIPAL.get())
        response = ntm_pb2.CheckpointSessionResponse(
            session=codec.session(view), checkpoint=checkpoint.encode(taken)
        )
        self._check_size(response, f"the checkpoint of {view.locations} locations")
        return response

    async def RestoreSession(  # noqa: N802
        self, request: ntm_pb2.RestoreSessionRequest, context: Context
    ) -> ntm_pb2.RestoreSessionResponse:
        """See the proto."""
        restore = partial(self._engine.restore, taken=checkpoint.decode(request.checkpoint))
        view = await self._steps.operate(request, restore, PRINCIPAL.get())
        return ntm_pb2.RestoreSessionResponse(session=codec.session(view))

    async def ForkSession(  # noqa: N802
        self, request: ntm_pb2.ForkSessionRequest, context: Context
    ) -> ntm_pb2.ForkSessionResponse:
        """See the proto."""
        session = await self._steps.fork(request, PRINCIPAL.get())
        return ntm_pb2.ForkSessionResponse(session=session)

    async def DeleteSession(  # noqa: N802
        self, request: ntm_pb2.DeleteSessionRequest, context: Context
    ) -> ntm_pb2.DeleteSessionResponse:
        """See the proto."""
        await self._steps.about(
            self._engine.delete, request.session_id, PRINCIPAL.get(), request.epoch
        )
        return ntm_pb2.DeleteSessionResponse()

    async def ReadMemory(  # noqa: N802
        self, request: ntm_pb2.ReadMemoryRequest, context: Context
    ) -> ntm_pb2.ReadMemoryResponse:
        """See the proto."""

        def read(session: Session) -> tuple[ModelSpec, tuple[SessionView, dict[str, Float32]]]:
            return session.slab.network.spec, self._engine.read(session)

        spec, (view, state) = await self._steps.operate(request, read, PRINCIPAL.get())
        if not spec.has_memory:
            raise NoMemory(f"model {view.model!r} has no memory to read")
        response = codec.memory(view, spec, state)
        self._check_size(response, f"the memory of {view.locations} locations")
        return response

    async def Step(  # noqa: N802
        self, request: ntm_pb2.StepRequest, context: Context
    ) -> ntm_pb2.StepResponse:
        """See the proto."""
        return await self._steps.step(request.chunk, PRINCIPAL.get())

    async def StreamSteps(self, request_iterator: object, context: Context) -> None:  # noqa: N802
        """See the proto."""
        stream = Stream(self._steps, context, PRINCIPAL.get(), self._settings, self._metrics)
        self._streams.add(stream)
        self._metrics.streams.inc()
        try:
            await stream.run()
        finally:
            self._streams.discard(stream)
            self._metrics.streams.dec()

    def _model(self, version: Version) -> ntm_pb2.Model:
        catalogue = self._catalogue
        versions = (
            ntm_pb2.ModelVersion(
                content_hash=each.content_hash,
                current=catalogue.is_current(each),
                loaded=each in catalogue.networks,
            )
            for each in catalogue.versions(version.model)
        )
        return codec.model(catalogue.file(version), catalogue.provider, versions)

    def _check_size(self, response: Message, what: str) -> None:
        size, most = response.ByteSize(), self._settings.max_message_bytes
        if size > most:
            raise InvalidRequest(f"{what} takes {size} bytes, more than a message may have, {most}")


def _page_start(token: str) -> int:
    if not token:
        return 0
    if not (token.isascii() and token.isdigit() and len(token) < 20):
        raise InvalidRequest(f"page token {token[:32]!r} is none of this server's")
    return int(token)
