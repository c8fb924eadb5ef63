"""Panels about sleeping sessions and the store, for several dashboards."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.generate.dashboards.panels import Panel, lines
from deploy.generate.dashboards.queries import INSTANCE, MODEL, Query, quantile, rate, total

ASLEEP = f"({total(f'ntm_sessions_asleep{{{MODEL}}}')} or vector(0))"
"""A model does not have the metric until its first session sleeps."""

AWAKE = f"({total(f'ntm_sessions{{{MODEL}}}')} - {ASLEEP})"


def durability() -> Iterator[Panel]:
    """Return the panels of the sessions in the store, and of saves and wakes."""
    yield awake_and_asleep()
    yield lines(
        "Sleeps and wakes",
        "Sessions a second that were put to sleep or woken, the latter by source: this replica or "
        "another one.",
        "count:sessions/s",
        Query(total(rate("ntm_sleeps_total")), "put to sleep"),
        Query(total(rate("ntm_wakes_total"), "source"), "woken, from {{source}}"),
    )
    yield lines(
        "Sessions moved",
        "Sessions a second that a replica closed because another replica had taken them over.",
        "count:sessions/s",
        Query(
            total(rate("ntm_sessions_closed_total", f'{MODEL}, reason="moved"'), "instance"),
            "{{instance}}",
        ),
        stacked=True,
    )
    yield lines(
        "Checkpoints by outcome",
        "Writes of sessions a second: stored, refused because another replica owns the session, or "
        "failed.",
        "count:checkpoints/s",
        Query(total(rate("ntm_checkpoints_total", INSTANCE), "outcome"), "{{outcome}}"),
        stacked=True,
    )
    yield not_durable()
    yield lines(
        "Deletions to be told",
        "Closed sessions whose deletion the store has not confirmed yet, by replica.",
        "none",
        Query(total(f"ntm_undeleted_sessions{{{INSTANCE}}}", "instance"), "{{instance}}"),
    )
    yield lines(
        "Bytes stored",
        "Bytes a second sent to the store, by replica.",
        "Bps",
        Query(total(rate("ntm_stored_bytes_total", INSTANCE), "instance"), "{{instance}}"),
        stacked=True,
    )
    yield store_time()
    yield store_errors()
    yield lines(
        "Chunks answered again",
        "Chunks a second that were sent again and answered from the last replies, by model.",
        "count:chunks/s",
        Query(total(rate("ntm_replayed_chunks_total"), "model"), "{{model}}"),
        stacked=True,
    )


def awake_and_asleep() -> Panel:
    return lines(
        "Awake and asleep",
        "Open sessions: awake, with state in a slab, or asleep in the store.",
        "none",
        Query(AWAKE, "awake"),
        Query(ASLEEP, "asleep"),
        stacked=True,
    )


def not_durable() -> Panel:
    """Return the panel of steps that a loss of the replica would undo."""
    return lines(
        "Steps not durable yet",
        "Steps that are not in the store yet. If the replica fails, clients make them again.",
        "none",
        Query(total(f"ntm_undurable_steps{{{INSTANCE}}}", "instance"), "{{instance}}"),
    )


def store_time() -> Panel:
    return lines(
        "Time of the store",
        "Median and 99th percentile of the time of store operations, by operation.",
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
    return lines(
        "Store errors",
        "Store operations a second that failed or timed out, by operation.",
        "ops",
        Query(total(rate("ntm_store_errors_total", INSTANCE), "operation"), "{{operation}}"),
        stacked=True,
    )
