"""The dashboard of one replica: its process, its event loop, its GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.generate.dashboards.durability import awake_and_asleep, store_errors, store_time
from deploy.generate.dashboards.layout import PanelRow, dashboard
from deploy.generate.dashboards.model import model
from deploy.generate.dashboards.others import others
from deploy.generate.dashboards.overview import overview
from deploy.generate.dashboards.panels import Panel, lines, number, rows
from deploy.generate.dashboards.queries import INSTANCE, MODEL, Query, quantiles, rate, total
from deploy.generate.dashboards.sessions import sessions
from service.telemetry.metrics import DECLARATIONS


def replica() -> Dashboard:
    rest = list(others([overview(), sessions(), model(), _board([])], DECLARATIONS))
    return _board([PanelRow("Other metrics", rest)] if rest else [])


def _board(more: Sequence[PanelRow]) -> Dashboard:
    """Return the dashboard with these rows at its end."""
    return dashboard(
        "replica",
        "One replica: its process, its event loop, its models and its GPU.",
        [
            PanelRow("Now", list(now())),
            PanelRow("Process", list(process())),
            PanelRow("Work", list(work())),
            PanelRow(
                "Store, where there is one", [awake_and_asleep(), store_time(), store_errors()]
            ),
            PanelRow("Versions and models", list(versions())),
            PanelRow("GPU, where there is one", list(gpu())),
            *more,
        ],
        one="instance",
    )


def now() -> Iterator[Panel]:
    yield number(
        "Serving",
        "1 while the replica reports SERVING.",
        "none",
        f"ntm_serving{{{INSTANCE}}}",
        bound=1,
        good_above=True,
    )
    yield number(
        "Draining",
        "1 while the replica shuts down.",
        "none",
        f"ntm_draining{{{INSTANCE}}}",
        bound=1,
    )
    yield number(
        "Up for",
        "Time since the process started.",
        "s",
        f"time() - process_start_time_seconds{{{INSTANCE}}}",
        decimals=1,
    )
    yield number(
        "Sessions",
        "Open sessions of this replica, awake or asleep.",
        "none",
        total(f"ntm_sessions{{{INSTANCE}}}"),
    )
    yield number(
        "Streams",
        "StreamSteps and ModelStreamInfer calls in progress.",
        "none",
        f"ntm_streams{{{INSTANCE}}}",
    )
    yield number(
        "Certificate expires in",
        "Time until the certificate of the server expires. Green above two weeks. No data without "
        "TLS.",
        "s",
        f"ntm_certificate_expiry_timestamp_seconds{{{INSTANCE}}} - time()",
        bound=14 * 86400,
        good_above=True,
        decimals=1,
    )


def process() -> Iterator[Panel]:
    yield lines(
        "Processor",
        "Cores in use, by runs, the event loop and gRPC together.",
        "none",
        Query(rate("process_cpu_seconds_total", INSTANCE), "cores"),
    )
    yield lines(
        "Memory",
        "Resident and virtual memory of the process in bytes.",
        "bytes",
        Query(f"process_resident_memory_bytes{{{INSTANCE}}}", "resident"),
        Query(f"process_virtual_memory_bytes{{{INSTANCE}}}", "virtual"),
    )
    yield lines(
        "Open files",
        "Open files, including connections, and their limit.",
        "none",
        Query(f"process_open_fds{{{INSTANCE}}}", "open"),
        Query(f"process_max_fds{{{INSTANCE}}}", "limit"),
    )
    yield lines(
        "Garbage collections",
        "Runs a second of Python's garbage collector, by generation.",
        "ops",
        Query(rate("python_gc_collections_total", INSTANCE), "generation {{generation}}"),
    )
    yield lines(
        "Garbage collected",
        "Python objects a second in reference cycles that were freed, or could not be freed.",
        "ops",
        Query(total(rate("python_gc_objects_collected_total", INSTANCE)), "freed"),
        Query(total(rate("python_gc_objects_uncollectable_total", INSTANCE)), "not freed"),
    )
    yield lines(
        "Event loop late by",
        "Delay of timers in the event loop. Messages are delayed as much.",
        "s",
        *quantiles("ntm_event_loop_lag_seconds", INSTANCE),
        bound=0.1,
    )


def work() -> Iterator[Panel]:
    busy = total(rate("ntm_tick_seconds_sum", INSTANCE))
    yield lines(
        "Runs under way",
        "Mean number of runs in progress, and the number of run threads.",
        "none",
        Query(busy, "under way"),
        Query(f"ntm_run_threads{{{INSTANCE}}}", "most"),
    )
    yield lines(
        "Steps by model",
        "Steps a second, by model.",
        "count:steps/s",
        Query(total(rate("ntm_steps_total"), "model"), "{{model}}"),
        stacked=True,
    )
    yield lines(
        "Errors by reason",
        "Calls and stream operations a second that were refused or failed, by reason.",
        "reqps",
        Query(total(rate("ntm_errors_total", INSTANCE), "reason"), "{{reason}}"),
        stacked=True,
    )


def versions() -> Iterator[Panel]:
    yield rows(
        "Server",
        "Versions of the server and of onnxruntime.",
        Query(f"ntm_build_info{{{INSTANCE}}}", "up"),
        hidden=("Value",),
    )
    yield rows(
        "Python",
        "Version of the Python interpreter.",
        Query(f"python_info{{{INSTANCE}}}", "up"),
        hidden=("Value", "major", "minor", "patchlevel"),
    )
    yield rows(
        "Models",
        "Content hash and provider of each loaded version.",
        Query(f"ntm_model_info{{{MODEL}}}", "loaded"),
        hidden=("Value", "instance"),
    )
    yield rows(
        "Time to load",
        "Time of the last loading and warming up of each model.",
        Query(f"ntm_model_load_seconds{{{MODEL}}}", "time"),
        hidden=("instance",),
        unit="s",
    )


def gpu() -> Iterator[Panel]:
    """GPUs, as the NVIDIA driver reports them."""
    yield lines(
        "GPU busy",
        "Share of the time in which the GPU was busy, for all processes.",
        "percentunit",
        Query(f"ntm_gpu_utilization_ratio{{{INSTANCE}}}", "GPU {{gpu}}"),
        maximum=1,
        span=12,
    )
    yield lines(
        "GPU memory",
        "Used memory of the GPU, by all processes, and its total memory.",
        "bytes",
        Query(f"ntm_gpu_memory_used_bytes{{{INSTANCE}}}", "GPU {{gpu}}, taken"),
        Query(f"ntm_gpu_memory_total_bytes{{{INSTANCE}}}", "GPU {{gpu}}, all"),
        span=12,
    )
