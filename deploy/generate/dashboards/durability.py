"""Panels of sleeping sessions and of the store, which several dashboards show."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.generate.dashboards.panels import Panel, lines
from deploy.generate.dashboards.queries import INSTANCE, MODEL, Query, quantile, rate, total

ASLEEP = f"({total(f'ntm_sessions_asleep{{{MODEL}}}')} or vector(0))"
"""No model has the metric before its first session sleeps."""

AWAKE = f"({total(f'ntm_sessions{{{MODEL}}}')} - {ASLEEP})"


def durability() -> Iterator[Panel]:
    """What the store holds, and how it gets there and back."""
    yield awake_and_asleep()
    yield lines(
        "Sleeps and wakes",
        "Sessions a second put to sleep, and woken: those that slept here, and those that were "
        "another replica's.",
        "count:sessions/s",
        Query(total(rate("ntm_sleeps_total")), "put to sleep"),
        Query(total(rate("ntm_wakes_total"), "source"), "woken, from {{source}}"),
    )
    yield lines(
        "Sessions moved",
        "Sessions a second that a replica had awake and found to be another replica's.",
        "count:sessions/s",
        Query(
            total(rate("ntm_sessions_closed_total", f'{MODEL}, reason="moved"'), "instance"),
            "{{instance}}",
        ),
        stacked=True,
    )
    yield lines(
        "Checkpoints by outcome",
        "Sessions a second that were to be stored: stored, refused since another replica has "
        "them, or failed with the store.",
        "count:checkpoints/s",
        Query(total(rate("ntm_checkpoints_total", INSTANCE), "outcome"), "{{outcome}}"),
        stacked=True,
    )
    yield not_durable()
    yield lines(
        "Deletions to be told",
        "Sessions that have ended and that the store has not forgotten, as it did not answer.",
        "none",
        Query(total(f"ntm_undeleted_sessions{{{INSTANCE}}}", "instance"), "{{instance}}"),
    )
    yield lines(
        "Bytes stored",
        "Bytes of sessions sent to the store a second, by replica.",
        "Bps",
        Query(total(rate("ntm_stored_bytes_total", INSTANCE), "instance"), "{{instance}}"),
        stacked=True,
    )
    yield store_time()
    yield store_errors()
    yield lines(
        "Chunks answered again",
        "Chunks a second that had been made before: clients had lost the answer, by model.",
        "count:chunks/s",
        Query(total(rate("ntm_replayed_chunks_total"), "model"), "{{model}}"),
        stacked=True,
    )


def awake_and_asleep() -> Panel:
    """Where the open sessions are."""
    return lines(
        "Awake and asleep",
        "Open sessions: awake, with state in a slab, and asleep in the store.",
        "none",
        Query(AWAKE, "awake"),
        Query(ASLEEP, "asleep"),
        stacked=True,
    )


def not_durable() -> Panel:
    """What would be lost with a replica."""
    return lines(
        "Steps not durable yet",
        "Steps that the store does not have yet: clients make them again if the replica dies.",
        "none",
        Query(total(f"ntm_undurable_steps{{{INSTANCE}}}", "instance"), "{{instance}}"),
    )


def store_time() -> Panel:
    """How long the store takes."""
    return lines(
        "Time of the store",
        "Half and 99 of 100 calls of the store took no longer, by operation.",
        "s",
        *(
            Query(
                quantile("ntm_store_seconds", which, INSTANCE, by="operation"),
                f"{{{{operation}}}}, {name}",
            )
            for name, which in (("p50", 0.5), ("p99", 0.99))
        ),
    )


def store_errors() -> Panel:
    """How often the store fails."""
    return lines(
        "Store errors",
        "Times a second that the store did not answer, or not in time, by operation.",
        "ops",
        Query(total(rate("ntm_store_errors_total", INSTANCE), "operation"), "{{operation}}"),
        stacked=True,
    )
