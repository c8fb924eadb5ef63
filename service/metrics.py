"""Every metric of the server, on a registry passed in."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Steps take from 50 microseconds to 10 milliseconds; the geometric buckets go on to one minute for
# waits under overload.
SECONDS = tuple(round(50e-6 * 1.8**power, 7) for power in range(25))
ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 4096)


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
        self.tick_seconds = Histogram(
            "ntm_tick_seconds",
            "Time of one run of the network over a batch.",
            ["model"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "ntm_batch_rows",
            "Sessions stepped in one tick.",
            ["model"],
            buckets=ROWS,
            registry=registry,
        )
        self.padding_rows = Counter(
            "ntm_padding_rows_total",
            "Rows computed in ticks besides the sessions' own.",
            ["model"],
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "ntm_chunk_queue_seconds",
            "Time from a chunk's arrival to its first tick.",
            ["model"],
            buckets=SECONDS,
            registry=registry,
        )
        self.chunk_seconds = Histogram(
            "ntm_chunk_seconds",
            "Time from a chunk's arrival to its last tick.",
            ["model"],
            buckets=SECONDS,
            registry=registry,
        )
        self.failed_runs = Counter(
            "ntm_failed_runs_total",
            "Runs of the network that raised an error.",
            ["model"],
            registry=registry,
        )
