"""Memory and utilisation of NVIDIA GPUs, asked of the driver when the metrics are collected."""

from __future__ import annotations

from collections.abc import Iterator

import pynvml
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class GpuCollector(Collector):
    """
    Gauges of every GPU that the driver shows; none where there is no driver.

    NVML is the driver's own interface and costs no CUDA context.
    https://docs.nvidia.com/deploy/nvml-api/
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the gauges, and find out whether there is a driver."""
        try:
            pynvml.nvmlInit()
            self._gpus = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError:
            self._gpus = 0
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """The gauges as they are now; a GPU that does not answer is left out."""
        used, total, utilization = _gauges()
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
        """The gauges without values."""
        yield from _gauges()


def _gauges() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
    return (
        GaugeMetricFamily(
            "ntm_gpu_memory_used_bytes", "Memory of a GPU that is taken.", labels=["gpu"]
        ),
        GaugeMetricFamily("ntm_gpu_memory_total_bytes", "Memory of a GPU.", labels=["gpu"]),
        GaugeMetricFamily(
            "ntm_gpu_utilization_ratio",
            "Share of the last moments in which a GPU was busy.",
            labels=["gpu"],
        ),
    )
