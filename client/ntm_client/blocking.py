"""The blocking client and its sessions, which threads may share."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message

from ntm.v1 import ntm_pb2 as pb
from ntm_client import arguments, procedures
from ntm_client.ahead import SentAhead
from ntm_client.blocking_operations import Operations, Pending
from ntm_client.chunks import OwnLimits
from ntm_client.connection import (
    DEFAULT_TIMEOUT_SECONDS,
    Connection,
    Token,
    check_connection,
    method_for,
    route,
    session_of,
    stub_of,
)
from ntm_client.conversion import Inputs
from ntm_client.encryption import Tls
from ntm_client.errors import (
    ClientClosed,
    NotStored,
    NtmClientError,
    SessionGone,
    StreamBroken,
    TimedOut,
)
from ntm_client.failures import call_error
from ntm_client.fencing import fenced
from ntm_client.operations import message_bytes, operation_of
from ntm_client.procedures import Ahead, Attempt, BaseSession, Procedure
from ntm_client.recovery import Recovery
from ntm_client.resume import DEFAULT_RESUME, Resume
from ntm_client.retries import Retries, ask_with
from ntm_client.shared_streams import SharedStreams
from ntm_client.values import Durability, Memory, Model, SessionInfo, StepResult

T = TypeVar("T")


class Client:
    """A connection to a server. Closes at the end of a `with` block; threads may share it."""

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        credentials: Tls | grpc.ChannelCredentials | None = None,
        token: Token | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        chunk_steps: int = OwnLimits.chunk_steps,
        max_message_bytes: int = OwnLimits.max_message_bytes,
        resume: Resume | None = DEFAULT_RESUME,
    ) -> None:
        """
        Make a client of the server at `target`, which connects at the first call.

        Args:
            target: Address of the server, HOST:PORT or unix:PATH, or as gRPC takes it:
                `dns:///name:port` finds replicas. Without a port it is 50051.
            credentials: For TLS, as from `tls`, or of gRPC; without them the connection is not
                encrypted.
            token: The caller's token, or a function that returns it and is called for each call.
            timeout_seconds: Seconds that one call may take.
            chunk_steps: The largest number of steps in one call; longer inputs are split. The
                server's limits hold as well: it tells them, and the client keeps them.
            max_message_bytes: The largest size of the inputs, and of the reply, of one call, where
                the server allows more.
            resume: How calls and sessions survive the loss of a server; None if they do not. Until
                a server has answered for the first time, a missing connection is an error at once.

        Raises:
            InvalidRequest: the target is no address.
            TokenNotSent: there is a token and no TLS, and the server is on another machine.
        """
        check_connection(target, credentials, token, timeout_seconds, resume)
        self._connection = Connection(target, credentials, token, resume)
        self.target = self._connection.target
        self.own_limits = OwnLimits(chunk_steps, max_message_bytes)
        self.retries = Retries(resume) if resume else None
        self._timeout_seconds = timeout_seconds
        self._models: dict[str, Model] = {}
        self._authorization = self._connection.authorization
        secure, options = self._connection.credentials, self._connection.options
        self._channel = (
            grpc.secure_channel(self.target, secure, options)
            if secure
            else grpc.insecure_channel(self.target, options)
        )
        self._stub = stub_of(self._channel)
        begin = partial(Operations, self._stub, target=self.target)
        self._shared = SharedStreams(begin, self._authorization)
        # Each stream has threads, which would keep it until it has been idle for a while.
        weakref.finalize(self, self._shared.end)
        self._is_closed = False

    def models(self) -> list[Model]:
        """The models that the server serves, in order of name."""
        return self.run(procedures.list_models(ask_with(self.retries)))

    def model(self, name: str) -> Model:
        """The model with this name."""
        return self.run(procedures.get_model(ask_with(self.retries), name))

    def create_session(
        self,
        model: str,
        locations: int | None = None,
        idle_timeout: timedelta | None = None,
        checkpoint: bytes | None = None,
        durability: Durability | None = None,
        content_hash: str = "",
        initial: Mapping[str, Any] | None = None,
    ) -> Session:
        """
        Open a session; a `with` block deletes it at its end.

        If the answer is lost, the request is repeated with the same id, so that one session is
        opened. If all attempts fail, a session that one of them opened stays until its idle
        timeout.

        Args:
            model: Name of the model.
            locations: Memory locations; None for the model's default. A model without memory has 0.
            idle_timeout: Time without a step after which the session expires; None for the server's
                default.
            checkpoint: The state to start from, as `Session.checkpoint` returned it. It decides the
                locations.
            durability: When steps are stored; None for the server's setting.
            content_hash: Version of the model, from `Model.versions`. Empty for the version of the
                checkpoint or, without a checkpoint, the version for new sessions.
            initial: Values with which tensors of the state start, by name, in place of the model's;
                `Model.state` has their types and shapes, and says which have to be given.
        """
        how = (locations, idle_timeout, checkpoint, durability, content_hash)
        opening = procedures.create_session(
            ask_with(self.retries), model, *how, self._models, initial
        )
        return Session(self, *self.run(opening))

    def session(self, session_id: str) -> Session:
        """The session with this id, wherever it was opened, to continue at its next step."""
        finding = procedures.find_session(ask_with(self.retries), session_id, self._models)
        return Session(self, *self.run(finding))

    def sessions(self) -> list[SessionInfo]:
        """
        The caller's sessions on the server, oldest first. Without a token these are the host's
        sessions.
        """
        return self.run(procedures.list_sessions(ask_with(self.retries)))

    def close(self) -> None:
        """Close the connection. Sessions stay open until they are deleted or expire."""
        self._is_closed = True
        for stream in self._shared.take_all():
            stream.close()
        if not self._shared.is_of_parent:
            self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(
        self,
        procedure: Procedure[T],
        timeout_seconds: float | None = None,
        session: BaseSession | None = None,
    ) -> T:
        """
        Make the calls that a procedure asks for, each within the timeout, and return its result.

        Chunks of `session` go on a stream that its client's sessions share, and those that the
        procedure names in advance are sent in advance.
        """
        seconds = self._timeout_seconds
        if timeout_seconds is not None:
            seconds = arguments.call_seconds("timeout_seconds", timeout_seconds)
        carrier = _Carrier(self, session, seconds)
        try:
            wanted = next(procedure)
            while True:
                try:
                    response = carrier.carry(wanted)
                except NtmClientError as error:
                    wanted = procedure.throw(error)
                else:
                    wanted = procedure.send(response)
        except StopIteration as returned:
            result: T = returned.value
            return result
        except NtmClientError as error:
            found = self._connection.explained(error)
            raise found from found.__cause__
        finally:
            carrier.end()

    def begin(self, session: BaseSession, request: pb.StepRequest) -> Pending | None:
        """Send a chunk on the stream that its session shares; None if it has to be a call."""
        self._check_open()
        stream = self._shared.of(session)
        if stream is None:
            return None
        stream.message_bytes = message_bytes(session, stream.replica)
        operation = operation_of(request, stream.message_bytes)
        if operation is None:
            return None
        try:
            return stream.begin(operation)
        except StreamBroken:  # since it was found
            return None

    def answer(self, pending: Pending, request: pb.StepRequest, seconds: float) -> Message:
        """
        Wait for the response to a chunk that was sent on a shared stream.

        If the stream breaks, a call makes the chunk: its steps are made once in any case. So the
        errors are those of a call, and no session depends on a stream.
        """
        deadline = time.monotonic() + seconds
        try:
            return pending.stream.answer(pending, seconds)
        except StreamBroken:
            self._shared.leave(pending.stream)
        except TimedOut:
            self._shared.leave(pending.stream)  # its connection may be dead
            raise
        return self.call(request, max(0.0, deadline - time.monotonic()))

    def call(self, request: Message, seconds: float) -> Message:
        """Make one call of the API, and return the response."""
        self._check_open()
        metadata = (*self._authorization.metadata(), *route(session_of(request)))
        try:
            response: Message = method_for(self._stub, request)(
                request, timeout=seconds, metadata=metadata
            )
        except grpc.RpcError as error:
            raise call_error(error, self.target) from error
        return response

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClientClosed(f"the client of {self.target} is closed; make another")


class _Carrier:
    """Carries the requests of one procedure, and has those that were sent ahead."""

    def __init__(self, client: Client, session: BaseSession | None, seconds: float) -> None:
        self._client = client
        self._session = session
        self._seconds = seconds
        self._ahead: SentAhead[Pending] = SentAhead(client)

    def carry(self, wanted: Message | Attempt | Ahead) -> Message | None:
        client, seconds = self._client, self._seconds
        match wanted:
            case Ahead():
                assert self._session is not None, "only the procedures of a session send ahead"
                self._ahead.send(self._session, wanted.requests)
                return None
            case Attempt():
                # After a failure the session may be anywhere: a call finds it by its own route.
                self._ahead.give_up()
                time.sleep(wanted.delay_seconds)
                return client.call(wanted.request, min(seconds, wanted.max_seconds))
            case pb.StepRequest() if self._session is not None:
                pending = self._ahead.take(wanted) or client.begin(self._session, wanted)
                if pending is not None:
                    return client.answer(pending, wanted, seconds)
                self._session.routed_seconds = time.monotonic()
        return client.call(wanted, seconds)

    def end(self) -> None:
        """Give up what was sent ahead and not asked for."""
        self._ahead.give_up()


class Session(BaseSession):
    """One sequence in progress on the server. Made by `Client.create_session`."""

    def __init__(self, client: Client, model: Model, info: SessionInfo) -> None:
        super().__init__(model, info)
        self._client = client
        self._ask_once = partial(fenced, self)
        self._ask = (
            Recovery(self, client.retries, client.own_limits).ask
            if client.retries
            else self._ask_once
        )
        self._lock = threading.Lock()

    def step(
        self,
        inputs: Inputs,
        traces: Sequence[str] = (),
        top_k: int = 0,
        *,
        timeout_seconds: float | None = None,
    ) -> StepResult:
        """
        Make steps: [steps, input_width] for several, [input_width] for one. A model whose steps
        take several tensors is given a dict of arrays, [steps, ...] or [...], by their names in
        `model.inputs`.

        Long inputs are sent in chunks. After a failure, the steps of earlier chunks stay made, and
        `next_step` is the step to continue at. After `TimedOut` or an interrupt the server may end
        a chunk that it has begun; `describe` waits for that and sets `next_step`.

        Args:
            inputs: The inputs of the steps.
            traces: Names of the traces to return, from `model.traces`.
            top_k: Number of elements of each weighting to return, the largest ones; 0 for all.
            timeout_seconds: Seconds that each attempt at a chunk may take; None for the client's.

        Raises:
            NotResumable: the session lost steps whose inputs the client has not kept.
            Diverged: lost steps were made again and gave other outputs.
        """
        with self._lock:
            own = self._client.own_limits
            stepping = procedures.step(self._ask, self, inputs, traces, top_k, own)
            return self._client.run(stepping, timeout_seconds, self)

    def reset(self) -> None:
        """
        Set the session back to the state that it was opened with, at step 0: the model's, with the
        values given as `initial`.
        """
        with self._lock:
            self._client.run(procedures.reset(self._ask, self))

    def checkpoint(self) -> bytes:
        """
        The session's state at its next step, from which a session can continue later, on any
        server.

        `restore` and `Client.create_session` take it, for the same model.
        """
        with self._lock:
            return self._client.run(procedures.checkpoint(self._ask, self))

    def restore(self, checkpoint: bytes) -> None:
        """Set the session to the state and the step of a checkpoint."""
        with self._lock:
            self._client.run(procedures.restore(self._ask, self, checkpoint))

    def fork(self) -> Session:
        """Open a session with the state of this one, which goes on independently."""
        with self._lock:
            info = self._client.run(procedures.fork(self._ask, self))
        return Session(self._client, self.model, info)

    def describe(self) -> SessionInfo:
        """
        The session as the server has it, once it has ended the steps that it has begun; sets
        `next_step` to the server's.
        """
        with self._lock:
            return self._client.run(procedures.describe(self._ask, self))

    def read_memory(self) -> Memory:
        """The memory and the weightings as they are after the last step."""
        with self._lock:
            return self._client.run(procedures.read_memory(self._ask, self))

    def delete(self) -> None:
        """
        Close the session; the server frees its state, and deletes it from its store.

        Raises:
            NotStored: the session is closed, but the store did not answer. The server asks it
                again; so does another `delete`.
        """
        self._client.run(procedures.delete(self._ask, self))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exception is None:
            # Where the store does not answer, the server goes on asking it.
            with suppress(SessionGone, NotStored):
                self.delete()
            return
        # The error inside the block says more than an error of deleting the session, and the block
        # may have waited long already.
        with suppress(NtmClientError):
            self._client.run(procedures.delete(self._ask_once, self))
