"""
The logic of the client's calls, shared by the blocking and the asynchronous client.

A procedure is a generator. It yields the requests to make, receives their responses or errors, and
returns the result. It does no I/O: the client that runs it makes the calls.

A procedure hands each request to its `Ask`, which yields it as often as needed and returns the
response: `once` makes one attempt, `Retries.ask` several, and `Recovery.ask` also brings back a
session that was lost in between.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from google.protobuf.message import Message

from ntm.tensors import Array
from ntm.v1 import ntm_pb2 as pb
from ntm_client import arguments
from ntm_client.chunks import (
    OwnLimits,
    Plan,
    Selection,
    join,
    only_step,
)
from ntm_client.conversion import (
    Inputs,
    as_steps,
    by_name,
    durability_message,
    encode_initial,
    memory_from,
    model_from,
    result_from,
    session_from,
)
from ntm_client.errors import InvalidArgument, InvalidRequest, NtmClientError
from ntm_client.values import Durability, Limits, Memory, Model, SessionInfo, StepResult

T = TypeVar("T")


@dataclass(frozen=True)
class Attempt:
    """A request to make after a pause, with a limit on its time."""

    request: Message
    delay_seconds: float
    max_seconds: float


@dataclass(frozen=True)
class Ahead:
    """
    All chunks that a procedure asks for next, one after another. They may be sent before, so that
    the server does not wait for the client. There is no response to this itself.
    """

    requests: tuple[pb.StepRequest, ...]


# No annotation of a generator can connect the type of a response with that of its request.
Procedure = Generator[Message | Attempt | Ahead, Any, T]

Ask = Callable[[Message], Procedure[Any]]
"""The way in which a procedure gets the response to a request."""

PAGE_SIZE = 1000

_CHUNK_LIMITS = ("max_chunk_steps", "max_waiting_steps", "max_message_bytes")
"""The settings of a server that limit chunks, as the metadata of a refusal name them."""


class BaseSession:
    """A client's copy of its session's state. `next_step` advances with every chunk answered."""

    def __init__(self, model: Model, info: SessionInfo) -> None:
        self.id = info.id
        self.model = model
        self.locations = info.locations
        self.next_step = info.next_step
        self.durability = info.durability
        self.durable_step = info.durable_step
        """Steps before this one were in the server's store at its last reply."""
        self.epoch = info.epoch
        """The latest epoch that a replica sent; see `ntm_client.fencing`."""
        self.limits = info.limits
        """What the replica that described the session last takes."""
        self.replica = info.replica
        """The replica that answered last; empty if its release is too old to say."""
        self.routed_seconds = time.monotonic()
        """When a call about the session was made last that balancers routed by its own id."""
        self.plan: Plan | None = None
        """How the last steps were put into chunks."""
        self.limits_replica = info.replica
        """The replica that has these limits."""
        self.resumptions = 0
        """The number of calls on the session that were interrupted and then went on."""
        self.replayed_steps = 0
        """The number of steps that were made again after a loss."""
        self.last_interruption: NtmClientError | None = None
        """The error of the last interruption; None if there was none."""
        self.is_interruption_logged = False
        """Whether the log has an interruption of the call under way, and needs no further one."""

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.id} of {self.model.name}, "
            f"{self.locations} locations, next step {self.next_step}>"
        )


def once(request: Message) -> Procedure[Any]:
    """Make one attempt at a request, and return the response."""
    return (yield request)


def list_models(ask: Ask) -> Procedure[list[Model]]:
    """List all models in order of name."""
    response: pb.ListModelsResponse = yield from ask(pb.ListModelsRequest())
    return [model_from(model) for model in response.models]


def get_model(ask: Ask, name: str, content_hash: str = "") -> Procedure[Model]:
    """Get the model with this name: the version with this hash, or the one for new sessions."""
    arguments.text("the name of a model", name, "text, such as 'copy-ntm-lstm'")
    request = pb.GetModelRequest(name=name, content_hash=content_hash)
    response: pb.GetModelResponse = yield from ask(request)
    return model_from(response.model)


def create_session(
    ask: Ask,
    model: str,
    locations: int | None,
    idle_timeout: timedelta | None,
    checkpoint: bytes | None,
    durability: Durability | None,
    content_hash: str,
    known: dict[str, Model],
    initial: Mapping[str, Any] | None = None,
) -> Procedure[tuple[Model, SessionInfo]]:
    """
    Open a session; return it and its model, which is taken from `known` or added to it.

    The session's id is drawn here. So load balancers see it from the first call on, and a repeated
    request opens no second session.
    """
    request = pb.CreateSessionRequest(
        model=arguments.text("model", model, "the name of a model, such as 'copy-ntm-lstm'"),
        content_hash=arguments.text(
            "content_hash", content_hash, "text, from Model.versions", may_be_empty=True
        ),
        session_id=secrets.token_hex(16),
    )
    if locations is not None:
        request.locations = arguments.whole("locations", locations)
    if checkpoint is not None:
        request.checkpoint = arguments.data("checkpoint", checkpoint)
        if not checkpoint:
            raise InvalidArgument("checkpoint holds no bytes; leave it out for a new session")
    if idle_timeout is not None:
        request.idle_timeout.FromTimedelta(arguments.timeout("idle_timeout", idle_timeout))
    if durability is not None:
        needed = "a Durability, such as Durability('synchronous')"
        arguments.instance("durability", durability, Durability, needed)
        request.durability.CopyFrom(durability_message(durability))
    if locations is not None and not request.locations:
        # The server takes 0 for the default; that is what it means for a model without memory only.
        found = yield from get_model(ask, model, content_hash)
        arguments.whole("locations", locations, min(1, found.default_locations))
    if initial is not None:
        needed = "a dict of arrays by the name of the state tensor"
        if not isinstance(initial, Mapping):
            raise arguments.wrong("initial", needed, initial)
        request.initial.extend((yield from _initial(ask, request, initial)))
    response: pb.CreateSessionResponse = yield from ask(request)
    return (yield from _with_model(ask, response.session, known))


def _initial(
    ask: Ask, request: pb.CreateSessionRequest, initial: Mapping[str, Any]
) -> Procedure[list[pb.TensorValue]]:
    """The values that a session starts with, in the types and shapes of its model."""
    asked = pb.GetModelRequest(name=request.model, content_hash=request.content_hash)
    response: pb.GetModelResponse = yield from ask(asked)
    if not response.model.inputs:
        raise InvalidArgument("the server's release takes no initial values; leave them out")
    model = model_from(response.model)
    return encode_initial(initial, model, request.locations or model.default_locations)


def find_session(
    ask: Ask, session_id: str, known: dict[str, Model]
) -> Procedure[tuple[Model, SessionInfo]]:
    """Find a session; return it and its model, which is taken from `known` or added to it."""
    arguments.text("session_id", session_id, "the id of a session as text, such as session.id")
    response: pb.GetSessionResponse = yield from ask(pb.GetSessionRequest(session_id=session_id))
    return (yield from _with_model(ask, response.session, known))


def list_sessions(ask: Ask) -> Procedure[list[SessionInfo]]:
    """List the caller's sessions, from all pages."""
    sessions: list[SessionInfo] = []
    token = ""
    while True:
        request = pb.ListSessionsRequest(page_size=PAGE_SIZE, page_token=token)
        response: pb.ListSessionsResponse = yield from ask(request)
        sessions += [session_from(session) for session in response.sessions]
        token = response.next_page_token
        if not token:
            return sessions


def step(
    ask: Ask,
    session: BaseSession,
    inputs: Inputs,
    traces: Sequence[str],
    top_k: int,
    own: OwnLimits,
) -> Procedure[StepResult]:
    """Make steps chunk by chunk; `session.next_step` advances with each answer."""
    model = session.model
    steps, is_single = as_steps(inputs, model)
    results: list[StepResult] = []
    requests: deque[tuple[pb.StepRequest, int]] = deque()
    """The chunks that may be on their way, and their steps."""
    done = made = 0
    session.is_interruption_logged = False
    while done < len(steps):
        if session.limits_replica != session.replica and len(steps) > 1:
            # What is sent ahead has to be within the limits of the replica that it is sent to.
            yield from ask(pb.GetSessionRequest(session_id=session.id))
            requests.clear()
            made = done
        limits = session.limits
        plan = session.plan
        if plan is None or not plan.is_for(traces, top_k, limits):
            plan = Plan.of(model, traces, session.locations, top_k, own, limits)
            session.plan = plan
        while made < len(steps) and len(requests) < plan.at_once:
            some = steps[made : made + plan.steps]
            request = _step_request(session, session.next_step + made - done, some, plan.selection)
            requests.append((request, len(some)))
            made += len(some)
        if len(requests) > 1:
            yield Ahead(tuple(request for request, _ in requests))
        request, count = requests.popleft()
        try:
            response: pb.StepResponse = yield from ask(request)
        except NtmClientError as error:
            if (yield from have_changed(ask, session, limits, error)):
                requests.clear()
                made = done
                continue
            _count_from(done, error)
            if "next_step" in error.metadata and isinstance(error, InvalidRequest):
                session.next_step = int(error.metadata["next_step"])
            raise
        done += count
        session.next_step = response.reply.next_step
        session.durable_step = response.reply.durable_step
        results.append(result_from(response.reply, model))
    if not results:
        selection = Selection.of(model, traces, session.locations, top_k)
        return by_name(selection.empty(model, session.next_step), model)
    result = join(results)
    return by_name(only_step(result) if is_single else result, model)


def have_changed(
    ask: Ask, session: BaseSession, limits: Limits, error: NtmClientError
) -> Procedure[bool]:
    """
    Whether a chunk, made for these limits, was refused because the session is on a replica with
    others by now. `session.limits` then has those.
    """
    if error.metadata.get("limit") not in _CHUNK_LIMITS:
        return False
    # `fenced` takes the limits from the answer.
    yield from ask(pb.GetSessionRequest(session_id=session.id))
    return session.limits != limits


def _count_from(done: int, error: NtmClientError) -> None:
    """Name a value that was refused by its step in the inputs, since users know of no chunks."""
    if "channel" in error.metadata or {"step", "next_step"} <= error.metadata.keys():
        inside = error.metadata["step"]
        step = error.metadata["step"] = str(done + int(inside))
        error.message = error.message.replace(
            f"step {inside} of the chunk", f"step {step} of the inputs"
        )
        error.args = (error.message,)


def reset(ask: Ask, session: BaseSession) -> Procedure[None]:
    """Set the session back to its initial state."""
    request = pb.ResetSessionRequest(session_id=session.id)
    response: pb.ResetSessionResponse = yield from ask(request)
    _move(session, response.session)


def checkpoint(ask: Ask, session: BaseSession) -> Procedure[bytes]:
    """Get the session's state at its next step."""
    request = pb.CheckpointSessionRequest(session_id=session.id)
    response: pb.CheckpointSessionResponse = yield from ask(request)
    _move(session, response.session)
    return response.checkpoint


def restore(ask: Ask, session: BaseSession, checkpoint: bytes) -> Procedure[None]:
    """Set the session to a checkpoint."""
    taken = arguments.data("checkpoint", checkpoint)
    request = pb.RestoreSessionRequest(session_id=session.id, checkpoint=taken)
    response: pb.RestoreSessionResponse = yield from ask(request)
    _move(session, response.session)


def fork(ask: Ask, session: BaseSession) -> Procedure[SessionInfo]:
    """
    Open a new session with the state of this one. Its id is drawn here, so that a repeated request
    opens no second one.
    """
    request = pb.ForkSessionRequest(session_id=session.id, fork_id=secrets.token_hex(16))
    response: pb.ForkSessionResponse = yield from ask(request)
    return session_from(response.session)


def describe(ask: Ask, session: BaseSession) -> Procedure[SessionInfo]:
    """Get the session's description; `next_step` is set to the server's."""
    response: pb.GetSessionResponse = yield from ask(pb.GetSessionRequest(session_id=session.id))
    _move(session, response.session)
    return session_from(response.session)


def read_memory(ask: Ask, session: BaseSession) -> Procedure[Memory]:
    """Get the session's memory and weightings."""
    response: pb.ReadMemoryResponse = yield from ask(pb.ReadMemoryRequest(session_id=session.id))
    return memory_from(response)


def delete(ask: Ask, session: BaseSession) -> Procedure[None]:
    """Close the session."""
    yield from ask(pb.DeleteSessionRequest(session_id=session.id))


def _move(session: BaseSession, message: pb.Session) -> None:
    session.next_step = message.next_step
    session.durable_step = message.durable_step


def _with_model(
    ask: Ask, message: pb.Session, known: dict[str, Model]
) -> Procedure[tuple[Model, SessionInfo]]:
    # The key is the hash, not the name: a session stays on its version when the model gets a new
    # one.
    model = known.get(message.content_hash)
    if model is None:
        model = yield from get_model(ask, message.model, message.content_hash)
        known[model.content_hash] = model
    return model, session_from(message)


def _step_request(
    session: BaseSession, first_step: int, steps: Array, selection: Selection
) -> pb.StepRequest:
    request = pb.StepRequest()
    chunk = request.chunk
    chunk.session_id = session.id
    chunk.first_step = first_step
    chunk.inputs = steps.tobytes()
    chunk.epoch = session.epoch
    if selection.traces:
        chunk.traces.names.extend(trace.name for trace in selection.traces)
        chunk.traces.top_k = selection.top_k
    return request
