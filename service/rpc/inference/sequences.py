"""Sequences of the protocol: each is a session, whose id is derived from the sequence's."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from ntm.v1 import ntm_pb2
from service.auth.principal import Principal
from service.engine.sessions import Operation, Session
from service.engine.work import Chunk, Work
from service.errors import (
    InvalidRequest,
    NtmError,
    SessionDeleted,
    SessionExpired,
    SessionMoved,
    SessionUnknown,
)
from service.rpc.calls import Calls
from service.rpc.inference.requests import Asked
from service.session_ref import SessionRef

SERVICE = "inference.GRPCInferenceService"

MAX_SESSION_IDS = 65_536
"""The number of ids that are kept, since each is needed at every step."""

_WHY: dict[type[NtmError], str] = {
    SessionUnknown: "there is no such sequence here",
    SessionDeleted: "the sequence has ended",
    SessionExpired: "the sequence had no request for its idle timeout",
}


def session_id(model: str, sequence: int | str, principal: Principal) -> str:
    """
    The id of a sequence's session.

    Ids of sequences are short and can be guessed. So the session's id depends on who asks: with
    authentication, equal ids of two principals are two sequences. Without, everybody who names a
    sequence means the same one, as with Triton.
    """
    return _session_id(model, sequence, principal.name if principal.is_authenticated else None)


@lru_cache(MAX_SESSION_IDS)
def _session_id(model: str, sequence: int | str, owner: str | None) -> str:
    name = json.dumps([SERVICE, owner, model, sequence])
    return hashlib.sha256(name.encode()).hexdigest()[:32]


class Sequences:
    """
    Makes the steps of sequences in the order in which their requests came.

    The engine keeps the order of a session's chunks. Where the start of a sequence or its end has
    to wait for something, such as the store, what comes after it waits until it is done.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._last: dict[str, asyncio.Future[Any]] = {}
        """By session, the last request that others have to wait for."""

    def at_once(self, session: str, asked: Asked, principal: Principal) -> Chunk | None:
        """
        The chunk of a request that can be submitted now; None for one that has to go `in_turn`.
        If the sequence ends, submit what `closing` gives behind the chunk.

        A sequence that starts is opened by this. Raises the errors of opening it.
        """
        form = asked.form
        if session in self._last or (form.is_end and self._calls.has_store):
            return None
        ref = SessionRef(session, principal.caller, form.epoch)
        if form.is_start:
            if not self._calls.open_again_at_once(_opening(session, asked), principal):
                return None
            ref = ref._replace(epoch=0)  # that of the sequence before
        return _chunk(asked, ref)

    def closing(self, chunk: Chunk, answered: Callable[[Chunk], object]) -> Work:
        """
        The work that closes a session behind its last chunk, if that is made. `answered` is called
        with the chunk when both are done.
        """
        session = chunk.ref.id
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._last[session] = done

        def close(there: Session) -> None:
            if chunk.outcome is not None:
                self._calls.lifecycle.close(there)

        def closed(work: Work) -> None:
            self._ended(session, done)
            done.set_result(None)
            chunk.error = chunk.error or work.error
            answered(chunk)

        closing = Operation(chunk.ref, close)
        closing.answered = closed
        return closing

    def in_turn(self, session: str, asked: Asked, principal: Principal) -> asyncio.Task[Chunk]:
        """
        Make the steps of a request after those of the sequence's earlier requests; the result is
        the chunk with its outcome.
        """
        made = self._made(self._last.get(session), session, asked, principal)
        task = self._last[session] = asyncio.create_task(made)
        task.add_done_callback(partial(self._ended, session))
        return task

    def _ended(self, session: str, request: asyncio.Future[Any]) -> None:
        if self._last.get(session) is request:
            del self._last[session]

    async def _made(
        self,
        before: asyncio.Future[Any] | None,
        session: str,
        asked: Asked,
        principal: Principal,
    ) -> Chunk:
        if before is not None:
            await asyncio.wait([before])
        ref = SessionRef(session, principal.caller, asked.form.epoch)
        if asked.form.is_start:
            await self._calls.open_again(_opening(session, asked), principal)
            ref = ref._replace(epoch=0)  # that of the sequence before
        chunk = _chunk(asked, ref)
        try:
            await self._calls.made(chunk)
        except SessionMoved:  # this replica's copy was old; now it claims the session
            chunk = _chunk(asked, ref)
            await self._calls.made(chunk)
        if asked.form.is_end:
            await self._calls.delete(ref)
        return chunk


def refusal(error: BaseException, asked: Asked) -> BaseException:
    """An error in the words of the protocol, as far as clients of Triton know it."""
    why = _WHY.get(type(error)) if isinstance(error, NtmError) else None
    if why is None:
        return error
    sequence = repr(asked.sequence) if isinstance(asked.sequence, str) else asked.sequence
    return InvalidRequest(
        f"inference request for sequence {sequence} to model {asked.form.model!r} must specify the "
        f"START flag on the first request of the sequence: {why}"
    )


def _opening(session: str, asked: Asked) -> ntm_pb2.CreateSessionRequest:
    """What opens the session of a sequence that starts."""
    initial = [ntm_pb2.TensorValue(name=name, data=data) for name, data in asked.initial.items()]
    return ntm_pb2.CreateSessionRequest(
        model=asked.form.model,
        content_hash=asked.form.version.content_hash,
        session_id=session,
        locations=asked.form.locations,
        initial=initial,
    )


def _chunk(asked: Asked, ref: SessionRef) -> Chunk:
    return Chunk(ref, asked.inputs, asked.first_step, asked.form.selection)
