"""Admission: each limit refuses with the value found and what is allowed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.engine.admission import Admission
from service.engine.engine import Engine
from service.engine.sessions import Usage
from service.engine.work import Chunk
from service.errors import CapacityExceeded, InvalidRequest
from service.models.runtime import Network
from service.settings import Settings
from service.spec import Float32
from tests.conftest import Clock
from tests.support.driving import chunk, engine, opened
from tests.support.tiny_models import LEDGER

ADMISSION = Admission(Settings(max_locations=100, max_sessions=5, max_state_bytes=1000))


@pytest.fixture
def ledgers(network: Network, clock: Clock) -> Engine:
    """An engine with small limits."""
    return engine(network, clock, max_chunk_steps=4, max_message_bytes=65_536)


def test_no_locations_means_the_models_default() -> None:
    """A session that asks for none gets 8 of the ledger, and one that asks gets what it asks."""
    assert ADMISSION.locations(LEDGER, 0) == 8
    assert ADMISSION.locations(LEDGER, 100) == 100


@pytest.mark.parametrize("asked", [1, 2, 101])
def test_locations_out_of_the_limits_are_refused(asked: int) -> None:
    """Fewer than three locations, or more than the setting, are refused."""
    with pytest.raises(InvalidRequest, match=f"locations is {asked}; this server takes 3 to 100"):
        ADMISSION.locations(LEDGER, asked)


def test_fixed_locations_cannot_be_chosen() -> None:
    """A learned initial memory has its own size, and asking for that size is fine."""
    fixed = replace(LEDGER, fixed_locations=True)
    assert ADMISSION.locations(fixed, 8) == 8
    with pytest.raises(InvalidRequest, match="learned for 8, so it works with those only"):
        ADMISSION.locations(fixed, 9)


def test_a_network_without_memory_has_no_locations() -> None:
    """Asking for locations of a network without memory is refused."""
    plain = replace(LEDGER, default_locations=0)
    assert ADMISSION.locations(plain, 0) == 0
    with pytest.raises(InvalidRequest, match="this model has no memory"):
        ADMISSION.locations(plain, 8)


@pytest.mark.parametrize("asked", [0.0, -1.0, float("nan"), float("inf"), 86_400.1])
def test_idle_timeouts_out_of_the_limits_are_refused(asked: float) -> None:
    """An idle timeout that is zero, negative, NaN or above the setting is refused."""
    with pytest.raises(InvalidRequest, match="it must be above 0, at most 86400"):
        ADMISSION.idle_timeout_seconds(asked)


def test_the_idle_timeout_is_the_servers_where_none_is_asked() -> None:
    """
    Without a request the server's idle timeout holds; otherwise the client's, within the limit.
    """
    assert ADMISSION.idle_timeout_seconds(None) == 300.0
    assert ADMISSION.idle_timeout_seconds(0.5) == 0.5


def test_room_is_counted_to_the_last_session_and_byte() -> None:
    """The limits themselves are allowed, one more is not."""
    ADMISSION.room(Usage(4, 900), Usage(4, 900), 100)
    with pytest.raises(CapacityExceeded, match="5 sessions are open"):
        ADMISSION.room(Usage(5, 0), Usage(), 1)
    with pytest.raises(CapacityExceeded, match="needs 101 bytes of state, and 900 of 1000"):
        ADMISSION.room(Usage(4, 900), Usage(), 101)


def test_a_principal_has_limits_of_its_own() -> None:
    """A refusal names a principal's limit; others' sessions do not count, and 0 means no limit."""
    limits = Settings(max_sessions_per_principal=2, max_state_bytes_per_principal=300)
    admission = Admission(limits)
    admission.room(Usage(100, 9000), Usage(1, 200), 100)
    with pytest.raises(CapacityExceeded, match="as many as max_sessions_per_principal") as refused:
        admission.room(Usage(100, 9000), Usage(2, 200), 1)
    assert refused.value.metadata == {"limit": "max_sessions_per_principal"}
    with pytest.raises(CapacityExceeded, match="200 of 300, which is max_state_bytes_per"):
        admission.room(Usage(100, 9000), Usage(1, 200), 101)
    Admission(Settings()).room(Usage(9000, 9000), Usage(9000, 9000), 100)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "inputs hold 0 values; a chunk is one or more steps of 2 each"),
        ([1.0], "inputs hold 1 values; a chunk is one or more steps of 2 each"),
        ([1.0] * 10, "a chunk of 5 steps; the limit is 4"),
        ([0.0, 0.0, 0.0, np.nan], "input nan at step 1 of the chunk, channel 1"),
        ([0.0, 0.0, -np.inf, 0.0], "input -inf at step 1 of the chunk, channel 0"),
        ([1.5e6, 0.0], "input 1500000.0 at step 0 of the chunk, channel 0: .* at most 1e\\+06"),
    ],
)
def test_wrong_inputs_are_refused_with_their_place(
    ledgers: Engine, values: list[float], message: str
) -> None:
    """The error says which value of which step, and the session goes on."""
    session = opened(ledgers)
    work = Chunk(session, np.array(values, np.float32), None)
    ledgers.submit(work)
    ledgers.turn()
    assert isinstance(work.error, InvalidRequest)
    with pytest.raises(InvalidRequest, match=message):
        raise work.error
    assert ledgers.lifecycle.describe(session).next_step == 0


def test_an_unknown_trace_is_refused_with_the_known_ones(ledgers: Engine) -> None:
    """The refusal of an unknown trace names the known ones."""
    work = chunk(opened(ledgers), [[0, 0]], selection=("weightings",))
    ledgers.submit(work)
    assert isinstance(work.error, InvalidRequest)
    assert "has: read_weighting, write_weighting, add_vector" in work.error.message


def test_a_reply_too_large_for_a_message_is_refused_with_the_steps_that_fit(
    network: Network, clock: Clock
) -> None:
    """Tracing 4,000 locations takes 16,000 bytes a step, so three fit; top_k makes it small."""
    ledgers = engine(network, clock, max_message_bytes=65_536)
    session = opened(ledgers, 4000)
    dense = chunk(session, [[0, 0]] * 4, selection=("read_weighting",))
    fits = chunk(session, [[0, 0]] * 3, selection=("read_weighting",))
    sparse = chunk(session, [[0, 0]] * 4, selection=("read_weighting",), top_k=5)
    for work in (dense, fits, sparse):
        ledgers.submit(work)
    assert isinstance(dense.error, InvalidRequest)
    assert "send at most 3 steps in a chunk" in dense.error.message
    assert fits.error is None
    assert sparse.error is None


@given(arrays.arrays(np.float32, st.integers(0, 12), elements=st.floats(width=32)))
def test_any_values_are_admitted_or_refused(network: Network, values: Float32) -> None:
    """No float32 pattern leads to another error or to a value out of bounds inside."""
    ledgers = engine(network, Clock())
    work = Chunk(opened(ledgers), values, None)
    ledgers.submit(work)
    if work.error is None:
        assert work.inputs.shape == (len(values) // 2, 2)
        assert (abs(work.inputs) <= 1e6).all()
    else:
        assert isinstance(work.error, InvalidRequest)
