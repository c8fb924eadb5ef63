"""What is counted of sessions, chunks and turns, by a clock turned by hand."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from service.engine.engine import Engine
from service.engine.lifecycle import Lifecycle
from service.errors import NtmError
from service.models.runtime import Network
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.conftest import Clock
from tests.support.driving import LEDGER, OWNER, chunk, opened, run, stepped
from tests.support.tiny_models import RUN_FAILS


class Counted:
    """An engine whose metrics can be asked for."""

    def __init__(self, network: Network, clock: Clock) -> None:
        """With turns of at most two ticks."""
        self.registry = CollectorRegistry()
        settings = Settings(max_burst=2, max_sessions=7, max_state_bytes=10_000)
        metrics = Metrics(self.registry)
        self.engine = Engine(
            Lifecycle({LEDGER: network}, settings, metrics, clock, clock), settings
        )

    def value(self, name: str, **labels: str) -> float | None:
        """The value of a sample of the ledger's."""
        return self.registry.get_sample_value(name, {"model": "ledger", **labels})


@pytest.fixture
def counted(network: Network, clock: Clock) -> Counted:
    """An engine with nothing to do yet."""
    return Counted(network, clock)


def test_a_chunks_time_is_split_into_queue_and_run(counted: Counted, clock: Clock) -> None:
    """Three seconds in the queue and two of run are five in all; a step takes a third of them."""
    work = chunk(opened(counted.engine), [[1, 1]] * 3)
    counted.engine.submit(work)
    clock.seconds += 3
    for seconds in (1, 1):
        turn = counted.engine.schedule()
        assert turn is not None
        turn.run()
        clock.seconds += seconds
        counted.engine.commit(turn)

    assert counted.value("ntm_chunk_queue_seconds_sum") == 3
    assert counted.value("ntm_chunk_run_seconds_sum") == 2
    assert counted.value("ntm_chunk_seconds_sum") == 5
    assert counted.value("ntm_chunk_seconds_count") == 1
    assert counted.value("ntm_step_seconds_sum") == pytest.approx(5)
    assert counted.value("ntm_step_seconds_count") == 3
    assert work.finished_seconds == clock.seconds


def test_the_interval_between_chunks_is_the_clients(counted: Counted, clock: Clock) -> None:
    """Counted from a session's second chunk on, and only where none was waiting already."""
    session = opened(counted.engine)
    clock.seconds += 100
    stepped(counted.engine, chunk(session, [[1, 1]]))
    clock.seconds += 4
    stepped(counted.engine, chunk(session, [[1, 1]]), chunk(session, [[1, 1]]))

    assert counted.value("ntm_step_interval_seconds_count") == 1
    assert counted.value("ntm_step_interval_seconds_sum") == 4


def test_each_tick_of_a_run_is_counted(counted: Counted) -> None:
    """A run of two ticks for three sessions: two batches of three rows, and one of padding."""
    sessions = [opened(counted.engine) for _ in range(3)]
    stepped(counted.engine, *(chunk(session, [[1, 1]] * 2) for session in sessions))

    assert counted.value("ntm_ticks_total") == 2
    assert counted.value("ntm_tick_seconds_count") == 2
    assert counted.value("ntm_steps_total") == 6
    assert counted.value("ntm_batch_rows_sum") == 6
    assert counted.value("ntm_batch_rows_count") == 2
    assert counted.value("ntm_padding_rows_total") == 2


def test_traces_are_counted_by_name(counted: Counted) -> None:
    """A chunk of two steps that asks for one trace."""
    work = chunk(opened(counted.engine), [[1, 1]] * 2, selection=("add_vector",))
    stepped(counted.engine, work)

    assert counted.value("ntm_traces_total", trace="add_vector") == 1
    assert counted.value("ntm_traced_steps_total") == 2


def test_a_refused_chunk_counts_neither_traces_nor_time(counted: Counted) -> None:
    """A refused chunk adds no label for its unknown traces, and no time."""
    work = chunk(opened(counted.engine), [[1, 1]], selection=("nothing",))
    counted.engine.submit(work)
    run(counted.engine)

    assert isinstance(work.error, NtmError)
    assert counted.value("ntm_traces_total", trace="nothing") is None
    assert counted.value("ntm_chunk_seconds_count") is None


def test_slots_and_state_are_counted_where_they_are(counted: Counted) -> None:
    """Of two memory sizes, with room for eight sessions each; all is given back at the end."""
    small, large = opened(counted.engine, 5), opened(counted.engine, 8)
    state = [counted.engine.lifecycle.describe(session).state_bytes for session in (small, large)]
    assert counted.value("ntm_slots", use="taken") == 2
    assert counted.value("ntm_slots", use="free") == 14
    assert counted.value("ntm_state_bytes", place="slab") == sum(state)
    counted.engine.lifecycle.delete(small)
    counted.engine.lifecycle.delete(large)

    assert counted.value("ntm_slots", use="taken") == 0
    assert counted.value("ntm_slots", use="free") == 0
    assert counted.value("ntm_state_bytes", place="slab") == 0
    assert counted.registry.get_sample_value("ntm_sessions_limit") == 7
    assert counted.registry.get_sample_value("ntm_state_limit_bytes") == 10_000


def test_how_a_session_ended_is_told(counted: Counted, clock: Clock) -> None:
    """The reason, lifetime and steps of an expired, a failed and a deleted session are counted."""
    idle = opened(counted.engine, 8, 10.0)
    failing, deleted = opened(counted.engine), opened(counted.engine)
    stepped(counted.engine, chunk(deleted, [[1, 1]] * 2))
    counted.engine.submit(chunk(failing, [[RUN_FAILS, 0]]))
    run(counted.engine)
    counted.engine.lifecycle.delete(deleted)
    clock.seconds += 10
    counted.engine.lifecycle.expire()

    for reason in ("expired", "failed", "deleted"):
        assert counted.value("ntm_sessions_closed_total", reason=reason) == 1
    assert idle.id not in {view.id for view in counted.engine.lifecycle.owned(OWNER, 0, 10)}
    assert counted.value("ntm_session_idle_seconds_count") == 1
    assert counted.value("ntm_session_idle_seconds_sum") == 10
    assert counted.value("ntm_session_steps_sum") == 2
    assert counted.value("ntm_session_lifetime_seconds_sum") == 10
    assert counted.value("ntm_failed_runs_total") == 1


def test_sessions_wait_until_their_turn_begins(counted: Counted) -> None:
    """Two sessions with chunks wait, one with nothing to do does not."""
    for _ in range(2):
        counted.engine.submit(chunk(opened(counted.engine), [[1, 1]]))
    opened(counted.engine)
    assert counted.registry.get_sample_value("ntm_waiting_sessions") == 2
    run(counted.engine)
    assert counted.registry.get_sample_value("ntm_waiting_sessions") == 0
