"""The first dashboard: health, traffic, latency, errors and saturation of all replicas."""

from __future__ import annotations

from collections.abc import Iterator

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.generate.dashboards.dcgm import gpus
from deploy.generate.dashboards.durability import not_durable, store_errors, store_time
from deploy.generate.dashboards.layout import PanelRow, dashboard
from deploy.generate.dashboards.panels import Panel, lines, number
from deploy.generate.dashboards.queries import (
    INSTANCE,
    MODEL,
    Query,
    mean,
    quantile,
    quantiles,
    rate,
    share,
    total,
)
from deploy.generate.objectives import ANSWERED_SHARE, FAST_SECONDS, FAST_SHARE, FAULTS

CALLS = rate("", f'__name__=~"ntm_rpc_seconds_count|ntm_stream_operations_total", {INSTANCE}')
FAULTY = f'{INSTANCE}, reason=~"{FAULTS}"'
FAST = f'{MODEL}, le="{FAST_SECONDS!r}"'


def overview() -> Dashboard:
    """Return the dashboard of all replicas and models."""
    return dashboard(
        "overview",
        "Health, traffic, latency, errors and saturation of all replicas.",
        [
            PanelRow("Now", list(now())),
            PanelRow("Traffic", list(traffic())),
            PanelRow("Latency", list(latency())),
            PanelRow("Where the time goes", list(time_spent())),
            PanelRow("Errors", list(errors())),
            PanelRow("Saturation", list(saturation())),
            PanelRow("Store, where there is one", [store_errors(), store_time(), not_durable()]),
            PanelRow("GPUs, where the DCGM exporter watches them", list(gpus())),
        ],
    )


def now() -> Iterator[Panel]:
    yield number(
        "Replicas serving",
        "Replicas that report SERVING, among those that Prometheus scrapes.",
        "none",
        total(f"ntm_serving{{{INSTANCE}}}"),
        bound=1,
        good_above=True,
    )
    yield number(
        "Open sessions",
        "Open sessions, awake or asleep.",
        "none",
        total(f"ntm_sessions{{{MODEL}}}"),
    )
    yield number(
        "Steps a second",
        "Steps a second, over all sessions.",
        "none",
        total(rate("ntm_steps_total")),
        decimals=0,
    )
    yield number(
        "Step, p99",
        "99 % of steps took no longer. Red above the bound of the objective.",
        "s",
        quantile("ntm_step_seconds", 0.99),
        bound=FAST_SECONDS,
        decimals=2,
    )
    yield number(
        "Fast steps",
        f"Share of steps within {FAST_SECONDS * 1000:.1f} ms. The objective is {FAST_SHARE:.0%}.",
        "percentunit",
        share(rate("ntm_step_seconds_bucket", FAST), rate("ntm_step_seconds_count")),
        bound=FAST_SHARE,
        good_above=True,
        decimals=2,
    )
    yield number(
        "Faultless calls",
        "Share of calls and stream operations without a fault of the server. The objective is "
        f"{ANSWERED_SHARE:.1%}.",
        "percentunit",
        f"1 - {share(rate('ntm_errors_total', FAULTY), CALLS)}",
        bound=ANSWERED_SHARE,
        good_above=True,
        decimals=2,
    )


def traffic() -> Iterator[Panel]:
    yield lines(
        "Steps by model",
        "Steps a second, by model.",
        "count:steps/s",
        Query(total(rate("ntm_steps_total"), "model"), "{{model}}"),
        stacked=True,
    )
    yield lines(
        "Calls by method",
        "Unary calls a second, by method.",
        "reqps",
        Query(total(rate("ntm_rpc_seconds_count", INSTANCE), "method"), "{{method}}"),
        stacked=True,
    )
    yield lines(
        "Stream operations by kind",
        "Operations a second received on streams, by kind: open, step or close a session.",
        "ops",
        Query(total(rate("ntm_stream_operations_total", INSTANCE), "kind"), "{{kind}}"),
        stacked=True,
    )
    yield lines(
        "Streams",
        "StreamSteps and ModelStreamInfer calls in progress, by replica.",
        "none",
        Query(total(f"ntm_streams{{{INSTANCE}}}", "instance"), "{{instance}}"),
    )
    yield lines(
        "Bytes of steps",
        "Bytes a second: inputs received, outputs and traces sent, without message framing.",
        "Bps",
        Query(total(rate("ntm_received_input_bytes_total", INSTANCE)), "inputs received"),
        Query(total(rate("ntm_sent_output_bytes_total", INSTANCE)), "outputs and traces sent"),
    )
    yield lines(
        "Traced steps",
        "Share of steps with at least one trace requested, by model.",
        "percentunit",
        Query(
            f"{total(rate('ntm_traced_steps_total'), 'model')}"
            f" / {total(rate('ntm_steps_total'), 'model')}",
            "{{model}}",
        ),
    )


def latency() -> Iterator[Panel]:
    yield lines(
        "Time of a step",
        "Time from a chunk's arrival to its last tick, over its steps. Dashed: the objective.",
        "s",
        *quantiles("ntm_step_seconds"),
        bound=FAST_SECONDS,
    )
    yield lines(
        "Time of a chunk",
        "Time from the arrival of a chunk to its last tick, for chunks of any length.",
        "s",
        *quantiles("ntm_chunk_seconds"),
    )
    yield lines(
        "Time of a call",
        "Time from the arrival of a unary call to its response, over all methods.",
        "s",
        *quantiles("ntm_rpc_seconds", INSTANCE),
    )
    yield lines(
        "p99 of a step by model",
        "99 % of the steps of the model took no longer. Dashed: the objective.",
        "s",
        Query(quantile("ntm_step_seconds", 0.99, by="model"), "{{model}}"),
        bound=FAST_SECONDS,
        span=12,
    )
    yield lines(
        "p99 of a call by method",
        "99 % of the calls of the method took no longer.",
        "s",
        Query(quantile("ntm_rpc_seconds", 0.99, INSTANCE, by="method"), "{{method}}"),
        span=12,
    )


def time_spent() -> Iterator[Panel]:
    """Time in the queue, in runs and in reply, and the size of batches."""
    yield lines(
        "Where a chunk's time goes",
        "Mean time of a chunk in the queue, in runs, and until gRPC takes its reply. The sum is "
        "its time in the server.",
        "s",
        Query(mean("ntm_chunk_queue_seconds"), "queue"),
        Query(mean("ntm_chunk_run_seconds"), "run"),
        Query(mean("ntm_chunk_reply_seconds"), "reply"),
        stacked=True,
        span=12,
    )
    yield lines(
        "p99 of each part",
        "99 % of chunks spent no longer in the queue, in runs and in reply.",
        "s",
        Query(quantile("ntm_chunk_queue_seconds", 0.99), "queue"),
        Query(quantile("ntm_chunk_run_seconds", 0.99), "run"),
        Query(quantile("ntm_chunk_reply_seconds", 0.99), "reply"),
        span=12,
    )
    yield lines(
        "Sessions in a tick",
        "Sessions that one run of the network steps together. More sessions cost less each.",
        "none",
        Query(mean("ntm_batch_rows"), "mean"),
        Query(quantile("ntm_batch_rows", 0.99), "p99"),
    )
    padding = total(rate("ntm_padding_rows_total"), "model")
    yield lines(
        "Padding",
        "Share of computed rows that repeat another row to fill the batch.",
        "percentunit",
        Query(
            f"{padding} / ({padding} + {total(rate('ntm_batch_rows_sum'), 'model')})", "{{model}}"
        ),
    )
    yield lines(
        "Time of a tick",
        "Mean time of one run of the network over a batch, by model.",
        "s",
        Query(mean("ntm_tick_seconds", by="model"), "{{model}}"),
    )


def errors() -> Iterator[Panel]:
    yield lines(
        "Errors by reason",
        "Calls and stream operations a second that were refused or failed, by reason.",
        "reqps",
        Query(total(rate("ntm_errors_total", INSTANCE), "reason"), "{{reason}}"),
        stacked=True,
    )
    yield lines(
        "Failed calls by code",
        "Unary calls a second that ended with a gRPC code other than OK.",
        "reqps",
        Query(total(rate("ntm_rpcs_ended_total", f'{INSTANCE}, code!="OK"'), "code"), "{{code}}"),
        stacked=True,
    )
    yield lines(
        "Streams ended by code",
        "StreamSteps and ModelStreamInfer calls a second that ended, by gRPC code.",
        "count:streams/s",
        Query(total(rate("ntm_streams_ended_total", INSTANCE), "code"), "{{code}}"),
        stacked=True,
    )


def saturation() -> Iterator[Panel]:
    threads = total(f"ntm_run_threads{{{INSTANCE}}}", "instance")
    yield lines(
        "Run threads busy",
        "Share of the time in which the run threads are busy, by replica.",
        "percentunit",
        Query(
            f"{total(rate('ntm_tick_seconds_sum', INSTANCE), 'instance')} / {threads}",
            "{{instance}}",
        ),
        maximum=1,
        bound=0.9,
    )
    yield lines(
        "Event loop late by",
        "Delay of timers in the event loop. Messages are delayed as much.",
        "s",
        *quantiles("ntm_event_loop_lag_seconds", INSTANCE),
        bound=0.1,
    )
    yield lines(
        "Sessions with a step waiting",
        "Sessions with a step that waits for a tick, by replica.",
        "none",
        Query(total(f"ntm_waiting_sessions{{{INSTANCE}}}", "instance"), "{{instance}}"),
    )
    yield lines(
        "Limits used",
        "Sessions and bytes of state as shares of their limits, at which sessions are refused.",
        "percentunit",
        Query(used(total(f"ntm_sessions{{{INSTANCE}}}", "instance"), "sessions_limit"), "sessions"),
        Query(
            used(
                total(f'ntm_state_bytes{{{INSTANCE}, place="slab"}}', "instance"),
                "state_limit_bytes",
            ),
            "state",
        ),
        maximum=1,
        bound=0.9,
        span=12,
    )
    yield lines(
        "Files used",
        "Open files, including connections, as a share of the limit of the process.",
        "percentunit",
        Query(
            f"process_open_fds{{{INSTANCE}}} / process_max_fds{{{INSTANCE}}}",
            "{{instance}}",
        ),
        maximum=1,
        bound=0.8,
        span=12,
    )


def used(amount: str, limit: str) -> str:
    """Return the largest share of a limit that any replica uses."""
    return f"max({amount} / {total(f'ntm_{limit}{{{INSTANCE}}}', 'instance')})"
