"""What a server before format 2 stored goes on here, and is written as it wrote it."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from ntm.v1 import ntm_pb2 as pb
from service import codec
from service.engine import checkpoint
from service.engine.engine import Engine
from service.engine.lifecycle import Lifecycle
from service.models.runtime import Network
from service.session_ref import SessionRef
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.conftest import Clock
from tests.service.stored_before import CHECKPOINT, RECORD, SESSION
from tests.support.driving import LEDGER, OWNER, chunk, stepped


@pytest.fixture
def replica(network: Network, clock: Clock) -> Lifecycle:
    """The sessions of a server that has a store, with the stored session awake."""
    metrics = Metrics(CollectorRegistry())
    sessions = Lifecycle({LEDGER: network}, Settings(), metrics, clock, clock, has_store=True)
    sessions.adopt(SESSION, 5, codec.decode_record(RECORD))
    return sessions


def test_its_session_wakes_at_its_step_with_its_state(replica: Lifecycle) -> None:
    """The next output is the sum of all inputs, before and after."""
    ref = SessionRef(SESSION, OWNER, 0)
    work = chunk(ref, [[10, 20]], 2)

    assert stepped(Engine(replica, Settings()), work) == [[[14, 26]]]


def test_its_last_chunk_is_answered_again_with_the_same_bytes(replica: Lifecycle) -> None:
    """A client that lost the answer finds it, outputs and traces."""
    again = chunk(
        SessionRef(SESSION, OWNER, 0), [[1, 2], [3, 4]], 0, ("write_weighting", "add_vector"), 1
    )
    stepped(Engine(replica, Settings()), again)
    reply = pb.Reply()
    codec.write_outcome(again.outcome, reply)

    assert reply.outputs == codec.decode_record(RECORD).replays[0][1].outputs.tobytes()
    assert [trace.name for trace in reply.traces] == ["write_weighting", "add_vector"]


def test_its_checkpoint_is_written_again_byte_for_byte(replica: Lifecycle) -> None:
    """So that servers and clients of earlier releases go on reading ours."""
    taken = checkpoint.decode(CHECKPOINT)
    session = next(iter(replica.sessions))

    assert checkpoint.encode(taken) == CHECKPOINT
    assert checkpoint.encode(replica.checkpoint(session)[1]) == CHECKPOINT
