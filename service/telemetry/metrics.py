"""Every metric of the server, on a registry passed in."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

# Steps take from 50 microseconds to 10 milliseconds; the geometric buckets go on to one minute for
# waits under overload.
SECONDS = tuple(round(50e-6 * 1.8**power, 7) for power in range(25))
LIFETIMES = tuple(0.1 * 2.0**power for power in range(21))
STEPS = (0, *(4**power for power in range(12)))
ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 4096)


class Observations:
    """What a `BatchHistogram` has counted of one model."""

    def __init__(self, buckets: Sequence[float]) -> None:
        """Nothing yet."""
        self._buckets = buckets
        self.counts = [0] * (len(buckets) + 1)
        self.sum = 0.0

    def observe(self, values: Sequence[float], times: int = 1) -> None:
        """Count every value, so many times. Only one thread at a time may do so."""
        for value in values:
            self.counts[bisect_left(self._buckets, value)] += times
        self.sum += times * sum(values)

    def observe_one(self, value: float) -> None:
        """Count a value that comes alone. Only one thread at a time may do so."""
        self.counts[bisect_left(self._buckets, value)] += 1
        self.sum += value


class BatchHistogram(Collector):
    """
    A histogram by model that takes many values at a time.

    Prometheus's own takes them one by one, under locks: for two values a step it would need a third
    of the time that the network needs for the step.
    """

    def __init__(
        self, name: str, documentation: str, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        """Register the metric."""
        self._name = name
        self._documentation = documentation
        self._buckets = buckets
        self._models: dict[str, Observations] = {}
        registry.register(self)

    def labels(self, model: str) -> Observations:
        """What is counted of a model."""
        seen = self._models.get(model)
        if seen is None:
            seen = self._models[model] = Observations(self._buckets)
        return seen

    def collect(self) -> Iterator[Metric]:
        """The metric as it is now."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=["model"])
        bounds = [*map(repr, map(float, self._buckets)), "+Inf"]
        for model, seen in list(self._models.items()):
            cumulative = list(zip(bounds, accumulate(seen.counts), strict=True))
            family.add_metric([model], cumulative, seen.sum)
        yield family


class Metrics:
    """The collectors, as attributes; each says in its help what it counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register every collector."""
        self.registry = registry
        self._define_server(registry)
        self._define_requests(registry)
        self._define_sessions(registry)
        self._define_ticks(registry)
        self._define_times(registry)
        self._define_store(registry)

    def _define_server(self, registry: CollectorRegistry) -> None:
        self.build = Gauge(
            "ntm_build_info",
            "Always 1; versions of the server and of onnxruntime as labels.",
            ["version", "onnxruntime"],
            registry=registry,
        )
        self.model = Gauge(
            "ntm_model_info",
            "Always 1 for each version loaded; its content hash and provider as labels.",
            ["model", "content_hash", "provider"],
            registry=registry,
        )
        self.model_load = Gauge(
            "ntm_model_load_seconds",
            "Time that loading and warming up the model took, the last time.",
            ["model"],
            registry=registry,
        )
        self.model_reloads = Counter(
            "ntm_model_reloads_total",
            "Files of models that were put, replaced or removed, by outcome (taken, failed, "
            "removed).",
            ["model", "outcome"],
            registry=registry,
        )
        self.serving = Gauge(
            "ntm_serving", "1 while the server reports SERVING, else 0.", registry=registry
        )
        self.draining = Gauge(
            "ntm_draining", "1 from the signal to stop on, else 0.", registry=registry
        )
        self.event_loop_lag_seconds = Histogram(
            "ntm_event_loop_lag_seconds",
            "How late the event loop was for a timer, looked at ten times a second.",
            buckets=SECONDS,
            registry=registry,
        )
        self.run_threads = Gauge(
            "ntm_run_threads", "Runs of networks that can be made at once.", registry=registry
        )
        self.certificate_expiry = Gauge(
            "ntm_certificate_expiry_timestamp_seconds",
            "When the server's certificate or an authority of clients (client_ca) expires.",
            ["file"],
            registry=registry,
        )

    def _define_requests(self, registry: CollectorRegistry) -> None:
        self.rpc_seconds = Histogram(
            "ntm_rpc_seconds",
            "Time from a unary call's arrival to its answer.",
            ["method", "code"],
            buckets=SECONDS,
            registry=registry,
        )
        self.streams = Gauge("ntm_streams", "Open StreamSteps calls.", registry=registry)
        self.streams_ended = Counter(
            "ntm_streams_ended_total",
            "StreamSteps calls that have ended, by gRPC code.",
            ["code"],
            registry=registry,
        )
        self.operations = Counter(
            "ntm_stream_operations_total",
            "Operations received on streams, by kind (open, step, close).",
            ["kind"],
            registry=registry,
        )
        self.errors = Counter(
            "ntm_errors_total",
            "Calls and stream operations refused or failed, by reason.",
            ["reason"],
            registry=registry,
        )
        self.received_bytes = Counter(
            "ntm_received_input_bytes_total", "Bytes of chunk inputs received.", registry=registry
        )
        self.sent_bytes = Counter(
            "ntm_sent_output_bytes_total",
            "Bytes of chunk outputs and traces sent.",
            registry=registry,
        )

    def _define_sessions(self, registry: CollectorRegistry) -> None:
        self.sessions = Gauge("ntm_sessions", "Open sessions.", ["model"], registry=registry)
        self.sessions_opened = Counter(
            "ntm_sessions_opened_total", "Sessions opened.", ["model"], registry=registry
        )
        self.sessions_closed = Counter(
            "ntm_sessions_closed_total",
            "Sessions closed, by reason (deleted, expired, failed, moved).",
            ["model", "reason"],
            registry=registry,
        )
        self.sessions_asleep = Gauge(
            "ntm_sessions_asleep",
            "Open sessions that are in the store and in no slab.",
            ["model"],
            registry=registry,
        )
        self.sleeps = Counter(
            "ntm_sleeps_total", "Sessions put to sleep.", ["model"], registry=registry
        )
        self.wakes = Counter(
            "ntm_wakes_total",
            "Sessions taken from the store, by where they were before (here, elsewhere).",
            ["model", "source"],
            registry=registry,
        )
        self.sessions_limit = Gauge(
            "ntm_sessions_limit", "Most sessions that may be open.", registry=registry
        )
        self.waiting_sessions = Gauge(
            "ntm_waiting_sessions", "Sessions with a step that waits.", registry=registry
        )
        self.slots = Gauge(
            "ntm_slots",
            "Slots of the slabs, by use (taken, free).",
            ["model", "use"],
            registry=registry,
        )
        self.state_bytes = Gauge(
            "ntm_state_bytes",
            "Bytes of state of open sessions, by place (slab).",
            ["model", "place"],
            registry=registry,
        )
        self.state_limit_bytes = Gauge(
            "ntm_state_limit_bytes",
            "Most bytes of state that open sessions may have.",
            registry=registry,
        )
        self.session_lifetime_seconds = Histogram(
            "ntm_session_lifetime_seconds",
            "Time from opening to closing of a session.",
            ["model"],
            buckets=LIFETIMES,
            registry=registry,
        )
        self.session_idle_seconds = Histogram(
            "ntm_session_idle_seconds",
            "Time without a step of sessions that expired.",
            ["model"],
            buckets=LIFETIMES,
            registry=registry,
        )
        self.session_steps = Histogram(
            "ntm_session_steps",
            "Steps that a session had made when it closed, since its last reset.",
            ["model"],
            buckets=STEPS,
            registry=registry,
        )

    def _define_ticks(self, registry: CollectorRegistry) -> None:
        self.steps = Counter("ntm_steps_total", "Steps made.", ["model"], registry=registry)
        self.traced_steps = Counter(
            "ntm_traced_steps_total", "Steps made with traces.", ["model"], registry=registry
        )
        self.traces = Counter(
            "ntm_traces_total",
            "Chunks that asked for a trace, by trace.",
            ["model", "trace"],
            registry=registry,
        )
        self.replayed_chunks = Counter(
            "ntm_replayed_chunks_total",
            "Chunks that had been made before and were answered again.",
            ["model"],
            registry=registry,
        )
        self.ticks = Counter(
            "ntm_ticks_total", "Runs of the network over a batch.", ["model"], registry=registry
        )
        self.tick_seconds = BatchHistogram(
            "ntm_tick_seconds", "Time of one tick, its share of a run.", SECONDS, registry
        )
        self.batch_rows = BatchHistogram(
            "ntm_batch_rows", "Sessions stepped in one tick.", ROWS, registry
        )
        self.padding_rows = Counter(
            "ntm_padding_rows_total",
            "Rows computed in ticks besides the sessions' own.",
            ["model"],
            registry=registry,
        )
        self.failed_runs = Counter(
            "ntm_failed_runs_total",
            "Runs of the network that raised an error.",
            ["model"],
            registry=registry,
        )

    def _define_store(self, registry: CollectorRegistry) -> None:
        self.store_seconds = Histogram(
            "ntm_store_seconds",
            "Time that the store took, by operation (save, claim, epoch, delete).",
            ["operation"],
            buckets=SECONDS,
            registry=registry,
        )
        self.store_errors = Counter(
            "ntm_store_errors_total",
            "Times that the store did not answer, by operation.",
            ["operation"],
            registry=registry,
        )
        self.checkpoints = Counter(
            "ntm_checkpoints_total",
            "Sessions that were to be stored, by outcome (stored, refused, failed).",
            ["outcome"],
            registry=registry,
        )
        self.stored_bytes = Counter(
            "ntm_stored_bytes_total", "Bytes of sessions sent to the store.", registry=registry
        )
        self.undeleted_sessions = Gauge(
            "ntm_undeleted_sessions",
            "Sessions that have ended and that the store has not forgotten yet, as it does not "
            "answer.",
            registry=registry,
        )
        self.undurable_steps = Gauge(
            "ntm_undurable_steps",
            "Steps of sessions awake that the store does not have yet, where it is to have them.",
            registry=registry,
        )

    def _define_times(self, registry: CollectorRegistry) -> None:
        self.queue_seconds = BatchHistogram(
            "ntm_chunk_queue_seconds",
            "Time from a chunk's arrival to its first tick.",
            SECONDS,
            registry,
        )
        self.run_seconds = BatchHistogram(
            "ntm_chunk_run_seconds",
            "Time from a chunk's first tick to the end of its last.",
            SECONDS,
            registry,
        )
        self.chunk_seconds = BatchHistogram(
            "ntm_chunk_seconds",
            "Time from a chunk's arrival to the end of its last tick.",
            SECONDS,
            registry,
        )
        self.reply_seconds = BatchHistogram(
            "ntm_chunk_reply_seconds",
            "Time from the end of a chunk's last tick to when gRPC has taken its reply.",
            SECONDS,
            registry,
        )
        self.step_seconds = BatchHistogram(
            "ntm_step_seconds",
            "Time of a step: its chunk's, from arrival to the end of its last tick, divided by "
            "its steps.",
            SECONDS,
            registry,
        )
        self.interval_seconds = BatchHistogram(
            "ntm_step_interval_seconds",
            "Time from a session's last tick to the arrival of its next chunk, if none waited.",
            SECONDS,
            registry,
        )
