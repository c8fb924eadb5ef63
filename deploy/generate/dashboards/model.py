"""The dashboard of one model: its versions, speed, runs, sessions and traces."""

from __future__ import annotations

from collections.abc import Iterator

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.generate.dashboards.layout import PanelRow, dashboard
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
    return dashboard(
        "model",
        "One model on all replicas: its versions, speed, runs, sessions and traces.",
        [
            PanelRow("What is served", list(served())),
            PanelRow("Speed", list(speed())),
            PanelRow("Runs", list(runs())),
            PanelRow("Sessions", list(sessions())),
        ],
        one="model",
    )


def served() -> Iterator[Panel]:
    yield rows(
        "Loaded",
        "Content hash and provider of each loaded version. Old ones stay while they have sessions.",
        Query(f"ntm_model_info{{{MODEL}}}", "loaded"),
        hidden=("Value",),
    )
    yield rows(
        "Time to load",
        "Time to load and warm up each version, by replica.",
        Query(f"ntm_model_load_seconds{{{MODEL}}}", "time"),
        unit="s",
    )
    yield lines(
        "Files taken over",
        "Files added, replaced or removed in the last hour, by outcome.",
        "none",
        Query(
            f"sum by (outcome) (increase(ntm_model_reloads_total{{{MODEL}}}[1h]))", "{{outcome}}"
        ),
    )


def speed() -> Iterator[Panel]:
    yield lines(
        "Steps",
        "Steps a second: all steps, and steps with traces.",
        "count:steps/s",
        Query(total(rate("ntm_steps_total")), "all"),
        Query(total(rate("ntm_traced_steps_total")), "traced"),
    )
    yield lines(
        "Time of a step",
        "Time from a chunk's arrival to its last tick, over its steps. Dashed: the objective.",
        "s",
        *quantiles("ntm_step_seconds"),
        bound=FAST_SECONDS,
    )
    yield lines(
        "Where a chunk's time goes",
        "Mean time of a chunk in the queue, in runs, and until gRPC takes its reply.",
        "s",
        Query(mean("ntm_chunk_queue_seconds"), "queue"),
        Query(mean("ntm_chunk_run_seconds"), "run"),
        Query(mean("ntm_chunk_reply_seconds"), "reply"),
        stacked=True,
    )
    for part, words in (
        ("queue", "arrival of a chunk to its first tick"),
        ("run", "first tick of a chunk to the end of its last"),
        ("reply", "last tick of a chunk until gRPC takes its reply"),
    ):
        yield lines(
            f"Time in {part}",
            f"Time from the {words}.",
            "s",
            *quantiles(f"ntm_chunk_{part}_seconds"),
        )


def runs() -> Iterator[Panel]:
    yield lines(
        "Ticks",
        "Runs of the network a second, each over a batch, by replica.",
        "count:ticks/s",
        Query(total(rate("ntm_ticks_total"), "instance"), "{{instance}}"),
    )
    yield lines(
        "Time of a tick",
        "Time of one run of the network over a batch.",
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
        "Rows computed a second: rows that step a session, and rows that only fill the batch.",
        "count:rows/s",
        Query(total(rate("ntm_batch_rows_sum")), "steps"),
        Query(padding, "padding"),
        stacked=True,
    )
    yield lines(
        "Failed runs",
        "Runs that failed in the last hour. Each closed the sessions of its batch.",
        "none",
        Query(f"{total(f'increase(ntm_failed_runs_total{{{MODEL}}}[1h])')} or vector(0)", "failed"),
    )
    yield lines(
        "Share of run time",
        "Seconds of run time a second, by replica. 1 is one run thread that is always busy.",
        "none",
        Query(total(rate("ntm_tick_seconds_sum"), "instance"), "{{instance}}"),
    )


def sessions() -> Iterator[Panel]:
    yield lines(
        "Open sessions",
        "Open sessions, awake or asleep, by replica.",
        "none",
        Query(total(f"ntm_sessions{{{MODEL}}}", "instance"), "{{instance}}"),
        stacked=True,
    )
    yield lines(
        "State",
        "Bytes of state of awake sessions, by replica.",
        "bytes",
        Query(total(f"ntm_state_bytes{{{MODEL}}}", "instance"), "{{instance}}"),
        stacked=True,
    )
    yield lines(
        "Traces asked for",
        "Chunks a second that requested a trace, by trace.",
        "count:chunks/s",
        Query(total(rate("ntm_traces_total"), "trace"), "{{trace}}"),
    )
