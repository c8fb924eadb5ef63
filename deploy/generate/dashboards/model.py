"""The dashboard of one model: its versions, speed, batches, sessions and traces."""

from __future__ import annotations

from collections.abc import Iterator

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.generate.dashboards.layout import Row, dashboard
from deploy.generate.dashboards.panels import Panel, lines, rows
from deploy.generate.dashboards.queries import (
    MODEL,
    Query,
    mean,
    quantile,
    quantiles,
    rate,
    total,
)
from deploy.generate.objectives import FAST_SECONDS


def model() -> Dashboard:
    """One model on all replicas."""
    return dashboard(
        "model",
        "One model: how fast it is, how its runs are filled, what its sessions do.",
        [
            Row("What is served", list(served())),
            Row("Speed", list(speed())),
            Row("Runs", list(runs())),
            Row("Sessions", list(sessions())),
        ],
        one="model",
    )


def served() -> Iterator[Panel]:
    """Which file each replica serves, and where it runs."""
    yield rows(
        "Loaded",
        "Content hash of each version and the provider that runs it; old ones have sessions yet.",
        Query(f"ntm_model_info{{{MODEL}}}", "loaded"),
        hidden=("Value",),
    )
    yield rows(
        "Time to load",
        "Time that loading and warming up took, by replica.",
        Query(f"ntm_model_load_seconds{{{MODEL}}}", "time"),
        unit="s",
    )
    yield lines(
        "Files taken over",
        "Files put, replaced or removed in the last hour, by what became of them.",
        "none",
        Query(
            f"sum by (outcome) (increase(ntm_model_reloads_total{{{MODEL}}}[1h]))", "{{outcome}}"
        ),
    )


def speed() -> Iterator[Panel]:
    """How long its steps take."""
    yield lines(
        "Steps",
        "Steps made a second, and those of them with traces.",
        "count:steps/s",
        Query(total(rate("ntm_steps_total")), "all"),
        Query(total(rate("ntm_traced_steps_total")), "traced"),
    )
    yield lines(
        "Time of a step",
        "From a chunk's arrival to its last tick, divided by its steps; dashed: the objective.",
        "s",
        *quantiles("ntm_step_seconds"),
        bound=FAST_SECONDS,
    )
    yield lines(
        "Where a chunk's time goes",
        "Mean time that a chunk waits, is run, and waits for its reply to be taken.",
        "s",
        Query(mean("ntm_chunk_queue_seconds"), "queue"),
        Query(mean("ntm_chunk_run_seconds"), "run"),
        Query(mean("ntm_chunk_reply_seconds"), "reply"),
        stacked=True,
    )
    for part, words in (
        ("queue", "arrival to its first tick"),
        ("run", "first tick to the end of its last"),
        ("reply", "last tick to when gRPC has taken its reply"),
    ):
        yield lines(
            f"Time in {part}",
            f"From a chunk's {words}.",
            "s",
            *quantiles(f"ntm_chunk_{part}_seconds"),
        )


def runs() -> Iterator[Panel]:
    """How its ticks are made."""
    yield lines(
        "Ticks",
        "Runs of the network over a batch a second, by replica.",
        "count:ticks/s",
        Query(total(rate("ntm_ticks_total"), "instance"), "{{instance}}"),
    )
    yield lines(
        "Time of a tick",
        "One run of the network over a batch.",
        "s",
        *quantiles("ntm_tick_seconds"),
    )
    yield lines(
        "Sessions in a tick",
        "Sessions that one run of the network steps together.",
        "none",
        Query(mean("ntm_batch_rows"), "mean"),
        Query(quantile("ntm_batch_rows", 0.99), "p99"),
    )
    padding = total(rate("ntm_padding_rows_total"))
    yield lines(
        "Rows computed",
        "Rows a second that step a session, and those that only fill up a batch.",
        "count:rows/s",
        Query(total(rate("ntm_batch_rows_sum")), "steps"),
        Query(padding, "padding"),
        stacked=True,
    )
    yield lines(
        "Failed runs",
        "Runs in the last hour that raised an error; each closed the sessions of its batch.",
        "none",
        Query(f"{total(f'increase(ntm_failed_runs_total{{{MODEL}}}[1h])')} or vector(0)", "failed"),
    )
    yield lines(
        "Share of run time",
        "Time spent in runs a second, by replica: 1 is one run thread busy all the time.",
        "none",
        Query(total(rate("ntm_tick_seconds_sum"), "instance"), "{{instance}}"),
    )


def sessions() -> Iterator[Panel]:
    """What its sessions do."""
    yield lines(
        "Open sessions",
        "Open sessions, awake or asleep, by replica.",
        "none",
        Query(total(f"ntm_sessions{{{MODEL}}}", "instance"), "{{instance}}"),
        stacked=True,
    )
    yield lines(
        "State",
        "Bytes of state of sessions that are awake, by replica.",
        "bytes",
        Query(total(f"ntm_state_bytes{{{MODEL}}}", "instance"), "{{instance}}"),
        stacked=True,
    )
    yield lines(
        "Traces asked for",
        "Chunks a second that asked for a trace, by trace.",
        "count:chunks/s",
        Query(total(rate("ntm_traces_total"), "trace"), "{{trace}}"),
    )
