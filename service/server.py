"""The server: connects all parts, serves, and finishes what it has begun before it stops."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import onnxruntime
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from ntm.addresses import Address
from ntm.v1 import ntm_pb2, ntm_pb2_grpc
from service import __version__
from service.auth import tls
from service.auth.authentication import Authentication, scraping
from service.engine.engine import Engine
from service.engine.lifecycle import Lifecycle
from service.errors import kinds
from service.loop.keeper import Keeper
from service.loop.worker import Worker
from service.models import runtime
from service.models.catalogue import Catalogue
from service.models.reloads import Reloads
from service.rpc import options, status
from service.rpc.calls import Calls
from service.rpc.gate import STREAMS, Gate, scopes
from service.rpc.inference import description, sequences
from service.rpc.inference import servicer as inference
from service.rpc.servicer import NtmServicer
from service.rpc.spans import Spans
from service.rpc.transport import Transport
from service.settings import Settings
from service.stores.opening import open_store
from service.telemetry.logs import AccessLog
from service.telemetry.meters import LagMeter, measure_machine
from service.telemetry.metrics import Metrics
from service.telemetry.monitoring import Monitoring

log = logging.getLogger(__name__)

SWITCH_SECONDS = 50e-6
"""The time for which a thread may keep the interpreter's lock; Python's default is 5 ms."""

SERVICE_NAME = ntm_pb2.DESCRIPTOR.services_by_name["NtmService"].full_name

REFLECTION = f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"
"""The method of reflection, as metrics name it."""


class Server:
    """
    A server in this process: `start` it, then `stop` it. `serve` does both, for a command.

    `start` is `prepare`, which clients do not notice, and `open`.
    """

    def __init__(self, settings: Settings) -> None:
        """Keep the settings. Nothing is loaded or opened before `start`."""
        self._settings = settings
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.addresses = settings.addresses
        """What the server listens on for calls; after `start`, with the ports that it got."""
        self._serving = False

    @property
    def port(self) -> int:
        """The gRPC port, after `start`; 0 for a Unix domain socket."""
        return self.addresses[0].port

    @property
    def metrics_port(self) -> int:
        """The monitoring port, after `start`."""
        return self._monitoring.port

    async def start(self) -> None:
        """Serve. Raises the errors of `prepare`."""
        await self.prepare()
        await self.open()

    async def prepare(self) -> None:
        """
        Take the ports, and load the models that the settings name.

        What may take long is on a thread, so that signals are heard meanwhile.

        Raises:
            OSError, RuntimeError: a port is taken, the device fails, or an extra is missing.
            ModelInvalid: a model that the settings name is missing or cannot be served, or no model
                can.
            FileInvalid: a file that a setting names is missing or wrong.
        """
        async with AsyncExitStack() as opened:
            await self._prepare(opened)
            opened.pop_all()

    async def _prepare(self, opened: AsyncExitStack) -> None:
        """Prepare; what is opened is closed again if something later fails."""
        settings = self._settings
        # At the end of each run, its thread waits for the lock, which a busy event loop holds.
        sys.setswitchinterval(SWITCH_SECONDS)
        measure_machine(self.registry)
        authentication = Authentication(settings)
        credentials = self._credentials()
        for address in self.addresses:
            await asyncio.to_thread(_check_free, address)
        self._monitoring = await asyncio.to_thread(
            Monitoring,
            settings.metrics_host,
            settings.metrics_port,
            self.registry,
            is_ready=lambda: self._serving,
            may_scrape=scraping(settings.metrics_token_file),
            described=self._described,
        )
        opened.callback(self._monitoring.close)
        store = await asyncio.to_thread(open_store, settings)
        if store is not None:
            opened.push_async_callback(store.close)
        catalogue = await asyncio.to_thread(Catalogue, settings, self.metrics)
        for name in catalogue.named:
            await catalogue.load(catalogue.current(name))
        self._catalogue = catalogue
        parallel_runs = settings.parallel_runs or runtime.parallel_runs(catalogue.provider)
        self._lifecycle = Lifecycle(
            catalogue.networks, settings, self.metrics, has_store=store is not None
        )
        engine = Engine(self._lifecycle, settings, max_turns=parallel_runs + 1)
        self.worker = Worker(engine, parallel_runs)
        self._keeper = (
            Keeper(store, catalogue, self.worker, settings, self.metrics) if store else None
        )
        self.worker.start(self._keeper.apply if self._keeper else None)
        opened.push_async_callback(self.worker.stop)
        if self._keeper is not None:
            opened.push_async_callback(self._keeper.stop)
        self._reloads = Reloads(catalogue, self._lifecycle.sessions.are_of, self.metrics)
        opened.push_async_callback(self._reloads.stop)
        self.metrics.run_threads.set(parallel_runs)
        self._lag = LagMeter(self.metrics.event_loop_lag_seconds)
        opened.callback(self._lag.stop)
        self._spans = Spans(settings)
        self._access_log = AccessLog(settings.access_log_per_second)
        calls = Calls(
            catalogue, self.worker, self._keeper, self.metrics, self._spans, self._access_log
        )
        self._servicer = NtmServicer(calls, settings)
        self._inference = inference.InferenceServicer(calls, settings, lambda: self._serving)
        # The gate, which counts calls, does not see a call that never sends its request.
        self._grpc = Transport(2 * settings.max_calls, options.arguments(settings))
        opened.push_async_callback(self._grpc.stop, 0.0)
        self._open_ports(authentication, credentials)

    async def open(self) -> None:
        """Answer calls, and report SERVING."""
        settings, catalogue = self._settings, self._catalogue
        await self._grpc.start()
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        log.info(
            "serving",
            extra={
                "address": str(self.addresses[0]),
                "also": [str(address) for address in self.addresses[1:]],
                "monitoring": str(self._monitoring.address),
                "models": catalogue.models,
                "provider": catalogue.provider,
                "parallel_runs": self.worker.parallel_runs,
                "tls": bool(settings.tls_certificate),
                "authentication": settings.authenticates,
            },
        )
        _warn_if_open(settings)

    async def stop(self) -> None:
        """
        Report NOT_SERVING, finish waiting work, store sessions, end streams, and close everything.
        """
        self.metrics.draining.set(1)
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._reloads.stop()
        finished = await self.worker.drain(self._settings.drain_seconds)
        lost = await self._keeper.drain(self._settings.drain_seconds) if self._keeper else None
        self._servicer.streams.end()
        self._inference.streams.end()
        await self._grpc.stop(grace=1.0)
        await self.worker.stop()
        if self._keeper:
            await self._keeper.stop()
        self._lag.stop()
        await asyncio.to_thread(self._spans.close)
        self._monitoring.close()
        log.info("stopped", extra={"finished_all_work": finished, "sessions_not_stored": lost})

    async def check_integrity(self) -> None:
        """Raise RuntimeError unless sessions, slots and state bytes add up."""
        await self.worker.call(self._lifecycle.check_integrity)

    def _described(self, model: str) -> object | None:
        """What the monitoring port tells of a model, or of the server for no name."""
        return self._inference.described(model) if self._serving else None

    def _credentials(self) -> grpc.ServerCredentials | None:
        """The credentials of the gRPC port; None without TLS."""
        settings = self._settings
        if not settings.tls_certificate:
            return None
        certificates = tls.watched(
            settings.tls_certificate, settings.tls_key, settings.tls_client_ca
        )
        expiry = self.metrics.certificate_expiry
        expiry.labels("server").set_function(lambda: certificates.value().expires_unix_seconds)
        if settings.tls_client_ca:
            expiry.labels("client_ca").set_function(
                lambda: certificates.value().client_ca_expires_unix_seconds or 0.0
            )
        return tls.server_credentials(certificates)

    def _open_ports(
        self, authentication: Authentication, credentials: grpc.ServerCredentials | None
    ) -> None:
        settings = self._settings
        needed = scopes(NtmServicer) | scopes(inference.InferenceServicer)
        self.metrics.exist(method=[*needed.keys() - STREAMS, REFLECTION], code=status.codes())
        self.metrics.exist(reason=[kind.reason for kind in kinds()])
        gate: Any = Gate(
            authentication,
            needed,
            settings,
            self.metrics,
            self._access_log,
            self._spans,
        )
        self._grpc.add_generic_rpc_handlers((gate,))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, gate)
        ntm_pb2_grpc.add_NtmServiceServicer_to_server(self._servicer, gate)
        gate.add_generic_rpc_handlers((inference.handlers(self._inference),))
        names = (SERVICE_NAME, sequences.SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        files = [each.DESCRIPTOR for each in (ntm_pb2, health_pb2, reflection_pb2)]
        reflected = reflection.aio.ReflectionServicer(names, description.pool(files))
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, gate)
        for number, address in enumerate(self.addresses):
            try:
                port = self._grpc.add_port(str(address), credentials)
            except RuntimeError as error:
                raise _cannot_listen(address, error) from error
            if not address.socket_path:
                self.addresses[number] = address.at(port)
        self.metrics.build.labels(__version__, onnxruntime.__version__).set(1)

    async def _set_health(self, serving: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        self._serving = serving == health_pb2.HealthCheckResponse.SERVING
        self.metrics.serving.set(self._serving)
        for service in ("", SERVICE_NAME):
            await self._health.set(service, serving)


def _check_free(address: Address) -> None:
    """
    Raise RuntimeError unless the system lets this process listen on the address.

    gRPC would not say why it cannot. It would listen on one address of a name where another is
    taken, and would take the Unix domain socket of a server that runs.
    """
    problems: list[OSError] = []
    try:
        places = address.places()
        for family, place in places:
            with socket.socket(family) as tried:
                try:
                    _try(tried, place)
                except OSError as error:
                    problems.append(error)
    except OSError as error:  # no such name
        raise _cannot_listen(address, error) from error
    for problem in problems:
        if problem.errno == errno.EADDRINUSE or len(problems) == len(places):
            raise _cannot_listen(address, problem) from problem


def _try(tried: socket.socket, place: Any) -> None:
    if tried.family != socket.AF_UNIX:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tried.bind(place)
    elif tried.connect_ex(place) == 0:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    elif not Path(place).is_socket():  # gRPC replaces one that a server has left behind
        tried.bind(place)
        if not place.startswith("\0"):
            os.unlink(place)


def _cannot_listen(address: Address, error: Exception) -> RuntimeError:
    why = error.strerror if isinstance(error, OSError) else error
    return RuntimeError(f"cannot listen on {address}: {why}; see --host, --port and --listen")


def _warn_if_open(settings: Settings) -> None:
    """Warn about missing TLS or authentication if other machines can reach the server."""
    if all(address.is_local for address in settings.addresses):
        return
    if not settings.tls_certificate:
        log.warning("calls and tokens are not encrypted: set --tls-certificate and --tls-key")
    if not settings.authenticates:
        log.warning(
            "callers are not authenticated: set --tokens-file, --jwt-keys or --tls-client-ca"
        )


async def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status, which is 1 if the engine failed."""
    server = Server(settings)
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        ends = signal.getsignal(number)
        loop.add_signal_handler(number, signalled.set)
        # That lets signals wake the loop. They still end the process, until clients can be there.
        signal.signal(number, ends)
    await server.prepare()
    # What clients begin from here on is finished.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled.set)
    await server.open()
    # The present objects stay until the end. Each full garbage collection of them would take 0.1 s.
    gc.collect()
    gc.freeze()
    waiting = asyncio.create_task(signalled.wait())
    await asyncio.wait((waiting, server.worker.crashed), return_when=asyncio.FIRST_COMPLETED)
    if server.worker.crashed.done():
        waiting.cancel()
        return 1
    await server.stop()
    return 0
