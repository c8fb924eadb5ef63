"""What the unary RPCs and the stream share: opening sessions, and reaching them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import Any, Protocol, TypeVar

from ntm.v1 import ntm_pb2
from service import codec
from service.auth.principal import Principal
from service.engine import checkpoint
from service.engine.checkpoint import Checkpoint
from service.engine.durability import Policy, SessionView
from service.engine.sessions import (
    Operation,
    Session,
    check_session_id,
    closed_error,
    exists_error,
    new_session_id,
)
from service.engine.work import Chunk
from service.errors import (
    CheckpointForeign,
    ModelVersionUnknown,
    NtmError,
    SessionDeleted,
    SessionMoved,
)
from service.loop.keeper import Keeper
from service.loop.worker import Worker
from service.models.catalogue import Catalogue
from service.models.version import Version
from service.rpc.spans import Spans
from service.session_ref import SERVER, SessionRef
from service.telemetry.logs import AccessLog
from service.telemetry.metrics import Metrics

T = TypeVar("T")


class AboutSession(Protocol):
    """A request that names a session."""

    session_id: str
    epoch: int


def session_ref(request: AboutSession, principal: Principal) -> SessionRef:
    """The session that a principal names in a request."""
    return SessionRef(request.session_id, principal.caller, request.epoch)


class Calls:
    """Passes the requests of calls to the engine, and waits for the answers."""

    def __init__(
        self,
        catalogue: Catalogue,
        worker: Worker,
        keeper: Keeper | None,
        metrics: Metrics,
        spans: Spans,
        access_log: AccessLog,
    ) -> None:
        """
        Reach the engine through its worker, and stored sessions through the keeper, if there is a
        store.
        """
        self.catalogue = catalogue
        self.lifecycle = worker.engine.lifecycle
        self.worker = worker
        self.metrics = metrics
        self.spans = spans
        self.access_log = access_log
        self.replica = secrets.token_hex(8)
        """Names this server to clients, until it ends."""
        self._keeper = keeper
        self._opening: dict[str, asyncio.Event] = {}
        """
        For each session id that a client chose and that is being opened, an event that its end
        sets.
        """

    @property
    def has_store(self) -> bool:
        """Whether sessions outlive this server."""
        return self._keeper is not None

    def message(self, view: SessionView) -> ntm_pb2.Session:
        """The message that describes a session, and this server, to a client."""
        return codec.session(view, self.lifecycle.limits, self.replica)

    async def open(
        self, request: ntm_pb2.CreateSessionRequest, principal: Principal
    ) -> ntm_pb2.Session:
        """
        Open a session. The first session of a version waits until its network is loaded.

        If the client chose the id, the session is opened once, however often the request comes.
        """
        start = checkpoint.decode(request.checkpoint) if request.checkpoint else None
        if not request.session_id:
            view = await self._new(request, start, principal)
            if self._keeper and view.durability.policy is not Policy.NONE:
                await self._keep(self._keeper, view.id)
            return self.message(view)
        check_session_id(request.session_id)
        async with self._alone(request.session_id):
            view = await self._chosen(request, start, principal)
        return self.message(view)

    async def open_again(self, request: ntm_pb2.CreateSessionRequest, principal: Principal) -> None:
        """
        Open a session with the id, version, locations and initial values in the request, in place
        of the caller's session with that id, whether that is open or closed. An open one of the
        same version and locations is reset, if there are no values.
        """
        ref = SessionRef(request.session_id, principal.caller, 0)
        async with self._alone(ref.id):
            if await self._entered(ref, request, principal):
                return
            view = await self.describe(ref)
            version = self._version(request, None)
            locations = request.locations or self.catalogue.file(version).spec.default_locations
            is_like_it = (view.content_hash, view.locations) == (version.content_hash, locations)
            if is_like_it and not request.initial:
                await self.operate(ref, self.lifecycle.reset)
                return
            await self.delete(ref)
            await self._entered(ref, request, principal)

    def open_again_at_once(
        self, request: ntm_pb2.CreateSessionRequest, principal: Principal
    ) -> bool:
        """
        Open a session as `open_again`, if that has to wait for nothing and no session is open with
        its id. Returns whether it was opened; if not, nothing was changed.
        """
        version = self._version(request, None)
        if (
            self._keeper is not None
            or request.session_id in self._opening
            or version not in self.catalogue.networks
            or not (
                self.worker.is_between_turns
                or self.lifecycle.may_open_during_turns(version, request.locations)
            )
        ):
            return False
        ref = SessionRef(request.session_id, principal.caller, 0)
        sessions = self.lifecycle.sessions
        sessions.forget_closed(ref)
        if sessions.has(ref):
            return False
        self.worker.call_at_once(self._placing(version, request, None, principal))
        return True

    async def _entered(
        self, ref: SessionRef, request: ntm_pb2.CreateSessionRequest, principal: Principal
    ) -> bool:
        """
        Open a session, also where a closed one has its id. Returns whether it is new: if not, an
        open one has its id, here or in the store, from which it was woken.
        """
        sessions = self.lifecycle.sessions
        sessions.forget_closed(ref)
        if sessions.has(ref):
            return False
        await self._new(request, None, principal)
        return self._keeper is None or await self._keeper.enter(ref.id, again=True)

    async def _new(
        self, request: ntm_pb2.CreateSessionRequest, start: Checkpoint | None, principal: Principal
    ) -> SessionView:
        version = self._version(request, start)
        return await self._placed(version, self._placing(version, request, start, principal))

    def _placing(
        self,
        version: Version,
        request: ntm_pb2.CreateSessionRequest,
        start: Checkpoint | None,
        principal: Principal,
    ) -> Callable[[], SessionView]:
        """What opens a session between two turns, once its version is loaded and it has room."""
        return partial(
            self.lifecycle.open,
            version,
            request.locations,
            codec.idle_timeout_seconds(request),
            principal.name,
            start,
            codec.durability(request),
            codec.initial(request),
            session_id=request.session_id,
        )

    async def _chosen(
        self, request: ntm_pb2.CreateSessionRequest, start: Checkpoint | None, principal: Principal
    ) -> SessionView:
        """
        The session with the id that its client chose: a new one, or the one that was opened before.

        Raises:
            SessionExists: the session differs from the request, has made steps, or is another
                caller's.
            SessionDeleted, SessionExpired, SessionFailed: the session with this id is closed.
        """
        session_id = request.session_id
        ref = SessionRef(session_id, principal.caller, 0)
        sessions = self.lifecycle.sessions
        if not sessions.has(ref):
            await self._new(request, start, principal)
            if self._keeper is None or await self._keeper.enter(session_id):
                return self.lifecycle.describe(ref)
            if not sessions.has(ref):
                raise closed_error(SessionMoved, session_id)
        view = await self.describe(ref)
        if not codec.is_as_asked(view, request):
            raise exists_error(session_id)
        if start is not None:
            view, there = await self.operate(ref, self.lifecycle.checkpoint)
            if not checkpoint.are_equal(there, start):
                raise exists_error(session_id)
        elif view.next_step or not await self._starts_with(ref, request):
            raise exists_error(session_id)
        return view

    async def _starts_with(self, ref: SessionRef, request: ntm_pb2.CreateSessionRequest) -> bool:
        """Whether a session was opened with the initial values that a request gives."""
        asked = codec.initial(request)
        if not asked:
            return True
        there = await self.operate(ref, lambda session: session.given)
        return asked == {name: value.tobytes() for name, value in there.items()}

    @asynccontextmanager
    async def _alone(self, session_id: str) -> AsyncIterator[None]:
        """Let only one request at a time open the session with this id."""
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
        """
        Open a session with the state of another session, after the waiting chunks of that session.

        If the client chose the fork's id, one fork is made, however often the request comes.
        """
        fork_id = request.fork_id or new_session_id()
        check_session_id(fork_id)
        async with self._alone(fork_id):
            return self.message(await self._forked(request, fork_id, principal))

    async def _forked(
        self, request: ntm_pb2.ForkSessionRequest, fork_id: str, principal: Principal
    ) -> SessionView:
        """
        The fork with this id: a new one, or the one that was made before.

        Raises:
            SessionExists: the session differs from the fork asked for, or is another caller's.
            SessionDeleted, SessionExpired, SessionFailed: the session with this id is closed.
        """
        fork = SessionRef(fork_id, principal.caller, 0)
        sessions = self.lifecycle.sessions
        if fork_id == request.session_id:
            raise exists_error(fork_id)
        if not sessions.has(fork):
            await self._new_fork(request, fork_id, principal)
            if self._keeper is None or await self._keeper.enter(fork_id):
                return self.lifecycle.describe(fork)
            if not sessions.has(fork):
                raise closed_error(SessionMoved, fork_id)
        await self.describe(fork)
        view: SessionView
        view, there = await self.operate(fork, self.lifecycle.checkpoint)
        source, here = await self.operate(
            session_ref(request, principal), self.lifecycle.checkpoint
        )
        if not codec.is_fork_as_asked(view, source, request) or not checkpoint.are_equal(
            there, here
        ):
            raise exists_error(fork_id)
        return view

    async def _new_fork(
        self, request: ntm_pb2.ForkSessionRequest, fork_id: str, principal: Principal
    ) -> None:
        """Open a fork. If that fails, no session has its id."""
        source = await self.look(self.lifecycle.describe, session_ref(request, principal))
        timeout = codec.idle_timeout_seconds(request)
        if timeout is None:
            timeout = source.idle_timeout_seconds
        # The slot comes first. Taking it may move the slab, which must not happen during a run.
        version = Version(source.model, source.content_hash)
        opening = partial(
            self.lifecycle.open,
            version,
            source.locations,
            timeout,
            principal.name,
            None,
            source.durability,
            session_id=fork_id,
            is_begun=False,
        )
        await self._placed(version, opening)
        copy = partial(self.lifecycle.fork, fork=SessionRef(fork_id, principal.caller, 0))
        try:
            await self.operate(session_ref(request, principal), copy)
        except BaseException:
            with suppress(NtmError):
                await asyncio.shield(self.worker.call(self.lifecycle.drop, fork_id))
            raise

    async def describe(self, ref: SessionRef) -> SessionView:
        """
        The description of a session, wherever it was used last.

        The store says in which epoch the session is owned. If that is later than the epoch of the
        view, another replica has taken the session over, and it is looked up again.
        """
        while True:
            view = await self.look(self.lifecycle.describe, ref)
            if self._keeper is None:
                return view
            epoch = await self._keeper.epoch(ref.id)
            if epoch <= view.epoch:
                return view
            ref = ref._replace(epoch=epoch)

    async def describe_settled(self, ref: SessionRef) -> SessionView:
        """
        The description of a session after the work that waits now.

        A caller that gave a chunk up so learns the step that the session comes to rest at: a chunk
        that has begun may run on to its end.
        """
        if self.lifecycle.has_work(ref.id):  # a session that is asleep need not wake
            with suppress(NtmError):  # whatever happened to the session, its description says
                await self.operate(ref, self.lifecycle.view)
        return await self.describe(ref)

    async def look(self, look: Callable[[SessionRef], T], ref: SessionRef) -> T:
        """
        The result of `look`, a method of the lifecycle. If necessary, the session is woken first.

        It is also claimed from the store if the caller's epoch is later than this replica's. The
        copy here is then closed.
        """
        while True:
            try:
                return await self.worker.call(look, ref)
            except NtmError:
                if self._keeper is None or not self.lifecycle.may_be_stored(ref):
                    raise
            # The session can go to sleep again before `look` is called, to make room for another
            # one.
            await self._keeper.wake(ref.id)
            ref = ref._replace(epoch=0)  # just claimed, so that no caller has a later epoch

    async def delete(self, ref: SessionRef) -> None:
        """
        Delete a session here and from the store.

        Raises NotStored if the store does not answer. The same request then waits for it again.
        """
        try:
            await self.look(self.lifecycle.delete, ref)
        except SessionDeleted:
            if not self.is_deleting(ref.id):
                raise
        await self.deleted(ref.id)

    def is_deleting(self, session_id: str) -> bool:
        """Whether the store has yet to delete a session that has ended here."""
        return self._keeper is not None and self._keeper.is_deleting(session_id)

    async def deleted(self, session_id: str) -> None:
        """
        Wait until the store has deleted a session that has ended here. Raises NotStored if the
        store does not answer.
        """
        if self._keeper is not None:
            await self._keeper.deleted(session_id)

    async def step(self, message: ntm_pb2.Chunk, principal: Principal) -> ntm_pb2.StepResponse:
        """Make the steps of a chunk."""
        chunk = codec.chunk(message, principal.caller)
        await self.made(chunk)
        response = ntm_pb2.StepResponse(replica=self.replica)
        sent = codec.write_reply(chunk, response.reply)
        self.replied([chunk], sent)
        return response

    async def made(self, chunk: Chunk) -> None:
        """Make the steps of a chunk; it then has its outcome. Raises its error."""
        self.metrics.received_bytes.inc(len(chunk.content))
        if parent := self.spans.parent():
            chunk.runs = []
        try:
            await self.worker.ask(chunk)
        finally:
            if parent:
                self.spans.record(chunk, parent)

    def replied(self, chunks: Sequence[Chunk], sent_bytes: int) -> None:
        """Count the replies to chunks, after gRPC has taken them; `sent_bytes` is their size."""
        now = self.lifecycle.now()
        for chunk in chunks:
            seconds = now - chunk.finished_seconds
            self.metrics.reply_seconds.labels(chunk.model).observe_one(seconds)
        self.metrics.sent_bytes.inc(sent_bytes)

    def closing(self, ref: SessionRef) -> Operation:
        """Make the work that closes a session after the session's waiting chunks."""
        return Operation(ref, self.lifecycle.close)

    def _version(self, request: ntm_pb2.CreateSessionRequest, start: Checkpoint | None) -> Version:
        """
        The version of a new session: the one in the request, else the checkpoint's, else the
        current one.

        Raises:
            ModelUnknown: new sessions cannot be opened on that model.
            ModelVersionUnknown, CheckpointForeign: the model has no such version here.
        """
        current = self.catalogue.current(request.model)
        version = Version(request.model, request.content_hash)
        if request.content_hash:
            self.catalogue.file(version)
            return version
        if start is None:
            return current
        version = Version(request.model, start.content_hash)
        try:
            self.catalogue.file(version)
        except ModelVersionUnknown as error:
            others = [each.model for each in self.catalogue.of_content(start.content_hash)]
            why = (
                f"the checkpoint is of model {' or '.join(map(repr, others))}, and the session is "
                f"to be of {request.model!r}"
                if others
                else "the checkpoint is of another model, or of a version that is not here: "
                f"{error.message}"
            )
            raise CheckpointForeign(
                why, expected=current.content_hash, actual=start.content_hash
            ) from error
        return version

    async def _placed(self, version: Version, opening: Callable[[], SessionView]) -> SessionView:
        """Open a session after its version is loaded and there is room for it."""
        async with (
            self.catalogue.using(version),
            self._keeper.place() if self._keeper else nullcontext(),
        ):
            return await self.worker.call(opening)

    async def _keep(self, keeper: Keeper, session_id: str) -> None:
        """
        Store a new session before its client gets the answer. If that fails, the session is closed.
        """
        try:
            await keeper.keep(session_id)
        except BaseException:
            await self._undo(session_id)
            raise

    async def _undo(self, session_id: str) -> None:
        with suppress(NtmError):
            ref = SessionRef(session_id, SERVER, 0)
            await asyncio.shield(self.worker.call(self.lifecycle.delete, ref))

    def operate(self, ref: SessionRef, action: Callable[[Session], Any]) -> asyncio.Future[Any]:
        """
        Queue an operation behind the session's chunks, and return a future that gets its result.
        """
        return self.worker.ask(Operation(ref, action))
