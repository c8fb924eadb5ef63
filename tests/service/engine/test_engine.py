"""The engine, turned by hand: one behaviour a test."""

from __future__ import annotations

import logging
from functools import partial

import numpy as np
import onnxruntime
import pytest

from service.engine.engine import Engine
from service.engine.sessions import Operation
from service.engine.work import Chunk
from service.errors import (
    CapacityExceeded,
    Draining,
    InvalidRequest,
    SessionDeleted,
    SessionExpired,
    SessionFailed,
    SessionUnknown,
    StepIndexMismatch,
)
from service.models.runtime import Network
from service.session_ref import SessionRef
from tests.conftest import Clock
from tests.support.devices import (
    ALLOCATE,
    BIND,
    COPY,
    READ,
    ScarceDevice,
    no_memory,
    scarce_network,
)
from tests.support.driving import (
    LEDGER,
    OWNER,
    chunk,
    engine,
    opened,
    outputs,
    run,
    stepped,
    submitted,
)
from tests.support.tiny_models import NOT_FINITE, RUN_FAILS


@pytest.fixture
def ledgers(network: Network, clock: Clock) -> Engine:
    """An engine with the default limits."""
    return engine(network, clock)


def test_a_session_keeps_its_state_between_chunks(ledgers: Engine) -> None:
    """The second chunk of a session goes on from where the first ended."""
    session = opened(ledgers)
    first, second = stepped(ledgers, chunk(session, [[1, 2], [3, 4]]), chunk(session, [[5, 6]]))
    assert first == [[1, 2], [4, 6]]
    assert second == [[9, 12]]
    assert ledgers.lifecycle.describe(session).next_step == 3


def test_outcomes_stay_as_they_are_while_others_step(ledgers: Engine) -> None:
    """Later runs use the same buffers; what was handed out before does not change."""
    first = chunk(opened(ledgers), [[1, 2]])
    stepped(ledgers, first)
    for value in (5.0, 6.0, 7.0):
        stepped(ledgers, chunk(opened(ledgers), [[value, value]]))
    assert outputs(first) == [[1, 2]]


def test_sessions_of_different_memory_sizes_run_side_by_side(ledgers: Engine) -> None:
    """Sessions with 5 and with 8 locations each write their own memory."""
    small, large = opened(ledgers, 5), opened(ledgers, 8)
    stepped(ledgers, chunk(small, [[1, 2]] * 2), chunk(large, [[3, 4]] * 3))
    reads = [Operation(session, ledgers.lifecycle.read) for session in (small, large)]
    submitted(ledgers, *reads)
    run(ledgers)
    memories = [read.outcome[1]["memory"].T for read in reads]
    assert memories[0].tolist() == [[1, 2], [1, 2], [0, 0], [0, 0], [0, 0]]
    assert memories[1].tolist() == [[3, 4]] * 3 + [[0, 0]] * 5


def test_traces_do_not_change_outputs(ledgers: Engine) -> None:
    """A traced session gives the outputs of an untraced one, and the untraced gets no trace."""
    plain, traced = opened(ledgers), opened(ledgers)
    inputs = [[1, 2], [3, 4], [5, 6]]
    works = chunk(plain, inputs), chunk(traced, inputs, selection=("add_vector",))
    first, second = stepped(ledgers, *works)
    assert first == second
    assert works[0].outcome.traces == ()
    assert works[1].outcome.traces[0].values.tolist() == [[[1, 2]], [[3, 4]], [[5, 6]]]


def test_a_weighting_is_traced_densely_or_by_its_largest_elements(ledgers: Engine) -> None:
    """With top_k, the largest elements come with their locations, largest first."""
    session = opened(ledgers, 4)
    dense = chunk(session, [[0, 0]] * 2, selection=("write_weighting",))
    largest = chunk(session, [[0, 0]], selection=("write_weighting",), top_k=2)
    stepped(ledgers, dense, largest)
    assert dense.outcome.traces[0].values.tolist() == [[[0, 1, 0, 0]], [[0, 0, 1, 0]]]
    assert largest.outcome.traces[0].values.tolist() == [[[1, 0]]]
    assert largest.outcome.traces[0].locations.tolist() == [[[3, 0]]]


def test_top_k_above_the_locations_gives_all_of_them(ledgers: Engine) -> None:
    """Asking for more elements than there are is no error."""
    session = opened(ledgers, 3)
    work = chunk(session, [[0, 0]], selection=("read_weighting",), top_k=9)
    stepped(ledgers, work)
    assert work.outcome.traces[0].values.shape == (1, 1, 3)


def test_a_chunk_at_another_index_changes_nothing(ledgers: Engine) -> None:
    """A gap, or other steps in the place of those made, is refused with the expected index."""
    session = opened(ledgers)
    gap = chunk(session, [[1, 1]], first_step=3)
    fits = chunk(session, [[1, 1]], first_step=0)
    again = chunk(session, [[1, 2]], first_step=0)
    submitted(ledgers, gap, fits, again)
    run(ledgers)
    assert isinstance(gap.error, StepIndexMismatch)
    assert gap.error.metadata == {"expected": "0", "actual": "3"}
    assert isinstance(again.error, StepIndexMismatch)
    assert again.error.metadata["expected"] == "1"
    assert outputs(fits) == [[1, 1]]


def test_a_refused_chunk_is_answered_in_its_place(ledgers: Engine) -> None:
    """A chunk with a bad width behind a good one is answered after it."""
    session = opened(ledgers)
    good, bad = chunk(session, [[1, 1]]), chunk(session, [[1]])
    submitted(ledgers, good, bad)
    assert run(ledgers) == [good, bad]
    assert isinstance(bad.error, InvalidRequest)
    assert ledgers.lifecycle.describe(session).next_step == 1


def test_refused_steps_do_not_count_as_waiting(network: Network, clock: Clock) -> None:
    """After refusals a session may still have its full number of steps waiting."""
    ledgers = engine(network, clock, max_waiting_steps=2)
    session = opened(ledgers)
    submitted(ledgers, chunk(session, [[np.nan, 0]] * 2), chunk(session, [[0]]))
    full = chunk(session, [[1, 1]] * 2)
    over = chunk(session, [[1, 1]])
    submitted(ledgers, full, over)
    run(ledgers)
    assert outputs(full) == [[1, 1], [2, 2]]
    assert isinstance(over.error, CapacityExceeded)
    assert over.error.retry_delay_seconds == 1.0
    assert stepped(ledgers, chunk(session, [[1, 1]] * 2)) == [[[3, 3], [4, 4]]]


def test_a_reset_waits_for_the_chunks_before_it(ledgers: Engine) -> None:
    """Chunks before a reset are stepped first, those after it start from the initial state."""
    session = opened(ledgers)
    before, after = chunk(session, [[1, 1]] * 3), chunk(session, [[5, 5]], first_step=0)
    submitted(ledgers, before, Operation(session, ledgers.lifecycle.reset), after)
    run(ledgers)
    assert outputs(before)[-1] == [3, 3]
    assert outputs(after) == [[5, 5]]


def test_deleting_fails_the_work_that_waits(ledgers: Engine) -> None:
    """After a deletion the waiting chunks fail as deleted, and so does every later use."""
    session = opened(ledgers)
    waiting = chunk(session, [[1, 1]])
    submitted(ledgers, waiting)
    ledgers.lifecycle.delete(session)
    assert run(ledgers) == [waiting]
    assert isinstance(waiting.error, SessionDeleted)
    with pytest.raises(SessionDeleted, match=session.id):
        ledgers.lifecycle.delete(session)


def test_closing_in_turn_lets_earlier_chunks_finish(ledgers: Engine) -> None:
    """An ordered close comes after the chunks before it and fails those behind, in order."""
    session = opened(ledgers)
    before, behind = chunk(session, [[1, 1]] * 9), chunk(session, [[1, 1]])
    close = Operation(session, ledgers.lifecycle.close)
    submitted(ledgers, before, close, behind)
    assert run(ledgers) == [before, close, behind]
    assert outputs(before)[-1] == [9, 9]
    assert close.error is None
    assert isinstance(behind.error, SessionDeleted)


def test_a_slot_used_again_starts_from_the_initial_state(ledgers: Engine) -> None:
    """A session in the slot of a deleted one sees nothing of it."""
    old = opened(ledgers)
    stepped(ledgers, chunk(old, [[7, 7]] * 3))
    ledgers.lifecycle.delete(old)
    new = opened(ledgers)
    read = Operation(new, ledgers.lifecycle.read)
    submitted(ledgers, read)
    run(ledgers)
    assert read.outcome[1]["memory"].tolist() == [[0] * 8] * 2
    assert stepped(ledgers, chunk(new, [[1, 1]])) == [[[1, 1]]]


def test_unknown_expired_and_deleted_are_told_apart(ledgers: Engine, clock: Clock) -> None:
    """Each way of not being there has its own error."""
    expired, deleted = opened(ledgers, idle_timeout_seconds=5), opened(ledgers)
    ledgers.lifecycle.delete(deleted)
    clock.seconds += 5
    ledgers.lifecycle.expire()
    for session, error in (
        (expired, SessionExpired),
        (deleted, SessionDeleted),
        (SessionRef("0" * 32, OWNER, 0), SessionUnknown),
    ):
        work = chunk(session, [[1, 1]])
        submitted(ledgers, work)
        assert run(ledgers) == [work]
        assert type(work.error) is error


def test_a_session_expires_exactly_at_its_deadline(ledgers: Engine, clock: Clock) -> None:
    """Use postpones the deadline by the whole timeout; the moment before it the session lives."""
    session = opened(ledgers, idle_timeout_seconds=10)
    clock.seconds += 9
    stepped(ledgers, chunk(session, [[1, 1]]))
    clock.seconds += 9.75
    ledgers.lifecycle.expire()
    assert ledgers.lifecycle.describe(session).expires_unix_seconds == clock.seconds + 0.25
    assert ledgers.lifecycle.seconds_to_deadline() == 0.25
    clock.seconds += 0.25
    ledgers.lifecycle.expire()
    with pytest.raises(SessionExpired):
        ledgers.lifecycle.describe(session)


def test_a_session_with_work_does_not_expire(ledgers: Engine, clock: Clock) -> None:
    """A chunk that waits keeps its session alive, and its last step starts the timeout anew."""
    session = opened(ledgers, idle_timeout_seconds=10)
    work = chunk(session, [[1, 1]])
    submitted(ledgers, work)
    clock.seconds += 100
    ledgers.lifecycle.expire()
    run(ledgers)
    assert outputs(work) == [[1, 1]]
    clock.seconds += 9
    ledgers.lifecycle.expire()
    ledgers.lifecycle.describe(session)
    clock.seconds += 1
    ledgers.lifecycle.expire()
    with pytest.raises(SessionExpired):
        ledgers.lifecycle.describe(session)


def test_describing_does_not_postpone_expiry(ledgers: Engine, clock: Clock) -> None:
    """Looking at a session is no use of it."""
    session = opened(ledgers, idle_timeout_seconds=10)
    clock.seconds += 9
    ledgers.lifecycle.describe(session)
    clock.seconds += 1
    ledgers.lifecycle.expire()
    with pytest.raises(SessionExpired):
        ledgers.lifecycle.describe(session)


def test_a_failed_run_closes_the_sessions_of_its_batch_only(
    ledgers: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """When onnxruntime fails, the batch is untrusted and closed; other slabs' sessions go on."""
    bad, mate, other = opened(ledgers), opened(ledgers), opened(ledgers, 5)
    stepped(ledgers, chunk(mate, [[1, 1]]), chunk(other, [[1, 1]]))
    works = [chunk(bad, [[RUN_FAILS, 0]]), chunk(mate, [[1, 1]]), chunk(other, [[1, 1]])]
    submitted(ledgers, *works)
    with caplog.at_level(logging.ERROR):
        run(ledgers)
    assert isinstance(works[0].error, SessionFailed)
    assert isinstance(works[1].error, SessionFailed)
    assert outputs(works[2]) == [[2, 2]]
    with pytest.raises(SessionFailed):
        ledgers.lifecycle.describe(mate)
    assert "run failed" in caplog.text


def test_a_result_that_is_not_finite_closes_that_session_only(ledgers: Engine) -> None:
    """A row that overflows is closed; its batch mates keep their results."""
    bad, mate = opened(ledgers), opened(ledgers)
    works = chunk(bad, [[0, NOT_FINITE]]), chunk(mate, [[1, 1]])
    submitted(ledgers, *works)
    run(ledgers)
    assert isinstance(works[0].error, SessionFailed)
    assert outputs(works[1]) == [[1, 1]]


def test_cancelled_work_that_waits_is_not_done(ledgers: Engine) -> None:
    """A chunk cancelled before its turn makes no step; the one behind it does."""
    session = opened(ledgers)
    first, cancelled, last = (chunk(session, [[1, 1]]) for _ in range(3))
    submitted(ledgers, first, cancelled, last)
    cancelled.cancelled = True
    run(ledgers)
    assert outputs(last) == [[2, 2]]
    assert ledgers.lifecycle.describe(session).next_step == 2


def test_cancelling_a_running_chunk_stops_it_after_the_turn(network: Network, clock: Clock) -> None:
    """The steps made before the cancellation stay made; the rest is dropped."""
    ledgers = engine(network, clock, max_burst=2)
    session = opened(ledgers)
    long = chunk(session, [[1, 1]] * 10)
    submitted(ledgers, long)
    ledgers.turn()
    long.cancelled = True
    run(ledgers)
    assert ledgers.lifecycle.describe(session).next_step == 4
    assert stepped(ledgers, chunk(session, [[1, 1]])) == [[[5, 5]]]


def test_dropped_steps_no_longer_count_as_waiting(network: Network, clock: Clock) -> None:
    """After cancellations a session may have its full number of steps waiting again."""
    ledgers = engine(network, clock, max_waiting_steps=4, max_burst=1)
    session = opened(ledgers)
    running, waiting = chunk(session, [[1, 1]] * 2), chunk(session, [[1, 1]] * 2)
    submitted(ledgers, running, waiting)
    ledgers.turn()
    running.cancelled = waiting.cancelled = True
    run(ledgers)
    assert len(stepped(ledgers, chunk(session, [[1, 1]] * 4))[0]) == 4


@pytest.mark.parametrize(
    ("changes", "limit"),
    [({"max_sessions": 2}, "max_sessions"), ({"max_state_bytes": 300}, "max_state_bytes")],
)
def test_a_full_server_refuses_and_disturbs_nobody(
    network: Network, clock: Clock, changes: dict[str, int], limit: str
) -> None:
    """At a limit opening fails with a delay; open sessions go on, and closing makes room."""
    ledgers = engine(network, clock, **changes)
    sessions = [opened(ledgers), opened(ledgers)]
    with pytest.raises(CapacityExceeded) as refusal:
        opened(ledgers)
    assert refusal.value.metadata == {"limit": limit}
    assert refusal.value.retry_delay_seconds == 1.0
    works = [chunk(session, [[1, 1]]) for session in sessions]
    assert stepped(ledgers, *works) == [[[1, 1]]] * 2
    ledgers.lifecycle.delete(sessions[0])
    opened(ledgers)
    ledgers.lifecycle.check_integrity()


def test_a_draining_engine_finishes_what_it_has(ledgers: Engine) -> None:
    """While draining, waiting chunks are stepped, and everything new is refused."""
    session = opened(ledgers)
    waiting, late = chunk(session, [[1, 1]]), chunk(session, [[1, 1]])
    submitted(ledgers, waiting)
    ledgers.lifecycle.drain()
    submitted(ledgers, late)
    run(ledgers)
    assert outputs(waiting) == [[1, 1]]
    assert isinstance(late.error, Draining)
    with pytest.raises(Draining):
        opened(ledgers)


def test_a_newcomer_waits_for_one_burst_at_most(network: Network, clock: Clock) -> None:
    """A session that comes while another has a long chunk steps in the next turn."""
    ledgers = engine(network, clock, max_burst=4)
    long, short = opened(ledgers), opened(ledgers)
    submitted(ledgers, chunk(long, [[1, 1]] * 100))
    assert ledgers.turn() == []
    newcomer = chunk(short, [[1, 1]])
    submitted(ledgers, newcomer)
    assert ledgers.turn() == [newcomer]


def test_the_sessions_of_one_owner_are_listed_in_order(ledgers: Engine) -> None:
    """Listing goes by creation, page by page, and leaves out the sessions of others."""
    mine = [opened(ledgers) for _ in range(3)]
    ledgers.lifecycle.open(LEDGER, 0, None, "somebody else")
    owner = "ipv4:127.0.0.1"
    first = ledgers.lifecycle.owned(owner, 0, 2)
    rest = ledgers.lifecycle.owned(owner, first[-1].number, 2)
    assert [view.id for view in first + rest] == [session.id for session in mine]


def test_more_sessions_than_a_batch_advance_at_the_same_rate(
    network: Network, clock: Clock
) -> None:
    """With three times the sessions of a batch, none is more than one turn ahead of another."""
    ledgers = engine(network, clock, max_batch=8, max_burst=1)
    sessions = [opened(ledgers) for _ in range(24)]
    submitted(ledgers, *(chunk(session, [[1, 1]] * 20) for session in sessions))
    for _ in range(30):
        ledgers.turn()
        steps = [ledgers.lifecycle.describe(session).next_step for session in sessions]
        assert max(steps) - min(steps) <= 1


def test_an_operation_that_breaks_closes_its_session(
    ledgers: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected error in an operation is logged and closes the one session."""
    session = opened(ledgers)

    def broken(_: object) -> None:
        raise ZeroDivisionError

    work = Operation(session, broken)
    submitted(ledgers, work)
    with caplog.at_level(logging.ERROR):
        run(ledgers)
    assert isinstance(work.error, SessionFailed)
    assert "ZeroDivisionError" in caplog.text


def test_integrity_is_checked_for_real(ledgers: Engine) -> None:
    """A slot that leaks is reported with the counts."""
    session = opened(ledgers)
    next(iter(ledgers.lifecycle.slots)).acquire()
    with pytest.raises(RuntimeError, match="sessions 1, their places 1, slots used 2"):
        ledgers.lifecycle.check_integrity()
    assert isinstance(chunk(session, [[1, 1]]), Chunk)


@pytest.fixture
def scarce(clock: Clock) -> tuple[Engine, ScarceDevice]:
    """An engine whose device may lack memory."""
    network, device = scarce_network()
    return engine(network, clock), device


def test_opening_without_memory_is_refused_and_disturbs_nobody(
    scarce: tuple[Engine, ScarceDevice],
) -> None:
    """Neither the first session of a memory size, nor one for which a slab would grow."""
    ledgers, device = scarce
    sessions = [opened(ledgers) for _ in range(8)]
    stepped(ledgers, *(chunk(session, [[1, 1]]) for session in sessions))
    device.full_for = {ALLOCATE}
    for locations in (8, 5):
        with pytest.raises(CapacityExceeded, match="the memory of the server has no room"):
            opened(ledgers, locations)
    ledgers.lifecycle.check_integrity()
    again = stepped(ledgers, *(chunk(session, [[1, 1]]) for session in sessions))
    assert again == [[[2, 2]]] * 8
    device.full_for = set()
    assert stepped(ledgers, chunk(opened(ledgers), [[1, 1]])) == [[[1, 1]]]


def test_steps_without_memory_for_their_buffers_are_refused_and_the_session_goes_on(
    scarce: tuple[Engine, ScarceDevice],
) -> None:
    """The engine turns on; the same chunk is made when there is memory again."""
    ledgers, device = scarce
    session = opened(ledgers)
    device.full_for = {BIND}
    works = [chunk(session, [[1, 1]], first_step=0), chunk(opened(ledgers), [[1, 1]])]
    submitted(ledgers, *works)
    assert len(run(ledgers)) == 2
    for work in works:
        assert isinstance(work.error, CapacityExceeded)
        assert work.error.metadata == {"limit": "memory", "next_step": "0"}
    device.full_for = set()
    assert stepped(ledgers, chunk(session, [[1, 1]], first_step=0)) == [[[1, 1]]]


def test_a_run_without_memory_closes_the_sessions_of_its_batch(
    ledgers: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some of their rows may have been written; others go on."""
    session, other = opened(ledgers), opened(ledgers)
    stepped(ledgers, chunk(other, [[1, 1]]))
    work = chunk(session, [[1, 1]])
    submitted(ledgers, work)
    with monkeypatch.context() as patched, caplog.at_level(logging.ERROR):
        patched.setattr(onnxruntime.InferenceSession, "run_with_iobinding", no_memory)
        run(ledgers)
    assert isinstance(work.error, SessionFailed)
    assert "run failed" in caplog.text
    assert stepped(ledgers, chunk(other, [[1, 1]])) == [[[2, 2]]]


def test_a_fork_without_memory_leaves_its_source_as_it_is(
    scarce: tuple[Engine, ScarceDevice],
) -> None:
    """It fails with that reason, and the fork is dropped; so do reading and a checkpoint."""
    ledgers, device = scarce
    lifecycle = ledgers.lifecycle
    source = opened(ledgers)
    stepped(ledgers, chunk(source, [[3, 3]]))
    fork = lifecycle.open(LEDGER, 8, None, OWNER, session_id="f" * 32, is_begun=False)
    works = [
        Operation(source, action)
        for action in (
            partial(lifecycle.fork, fork=SessionRef(fork.id, OWNER, 0)),
            lifecycle.checkpoint,
            lifecycle.read,
        )
    ]
    device.full_for = {COPY, READ}
    submitted(ledgers, *works)
    run(ledgers)
    assert [type(work.error) for work in works] == [CapacityExceeded] * 3
    lifecycle.drop(fork.id)
    device.full_for = set()
    assert stepped(ledgers, chunk(source, [[1, 1]])) == [[[4, 4]]]


def test_opening_on_a_gpu_waits_for_the_turns_under_way(clock: Clock) -> None:
    """Its one thread makes them, and the event loop would wait for it."""
    for on_cpu in (True, False):
        network, _ = scarce_network(on_cpu=on_cpu)
        ledgers = engine(network, clock)
        opened(ledgers)
        assert ledgers.lifecycle.may_open_during_turns(LEDGER, 8) is on_cpu


def test_the_slabs_of_a_gpu_stay_within_the_limit_of_state(clock: Clock) -> None:
    """Free and spare rows count there, and a slab that grows beside the one that replaces it."""
    network, _ = scarce_network(on_cpu=False)
    state = network.spec.state_bytes(8)
    ledgers = engine(network, clock, max_state_bytes=(17 + 33) * state - 1)
    for _ in range(16):
        opened(ledgers)
    with pytest.raises(CapacityExceeded) as raised:
        opened(ledgers)
    assert raised.value.metadata == {"limit": "max_state_bytes"}
    assert f"needs {33 * state} bytes on the GPU, and {17 * state} of" in raised.value.message
    ledgers.lifecycle.check_integrity()
