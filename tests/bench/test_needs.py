"""What many sessions need, on costs that can be checked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.needs import Workload, least_takeover_seconds, needed, stored_step_us

COSTS = {
    "step us, chunks of 1": 30.0,
    "step us, chunks of 8": 14.0,
    "step us, chunks of 32": 10.0,
    "step us, chunks of 32, N = 1024": 70.0,
    "step us, 64 streams": 100.0,
    "save us, Valkey": 200.0,
    "wake us": 2_000.0,
    "takeover us": 3_000.0,
    "record bytes, N = 128, fresh": 12_288.0,
    "record bytes, N = 128, full": 98_304.0,
    "record bytes, N = 1024, full": 98_304.0,
    "memory bytes a record, 12 KB": 13_000.0,
    "memory bytes a record, 96 KB": 100_000.0,
    "Valkey us a save, 12 KB": 20.0,
    "Valkey us a save, 96 KB": 80.0,
    "Valkey us a claim, 12 KB": 40.0,
    "Valkey us a claim, 96 KB": 160.0,
    "network bytes a save, 12 KB": 12_500.0,
    "network bytes a save, 96 KB": 98_500.0,
    "network bytes a claim, 12 KB": 12_400.0,
    "network bytes a claim, 96 KB": 98_400.0,
    "resident bytes, at rest": 100e6,
    "resident bytes, awake, N = 128": 14_000.0,
    "resident bytes, awake, N = 1024": 100_000.0,
    "resident bytes, asleep": 1_000.0,
    "resident bytes, stream": 40_000.0,
    "Envoy us a step, 64 streams": 50.0,
    "Envoy us a step, chunks of 1": 2.0,
    "Envoy bytes, at rest": 70e6,
    "Envoy bytes, stream": 30_000.0,
}
ALWAYS_AWAKE = 1e12
WORK = Workload(
    sessions=100_000,
    active=0.1,
    active_seconds=60,
    steps_a_second=2,
    chunk=1,
    every_steps=0,
    awake_seconds=ALWAYS_AWAKE,
)


def test_synchronous_steps_are_saved_one_by_one() -> None:
    """10,000 sessions make 20,000 steps a second, each 100 us and a save of 200 us; none wakes."""
    found = needed(WORK, COSTS)

    assert (found.steps_a_second, found.saves_a_second, found.wakes_a_second) == (20e3, 20e3, 0)
    assert found.loads["replicas: processor"] == pytest.approx(20e3 * 300e-6 / 0.6)
    assert found.loads["store: processor"] == pytest.approx(20e3 * 80e-6 / 0.6)
    assert found.loads["store: network"] == pytest.approx(20e3 * 98_500 * 8 / 6e9)
    assert found.loads["store: memory"] == pytest.approx(100e3 * 100_000 / (32e9 * 0.6))
    assert found.loads["balancers: processor"] == pytest.approx(20e3 * 50e-6 / 2.4)
    assert (found.replicas, found.valkeys, found.envoys) == (10, 3, 1)
    assert found.first == "replicas: processor"


def test_a_chunk_is_one_message_and_one_save() -> None:
    """A chunk of 32 steps is one message and one save, and a step costs what it does in a chunk."""
    found = needed(replace(WORK, chunk=32), COSTS)

    assert found.saves_a_second == 20e3 / 32
    assert found.loads["replicas: processor"] == pytest.approx(20e3 * (10 + 200 / 32) * 1e-6 / 0.6)
    assert found.loads["balancers: processor"] == pytest.approx(20e3 / 32 * 50e-6 / 2.4)


@pytest.mark.parametrize(
    ("steps_a_second", "chunk", "saves"),
    [(1024, 1, 4.0), (2, 1, 1 / 30), (0.01, 1, 0.01), (512, 32, 2.0)],
)
def test_asynchronous_sessions_are_saved_now_and_then(
    steps_a_second: float, chunk: int, saves: float
) -> None:
    """Saves come every 256 steps or every 30 s, but never more often than messages."""
    work = replace(WORK, every_steps=256, steps_a_second=steps_a_second, chunk=chunk)

    assert needed(work, COSTS).saves_a_second == pytest.approx(1e4 * saves)


def test_who_is_not_kept_awake_wakes_each_time() -> None:
    """A session that sleeps at once wakes once in its 600 s, which costs one more save."""
    found = needed(replace(WORK, every_steps=256, awake_seconds=0), COSTS)

    assert found.awake == pytest.approx(10_000)
    assert found.wakes_a_second == pytest.approx(100_000 / 600)
    assert found.saves_a_second == pytest.approx(1e4 / 30 + 100_000 / 600)
    assert found.loads["replicas: memory"] == pytest.approx(
        (10_000 * (14_000 + 40_000) + 90_000 * 1_000) / (8e9 * 0.6 - 100e6)
    )


def test_who_stays_awake_for_long_wakes_less_often() -> None:
    """With idle times of 540 s on average, a share of 1 / e is longer than 540 s awake."""
    found = needed(replace(WORK, every_steps=256, awake_seconds=540), COSTS)

    assert found.wakes_a_second == pytest.approx(100_000 / 600 * 0.36788, rel=1e-4)
    assert found.awake == pytest.approx(10_000 + 90_000 * (1 - 0.36788), rel=1e-4)


def test_sessions_on_one_stream_share_its_costs() -> None:
    """With 64 sessions on a stream there are a 64th of the streams, and messages cost less."""
    alone, together = needed(WORK, COSTS), needed(replace(WORK, is_multiplexed=True), COSTS)

    assert together.loads["balancers: memory"] == alone.loads["balancers: memory"] / 64
    assert together.loads["balancers: processor"] == alone.loads["balancers: processor"] / 25
    assert together.loads["replicas: processor"] == pytest.approx(20e3 * 230e-6 / 0.6)


def test_records_and_runs_grow_with_the_memory() -> None:
    """A run costs 60 us more at N = 1,024; costs of records are interpolated between two sizes."""
    large = needed(replace(WORK, locations=1024), COSTS)
    between = {**COSTS, "record bytes, N = 128, full": (12_288 + 98_304) / 2}

    assert large.loads["replicas: processor"] == pytest.approx(20e3 * 360e-6 / 0.6)
    assert needed(WORK, between).loads["store: processor"] == pytest.approx(20e3 * 50e-6 / 0.6)
    fresh = needed(replace(WORK, record="fresh"), COSTS)
    assert fresh.store_bytes == pytest.approx(100_000 * 13_000)


def test_needs_grow_with_the_sessions() -> None:
    """A hundred times the sessions need a hundred times of every resource."""
    one, hundred = needed(WORK, COSTS), needed(replace(WORK, sessions=10_000_000), COSTS)

    assert hundred.loads == pytest.approx({name: 100 * load for name, load in one.loads.items()})
    assert hundred.replicas == 1000


def test_a_stored_step_costs_more_the_more_sessions_sleep() -> None:
    """The cost lies between 100 us with a save of 200 us, and a wake of 2,000 us, by the share."""
    assert stored_step_us(COSTS) == 300
    assert stored_step_us(COSTS, 0.25) == pytest.approx(0.75 * 300 + 0.25 * 2_000)


def test_takeovers_wait_for_the_busiest_unit() -> None:
    """A session costs a replica 3,000 us and a Valkey 240 us, which is first with 100 replicas."""
    assert least_takeover_seconds(COSTS, 1_000, 1, 1) == pytest.approx(3.0)
    assert least_takeover_seconds(COSTS, 1_000, 10, 1) == pytest.approx(0.3)
    assert least_takeover_seconds(COSTS, 1_000, 100, 1) == pytest.approx(0.24)
