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
ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 4096)


class Observations:
    """What a `BatchHistogram` has counted of one model."""

    def __init__(self, buckets: Sequence[float]) -> None:
        """Nothing yet."""
        self._buckets = buckets
        self.counts = [0] * (len(buckets) + 1)
        self.sum = 0.0

    def observe(self, values: Sequence[float]) -> None:
        """Count every value. Only one thread at a time may do so."""
        for value in values:
            self.counts[bisect_left(self._buckets, value)] += 1
        self.sum += sum(values)


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
        return self._models.setdefault(model, Observations(self._buckets))

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
        self.build = Gauge(
            "ntm_build_info",
            "Always 1; versions of the server and of onnxruntime as labels.",
            ["version", "onnxruntime"],
            registry=registry,
        )
        self.model = Gauge(
            "ntm_model_info",
            "Always 1 for each model loaded; its content hash and provider as labels.",
            ["model", "content_hash", "provider"],
            registry=registry,
        )
        self.model_load = Gauge(
            "ntm_model_load_seconds",
            "Time that loading and warming up the model took.",
            ["model"],
            registry=registry,
        )
        self.certificate_expiry = Gauge(
            "ntm_certificate_expiry_timestamp_seconds",
            "When the server's certificate or an authority of clients (client_ca) expires.",
            ["file"],
            registry=registry,
        )
        self._define_requests(registry)
        self._define_sessions(registry)
        self._define_ticks(registry)

    def _define_requests(self, registry: CollectorRegistry) -> None:
        self.rpc_seconds = Histogram(
            "ntm_rpc_seconds",
            "Time from a unary call's arrival to its answer.",
            ["method", "code"],
            buckets=SECONDS,
            registry=registry,
        )
        self.streams = Gauge("ntm_streams", "Open StreamSteps calls.", registry=registry)
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
            "Sessions closed, by reason (deleted, expired, failed).",
            ["model", "reason"],
            registry=registry,
        )
        self.state_bytes = Gauge(
            "ntm_state_bytes", "Bytes of state of open sessions.", ["model"], registry=registry
        )
        self.session_lifetime_seconds = Histogram(
            "ntm_session_lifetime_seconds",
            "Time from opening to closing of a session.",
            ["model"],
            buckets=tuple(0.1 * 2.0**power for power in range(21)),
            registry=registry,
        )

    def _define_ticks(self, registry: CollectorRegistry) -> None:
        self.steps = Counter("ntm_steps_total", "Steps made.", ["model"], registry=registry)
        self.traced_steps = Counter(
            "ntm_traced_steps_total", "Steps made with traces.", ["model"], registry=registry
        )
        self.ticks = Counter(
            "ntm_ticks_total", "Runs of the network over a batch.", ["model"], registry=registry
        )
        self.tick_seconds = BatchHistogram(
            "ntm_tick_seconds", "Time of one run of the network over a batch.", SECONDS, registry
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
        self.queue_seconds = BatchHistogram(
            "ntm_chunk_queue_seconds",
            "Time from a chunk's arrival to its first tick.",
            SECONDS,
            registry,
        )
        self.chunk_seconds = BatchHistogram(
            "ntm_chunk_seconds", "Time from a chunk's arrival to its last tick.", SECONDS, registry
        )
        self.failed_runs = Counter(
            "ntm_failed_runs_total",
            "Runs of the network that raised an error.",
            ["model"],
            registry=registry,
        )


class ModelMetrics:
    """The collectors that every turn counts in, looked up for one model once."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        """Look them up."""
        self.steps = metrics.steps.labels(model)
        self.traced_steps = metrics.traced_steps.labels(model)
        self.ticks = metrics.ticks.labels(model)
        self.tick_seconds = metrics.tick_seconds.labels(model)
        self.batch_rows = metrics.batch_rows.labels(model)
        self.padding_rows = metrics.padding_rows.labels(model)
        self.queue_seconds = metrics.queue_seconds.labels(model)
        self.chunk_seconds = metrics.chunk_seconds.labels(model)
