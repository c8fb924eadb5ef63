"""The RPCs: each decodes its request, waits for the answer, and encodes it."""

from __future__ import annotations

from functools import partial
from typing import Any

from google.protobuf.message import Message

from ntm.v1 import ntm_pb2, ntm_pb2_grpc
from service import codec
from service.auth.authentication import Context
from service.auth.principal import PRINCIPAL, READ, STEP
from service.engine import checkpoint
from service.engine.durability import SessionView
from service.engine.sessions import Session
from service.errors import InvalidRequest, NoMemory
from service.models.version import Version
from service.rpc.bidirectional import OpenStreams
from service.rpc.calls import Calls, session_ref
from service.rpc.gate import needs
from service.rpc.stream import Stream
from service.rpc.transport import Call
from service.settings import Settings
from service.spec import Array, ModelSpec

_DEFAULT_PAGE, _LARGEST_PAGE = 100, 1000

_PAGE_ENVELOPE_BYTES = 32
"""An upper bound for the token of a page, and for the length of each session in it."""


class NtmServicer(ntm_pb2_grpc.NtmServiceServicer):
    """
    Implements proto/ntm/v1/ntm.proto, whose comments say what each RPC promises.

    `needs` names the scope of each; an RPC without one is refused.
    """

    def __init__(self, calls: Calls, settings: Settings) -> None:
        self._calls = calls
        self._lifecycle = calls.lifecycle
        self._catalogue = calls.catalogue
        self._settings = settings
        self.streams = OpenStreams(calls.metrics)

    @needs(READ)
    async def ListModels(
        self, request: ntm_pb2.ListModelsRequest, context: Context
    ) -> ntm_pb2.ListModelsResponse:
        catalogue = self._catalogue
        current = [catalogue.current(name) for name in catalogue.models]
        response = ntm_pb2.ListModelsResponse(models=[self._model(version) for version in current])
        self._check_size(response, f"the list of {len(current)} models")
        return response

    @needs(READ)
    async def GetModel(
        self, request: ntm_pb2.GetModelRequest, context: Context
    ) -> ntm_pb2.GetModelResponse:
        version = (
            Version(request.name, request.content_hash)
            if request.content_hash
            else self._catalogue.current(request.name)
        )
        return ntm_pb2.GetModelResponse(model=self._model(version))

    @needs(STEP)
    async def CreateSession(
        self, request: ntm_pb2.CreateSessionRequest, context: Context
    ) -> ntm_pb2.CreateSessionResponse:
        session = await self._calls.open(request, PRINCIPAL.get())
        return ntm_pb2.CreateSessionResponse(session=session)

    @needs(READ)
    async def GetSession(
        self, request: ntm_pb2.GetSessionRequest, context: Context
    ) -> ntm_pb2.GetSessionResponse:
        view = await self._calls.describe_settled(session_ref(request, PRINCIPAL.get()))
        return ntm_pb2.GetSessionResponse(session=self._calls.message(view))

    @needs(READ)
    async def ListSessions(
        self, request: ntm_pb2.ListSessionsRequest, context: Call
    ) -> ntm_pb2.ListSessionsResponse:
        after = _page_start(request.page_token)
        size = min(request.page_size or _DEFAULT_PAGE, _LARGEST_PAGE)
        # One more than the page has room for: if there is one, there is a next page.
        owner = PRINCIPAL.get().name
        views = await self._calls.worker.call(self._lifecycle.owned, owner, after, size + 1)
        response = ntm_pb2.ListSessionsResponse()
        room = self._settings.max_message_bytes - _PAGE_ENVELOPE_BYTES
        for view in views[:size]:
            await context.turn()  # a full page takes 20 ms
            message = self._calls.message(view)
            room -= message.ByteSize() + _PAGE_ENVELOPE_BYTES
            if room < 0:
                break
            response.sessions.append(message)
        if (count := len(response.sessions)) < len(views):
            response.next_page_token = str(views[count - 1].number)
        return response

    @needs(STEP)
    async def ResetSession(
        self, request: ntm_pb2.ResetSessionRequest, context: Context
    ) -> ntm_pb2.ResetSessionResponse:
        view = await self._calls.operate(
            session_ref(request, PRINCIPAL.get()), self._lifecycle.reset
        )
        return ntm_pb2.ResetSessionResponse(session=self._calls.message(view))

    @needs(READ)
    async def CheckpointSession(
        self, request: ntm_pb2.CheckpointSessionRequest, context: Context
    ) -> ntm_pb2.CheckpointSessionResponse:
        ref = session_ref(request, PRINCIPAL.get())
        view, taken = await self._calls.operate(ref, self._lifecycle.checkpoint)
        response = ntm_pb2.CheckpointSessionResponse(
            session=self._calls.message(view), checkpoint=checkpoint.encode(taken)
        )
        self._check_size(response, f"the checkpoint of {view.locations} locations")
        return response

    @needs(STEP)
    async def RestoreSession(
        self, request: ntm_pb2.RestoreSessionRequest, context: Context
    ) -> ntm_pb2.RestoreSessionResponse:
        restore = partial(self._lifecycle.restore, taken=checkpoint.decode(request.checkpoint))
        view = await self._calls.operate(session_ref(request, PRINCIPAL.get()), restore)
        return ntm_pb2.RestoreSessionResponse(session=self._calls.message(view))

    @needs(STEP)
    async def ForkSession(
        self, request: ntm_pb2.ForkSessionRequest, context: Context
    ) -> ntm_pb2.ForkSessionResponse:
        session = await self._calls.fork(request, PRINCIPAL.get())
        return ntm_pb2.ForkSessionResponse(session=session)

    @needs(STEP)
    async def DeleteSession(
        self, request: ntm_pb2.DeleteSessionRequest, context: Context
    ) -> ntm_pb2.DeleteSessionResponse:
        await self._calls.delete(session_ref(request, PRINCIPAL.get()))
        return ntm_pb2.DeleteSessionResponse()

    @needs(READ)
    async def ReadMemory(
        self, request: ntm_pb2.ReadMemoryRequest, context: Context
    ) -> ntm_pb2.ReadMemoryResponse:
        def read(session: Session) -> tuple[ModelSpec, tuple[SessionView, dict[str, Array]]]:
            return session.slab.network.spec, self._lifecycle.read(session)

        ref = session_ref(request, PRINCIPAL.get())
        spec, (view, state) = await self._calls.operate(ref, read)
        if not spec.has_memory:
            raise NoMemory(f"model {view.model!r} has no memory to read")
        response = codec.memory(view, spec, state)
        self._check_size(response, f"the memory of {view.locations} locations")
        return response

    @needs(STEP)
    async def Step(self, request: ntm_pb2.StepRequest, context: Context) -> ntm_pb2.StepResponse:
        return await self._calls.step(request.chunk, PRINCIPAL.get())

    @needs(STEP)
    async def StreamSteps(self, request_iterator: object, context: Any) -> None:
        stream = Stream(self._calls, context, PRINCIPAL.get(), self._settings)
        await self.streams.serve(stream)

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
        return codec.model(
            catalogue.file(version),
            catalogue.provider,
            versions,
            batched=catalogue.is_batched(version),
        )

    def _check_size(self, response: Message, what: str) -> None:
        size, maximum = response.ByteSize(), self._settings.max_message_bytes
        if size > maximum:
            raise InvalidRequest(
                f"{what} takes {size} bytes, more than a message may have, {maximum}; start the "
                "server with a larger --max-message-bytes",
                limit="max_message_bytes",
            )


def _page_start(token: str) -> int:
    if not token:
        return 0
    if not (token.isascii() and token.isdigit() and len(token) < 20):
        raise InvalidRequest(f"page token {token[:32]!r} is none of this server's")
    return int(token)
