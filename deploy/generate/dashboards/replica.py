"""The dashboard of one replica: its process, its event loop, its GPU."""

from __future__ import annotations

from collections.abc import Iterator

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.generate.dashboards.durability import awake_and_asleep, store_errors, store_time
from deploy.generate.dashboards.layout import Row, dashboard
from deploy.generate.dashboards.panels import Panel, lines, number, rows
from deploy.generate.dashboards.queries import INSTANCE, MODEL, Query, quantiles, rate, total


def replica() -> Dashboard:
    """One replica, below the API."""
    return dashboard(
        "replica",
        "One replica: its process, its event loop, its models and its GPU.",
        [
            Row("Now", list(now())),
            Row("Process", list(process())),
            Row("Work", list(work())),
            Row("Store, where there is one", [awake_and_asleep(), store_time(), store_errors()]),
            Row("Versions and models", list(versions())),
            Row("GPU, where there is one", list(gpu())),
        ],
        one="instance",
    )


def now() -> Iterator[Panel]:
    """What one number can say."""
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
        "1 once the replica was told to stop.",
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
        "Sessions that are open here, awake or asleep.",
        "none",
        total(f"ntm_sessions{{{INSTANCE}}}"),
    )
    yield number("Streams", "StreamSteps calls open here.", "none", f"ntm_streams{{{INSTANCE}}}")
    yield number(
        "Certificate expires in",
        "Time until the server's certificate expires; no data without TLS, "
        "green while it is more than two weeks.",
        "s",
        f"ntm_certificate_expiry_timestamp_seconds{{{INSTANCE}}} - time()",
        bound=14 * 86400,
        good_above=True,
        decimals=1,
    )


def process() -> Iterator[Panel]:
    """What the operating system and Python say."""
    yield lines(
        "Processor",
        "Cores in use; runs, the event loop and gRPC together.",
        "none",
        Query(rate("process_cpu_seconds_total", INSTANCE), "cores"),
    )
    yield lines(
        "Memory",
        "Bytes of the process: resident ones occupy memory, virtual ones need not.",
        "bytes",
        Query(f"process_resident_memory_bytes{{{INSTANCE}}}", "resident"),
        Query(f"process_virtual_memory_bytes{{{INSTANCE}}}", "virtual"),
    )
    yield lines(
        "Open files",
        "Files and connections open, and the most there may be.",
        "none",
        Query(f"process_open_fds{{{INSTANCE}}}", "open"),
        Query(f"process_max_fds{{{INSTANCE}}}", "limit"),
    )
    yield lines(
        "Garbage collections",
        "Collections of Python's garbage a second, by generation.",
        "ops",
        Query(rate("python_gc_collections_total", INSTANCE), "generation {{generation}}"),
    )
    yield lines(
        "Garbage collected",
        "Python objects a second in cycles that were freed, and those that could not be.",
        "ops",
        Query(total(rate("python_gc_objects_collected_total", INSTANCE)), "freed"),
        Query(total(rate("python_gc_objects_uncollectable_total", INSTANCE)), "not freed"),
    )
    yield lines(
        "Event loop late by",
        "How late the event loop is for a timer, and so for every message.",
        "s",
        *quantiles("ntm_event_loop_lag_seconds", INSTANCE),
        bound=0.1,
    )


def work() -> Iterator[Panel]:
    """What it computes."""
    busy = total(rate("ntm_tick_seconds_sum", INSTANCE))
    yield lines(
        "Runs under way",
        "Runs made at once, on average, and the most there can be.",
        "none",
        Query(busy, "under way"),
        Query(f"ntm_run_threads{{{INSTANCE}}}", "most"),
    )
    yield lines(
        "Steps by model",
        "Steps made a second, by model.",
        "count:steps/s",
        Query(total(rate("ntm_steps_total"), "model"), "{{model}}"),
        stacked=True,
    )
    yield lines(
        "Errors by reason",
        "Calls and stream operations refused or failed a second, by reason.",
        "reqps",
        Query(total(rate("ntm_errors_total", INSTANCE), "reason"), "{{reason}}"),
        stacked=True,
    )


def versions() -> Iterator[Panel]:
    """What runs here."""
    yield rows(
        "Server",
        "Versions of the server and of onnxruntime.",
        Query(f"ntm_build_info{{{INSTANCE}}}", "up"),
        hidden=("Value",),
    )
    yield rows(
        "Python",
        "The interpreter that runs the server.",
        Query(f"python_info{{{INSTANCE}}}", "up"),
        hidden=("Value", "major", "minor", "patchlevel"),
    )
    yield rows(
        "Models",
        "Versions that are loaded, by content hash, and the provider that runs each.",
        Query(f"ntm_model_info{{{MODEL}}}", "loaded"),
        hidden=("Value", "instance"),
    )
    yield rows(
        "Time to load",
        "Time that loading and warming up each model took, the last time.",
        Query(f"ntm_model_load_seconds{{{MODEL}}}", "time"),
        hidden=("instance",),
        unit="s",
    )


def gpu() -> Iterator[Panel]:
    """What the NVIDIA driver says."""
    yield lines(
        "GPU busy",
        "Share of the last moments in which the GPU computed, whoever used it.",
        "percentunit",
        Query(f"ntm_gpu_utilization_ratio{{{INSTANCE}}}", "GPU {{gpu}}"),
        most=1,
        span=12,
    )
    yield lines(
        "GPU memory",
        "Memory of the GPU that is taken, whoever took it, and all there is.",
        "bytes",
        Query(f"ntm_gpu_memory_used_bytes{{{INSTANCE}}}", "GPU {{gpu}}, taken"),
        Query(f"ntm_gpu_memory_total_bytes{{{INSTANCE}}}", "GPU {{gpu}}, all"),
        span=12,
    )
