"""One stream that carries the steps of many sessions, with many steps in one message."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Protocol, Self

from google.protobuf.message import Message

from ntm.v1 import ntm_pb2 as pb
from ntm.v1.ntm_pb2_grpc import NtmServiceStub
from ntm_client import procedures
from ntm_client.async_operations import AsyncOperations, AsyncPending
from ntm_client.async_session import AsyncSession, Caller, run
from ntm_client.connection import Authorization, route
from ntm_client.errors import InvalidRequest, NtmClientError, StreamClosed
from ntm_client.operations import message_bytes, operation_of
from ntm_client.procedures import BaseSession
from ntm_client.retries import ask_with
from ntm_client.values import Durability, Model


class RoutingCaller(Caller, Protocol):
    """A client's connection that can route a call like the calls of a session."""

    target: str

    async def call_by(self, session_id: str, request: Message, timeout_seconds: float) -> Message:
        """
        Make one call, which load balancers treat as a call of this session; return the response.
        """

    def check_open(self) -> None:
        """Raise ClientClosed or InvalidRequest if no call can be made here."""


class Stream:
    """
    Sessions that are stepped together. Made by `AsyncClient.stream`, used in `async with`.

    Any number of tasks may use it at once. Operations that they begin together are sent in one
    message. When the stream breaks, every operation that is not answered yet fails with
    `StreamBroken`. A client that resumes sends these operations again on a new stream. Otherwise
    each later operation fails too, and the sessions can be continued on another stream.
    """

    def __init__(
        self,
        client: RoutingCaller,
        stub: NtmServiceStub,
        authorization: Authorization,
        models: dict[str, Model],
        route: str | None,
    ) -> None:
        """The stream begins when its `async with` block is entered."""
        self.own_limits = client.own_limits
        self.retries = client.retries
        self.timeout_seconds = client.timeout_seconds
        self.route = secrets.token_hex(16) if route is None else route
        """
        The session id that load balancers see for the stream and for calls about its sessions.
        """
        self._client = client
        self._stub = stub
        self._authorization = authorization
        self._models = models
        self._operations: AsyncOperations | None = None

    async def open(
        self,
        model: str,
        locations: int | None = None,
        idle_timeout: timedelta | None = None,
        checkpoint: bytes | None = None,
        durability: Durability | None = None,
        content_hash: str = "",
        initial: Mapping[str, Any] | None = None,
    ) -> AsyncSession:
        """Open a session as `AsyncClient.create_session` does, and step it on this stream."""
        how = (locations, idle_timeout, checkpoint, durability, content_hash)
        opening = procedures.create_session(
            ask_with(self.retries), model, *how, self._models, initial
        )
        return AsyncSession(self, *await run(self, opening))

    async def session(self, session_id: str) -> AsyncSession:
        """The session with this id, wherever it was opened, to be stepped on this stream."""
        finding = procedures.find_session(ask_with(self.retries), session_id, self._models)
        return AsyncSession(self, *await run(self, finding))

    async def call(self, request: Message, timeout_seconds: float) -> Message:
        """
        Send requests to open, step and close on the stream; make a unary call for any other
        request, and for one that could be larger than the server takes: it would break the stream
        for all sessions.
        """
        operation = operation_of(request)
        if operation is None:
            # The call has the stream's route, because another replica would take the session over.
            return await self._client.call_by(self.route, request, timeout_seconds)
        ongoing = self._ongoing()
        return await ongoing.answer(ongoing.begin(operation), timeout_seconds)

    def begin(self, session: BaseSession, request: pb.StepRequest) -> AsyncPending | None:
        """Send a chunk of a session; None if it has to be a call."""
        ongoing = self._ongoing()
        ongoing.message_bytes = message_bytes(session, ongoing.replica)
        operation = operation_of(request, ongoing.message_bytes)
        return None if operation is None else ongoing.begin(operation)

    async def answer(
        self, pending: AsyncPending, request: pb.StepRequest, timeout_seconds: float
    ) -> Message:
        """Wait for the response to a chunk."""
        return await pending.stream.answer(pending, timeout_seconds)

    async def explained(self, error: NtmClientError) -> NtmClientError:
        """What `Connection.explained` returns."""
        return await self._client.explained(error)

    async def close(self) -> None:
        """End the stream. Operations that are still pending fail. No session is closed."""
        if self._operations is not None:
            operations, self._operations = self._operations, None
            await operations.close()

    async def __aenter__(self) -> Self:
        if self._operations is not None:
            raise InvalidRequest("the stream is entered already; make another with `stream`")
        self._operations = self._begin()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def _ongoing(self) -> AsyncOperations:
        """
        The call that operations are sent on; a new call if the last one is over and the client
        resumes.
        """
        self._client.check_open()
        if self._operations is None:
            raise StreamClosed("the stream is not entered, or was closed")
        if self._operations.broken is not None and self.retries is not None:
            self._operations = self._begin()
        return self._operations

    def _begin(self) -> AsyncOperations:
        self._client.check_open()
        metadata = (*self._authorization.metadata(), *route(self.route))
        return AsyncOperations(self._stub, metadata, self._client.target)
