"""
Every metric of the server, declared in `Metrics`.

To add one, declare it here and count it where it happens; `make reference` and `make dashboards`
show it. `DECLARATIONS` lists them for programs; reading it starts nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, product
from typing import Any, Generic, TypeVar, overload

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

# Steps take from 50 microseconds to 10 milliseconds; the geometric buckets go on to one minute for
# waits under overload.
SECONDS = tuple(round(50e-6 * 1.8**power, 7) for power in range(25))
LIFETIMES = tuple(0.1 * 2.0**power for power in range(21))
STEPS = (0, *(4**power for power in range(12)))
STORE_OPERATIONS = ("save", "claim", "epoch", "delete")
ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 4096)


class Observations:
    """The counts of a `BatchHistogram` for one model. Only one thread at a time may count."""

    def __init__(self, buckets: Sequence[float]) -> None:
        """The buckets are upper bounds, in increasing order."""
        self._buckets = buckets
        self.counts = [0] * (len(buckets) + 1)
        self.sum = 0.0

    def observe(self, values: Sequence[float], times: int = 1) -> None:
        """Count each value this many times."""
        for value in values:
            self.counts[bisect_left(self._buckets, value)] += times
        self.sum += times * sum(values)

    def observe_one(self, value: float, times: int = 1) -> None:
        """Count one value this many times; faster than `observe` for a value that comes alone."""
        self.counts[bisect_left(self._buckets, value)] += times
        self.sum += times * value


class BatchHistogram(Collector):
    """
    A histogram by model that takes many values at a time.

    Prometheus's own histogram takes values one by one, under locks. For two values a step that
    would cost a third of the time that the network needs for the step.
    """

    def __init__(
        self, name: str, documentation: str, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._buckets = buckets
        self._models: dict[str, Observations] = {}
        registry.register(self)

    def labels(self, model: str) -> Observations:
        """Return the counts of a model, which start at 0."""
        seen = self._models.get(model)
        if seen is None:
            seen = self._models[model] = Observations(self._buckets)
        return seen

    def collect(self) -> Iterator[Metric]:
        """Yield the metric as it is now."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=["model"])
        bounds = [*map(repr, map(float, self._buckets)), "+Inf"]
        for model, seen in list(self._models.items()):
            cumulative = list(zip(bounds, accumulate(seen.counts), strict=True))
            family.add_metric([model], cumulative, seen.sum)
        yield family


T = TypeVar("T", Counter, Gauge, Histogram, BatchHistogram)


@dataclass(frozen=True)
class Declaration(Generic[T]):
    """A metric as scrapes and the reference page show it, before anything is counted."""

    kind: type[T]
    name: str
    """The name in queries; a counter's ends in _total."""
    help: str
    """One sentence in plain English."""
    labels: tuple[str, ...] = ()
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The values of those labels whose values are the same in every server."""
    buckets: Sequence[float] = ()
    """Upper bounds of a histogram's buckets."""

    @property
    def type(self) -> str:
        """Prometheus's word for the type: counter, gauge or histogram."""
        return {Counter: "counter", Gauge: "gauge"}.get(self.kind, "histogram")

    def register(self, registry: CollectorRegistry) -> Counter | Gauge | Histogram | BatchHistogram:
        """Make the metric, which starts at 0, and register it."""
        if self.kind is BatchHistogram:
            return BatchHistogram(self.name, self.help, self.buckets, registry)
        if self.kind is Histogram:
            return Histogram(
                self.name, self.help, self.labels, buckets=self.buckets, registry=registry
            )
        return (Counter if self.kind is Counter else Gauge)(
            self.name, self.help, self.labels, registry=registry
        )

    @overload
    def __get__(self, instance: None, owner: Any) -> Declaration[T]: ...
    @overload
    def __get__(self, instance: object, owner: Any) -> T: ...
    def __get__(self, instance: object, owner: Any) -> Any:
        """
        Give type checkers the type of `metrics.steps`, a counter, and of `Metrics.steps`, its
        declaration.
        """
        return self


def _counter(name: str, text: str, *labels: str, **values: Sequence[str]) -> Declaration[Counter]:
    return Declaration(Counter, name, text, (*labels, *values), values)


def _gauge(name: str, text: str, *labels: str, **values: Sequence[str]) -> Declaration[Gauge]:
    return Declaration(Gauge, name, text, (*labels, *values), values)


def _histogram(
    name: str,
    text: str,
    *labels: str,
    buckets: Sequence[float] = SECONDS,
    **values: Sequence[str],
) -> Declaration[Histogram]:
    return Declaration(Histogram, name, text, (*labels, *values), values, buckets)


def _by_model(
    name: str, text: str, buckets: Sequence[float] = SECONDS
) -> Declaration[BatchHistogram]:
    return Declaration(BatchHistogram, name, text, ("model",), buckets=buckets)


class Metrics:
    """The metrics that the server counts, as attributes. Each declaration becomes its metric."""

    # The server and its models.
    build = _gauge(
        "ntm_build_info",
        "Always 1; the labels are the versions of the server and of onnxruntime.",
        *("version", "onnxruntime"),
    )
    model = _gauge(
        "ntm_model_info",
        "Always 1 for each loaded version; the labels are its content hash and its provider.",
        *("model", "content_hash", "provider"),
    )
    model_batched = _gauge(
        "ntm_model_batched",
        "1 if runs of the loaded version step several sessions, 0 if each steps one, because "
        "results depend on the batch.",
        *("model", "content_hash"),
    )
    model_load = _gauge(
        "ntm_model_load_seconds",
        "Time of the model's last loading, with its warm-up; 0 before.",
        "model",
    )
    model_reloads = _counter(
        "ntm_model_reloads_total",
        "Model files added, replaced or removed, by outcome (taken, failed, removed).",
        "model",
        outcome=("taken", "failed", "removed"),
    )
    serving = _gauge("ntm_serving", "1 while the server reports SERVING, else 0.")
    draining = _gauge("ntm_draining", "1 since the server was told to stop, else 0.")
    event_loop_lag_seconds = _histogram(
        "ntm_event_loop_lag_seconds",
        "How late the event loop calls a timer, measured ten times a second.",
    )
    run_threads = _gauge("ntm_run_threads", "Runs of networks that can be made at once.")
    certificate_expiry = _gauge(
        "ntm_certificate_expiry_timestamp_seconds",
        "Unix time at which a file's certificate expires: server, or client_ca for the CAs of "
        "clients, of which the first to expire counts.",
        "file",
    )

    # Calls.
    rpc_seconds = _histogram(
        "ntm_rpc_seconds", "Time from the arrival of a unary call to its answer.", "method"
    )
    # Apart from the histogram, since all methods have all codes from the start.
    rpcs_ended = _counter(
        "ntm_rpcs_ended_total",
        "Unary calls that ended, by method and gRPC code.",
        *("method", "code"),
    )
    streams = _gauge("ntm_streams", "Open StreamSteps and ModelStreamInfer calls.")
    streams_ended = _counter(
        "ntm_streams_ended_total",
        "StreamSteps and ModelStreamInfer calls that ended, by gRPC code.",
        "code",
    )
    operations = _counter(
        "ntm_stream_operations_total",
        "Operations received on streams, by kind (open, step, close, cancel, or none).",
        kind=("open", "step", "close", "cancel", "none"),
    )
    errors = _counter(
        "ntm_errors_total",
        "Calls and stream operations that were refused or failed, by reason.",
        "reason",
    )
    received_bytes = _counter(
        "ntm_received_input_bytes_total", "Bytes of inputs received in chunks."
    )
    sent_bytes = _counter(
        "ntm_sent_output_bytes_total", "Bytes of outputs and traces sent for chunks."
    )

    # Sessions and their memory.
    sessions = _gauge("ntm_sessions", "Open sessions.", "model")
    sessions_opened = _counter("ntm_sessions_opened_total", "Sessions opened.", "model")
    sessions_closed = _counter(
        "ntm_sessions_closed_total",
        "Sessions closed, by reason (deleted, expired, failed, moved).",
        "model",
        reason=("deleted", "expired", "failed", "moved"),
    )
    sessions_asleep = _gauge(
        "ntm_sessions_asleep", "Open sessions that are in the store and in no slab.", "model"
    )
    sleeps = _counter("ntm_sleeps_total", "Sessions put to sleep in the store.", "model")
    wakes = _counter(
        "ntm_wakes_total",
        "Sessions taken from the store, by where they were awake before (here, elsewhere).",
        "model",
        source=("here", "elsewhere"),
    )
    sessions_limit = _gauge("ntm_sessions_limit", "Limit of open sessions.")
    waiting_sessions = _gauge(
        "ntm_waiting_sessions", "Sessions that have at least one step waiting."
    )
    slots = _gauge(
        "ntm_slots", "Slots of the slabs, by use (taken, free).", "model", use=("taken", "free")
    )
    state_bytes = _gauge(
        "ntm_state_bytes",
        "Bytes of state of open sessions, by place (slab).",
        "model",
        place=("slab",),
    )
    state_limit_bytes = _gauge("ntm_state_limit_bytes", "Limit of bytes of state of open sessions.")
    session_lifetime_seconds = _histogram(
        "ntm_session_lifetime_seconds",
        "Time from the opening of a session to its closing.",
        "model",
        buckets=LIFETIMES,
    )
    session_idle_seconds = _histogram(
        "ntm_session_idle_seconds",
        "Time without a step before a session expired.",
        "model",
        buckets=LIFETIMES,
    )
    session_steps = _histogram(
        "ntm_session_steps",
        "Steps that a session made between its last reset and its closing.",
        "model",
        buckets=STEPS,
    )

    # Steps and ticks.
    steps = _counter("ntm_steps_total", "Steps made.", "model")
    traced_steps = _counter("ntm_traced_steps_total", "Steps made with traces.", "model")
    traces = _counter(
        "ntm_traces_total", "Chunks that asked for a trace, by trace.", "model", "trace"
    )
    replayed_chunks = _counter(
        "ntm_replayed_chunks_total",
        "Chunks sent again whose outputs were answered without computing them again.",
        "model",
    )
    ticks = _counter("ntm_ticks_total", "Runs of the network over a batch.", "model")
    tick_seconds = _by_model(
        "ntm_tick_seconds", "Time of one tick; a run of several ticks is divided equally."
    )
    batch_rows = _by_model("ntm_batch_rows", "Sessions stepped in one tick.", ROWS)
    padding_rows = _counter(
        "ntm_padding_rows_total",
        "Rows computed to fill up batches, which belong to no session.",
        "model",
    )
    failed_runs = _counter(
        "ntm_failed_runs_total", "Runs of the network that raised an error.", "model"
    )

    # Where the time of a chunk goes.
    queue_seconds = _by_model(
        "ntm_chunk_queue_seconds", "Time from the arrival of a chunk to its first tick."
    )
    run_seconds = _by_model(
        "ntm_chunk_run_seconds", "Time from a chunk's first tick to the end of its last tick."
    )
    chunk_seconds = _by_model(
        "ntm_chunk_seconds", "Time from the arrival of a chunk to the end of its last tick."
    )
    reply_seconds = _by_model(
        "ntm_chunk_reply_seconds",
        "Time from the end of a chunk's last tick until gRPC has taken its reply.",
    )
    step_seconds = _by_model(
        "ntm_step_seconds",
        "Time of a step: the time from its chunk's arrival to the end of the last tick, divided by "
        "the number of its steps.",
    )
    interval_seconds = _by_model(
        "ntm_step_interval_seconds",
        "Time from a session's last tick to the arrival of its next chunk, if no chunk waited.",
    )

    # The store.
    store_seconds = _histogram(
        "ntm_store_seconds",
        "Time of the store's answer, by operation (save, claim, epoch, delete).",
        operation=STORE_OPERATIONS,
    )
    store_errors = _counter(
        "ntm_store_errors_total",
        "Requests that the store did not answer, by operation.",
        operation=STORE_OPERATIONS,
    )
    checkpoints = _counter(
        "ntm_checkpoints_total",
        "Attempts to store a session, by outcome (stored, refused, failed).",
        outcome=("stored", "refused", "failed"),
    )
    stored_bytes = _counter("ntm_stored_bytes_total", "Bytes of sessions sent to the store.")
    undeleted_sessions = _gauge(
        "ntm_undeleted_sessions",
        "Ended sessions that are still to be deleted from the store, which does not answer.",
    )
    undurable_steps = _gauge(
        "ntm_undurable_steps",
        "Steps of awake sessions that are still to be stored, as their durability asks.",
    )

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register every metric, all at 0; two servers in one process use two registries."""
        # Every counter would otherwise have a second series, the time at which it was made.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
        for attribute, declared in _declared():
            # An attribute of the instance hides the declaration, which is the class's.
            setattr(self, attribute, declared.register(registry))
        self.exist()

    def exist(self, **values: Iterable[str]) -> None:
        """
        Have every series exist, at 0, whose labels have these values or declared ones.

        Prometheus sees an increase only from one scrape to the next, so a series that begins with
        its first event never shows that event. Whoever learns the values of a label gives them
        here before anything is counted: `exist(model=["copy"], trace=["read_weights"])`.
        """
        given = {label: tuple(each) for label, each in values.items()}
        for attribute, declared in _declared():
            known = {**given, **declared.values}
            if declared.labels and known.keys() >= set(declared.labels):
                for series in product(*(known[label] for label in declared.labels)):
                    getattr(self, attribute).labels(*series)


def _declared() -> list[tuple[str, Declaration[Any]]]:
    """The attributes of `Metrics` and what they declare, in order."""
    return [(name, each) for name, each in vars(Metrics).items() if isinstance(each, Declaration)]


GPU_MEMORY_USED = _gauge("ntm_gpu_memory_used_bytes", "Memory in use on a GPU.", "gpu")
GPU_MEMORY_TOTAL = _gauge("ntm_gpu_memory_total_bytes", "Memory of a GPU.", "gpu")
GPU_UTILIZATION = _gauge(
    "ntm_gpu_utilization_ratio", "Share of the last moments in which a GPU was busy.", "gpu"
)

DECLARATIONS: tuple[Declaration[Any], ...] = (
    *(declared for _, declared in _declared()),
    *(GPU_MEMORY_USED, GPU_MEMORY_TOTAL, GPU_UTILIZATION),
)
"""Every metric of the server besides those of the Python process, in the order of a scrape."""
