"""Meters of the machine, the server's process, its GPUs and its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pynvml
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.telemetry.metrics import GPU_MEMORY_TOTAL, GPU_MEMORY_USED, GPU_UTILIZATION

LAG_INTERVAL_SECONDS = 0.1


def measure_machine(registry: CollectorRegistry) -> None:
    """Add the metrics of the process, of Python's garbage collection and of the GPUs."""
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    GpuCollector(registry)


class GpuCollector(Collector):
    """
    Reads memory and utilization of every NVIDIA GPU at each scrape; nothing without a driver.

    NVML is part of the driver. Unlike a CUDA context, it takes no memory of the GPU.
    https://docs.nvidia.com/deploy/nvml-api/
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        try:
            pynvml.nvmlInit()
            self._gpus = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError:
            self._gpus = 0
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges as they are now, without the GPUs that do not answer."""
        used, total, utilization = self._gauges()
        for number in range(self._gpus):
            try:
                gpu = pynvml.nvmlDeviceGetHandleByIndex(number)
                memory = pynvml.nvmlDeviceGetMemoryInfo(gpu)
                busy_percent = pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu
            except pynvml.NVMLError:
                continue
            used.add_metric([str(number)], memory.used)
            total.add_metric([str(number)], memory.total)
            utilization.add_metric([str(number)], busy_percent / 100)
        yield from (used, total, utilization)

    def describe(self) -> Iterator[Metric]:
        """Yield the gauges without values, so that registering does not ask the driver."""
        yield from self._gauges()

    def _gauges(self) -> list[GaugeMetricFamily]:
        return [
            GaugeMetricFamily(each.name, each.help, labels=each.labels)
            for each in (GPU_MEMORY_USED, GPU_MEMORY_TOTAL, GPU_UTILIZATION)
        ]


class LagMeter:
    """
    Sets a timer ten times a second and observes how late the event loop calls it.

    Everything on an overloaded event loop waits for that time.
    """

    def __init__(self, lag_seconds: Histogram) -> None:
        """Measure the running event loop until `stop`."""
        self._loop = asyncio.get_running_loop()
        self._lag_seconds = lag_seconds
        self._timer = self._loop.call_later(LAG_INTERVAL_SECONDS, self._measure)

    def stop(self) -> None:
        """Stop measuring."""
        self._timer.cancel()

    def _measure(self) -> None:
        late = self._loop.time() - self._timer.when()
        # The loop may call a timer early, by the resolution of its clock.
        self._lag_seconds.observe(max(0.0, late))
        self._timer = self._loop.call_later(LAG_INTERVAL_SECONDS, self._measure)
