"""Storms, caches and waits, where it is known what must come out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.simulation import misses, requests, step_seconds, storm


def test_one_replica_takes_over_one_session_after_another() -> None:
    """The last goes on after all the work of all; with time enough nothing is asked for twice."""
    found = storm(500, 1, 0.004, 0.0001, store_timeout_seconds=60)

    assert found.operations == 1000
    assert found.seconds.max() == pytest.approx(2.0, rel=0.01)
    assert found.seconds.min() > 0.9  # all claims come before the saves


def test_the_store_bounds_what_many_replicas_do() -> None:
    """A thousand replicas with little work each wait for a store: 1 ms for each of two."""
    found = storm(5_000, 1000, 0.001, 0.001, store_timeout_seconds=60)

    assert found.seconds.max() == pytest.approx(10.0, rel=0.01)


def test_a_short_timeout_has_operations_made_again() -> None:
    """Those that wait for longer fail, their clients pause and come back, and all go on."""
    patient = storm(2_000, 1, 0.004, 0.0001, store_timeout_seconds=60)
    hasty = storm(2_000, 1, 0.004, 0.0001, store_timeout_seconds=2)

    assert np.isfinite(hasty.seconds).all()
    assert hasty.seconds.max() > patient.seconds.max()


def test_who_waits_too_long_is_never_asked_for() -> None:
    """Eight of sixteen have a place; the others' claims end in the replica, and they give up."""
    found = storm(16, 1, 10.0, 0.0001, store_timeout_seconds=2, resume_seconds=1)

    assert np.isinf(found.seconds).sum() == 8
    assert found.operations == 8 + 8


def test_a_store_that_answers_nobody_in_time_makes_clients_give_up() -> None:
    """After the time for which they try."""
    found = storm(10, 1, 0.001, 3.0, store_timeout_seconds=2, resume_seconds=20)

    assert found.seconds.tolist() == [math.inf] * 10
    assert 20 < found.operations < 200


def test_the_more_active_come_more_often() -> None:
    """As often as 1 / k of the k-th, and evenly with exponent 0."""
    asked = requests(1_000, 200_000, 1.0)
    counts = np.bincount(asked, minlength=1_000)

    assert counts[0] / counts[9] == pytest.approx(10, rel=0.1)
    assert np.bincount(requests(10, 100_000, 0.0)).std() < 150


def test_only_those_used_last_are_awake() -> None:
    """Among eight places and no spare ones, put to sleep one at a time."""
    asked = np.array([*range(8), 0, 8, 0, 1, 8])

    found = misses(asked, 8, at_once=1).tolist()
    assert found == [True] * 8 + [False, True, False, True, False]


def test_some_sleep_at_once_when_there_is_little_room() -> None:
    """Of 64 places four stay free: the 61st sends four to sleep."""
    asked = np.array([*range(61), 4, 3])

    assert misses(asked, 64, at_once=4).tolist() == [True] * 61 + [False, True]


def test_a_step_waits_for_those_before_it() -> None:
    """At half load, Poisson arrivals and constant work wait for half of the work on average."""
    resident = (0.001, {0.0: 0.002, 1.0: 0.002})
    times = step_seconds(np.zeros(400_000, bool), 500, resident, resident)

    assert times.min() == 0.002
    assert times.mean() == pytest.approx(0.002 + 0.0005, rel=0.03)


def test_a_sleeper_takes_what_wakes_take() -> None:
    """Its own quantiles, and others wait for its work."""
    resident, sleeper = (
        (0.0, {0.0: 0.001, 1.0: 0.001}),
        (0.01, {0.0: 0.004, 0.5: 0.004, 1.0: 0.006}),
    )
    asleep = np.arange(100_000) % 2 == 0
    times = step_seconds(asleep, 1, resident, sleeper)

    assert np.median(times[~asleep]) == pytest.approx(0.001)
    assert np.quantile(times[asleep], 0.25) == pytest.approx(0.004)
    assert times[~asleep].max() > 0.01
