"""Between messages and what the engine works with: field by field, and there and back."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from prometheus_client import CollectorRegistry

from ntm.v1 import ntm_pb2 as pb
from service import codec
from service.engine.durability import Durability, Policy, SessionView, Snapshot, Stored
from service.engine.engine import Engine
from service.engine.lifecycle import Lifecycle
from service.engine.replays import Replay
from service.engine.work import NO_TRACES, Chunk, ChunkOutcome, Selection, TraceRows
from service.errors import CheckpointDamaged, InvalidRequest
from service.models.runtime import Network
from service.records.v1 import record_pb2
from service.session_ref import ANYBODY, SessionRef
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.conftest import Clock
from tests.support.driving import LEDGER, OWNER, chunk, engine, opened, stepped

VIEW = SessionView(
    id="ab" * 16,
    number=3,
    model="ledger",
    content_hash=LEDGER.content_hash,
    locations=5,
    idle_timeout_seconds=90.5,
    next_step=7,
    state_bytes=88,
    created_unix_seconds=1000.0,
    expires_unix_seconds=1090.5,
    durability=Durability(Policy.ASYNCHRONOUS, 4),
    durable_step=4,
    epoch=2,
)


def floats(*values: float) -> bytes:
    """Values as they travel."""
    return np.asarray(values, "<f4").tobytes()


def test_a_chunk_is_decoded_with_its_caller() -> None:
    """Its inputs are bytes until the engine has looked at them."""
    message = pb.Chunk(
        session_id="s",
        first_step=0,
        inputs=floats(1, 2, 3, 4),
        traces=pb.TraceSelection(names=["a", "b"], top_k=3),
        epoch=6,
    )
    found = codec.chunk(message, "token:alice")

    assert found.ref == SessionRef("s", "token:alice", 6)
    assert found.content == floats(1, 2, 3, 4)
    assert found.first_step == 0
    assert found.selection == Selection(("a", "b"), 3)
    assert found.error is None


def test_a_chunk_may_leave_its_index_and_its_traces_out() -> None:
    """No index is another thing than index 0."""
    found = codec.chunk(pb.Chunk(session_id="s", inputs=floats(1)), ANYBODY)

    assert found.first_step is None
    assert found.selection is NO_TRACES


def test_a_chunk_that_cannot_be_meant_comes_with_its_error() -> None:
    """A wrong chunk is decoded with its error, so that it is answered in its place."""
    message = pb.Chunk(traces=pb.TraceSelection(names=["a"] * 65))
    found = codec.chunk(message, ANYBODY)

    assert isinstance(found.error, InvalidRequest)
    assert "65 traces are selected; the limit is 64" in str(found.error)


def test_a_reply_has_outputs_and_traces_as_bytes(network: Network, clock: Clock) -> None:
    """A reply has outputs and traces as bytes, and its size is that of both."""
    ledgers = engine(network, clock)
    session = opened(ledgers, 4)
    work = chunk(session, [[1, 2], [3, 4]], 0, ("write_weighting", "add_vector"), top_k=1)
    stepped(ledgers, work)
    message = pb.Reply()
    size = codec.write_reply(work, message)

    assert (message.session_id, message.first_step, message.next_step) == (session.id, 0, 2)
    assert message.outputs == floats(1, 2, 4, 6)
    weighting, added = message.traces
    assert (weighting.name, weighting.heads, weighting.width) == ("write_weighting", 1, 1)
    assert weighting.values == floats(1, 1)
    assert np.frombuffer(weighting.locations, "<u4").tolist() == [1, 2]
    assert added.values == floats(1, 2, 3, 4)
    assert size == 16 + (8 + 8) + 16


def test_a_session_is_described_with_its_times() -> None:
    """Seconds become durations and times of day."""
    message = codec.session(VIEW)

    assert (message.id, message.model, message.locations) == (VIEW.id, "ledger", 5)
    assert message.idle_timeout.ToMilliseconds() == 90_500
    assert message.create_time.ToMilliseconds() == 1_000_000
    assert message.expire_time.ToMilliseconds() == 1_090_500
    assert message.durability == pb.Durability(
        policy=pb.Durability.POLICY_ASYNCHRONOUS, every_steps=4
    )
    assert (message.next_step, message.durable_step, message.epoch) == (7, 4, 2)


def test_a_session_is_described_with_the_time_that_is_left_by_the_servers_clock() -> None:
    """A client need not compare its own clock with the server's. No time is left after expiry."""
    left = codec.session(replace(VIEW, expires_unix_seconds=time.time() + 10_000)).expires_in

    assert 9_000 < left.ToTimedelta().total_seconds() <= 10_000
    assert codec.session(VIEW).expires_in == Duration()


@pytest.mark.parametrize(
    ("fields", "is_as_asked"),
    [
        ({}, True),
        ({"locations": 5, "content_hash": LEDGER.content_hash}, True),
        ({"locations": 6}, False),
        ({"content_hash": "cd" * 32}, False),
        ({"model": "other"}, False),
        ({"idle_timeout": Duration(seconds=90, nanos=500_000_001)}, True),
        ({"idle_timeout": Duration(seconds=91)}, False),
        ({"durability": pb.Durability(policy=pb.Durability.POLICY_ASYNCHRONOUS)}, True),
        (
            {"durability": pb.Durability(policy=pb.Durability.POLICY_ASYNCHRONOUS, every_steps=5)},
            False,
        ),
        ({"durability": pb.Durability(policy=pb.Durability.POLICY_SYNCHRONOUS)}, False),
    ],
)
def test_a_session_is_as_asked_if_it_has_all_that_is_set(
    fields: dict[str, Any], is_as_asked: bool
) -> None:
    """What a request leaves out fits any session."""
    request = pb.CreateSessionRequest(**{"model": "ledger", **fields})
    assert codec.is_as_asked(VIEW, request) == is_as_asked


def test_an_idle_timeout_of_zero_is_not_the_default() -> None:
    """It is refused later; the default is for requests that have none."""
    assert codec.idle_timeout_seconds(pb.CreateSessionRequest()) is None
    request = pb.CreateSessionRequest(idle_timeout=Duration(seconds=0))
    assert codec.idle_timeout_seconds(request) == 0
    request = pb.CreateSessionRequest(idle_timeout=Duration(seconds=2, nanos=250_000_000))
    assert codec.idle_timeout_seconds(request) == 2.25


def snapshot(network: Network, clock: Clock) -> tuple[Snapshot, Chunk]:
    """Of a session after one chunk with traces, and that chunk."""
    lifecycle = driven(network, clock)
    view = lifecycle.open(LEDGER, 4, 90.5, OWNER, None, Durability(Policy.ASYNCHRONOUS, 4))
    session = SessionRef(view.id, OWNER, 0)
    work = chunk(session, [[1, 2], [3, 4]], 0, ("write_weighting", "add_vector"), top_k=1)
    ledgers = Engine(lifecycle, Settings())
    stepped(ledgers, work)
    (taken,) = ledgers.take_effects().snapshots
    return taken, work


def driven(network: Network, clock: Clock) -> Lifecycle:
    """The sessions of an engine that has a store."""
    metrics = Metrics(CollectorRegistry())
    return Lifecycle({LEDGER: network}, Settings(), metrics, clock, clock, has_store=True)


def test_a_record_gives_back_all_of_a_session(network: Network, clock: Clock) -> None:
    """Its owner, its state and the replays of its last chunks, whose outputs are bytes."""
    taken, work = snapshot(network, clock)
    stored = codec.decode_record(codec.encode_record(taken))

    assert (stored.owner, stored.version) == (OWNER, LEDGER)
    assert stored.idle_timeout_seconds == 90.5
    assert stored.created_unix_seconds == clock.seconds
    assert stored.durability == Durability(Policy.ASYNCHRONOUS, 4)
    assert stored.checkpoint.next_step == 2
    assert stored.checkpoint.state["total"].tolist() == [4, 6]
    ((asked, outcome),) = stored.replays
    assert asked == taken.replays[0][0]
    assert outcome.outputs.shape == (2, 8)
    assert outcome.outputs.tobytes() == work.outcome.outputs.tobytes()
    weighting, added = outcome.traces
    assert weighting.locations is not None
    assert weighting.locations.tolist() == [[[1]], [[2]]]
    assert (added.name, added.values.tolist()) == ("add_vector", [[[1, 2]], [[3, 4]]])


def test_a_record_that_was_adopted_answers_a_chunk_again(network: Network, clock: Clock) -> None:
    """With the very bytes that it was answered with before."""
    taken, work = snapshot(network, clock)
    replica = driven(network, clock)
    replica.adopt(taken.view.id, 5, codec.decode_record(codec.encode_record(taken)))
    again = Chunk(work.ref, work.inputs.reshape(-1), 0, work.selection)
    stepped(Engine(replica, Settings()), again)
    first, second = pb.Reply(), pb.Reply()
    codec.write_outcome(work.outcome, first)
    codec.write_outcome(again.outcome, second)

    assert first == second
    assert again.epoch == 5


@pytest.mark.parametrize("damage", ["cut", "outputs", "checkpoint"])
def test_a_record_that_is_not_what_was_stored_is_damaged(
    network: Network, clock: Clock, damage: str
) -> None:
    """A record that is cut short, or whose parts do not fit together, opens nothing."""
    taken, _ = snapshot(network, clock)
    record = codec.encode_record(taken)
    if damage == "cut":
        record = record[:-3]
    else:
        stored = record_pb2.StoredSession.FromString(record)
        if damage == "outputs":
            stored.chunks[0].reply.outputs += floats(1)
        else:
            stored.checkpoint = stored.checkpoint[:-1] + bytes([stored.checkpoint[-1] ^ 1])
        record = stored.SerializeToString()
    replica = driven(network, clock)
    with pytest.raises(CheckpointDamaged):
        replica.adopt(taken.view.id, 5, codec.decode_record(record))
    assert len(replica.sessions) == 0


def test_stored_chunks_of_another_width_are_not_adopted(network: Network, clock: Clock) -> None:
    """A replay that the model cannot have made is refused; nothing is opened."""
    taken, _ = snapshot(network, clock)
    stored = codec.decode_record(codec.encode_record(taken))
    asked, outcome = stored.replays[0]
    wide: Replay = (asked, ChunkOutcome(0, np.zeros((2, 12), np.uint8), ()))
    wrong = Stored(
        stored.owner,
        stored.version,
        stored.idle_timeout_seconds,
        stored.created_unix_seconds,
        stored.durability,
        stored.checkpoint,
        (wide,),
    )
    replica = driven(network, clock)
    assert outcome.outputs.shape == (2, 8)
    with pytest.raises(CheckpointDamaged, match="outputs of a step are 12 bytes, the model's 8"):
        replica.adopt(taken.view.id, 5, wrong)
    assert len(replica.sessions) == 0


def test_a_memory_has_a_row_for_each_location(network: Network, clock: Clock) -> None:
    """The state has them the other way round."""
    spec = network.spec
    state = {
        "memory": np.array([[1, 2, 3], [4, 5, 6]], np.float32),
        "weighting": np.array([[1, 0, 0], [0, 0, 1]], np.float32),
    }
    message = codec.memory(VIEW, spec, state)

    assert (message.locations, message.width) == (3, 2)
    assert message.memory == floats(1, 4, 2, 5, 3, 6)
    assert message.read_weightings == floats(1, 0, 0)
    assert message.write_weightings == floats(0, 0, 1)


def test_the_bytes_of_trace_rows_are_those_of_values_and_locations() -> None:
    """Locations take as much as values."""
    values = np.zeros((2, 1, 3), np.float32)
    assert TraceRows("a", values, None).nbytes == 24
    assert TraceRows("a", values, np.zeros((2, 1, 3), np.uint32)).nbytes == 48
