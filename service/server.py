"""The server: wires everything together, serves, and stops without losing what it has begun."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

import grpc.aio
import onnxruntime
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from service import __version__, runtime
from service.access import AccessLog
from service.catalogue import Catalogue
from service.engine import Engine
from service.gpu import GpuCollector
from service.interceptors import UnaryInterceptor
from service.lag import LagMeter
from service.metrics import Metrics
from service.monitoring import Monitoring
from service.observation import ObservingInterceptor
from service.pb import ntm_pb2, ntm_pb2_grpc
from service.servicer import NtmServicer
from service.settings import Settings
from service.spans import Spans
from service.worker import Worker

log = logging.getLogger(__name__)

SWITCH_SECONDS = 50e-6
"""How long a thread may keep the interpreter's lock when another wants it; Python's own is 5 ms."""

SERVICE_NAME = ntm_pb2.DESCRIPTOR.services_by_name["NtmService"].full_name


class Server:
    """A running server. `start`, then `stop`; `serve` does both around the signals."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is loaded or opened before `start`."""
        self._settings = settings
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.port = 0
        """The gRPC port, once started."""
        self._serving = False

    @property
    def metrics_port(self) -> int:
        """The monitoring server's port, once started."""
        return self._monitoring.port

    async def start(self) -> None:
        """
        Open the ports, load the models that the settings name, then report SERVING.

        Raises:
            OSError, RuntimeError: a port is taken, or the device does not work.
            ModelInvalid: a model is missing or breaks the contract.
        """
        settings = self._settings
        # A run that ends has to get the interpreter's lock from an event loop that seldom lets go.
        sys.setswitchinterval(SWITCH_SECONDS)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        GpuCollector(self.registry)
        self._monitoring = Monitoring(
            settings.metrics_host, settings.metrics_port, self.registry, lambda: self._serving
        )
        catalogue = await asyncio.to_thread(Catalogue, settings, self.metrics)
        for name in catalogue.named:
            await catalogue.load(name)
        parallel_runs = settings.parallel_runs or runtime.parallel_runs(catalogue.provider)
        self._engine = Engine(
            catalogue.networks, settings, self.metrics, most_turns=parallel_runs + 1
        )
        self.worker = Worker(self._engine, parallel_runs)
        self.worker.start()
        self.metrics.run_threads.set(parallel_runs)
        self._lag = LagMeter(self.metrics.event_loop_lag_seconds)
        self._spans = Spans(settings)
        self._servicer = NtmServicer(
            catalogue, self._engine, self.worker, settings, self.metrics, self._spans
        )
        self._open_port()
        await self._grpc.start()
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        log.info(
            "serving",
            extra={
                "address": f"{settings.host}:{self.port}",
                "monitoring": f"{settings.metrics_host}:{self.metrics_port}",
                "models": sorted(catalogue.models),
                "provider": catalogue.provider,
                "parallel_runs": parallel_runs,
            },
        )

    async def stop(self) -> None:
        """Report NOT_SERVING, finish what waits, end streams, then close everything."""
        self.metrics.draining.set(1)
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        finished = await self.worker.drain(self._settings.drain_seconds)
        self._servicer.end_streams()
        await self._grpc.stop(grace=1.0)
        await self.worker.stop()
        self._lag.stop()
        await asyncio.to_thread(self._spans.close)
        self._monitoring.close()
        log.info("stopped", extra={"finished_all_work": finished})

    async def check_integrity(self) -> None:
        """Raise RuntimeError unless sessions, slots and state bytes add up."""
        await self.worker.call(self._engine.check_integrity)

    def _open_port(self) -> None:
        settings = self._settings
        self._grpc = grpc.aio.server(
            interceptors=[
                ObservingInterceptor(
                    self.metrics, AccessLog(settings.access_log_per_second), self._spans
                ),
                UnaryInterceptor(self.metrics),
            ],
            maximum_concurrent_rpcs=settings.max_calls,
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                # Two servers on one port would each see half of a client's calls.
                ("grpc.so_reuseport", 0),
            ],
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        ntm_pb2_grpc.add_NtmServiceServicer_to_server(self._servicer, self._grpc)
        names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._grpc)
        self.port = self._grpc.add_insecure_port(f"{settings.host}:{settings.port}")
        self.metrics.build.labels(__version__, onnxruntime.__version__).set(1)

    async def _set_health(self, serving: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        self._serving = serving == health_pb2.HealthCheckResponse.SERVING
        self.metrics.serving.set(self._serving)
        for service in ("", SERVICE_NAME):
            await self._health.set(service, serving)


async def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the exit status, 1 if the engine failed."""
    server = Server(settings)
    await server.start()
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled.set)
    waiting = asyncio.create_task(signalled.wait())
    await asyncio.wait((waiting, server.worker.crashed), return_when=asyncio.FIRST_COMPLETED)
    if server.worker.crashed.done():
        waiting.cancel()
        return 1
    await server.stop()
    return 0
