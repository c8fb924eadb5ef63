"""
A small server for tests of the client: real gRPC, plain networks.

`sums` gives the sum of all inputs of its session so far, so that a step lost, made twice or made
out of order shows in every later output. `copy` remembers binary vectors and gives them back after
the delimiter, without an error, as a trained network does, but only as many as it has locations;
its heads move on by one location a step. `bare` is `sums` without a memory or traces.

It has a store that never fails, answers chunks sent again from a window, and forgets on `lose` what
is not stored, like a server that dies.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

import grpc
import numpy as np
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from ntm.v1 import ntm_pb2 as pb
from ntm.v1.ntm_pb2_grpc import NtmServiceServicer, add_NtmServiceServicer_to_server
from ntm_client.values import Float32
from tests.support.fake_session import FakeSession, key

T = TypeVar("T")

CANCELLED, NOT_FOUND, INVALID_ARGUMENT = 1, 5, 3
ABORTED, DATA_LOSS, UNAVAILABLE = 10, 15, 14
PAGE = 2
WINDOW = 4
"""Chunks of a session that are answered again."""


def _model(name: str, input_width: int, output_width: int, locations: int) -> pb.Model:
    traces = [
        pb.TraceTensor(name="read_weighting", heads=1, width=-1),
        pb.TraceTensor(name="write_weighting", heads=1, width=-1),
        pb.TraceTensor(name="add_vector", heads=1, width=output_width),
        pb.TraceTensor(name="read_vector", heads=1, width=output_width),
    ]
    return pb.Model(
        name=name,
        content_hash=f"hash of {name}",
        task="copy" if name == "copy" else "sums",
        architecture="ntm-lstm" if locations else "lstm",
        input_width=input_width,
        output_width=output_width,
        state=[pb.StateTensor(name="memory", shape=[3, -1])],
        traces=traces if locations else [],
        read_heads=1 if locations else 0,
        write_heads=1 if locations else 0,
        default_locations=locations,
        provider="CPUExecutionProvider",
    )


MODELS = {
    "bare": _model("bare", 3, 3, 0),
    "copy": _model("copy", 9, 8, 32),
    "sums": _model("sums", 3, 3, 8),
}


class Lost(Exception):
    """The answer is lost: the call or the stream ends as if the connection had."""


class Refused(Exception):
    """What the fake answers with: an Error of the API."""

    def __init__(self, error: pb.Error) -> None:
        """The error, as a stream would send it."""
        super().__init__(error.message)
        self.error = error


def refuse(code: int, reason: str, message: str = "refused", **metadata: str) -> Refused:
    """An answer with that code and reason."""
    return Refused(pb.Error(code=code, reason=reason, message=message, metadata=metadata))


class FakeServer(NtmServiceServicer):
    """The servicer, and what a test sets and looks at."""

    def __init__(self, replica: str = "") -> None:
        """A server of that name; without one it is of a release before servers had names."""
        self.replica = replica
        self.sessions: dict[str, FakeSession] = {}
        self.deleted: set[str] = set()
        self.failures: deque[Refused | None] = deque()
        """What the next chunks are answered with, before anything else; None for the usual."""
        self.asked: SimpleQueue[pb.Chunk] = SimpleQueue()
        """The chunks, as they arrive."""
        self.losses: deque[str] = deque()
        """For each next call or message whether it is lost `before` or `after` it is made."""
        self.routes: list[tuple[str, str]] = []
        """The method of each call, and the session that its metadata name."""
        self.window = WINDOW
        self.max_chunk_steps = 1024
        self.max_waiting_steps = 4096
        self.max_message_bytes = 4 << 20
        self.max_replay_bytes = 1 << 20
        self._lock = threading.Lock()  # chunks run one after another, those sent again as well
        self.chunks: list[pb.Chunk] = []
        """Every chunk that arrived."""
        self.message_sizes: list[int] = []
        """How many operations each message of a stream had."""
        self.received = threading.Event()
        """Set when a message of a stream has arrived."""
        self.released = threading.Event()
        """No chunk and no operation of a stream is answered before this is set."""
        self.released.set()
        self.patience = 60.0
        """It answers after so many seconds in any case."""
        self.abort_streams = False
        """Whether a stream fails instead of answering."""
        self.abort_code = grpc.StatusCode.INTERNAL
        """How it fails then."""
        self.end_streams = False
        """Whether a stream ends instead of answering."""
        self.token = ""
        """The only token that calls may have; any or none if it is empty."""
        self.cancelled: list[int] = []
        """The tags of the chunks that were cancelled on streams."""
        self.ended = 0
        """How many streams are over."""
        self.arrived: list[pb.Chunk] = []
        """The chunks of streams, as they arrive."""
        self.unanswered = self.most_unanswered = 0
        """The chunks of streams that are not answered yet: now, and at most so far."""
        self._held: set[str] = set()
        self._let_go = threading.Condition()
        self._streams: list[SimpleQueue[pb.StreamStepsRequest | None]] = []

    def hold(self, *session_ids: str) -> None:
        """Answer no chunk of these sessions, until they are let go."""
        self._held.update(session_ids)

    def let_go(self) -> None:
        """Answer all chunks that were held."""
        with self._let_go:
            self._held.clear()
            self._let_go.notify_all()
        for stream in self._streams:
            stream.put(pb.StreamStepsRequest())

    def calls(self, method: str) -> int:
        """How many calls of that method there were."""
        return [name for name, _ in self.routes].count(method)

    def open(self, request: pb.CreateSessionRequest) -> pb.Session:
        """A new session, its id being its number unless the request has one; or that one again."""
        if request.model not in MODELS:
            raise refuse(NOT_FOUND, "MODEL_UNKNOWN", f"no model {request.model!r}")
        if request.session_id in {*self.sessions, *self.deleted}:
            return self.find(request.session_id).description
        model = MODELS[request.model]
        session = pb.Session(
            id=request.session_id or f"{len(self.sessions) + len(self.deleted):032x}",
            model=model.name,
            content_hash=model.content_hash,
            locations=request.locations or model.default_locations,
            idle_timeout=request.idle_timeout,
            state_bytes=1000,
            durability=request.durability,
            replica=self.replica,
        )
        session.expire_time.FromSeconds(100)
        session.limits.CopyFrom(self.limits())
        session.expires_in.FromSeconds(30)
        self.sessions[session.id] = FakeSession(session)
        return session

    def find(self, session_id: str) -> FakeSession:
        """The open session of that id."""
        if session_id in self.deleted:
            raise refuse(
                NOT_FOUND,
                "SESSION_DELETED",
                f"session {session_id} was deleted",
                session=session_id,
            )
        if session_id not in self.sessions:
            raise refuse(
                NOT_FOUND, "SESSION_UNKNOWN", f"no session {session_id}", session=session_id
            )
        session = self.sessions[session_id]
        session.description.next_step = len(session.inputs)
        session.description.limits.CopyFrom(self.limits())
        session.description.replica = self.replica
        return session

    def limits(self) -> pb.Limits:
        """What it takes now."""
        return pb.Limits(
            max_chunk_steps=self.max_chunk_steps,
            max_waiting_steps=self.max_waiting_steps,
            max_message_bytes=self.max_message_bytes,
            max_reply_bytes=self.max_message_bytes,
            max_replay_bytes=self.max_replay_bytes if self.replica else 0,
        )

    def close(self, session_id: str) -> None:
        """Delete the session."""
        self.find(session_id)
        del self.sessions[session_id]
        self.deleted.add(session_id)

    def step(self, chunk: pb.Chunk) -> pb.Reply:
        """Make the steps of a chunk."""
        with self._lock:
            return self._step(chunk)

    def _step(self, chunk: pb.Chunk) -> pb.Reply:
        self.chunks.append(chunk)
        failure = self.failures.popleft() if self.failures else None
        if failure is not None:
            raise failure
        session = self.find(chunk.session_id)
        first = len(session.inputs)
        if again := session.answered.get(key(chunk)):
            return again
        if chunk.HasField("first_step") and chunk.first_step != first:
            raise refuse(ABORTED, "STEP_INDEX_MISMATCH", "not the next step", expected=str(first))
        width = MODELS[session.description.model].input_width
        inputs = np.frombuffer(chunk.inputs, "<f4").reshape(-1, width)
        if len(inputs) > self.max_chunk_steps:
            raise refuse(INVALID_ARGUMENT, "INVALID_REQUEST", "too many", limit="max_chunk_steps")
        made = [session.step(values) for values in inputs]
        reply = pb.Reply(
            session_id=chunk.session_id,
            first_step=first,
            next_step=len(session.inputs),
            outputs=np.stack([outputs for outputs, _ in made]).astype("<f4").tobytes(),
            traces=[
                _trace(name, np.stack([traces[name] for _, traces in made]), chunk.traces.top_k)
                for name in chunk.traces.names
            ],
        )
        session.answer(chunk, reply, self.window)
        return reply

    def lose(self) -> None:
        """Forget all that is not stored, as a server that dies."""
        for session in self.sessions.values():
            session.lose()

    def losing(self, make: Callable[[], T]) -> T:
        """What is made, unless it, or its answer, is to be lost."""
        loss = self.losses.popleft() if self.losses else ""
        if loss == "before":
            raise Lost
        made = make()
        if loss == "after":
            raise Lost
        return made

    def perform(self, operation: pb.Operation) -> pb.Outcome:
        """What one operation of a stream leads to."""
        tag = operation.tag
        try:
            match operation.WhichOneof("kind"):
                case "open":
                    return pb.Outcome(tag=tag, opened=self.open(operation.open))
                case "step":
                    return pb.Outcome(tag=tag, reply=self.step(operation.step))
                case "close":
                    self.close(operation.close)
                    return pb.Outcome(tag=tag, closed=operation.close)
                case "cancel" if self.replica:
                    return pb.Outcome(tag=tag, cancelled=operation.cancel)
                case _:
                    raise refuse(INVALID_ARGUMENT, "INVALID_REQUEST", "it asks for nothing")
        except Refused as refused:
            return pb.Outcome(tag=tag, error=refused.error)

    def answer(self, request: Message) -> Message:
        """What a unary call answers."""
        match request:
            case pb.ListModelsRequest():
                return pb.ListModelsResponse(models=MODELS.values())
            case pb.GetModelRequest():
                if request.name not in MODELS:
                    raise refuse(NOT_FOUND, "MODEL_UNKNOWN", f"no model {request.name!r}")
                return pb.GetModelResponse(model=MODELS[request.name])
            case pb.CreateSessionRequest():
                return pb.CreateSessionResponse(session=self.open(request))
            case pb.GetSessionRequest():
                session = self.find(request.session_id)
                return pb.GetSessionResponse(session=session.description)
            case pb.ListSessionsRequest():
                return self._page(int(request.page_token or 0))
            case pb.ResetSessionRequest():
                session = self.find(request.session_id)
                session.set_back(0)
                return pb.ResetSessionResponse(session=session.description)
            case pb.CheckpointSessionRequest():
                description = self.find(request.session_id).description
                checkpoint = str(description.next_step).encode()
                return pb.CheckpointSessionResponse(session=description, checkpoint=checkpoint)
            case pb.RestoreSessionRequest():
                session = self.find(request.session_id)
                if not request.checkpoint:
                    raise refuse(INVALID_ARGUMENT, "CHECKPOINT_DAMAGED", "damaged")
                session.set_back(int(request.checkpoint))
                return pb.RestoreSessionResponse(session=session.description)
            case pb.ForkSessionRequest():
                return self._fork(self.find(request.session_id), request.fork_id)
            case pb.DeleteSessionRequest():
                self.close(request.session_id)
                return pb.DeleteSessionResponse()
            case pb.ReadMemoryRequest():
                return self._memory(request.session_id)
            case pb.StepRequest():
                self.asked.put(request.chunk)
                self.released.wait(self.patience)
                with self._let_go:
                    self._let_go.wait_for(
                        lambda: request.chunk.session_id not in self._held, self.patience
                    )
                return pb.StepResponse(reply=self.step(request.chunk), replica=self.replica)
        raise NotImplementedError(type(request))

    def StreamSteps(  # noqa: N802 - named by the API
        self, request_iterator: Iterator[pb.StreamStepsRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.StreamStepsResponse]:
        """Answer message by message, in order, but for sessions that are held."""
        self.routes.append(("StreamSteps", _session_of(context)))
        _check_token(self, context)
        requests: SimpleQueue[pb.StreamStepsRequest | None] = SimpleQueue()
        cancelled: set[int] = set()
        self._streams.append(requests)
        threading.Thread(target=self._read, args=(request_iterator, requests, cancelled)).start()
        held: list[pb.Operation] = []
        replica = self.replica
        is_over = False
        while held or not is_over:
            request = requests.get()
            is_over = is_over or request is None
            self.released.wait(self.patience)
            if not context.is_active():
                return
            operations = [*held, *(request.operations if request else ())]
            held = [one for one in operations if self._is_held(one) and one.tag not in cancelled]
            ready = [one for one in operations if one not in held]
            if not ready:
                continue
            if self.abort_streams:
                context.abort(self.abort_code, "the fake broke the stream")
            if self.end_streams:
                return
            try:
                outcomes = self.losing(lambda: self._outcomes(ready, cancelled))  # noqa: B023 - called at once
            except Lost:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was lost")
            with self._lock:
                self.unanswered -= sum(one.HasField("step") for one in ready)
            yield pb.StreamStepsResponse(outcomes=outcomes, replica=replica)
            replica = ""

    def _read(
        self,
        arriving: Iterator[pb.StreamStepsRequest],
        requests: SimpleQueue[pb.StreamStepsRequest | None],
        cancelled: set[int],
    ) -> None:
        with suppress(Exception):  # gRPC raises it where a call ends
            for request in arriving:
                self.message_sizes.append(len(request.operations))
                chunks = [one.step for one in request.operations if one.HasField("step")]
                self.arrived += chunks
                for chunk in chunks:
                    self.asked.put(chunk)
                with self._lock:
                    self.unanswered += len(chunks)
                    self.most_unanswered = max(self.most_unanswered, self.unanswered)
                gone = [one.cancel for one in request.operations if one.HasField("cancel")]
                cancelled.update(gone)
                requests.put(request)
                self.cancelled += gone
                self.received.set()
        requests.put(None)
        self.ended += 1

    def _is_held(self, operation: pb.Operation) -> bool:
        return operation.step.session_id in self._held

    def _outcomes(
        self, operations: Sequence[pb.Operation], cancelled: set[int]
    ) -> list[pb.Outcome]:
        dropped = pb.Error(code=CANCELLED, reason="CANCELLED", message="cancelled")
        return [
            pb.Outcome(tag=one.tag, error=dropped)
            if one.tag in cancelled and self.replica
            else self.perform(one)
            for one in operations
        ]

    def _fork(self, session: FakeSession, fork_id: str) -> pb.ForkSessionResponse:
        is_new = fork_id not in {*self.sessions, *self.deleted}
        fork = self.open(
            pb.CreateSessionRequest(model=session.description.model, session_id=fork_id)
        )
        if is_new:
            self.sessions[fork.id].inputs = list(session.inputs)
            self.sessions[fork.id].stored = list(session.inputs)
        if len(self.sessions[fork.id].inputs) != len(session.inputs):
            raise refuse(6, "SESSION_EXISTS", "the id is taken", session=fork_id)
        return pb.ForkSessionResponse(session=self.find(fork.id).description)

    def _page(self, start: int) -> pb.ListSessionsResponse:
        found = [self.find(session_id).description for session_id in self.sessions]
        more = start + PAGE < len(found)
        return pb.ListSessionsResponse(
            sessions=found[start : start + PAGE], next_page_token=str(start + PAGE) if more else ""
        )

    def _memory(self, session_id: str) -> pb.ReadMemoryResponse:
        session = self.find(session_id)
        locations = session.description.locations
        if not locations:
            raise refuse(9, "NO_MEMORY", "the model has no memory")
        return pb.ReadMemoryResponse(
            session_id=session_id,
            next_step=len(session.inputs),
            locations=locations,
            width=2,
            memory=np.arange(locations * 2, dtype="<f4").tobytes(),
            read_weightings=np.eye(1, locations, dtype="<f4").tobytes(),
            write_weightings=np.eye(1, locations, 1, dtype="<f4").tobytes(),
        )


def _trace(name: str, values: Float32, top_k: int) -> pb.Trace:
    locations = b""
    if top_k and name.endswith("weighting"):
        order = np.argsort(-values, axis=-1, kind="stable")[..., :top_k]
        values = np.take_along_axis(values, order, axis=-1)
        locations = order.astype("<u4").tobytes()
    _, heads, width = values.shape
    data = values.astype("<f4").tobytes()
    return pb.Trace(name=name, heads=heads, width=width, values=data, locations=locations)


def _session_of(context: grpc.ServicerContext) -> str:
    return str(dict(context.invocation_metadata()).get("x-session-id", ""))


def _check_token(fake: FakeServer, context: grpc.ServicerContext) -> None:
    sent = dict(context.invocation_metadata()).get("authorization", "")
    if fake.token and sent != f"Bearer {fake.token}":
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "no valid token")


def _unary(fake: FakeServer, request: Message, context: grpc.ServicerContext) -> Message:
    fake.routes.append((type(request).__name__.removesuffix("Request"), _session_of(context)))
    _check_token(fake, context)
    try:
        return fake.losing(lambda: fake.answer(request))
    except Lost:
        context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was lost")
    except Refused as refused:
        error = refused.error
        details = [error_details_pb2.ErrorInfo(reason=error.reason, metadata=dict(error.metadata))]
        if error.HasField("retry_delay"):
            details.append(error_details_pb2.RetryInfo(retry_delay=error.retry_delay))
        status = status_pb2.Status(code=error.code, message=error.message)
        for detail in details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        codes = {code.value[0]: code for code in grpc.StatusCode}
        context.abort(codes[error.code], error.message)


for _method in pb.DESCRIPTOR.services_by_name["NtmService"].methods:
    if _method.name != "StreamSteps":
        setattr(FakeServer, _method.name, _unary)


class Balancer(NtmServiceServicer):
    """Replicas behind one address: it sends each session to one of them, in turns."""

    def __init__(self, *replicas: FakeServer) -> None:
        """Nothing is known of any session yet."""
        self.replicas = replicas
        self.of: dict[str, FakeServer] = {}
        """The replica of each session that calls named."""
        self.of_streams: FakeServer | None = None
        """The replica that gets all streams, whatever session they name."""

    def pick(self, method: str, context: grpc.ServicerContext) -> FakeServer:
        """The replica for a call."""
        if method == "StreamSteps" and self.of_streams is not None:
            return self.of_streams
        session = _session_of(context)
        if session not in self.of:
            self.of[session] = self.replicas[len(self.of) % len(self.replicas)]
        return self.of[session]


def _balanced(method: str) -> Callable[..., Any]:
    def call(balancer: Balancer, request: Any, context: grpc.ServicerContext) -> Any:
        return getattr(balancer.pick(method, context), method)(request, context)

    return call


for _method in pb.DESCRIPTOR.services_by_name["NtmService"].methods:
    setattr(Balancer, _method.name, _balanced(_method.name))


def serve(servicer: NtmServiceServicer, address: str) -> Callable[[], None]:
    """Start a server with that servicer; what is returned stops it, threads included."""
    threads = ThreadPoolExecutor(32)
    server = grpc.server(threads)
    add_NtmServiceServicer_to_server(servicer, server)
    server.add_insecure_port(address)
    server.start()

    def stop() -> None:
        server.stop(None).wait()
        threads.shutdown()

    return stop
