"""The asynchronous client: any number of tasks share one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from ntm.v1 import ntm_pb2 as pb
from ntm_client import arguments, procedures
from ntm_client.async_operations import AsyncOperations, AsyncPending
from ntm_client.async_session import AsyncSession, run
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
from ntm_client.encryption import Tls
from ntm_client.errors import (
    ClientClosed,
    InvalidRequest,
    NtmClientError,
    StreamBroken,
    TimedOut,
)
from ntm_client.failures import call_error
from ntm_client.operations import IDLE_SECONDS, message_bytes, operation_of
from ntm_client.procedures import BaseSession
from ntm_client.resume import DEFAULT_RESUME, Resume
from ntm_client.retries import Retries, ask_with
from ntm_client.shared_streams import SharedStreams
from ntm_client.stream import Stream
from ntm_client.values import Durability, Model, SessionInfo

__all__ = ["AsyncClient", "AsyncSession", "Stream"]


class AsyncClient:
    """A connection to a server. Closes at the end of an `async with` block."""

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
        """Connect as `Client` does. Call this inside the running event loop."""
        check_connection(target, credentials, token, timeout_seconds, resume)
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise InvalidRequest(
                "an AsyncClient has to be made where an event loop runs, such as inside a "
                "coroutine; without asyncio, use Client"
            ) from None
        self._connection = Connection(target, credentials, token, resume)
        self.target = self._connection.target
        self.own_limits = OwnLimits(chunk_steps, max_message_bytes)
        self.retries = Retries(resume) if resume else None
        self.timeout_seconds = timeout_seconds
        self._models: dict[str, Model] = {}
        self._authorization = self._connection.authorization
        secure, options = self._connection.credentials, self._connection.options
        self._channel = (
            grpc.aio.secure_channel(self.target, secure, options)
            if secure
            else grpc.aio.insecure_channel(self.target, options)
        )
        self._stub = stub_of(self._channel)
        begin = partial(AsyncOperations, self._stub, target=self.target, idle_seconds=IDLE_SECONDS)
        self._shared = SharedStreams(begin, self._authorization)
        self._is_closed = False

    async def models(self) -> list[Model]:
        """The models that the server serves, in order of name."""
        return await run(self, procedures.list_models(ask_with(self.retries)))

    async def model(self, name: str) -> Model:
        """The model with this name."""
        return await run(self, procedures.get_model(ask_with(self.retries), name))

    async def create_session(
        self,
        model: str,
        locations: int | None = None,
        idle_timeout: timedelta | None = None,
        checkpoint: bytes | None = None,
        durability: Durability | None = None,
        content_hash: str = "",
        initial: Mapping[str, Any] | None = None,
    ) -> AsyncSession:
        """Open a session as `Client.create_session` does; `async with` deletes it at its end."""
        how = (locations, idle_timeout, checkpoint, durability, content_hash)
        opening = procedures.create_session(
            ask_with(self.retries), model, *how, self._models, initial
        )
        return AsyncSession(self, *await run(self, opening))

    async def session(self, session_id: str) -> AsyncSession:
        """The session with this id, wherever it was opened, to continue at its next step."""
        finding = procedures.find_session(ask_with(self.retries), session_id, self._models)
        return AsyncSession(self, *await run(self, finding))

    async def sessions(self) -> list[SessionInfo]:
        """
        The caller's sessions on the server, oldest first. Without a token these are the host's
        sessions.
        """
        return await run(self, procedures.list_sessions(ask_with(self.retries)))

    def stream(self, route: str | None = None) -> Stream:
        """
        A stream on which many sessions are stepped at once; use it in `async with`.

        Args:
            route: The `x-session-id` that load balancers see for the stream, and for all calls
                about its sessions. Use the id of a session if the stream is for one, or the same
                text for streams that have to reach the same replica. None draws one at random.
        """
        if route is not None:
            needed = "printable ASCII text, such as the id of a session"
            arguments.text("route", route, needed)
            if not (route.isascii() and route.isprintable()):
                raise arguments.wrong("route", needed, route)
        return Stream(self, self._stub, self._authorization, self._models, route)

    def check_open(self) -> None:
        """Raise ClientClosed or InvalidRequest if no call can be made here."""
        if self._is_closed:
            raise ClientClosed(f"the client of {self.target} is closed; make another")
        if asyncio.get_running_loop() is not self._loop:
            raise InvalidRequest(
                "this AsyncClient was made in another event loop; make one in each loop"
            )

    async def call(self, request: Message, timeout_seconds: float) -> Message:
        """Make one call of the API, and return the response."""
        return await self.call_by(session_of(request), request, timeout_seconds)

    async def call_by(self, session_id: str, request: Message, timeout_seconds: float) -> Message:
        """Make one call, which load balancers treat as a call of this session."""
        self.check_open()
        metadata = (*self._authorization.metadata(), *route(session_id))
        try:
            response: Message = await method_for(self._stub, request)(
                request, timeout=timeout_seconds, metadata=metadata
            )
        except grpc.RpcError as error:
            raise call_error(error, self.target) from error
        return response

    def begin(self, session: BaseSession, request: pb.StepRequest) -> AsyncPending | None:
        """Send a chunk on the stream that its session shares; None if it has to be a call."""
        self.check_open()
        stream = self._shared.of(session)
        if stream is None:
            return None
        stream.message_bytes = message_bytes(session, stream.replica)
        operation = operation_of(request, stream.message_bytes)
        if operation is None:
            return None
        return stream.begin(operation)

    async def answer(
        self, pending: AsyncPending, request: pb.StepRequest, timeout_seconds: float
    ) -> Message:
        """
        Wait for the response to a chunk that was sent on a shared stream.

        If the stream breaks, a call makes the chunk: its steps are made once in any case. So the
        errors are those of a call, and no session depends on a stream.
        """
        deadline = self._loop.time() + timeout_seconds
        try:
            return await pending.stream.answer(pending, timeout_seconds)
        except StreamBroken:
            self._shared.leave(pending.stream)
        except TimedOut:
            self._shared.leave(pending.stream)  # its connection may be dead
            raise
        return await self.call(request, max(0.0, deadline - self._loop.time()))

    async def explained(self, error: NtmClientError) -> NtmClientError:
        """What `Connection.explained` returns; it looks at the connection on a thread."""
        if self._connection.looks_at(error):
            return await asyncio.to_thread(self._connection.explained, error)
        return self._connection.explained(error)

    async def close(self) -> None:
        """Close the connection. Sessions stay open until they are deleted or expire."""
        self._is_closed = True
        await asyncio.gather(*(stream.close() for stream in self._shared.take_all()))
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()
