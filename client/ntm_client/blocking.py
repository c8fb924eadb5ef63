"""The blocking client and its sessions, which threads may share."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

import grpc
import numpy.typing as npt
from google.protobuf.message import Message

from ntm_client import procedures
from ntm_client.chunks import Limits
from ntm_client.connection import (
    DEFAULT_TIMEOUT_SECONDS,
    Authorization,
    Token,
    channel_options,
    method_for,
    route,
    session_of,
    stub_of,
)
from ntm_client.errors import NtmClientError, SessionGone
from ntm_client.failures import from_call
from ntm_client.fencing import fenced
from ntm_client.procedures import Attempt, BaseSession, Procedure
from ntm_client.recovery import Recovery
from ntm_client.resume import DEFAULT_RESUME, Resume
from ntm_client.retries import Retries, ask_with
from ntm_client.values import Durability, Memory, Model, SessionInfo, StepResult

T = TypeVar("T")


class Client:
    """A connection to a server. Closes at the end of a `with` block; threads may share it."""

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        credentials: grpc.ChannelCredentials | None = None,
        token: Token | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        chunk_steps: int = Limits.chunk_steps,
        max_message_bytes: int = Limits.max_message_bytes,
        resume: Resume | None = DEFAULT_RESUME,
    ) -> None:
        """
        Connect, at the first call, to the server at `target`.

        Args:
            target: Address of the server, as gRPC takes it; `dns:///name:port` finds replicas.
            credentials: For TLS, as from `tls`; without them the connection is not encrypted.
            token: The caller's token, or a function that returns it and is called for each call.
            timeout_seconds: Seconds that one call may take.
            chunk_steps: The most steps sent in one call; longer inputs are split.
            max_message_bytes: The largest message; no more than what the server takes.
            resume: How calls and sessions outlive the loss of a server; None for not at all. Until
                a server has answered the first time, no connection is an error at once.

        Raises:
            TokenNotSent: there is a token and no TLS, and the server is on another machine.
        """
        self.target = target
        self.limits = Limits(chunk_steps, max_message_bytes)
        self.retries = Retries(resume) if resume else None
        self._timeout_seconds = timeout_seconds
        self._models: dict[str, Model] = {}
        self._authorization = Authorization(token, target, credentials)
        options = [*channel_options(max_message_bytes, resume), *self._authorization.options]
        self._channel = (
            grpc.secure_channel(target, credentials, options)
            if credentials
            else grpc.insecure_channel(target, options)
        )
        self._stub = stub_of(self._channel)

    def models(self) -> list[Model]:
        """The models that the server serves, in order of name."""
        return self.run(procedures.list_models(ask_with(self.retries)))

    def model(self, name: str) -> Model:
        """The model of that name."""
        return self.run(procedures.get_model(ask_with(self.retries), name))

    def create_session(
        self,
        model: str,
        locations: int | None = None,
        idle_timeout: timedelta | None = None,
        checkpoint: bytes = b"",
        durability: Durability | None = None,
        content_hash: str = "",
    ) -> Session:
        """
        Open a session; a `with` block deletes it at its end.

        Where the answer is lost, it is asked for again under the same id, so that one is opened.
        Where all attempts fail, the session that one may have opened stays until its idle timeout.

        Args:
            model: Name of the model.
            locations: Memory locations; the model's default without.
            idle_timeout: Time without a step after which it expires; the server's default without.
            checkpoint: What `Session.checkpoint` gave, to start from; it decides the locations.
            durability: When its steps are stored; as the server is set without.
            content_hash: Version of the model to open it on, of `Model.versions`; without, the
                checkpoint's, or else the one for new sessions.
        """
        how = (locations, idle_timeout, checkpoint, durability, content_hash)
        opening = procedures.create_session(ask_with(self.retries), model, *how, self._models)
        return Session(self, *self.run(opening))

    def session(self, session_id: str) -> Session:
        """The session of that id, wherever it was opened, to continue at its next step."""
        finding = procedures.find_session(ask_with(self.retries), session_id, self._models)
        return Session(self, *self.run(finding))

    def sessions(self) -> list[SessionInfo]:
        """The caller's sessions on the server, oldest first; without a token this host's."""
        return self.run(procedures.list_sessions(ask_with(self.retries)))

    def close(self) -> None:
        """Close the connection. Sessions stay open until they are deleted or expire."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(self, procedure: Procedure[T], timeout_seconds: float | None = None) -> T:
        """Make the calls that a procedure asks for, each within the timeout; its result."""
        try:
            wanted = next(procedure)
            while True:
                try:
                    response = self._attempt(wanted, timeout_seconds)
                except NtmClientError as error:
                    wanted = procedure.throw(error)
                else:
                    wanted = procedure.send(response)
        except StopIteration as returned:
            result: T = returned.value
            return result

    def _attempt(self, wanted: Message | Attempt, timeout_seconds: float | None) -> Message:
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        if isinstance(wanted, Attempt):
            time.sleep(wanted.delay_seconds)
            return self._call(wanted.request, min(seconds, wanted.max_seconds))
        return self._call(wanted, seconds)

    def _call(self, request: Message, seconds: float) -> Message:
        metadata = (*self._authorization.metadata(), *route(session_of(request)))
        try:
            response: Message = method_for(self._stub, request)(
                request, timeout=seconds, metadata=metadata
            )
        except grpc.RpcError as error:
            raise from_call(error, self.target) from error
        return response


class Session(BaseSession):
    """One sequence in progress on the server. Made by `Client.create_session`."""

    def __init__(self, client: Client, model: Model, info: SessionInfo) -> None:
        super().__init__(model, info)
        self._client = client
        self._ask_once = partial(fenced, self)
        self._ask = (
            Recovery(self, client.retries, client.limits).ask if client.retries else self._ask_once
        )
        self._lock = threading.Lock()

    def step(
        self,
        inputs: npt.ArrayLike,
        traces: Sequence[str] = (),
        top_k: int = 0,
        *,
        timeout_seconds: float | None = None,
    ) -> StepResult:
        """
        Make steps: [steps, input_width] for several, [input_width] for one.

        Long inputs are sent in chunks. After a failure the chunks before it stay made, and
        `next_step` is the step to go on from.

        Args:
            inputs: The inputs of the steps.
            traces: Names of the traces wanted, among `model.traces`.
            top_k: For weightings, how many of the largest elements to fetch; 0 for all.
            timeout_seconds: Seconds that each attempt at a chunk may take; the client's without.

        Raises:
            NotResumable: the session has lost steps, and cannot be brought back from here.
            Diverged: steps that were lost and made again gave other outputs.
        """
        with self._lock:
            stepping = procedures.step(self._ask, self, inputs, traces, top_k, self._client.limits)
            return self._client.run(stepping, timeout_seconds)

    def reset(self) -> None:
        """Set the session back to the model's initial state, at step 0."""
        with self._lock:
            self._client.run(procedures.reset(self._ask, self))

    def checkpoint(self) -> bytes:
        """
        The session's state at its next step, to go on from now or later, on any server.

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
        """The session as the server has it; sets `next_step` to the server's."""
        with self._lock:
            return self._client.run(procedures.describe(self._ask, self))

    def read_memory(self) -> Memory:
        """The memory and the weightings as they are after the last step."""
        with self._lock:
            return self._client.run(procedures.read_memory(self._ask, self))

    def delete(self) -> None:
        """Close the session; the server frees its state."""
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
            with suppress(SessionGone):
                self.delete()
            return
        # What went wrong inside the block says more than that it could not be tidied up, and has
        # been waited for long enough.
        with suppress(NtmClientError):
            self._client.run(procedures.delete(self._ask_once, self))
