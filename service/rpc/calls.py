"""What the unary RPCs and the stream share: opening sessions and stepping chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Protocol, TypeVar

from ntm.v1 import ntm_pb2
from service import codec
from service.auth.principal import Principal
from service.engine import checkpoint
from service.engine.checkpoint import Checkpoint
from service.engine.engine import Engine
from service.engine.saving import Policy
from service.engine.sessions import Session, check_session_id, moved, taken
from service.engine.views import SessionView
from service.engine.work import Chunk, Operation, Work
from service.errors import CheckpointForeign, ModelVersionUnknown, NtmError
from service.loop.keeper import Keeper
from service.loop.worker import Worker
from service.models.catalogue import Catalogue
from service.models.version import Version
from service.rpc.spans import Spans
from service.telemetry.metrics import Metrics

T = TypeVar("T")


class AboutSession(Protocol):
    """A request that names a session."""

    session_id: str
    epoch: int


class Steps:
    """Decodes what reaches the engine and encodes what comes back, counting bytes."""

    def __init__(
        self,
        catalogue: Catalogue,
        engine: Engine,
        worker: Worker,
        keeper: Keeper | None,
        metrics: Metrics,
        spans: Spans,
    ) -> None:
        """Reach the engine through its worker, and where there is a store, sessions in it."""
        self.spans = spans
        self._keeper = keeper
        self._catalogue = catalogue
        self._engine = engine
        self._worker = worker
        self._metrics = metrics
        self._opening: dict[str, asyncio.Event] = {}
        """By the ids that clients have chosen for sessions that are being opened."""

    async def open(
        self, request: ntm_pb2.CreateSessionRequest, principal: Principal
    ) -> ntm_pb2.Session:
        """
        Open a session; the first of a version waits until its network is loaded.

        One whose id its client has chosen is opened once, however often it is asked for.
        """
        start = checkpoint.decode(request.checkpoint) if request.checkpoint else None
        if not request.session_id:
            view = await self._new(request, start, principal)
            if self._keeper and view.durability.policy is not Policy.NONE:
                await self._keep(self._keeper, view.id)
            return codec.session(view)
        check_session_id(request.session_id)
        async with self._alone(request.session_id):
            view = await self._chosen(request, start, principal)
        return codec.session(view)

    async def _new(
        self, request: ntm_pb2.CreateSessionRequest, start: Checkpoint | None, principal: Principal
    ) -> SessionView:
        version = self._version(request, start)
        async with self._catalogue.using(version):
            return await self._open(
                version,
                request.locations,
                codec.idle_timeout_seconds(request),
                principal.name,
                start,
                codec.durability(request),
                session_id=request.session_id,
            )

    async def _chosen(
        self, request: ntm_pb2.CreateSessionRequest, start: Checkpoint | None, principal: Principal
    ) -> SessionView:
        """
        The session of the id that its client has chosen: a new one, or that which it was before.

        Raises:
            SessionExists: it is not as asked for, has made steps, or is somebody else's.
            SessionDeleted, SessionExpired, SessionFailed: there was one.
        """
        session_id = request.session_id
        if not self._engine.has(session_id, principal.caller):
            await self._new(request, start, principal)
            if self._keeper is None or await self._keeper.enter(session_id):
                return self._engine.describe(session_id)
            if not self._engine.has(session_id, principal.caller):
                raise moved(session_id)
        view = await self.describe(session_id, principal, 0)
        if not codec.is_as_asked(view, request):
            raise taken(session_id)
        if start is not None:
            asking = ntm_pb2.CheckpointSessionRequest(session_id=session_id)
            view, there = await self.operate(asking, self._engine.checkpoint, principal)
            if not checkpoint.are_equal(there, start):
                raise taken(session_id)
        elif view.next_step:
            raise taken(session_id)
        return view

    @asynccontextmanager
    async def _alone(self, session_id: str) -> AsyncIterator[None]:
        """One at a time of those who open a session of the same id."""
        while opening := self._opening.get(session_id):
            await opening.wait()
        done = self._opening[session_id] = asyncio.Event()
        try:
            yield
        finally:
            del self._opening[session_id]
            done.set()

    async def fork(
        self, request: ntm_pb2.ForkSessionRequest, principal: Principal
    ) -> ntm_pb2.Session:
        """Open a session with another one's state, once that one's waiting chunks have run."""
        source = await self.about(
            self._engine.describe, request.session_id, principal, request.epoch
        )
        timeout = codec.idle_timeout_seconds(request)
        if timeout is None:
            timeout = source.idle_timeout_seconds
        # The slot comes first: to find one may move the slab, for which no run may be under way.
        version = Version(source.model, source.content_hash)
        async with self._catalogue.using(version):
            fork = await self._open(
                version,
                source.locations,
                timeout,
                principal.name,
                None,
                source.durability,
                is_begun=False,
            )
        copy = partial(self._engine.fork, fork_id=fork.id)
        try:
            view: SessionView = await self.operate(request, copy, principal)
        except BaseException:
            await self._undo(fork.id)
            raise
        if self._keeper and view.durability.policy is not Policy.NONE:
            await self._keep(self._keeper, fork.id)
        return codec.session(view)

    async def describe(
        self, session_id: str, principal: Principal, known_epoch: int
    ) -> SessionView:
        """A session as it is, wherever it went meanwhile."""
        while True:
            view = await self.about(self._engine.describe, session_id, principal, known_epoch)
            if self._keeper is None:
                return view
            known_epoch = await self._keeper.epoch(session_id)
            if known_epoch <= view.epoch:
                return view

    async def about(
        self,
        look: Callable[[str, str, int], T],
        session_id: str,
        principal: Principal,
        known_epoch: int,
    ) -> T:
        """
        What the engine's `look` tells of a session, which is woken first if need be.

        Also where this replica was passed over, as one shows who knows a later epoch.
        """
        while True:
            try:
                return await self._worker.call(look, session_id, principal.caller, known_epoch)
            except NtmError:
                may_be = self._engine.may_be_stored(session_id, principal.caller, known_epoch)
                if self._keeper is None or not may_be:
                    raise
            # It may have to make room for another one before it is looked at.
            await self._keeper.wake(session_id)
            known_epoch = 0  # no epoch is later than that of who has claimed it

    async def step(self, message: ntm_pb2.Chunk, principal: Principal) -> ntm_pb2.StepResponse:
        """Make the steps of a chunk."""
        self._metrics.received_bytes.inc(len(message.inputs))
        chunk = codec.chunk(message)
        chunk.caller = principal.caller
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
            self._metrics.reply_seconds.labels(chunk.model).observe_one(seconds)
        self._metrics.sent_bytes.inc(sent_bytes)

    def submit(self, works: Sequence[Work]) -> None:
        """Queue work; its `answered` is called when it is finished."""
        self._worker.submit(works)

    def closing(self, session_id: str) -> Operation:
        """The closing of a session, as work that waits for the session's chunks."""
        return Operation(session_id, self._engine.close)

    def _version(self, request: ntm_pb2.CreateSessionRequest, start: Checkpoint | None) -> Version:
        """
        The version that a new session is to be on: the one asked for, or the checkpoint's.

        Raises:
            ModelUnknown: new sessions cannot be opened on that model.
            ModelVersionUnknown, CheckpointForeign: it has not that version.
        """
        current = self._catalogue.current(request.model)
        version = Version(request.model, request.content_hash)
        if request.content_hash:
            self._catalogue.file(version)
            return version
        if start is None:
            return current
        version = Version(request.model, start.content_hash)
        try:
            self._catalogue.file(version)
        except ModelVersionUnknown as error:
            raise CheckpointForeign(
                f"the checkpoint is of another model, or of a version that is not here: "
                f"{error.message}",
                expected=current.content_hash,
                actual=start.content_hash,
            ) from error
        return version

    async def _open(
        self, *arguments: Any, session_id: str = "", is_begun: bool = True
    ) -> SessionView:
        opening = partial(self._engine.open, *arguments, session_id=session_id, is_begun=is_begun)
        if self._keeper is None:
            return await self._worker.call(opening)
        async with self._keeper.place():
            return await self._worker.call(opening)

    async def _keep(self, keeper: Keeper, session_id: str) -> None:
        """Have a new session in the store before its client hears of it."""
        try:
            await keeper.keep(session_id)
        except BaseException:
            await self._undo(session_id)
            raise

    async def _undo(self, session_id: str) -> None:
        with suppress(NtmError):
            await asyncio.shield(self._worker.call(self._engine.delete, session_id))

    def operate(
        self, request: AboutSession, action: Callable[[Session], Any], principal: Principal
    ) -> asyncio.Future[Any]:
        """Queue an operation behind the session's chunks; the future gets its result."""
        operation = Operation(request.session_id, action)
        operation.caller = principal.caller
        operation.known_epoch = request.epoch
        return self._worker.ask(operation)
