"""Brings a session back after the loss of a server, an answer or a connection."""

from __future__ import annotations

import logging
import secrets
from contextlib import suppress
from functools import partial
from typing import Any

from google.protobuf.message import Message

from ntm.v1 import ntm_pb2 as pb
from ntm_client.chunks import OwnLimits, Selection, steps_per_chunk
from ntm_client.errors import (
    Diverged,
    NotResumable,
    NtmClientError,
    SessionDeleted,
    SessionExists,
    SessionExpired,
    SessionGone,
    SessionUnknown,
    StepIndexMismatch,
)
from ntm_client.fencing import learn, mark
from ntm_client.history import History, checks_of
from ntm_client.procedures import BaseSession, Procedure, have_changed
from ntm_client.retries import Outage, Retries

log = logging.getLogger(__name__)


class Recovery:
    """
    Gets a session's requests answered even if servers are lost, by making lost steps again.

    A session belongs to one client at a time. If another client sets the session back, this client
    treats its steps as lost and makes them again. Calls that change the session must not overlap.
    """

    def __init__(self, session: BaseSession, retries: Retries, own: OwnLimits) -> None:
        model, resume = session.model, retries.resume
        self._session = session
        self._retries = retries
        self._history = History(
            session.next_step, model.input_record.itemsize, resume.max_kept_bytes
        )
        self._untraced = Selection.of(model, (), session.locations, 0)
        self._own = own
        self._first_step = session.next_step
        self._diverged: Diverged | None = None

    def ask(self, request: Message) -> Procedure[Any]:
        """
        Return the response to a request about the session, as if nothing had been lost.

        Raises the errors of the server, and:
            NotResumable: the session lost steps whose inputs are not kept, or an answer was lost
                that cannot be asked for again.
            Diverged: steps made again gave other outputs than the first time.
            NtmClientError: all attempts failed; this is the last failure.
        """
        if self._history.end != self._session.next_step:
            self._restart(self._session.next_step)
        if not isinstance(request, pb.StepRequest):  # a call may have many chunks
            self._session.is_interruption_logged = False
        outage = self._retries.outage()
        match request:
            case pb.StepRequest():
                response = yield from self._step(request, outage)
            case pb.ResetSessionRequest() | pb.RestoreSessionRequest():
                response = yield from self._set_back(request, outage)
            case pb.DeleteSessionRequest():
                response = yield from self._delete(request, outage)
            case _:
                response = yield from self._in_place(request, outage)
        if outage.last is not None:
            self._resumed(outage)
        return response

    def _step(self, request: pb.StepRequest, outage: Outage) -> Procedure[Any]:
        """Answer a chunk, after bringing the session to the chunk's first step."""
        if self._diverged is not None:
            raise self._diverged
        while True:
            try:
                response = yield from self._retried(request, outage)
            except StepIndexMismatch as error:
                if error.expected >= self._session.next_step:
                    raise self._ahead(error) if outage.last else error from None
                self._fell_back(error, outage)
                yield from self._replay(error.expected, outage)
            else:
                self._keep(request.chunk, response.reply)
                return response

    def _replay(self, step: int, outage: Outage) -> Procedure[None]:
        """Make the kept steps from `step` on again."""
        end = self._session.next_step
        while step < end:
            limits = self._session.limits
            at_once = steps_per_chunk(self._session.model, self._untraced, self._own, limits)
            inputs = self._history.inputs(step, at_once)
            chunk = pb.Chunk(session_id=self._session.id, first_step=step, inputs=inputs)
            try:
                response = yield from self._retried(pb.StepRequest(chunk=chunk), outage)
            except StepIndexMismatch as error:
                self._fell_back(error, outage)
                step = error.expected
            except NtmClientError as error:
                ask = partial(self._retried, outage=outage)
                if not (yield from have_changed(ask, self._session, limits, error)):
                    raise
            else:
                self._compare(step, response.reply)
                self._session.replayed_steps += response.reply.next_step - step
                step = response.reply.next_step
                self._session.durable_step = response.reply.durable_step
                self._history.forget(response.reply.durable_step)

    def _in_place(self, request: Any, outage: Outage) -> Procedure[Any]:
        """
        Answer a request that reads the session at its next step, after bringing it to that step.
        """
        while True:
            try:
                response = yield from self._retried(request, outage)
            except (SessionExists, SessionGone) as taken:
                if outage.last is None or not _is_about_fork(taken, request):
                    raise
                # An answer was lost. Since then the fork was closed, or the session has lost steps
                # that the fork has.
                request = yield from self._another_fork(request, request.fork_id, outage)
                continue
            step = _next_step(response)
            if step >= self._session.next_step:
                return response
            if isinstance(request, pb.GetSessionRequest) and not self._history.covers(step):
                return response
            if isinstance(response, pb.ForkSessionResponse):
                request = yield from self._another_fork(request, response.session.id, outage)
            error = StepIndexMismatch(
                f"session {self._session.id} is at step {step}, not {self._session.next_step}",
                metadata={"expected": str(step)},
            )
            self._fell_back(error, outage)
            yield from self._replay(step, outage)

    def _another_fork(
        self, request: Any, fork_id: str, outage: Outage
    ) -> Procedure[pb.ForkSessionRequest]:
        """Delete a fork that is at a wrong step, and return a request for another one."""
        with suppress(SessionGone):
            yield from self._retried(pb.DeleteSessionRequest(session_id=fork_id), outage)
        return pb.ForkSessionRequest(session_id=request.session_id, fork_id=secrets.token_hex(16))

    def _set_back(self, request: Message, outage: Outage) -> Procedure[Any]:
        """Answer a request that gives the session another state, which may be done twice."""
        kept = self._history
        # Without an answer, the state before the kept steps is unknown.
        self._history = History(
            kept.end, self._session.model.input_record.itemsize, self._retries.resume.max_kept_bytes
        )
        try:
            response = yield from self._retried(request, outage)
        except NtmClientError as error:
            if error.code.name == "INVALID_ARGUMENT":
                self._history = kept
            raise
        self._restart(response.session.next_step)
        self._diverged = None
        return response

    def _delete(self, request: Message, outage: Outage) -> Procedure[Any]:
        """
        Answer the deletion. If its answer was lost, the session may be deleted already; a replica
        on which it slept can only tell that it is gone, and takes it for expired.
        """
        try:
            return (yield from self._retried(request, outage))
        except (SessionDeleted, SessionExpired, SessionUnknown):
            if outage.last is None:
                raise
            return pb.DeleteSessionResponse()

    def _retried(self, request: Message, outage: Outage) -> Procedure[Any]:
        while True:
            try:
                is_marked = mark(self._session, request)
                response = yield outage.attempt(request)
                if is_marked:
                    learn(self._session, response)
            except NtmClientError as error:
                outage.failed(error, request)
                self._interrupted(error)
            else:
                outage.answered()
                return response

    def _fell_back(self, error: StepIndexMismatch, outage: Outage) -> None:
        if error.expected < self._history.start:
            raise self._not_kept(error.expected) from None
        outage.plan(error)
        self._interrupted(error)

    def _keep(self, chunk: pb.Chunk, reply: pb.Reply) -> None:
        """
        Keep the inputs of steps that were made, unless they are durable or never become durable.
        """
        history = self._history
        if self._session.durability.policy == "none" or reply.durable_step >= reply.next_step:
            history.restart(reply.next_step)
            return
        had_dropped = history.dropped
        checks = checks_of(reply.outputs, self._session.model.output_record.itemsize)
        history.forget(reply.durable_step)
        if history.add(chunk.inputs, checks) and not had_dropped:
            log.warning(
                "session %s keeps the inputs from step %d on, for more would exceed "
                "max_kept_bytes (%d); it is durable to step %d only",
                self._session.id,
                history.start,
                self._retries.resume.max_kept_bytes,
                reply.durable_step,
            )

    def _restart(self, step: int) -> None:
        self._history.restart(step)
        self._first_step = step

    def _compare(self, step: int, reply: pb.Reply) -> None:
        if not self._retries.resume.check:
            return
        checks = checks_of(reply.outputs, self._session.model.output_record.itemsize)
        different = self._history.difference(step, checks)
        if different is not None:
            self._diverged = Diverged(
                f"session {self._session.id} was lost and its steps made again, and step "
                f"{different} gave other outputs than the first time: the replica computes "
                f"differently, or another client stepped the session; where such differences may "
                f"be, use Resume(check=False)",
                metadata={"step": str(different)},
            )
            raise self._diverged

    def _not_kept(self, step: int) -> NotResumable:
        session, history = self._session, self._history
        if session.durability.policy == "none":
            why = (
                "its durability is none; open sessions with durability asynchronous or synchronous"
            )
        elif step < self._first_step:
            why = "they were made before this client took the session up, or set it back"
        elif history.dropped:
            why = (
                f"they exceed max_kept_bytes ({self._retries.resume.max_kept_bytes}); set it "
                "higher, or every_steps of the session's durability lower"
            )
        else:
            why = f"the server reported that steps before {session.durable_step} are durable"
        return self._not_resumable(
            f"session {session.id} has lost the steps from {step} on, this client is at step "
            f"{session.next_step}, and inputs are kept from step {history.start} on only: {why}",
            step,
        )

    def _ahead(self, error: StepIndexMismatch) -> NotResumable:
        session = self._session
        return self._not_resumable(
            f"session {session.id} is at step {error.expected}, and the answer to the steps from "
            f"{session.next_step} on was lost; the server does not have it any more: send smaller "
            "chunks, or start the server with a larger --max-replay-bytes",
            error.expected,
        )

    def _not_resumable(self, message: str, expected: int) -> NotResumable:
        indices = {"expected": str(expected), "next_step": str(self._session.next_step)}
        return NotResumable(
            f"{message}. `describe` sets next_step to {expected}, to go on from there",
            metadata=indices,
        )

    def _interrupted(self, error: NtmClientError) -> None:
        self._session.last_interruption = error
        if not self._session.is_interruption_logged:
            self._session.is_interruption_logged = True
            log.warning(
                "session %s was interrupted at step %d and tries again for %g s: %s",
                self._session.id,
                self._session.next_step,
                self._retries.resume.seconds,
                error,
            )

    def _resumed(self, outage: Outage) -> None:
        self._session.resumptions += 1
        log.info(
            "session %s goes on at step %d after %d failures in %.1f s",
            self._session.id,
            self._session.next_step,
            outage.failures,
            outage.seconds,
        )


def _is_about_fork(error: NtmClientError, request: Any) -> bool:
    """Whether an error is about the fork that a request asks for, and not about its session."""
    return (
        isinstance(request, pb.ForkSessionRequest)
        and error.metadata.get("session") == request.fork_id
    )


def _next_step(response: Any) -> int:
    """The session's next step according to a response."""
    if isinstance(response, pb.ReadMemoryResponse):
        return response.next_step
    step: int = response.session.next_step
    return step
