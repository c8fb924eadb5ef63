"""Meters: GPUs through a fake of NVML, the driver's interface; the lag of a real event loop."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pynvml
import pytest
from prometheus_client import CollectorRegistry, Histogram

from service.telemetry.meters import LAG_INTERVAL_SECONDS, GpuCollector, LagMeter


def test_without_a_driver_the_metrics_have_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their names are there, for dashboards."""

    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    registry = CollectorRegistry()
    GpuCollector(registry)

    assert [metric.samples for metric in registry.collect()] == [[], [], []]


def test_every_gpu_that_answers_has_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two GPUs the second does not answer; the first has its values all the same."""

    def handle(number: int) -> int:
        if number == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return 100 + number

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", handle)
    memory = {100: SimpleNamespace(used=3 << 30, total=80 << 30)}
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", memory.__getitem__)
    rates = {100: SimpleNamespace(gpu=25, memory=5)}
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", rates.__getitem__)
    registry = CollectorRegistry()
    GpuCollector(registry)

    values = {
        (sample.name, sample.labels["gpu"]): sample.value
        for metric in registry.collect()
        for sample in metric.samples
    }
    assert values == {
        ("ntm_gpu_memory_used_bytes", "0"): 3 << 30,
        ("ntm_gpu_memory_total_bytes", "0"): 80 << 30,
        ("ntm_gpu_utilization_ratio", "0"): 0.25,
    }


class Watched(Histogram):
    """A histogram that sets an event when it observes a value."""

    observed: asyncio.Event

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Count the value and set the event."""
        super().observe(amount, exemplar)
        self.observed.set()


async def test_a_busy_event_loop_is_late() -> None:
    """If a callback takes three intervals, the next timer is late by at least two."""
    registry = CollectorRegistry()
    histogram = Watched("lag", "Lag.", registry=registry)
    histogram.observed = asyncio.Event()
    lag = LagMeter(histogram)
    busy_until = time.monotonic() + 3 * LAG_INTERVAL_SECONDS
    while time.monotonic() < busy_until:
        pass
    await asyncio.wait_for(histogram.observed.wait(), 10)
    lag.stop()

    assert registry.get_sample_value("lag_count") == 1
    assert (registry.get_sample_value("lag_sum") or 0) >= 2 * LAG_INTERVAL_SECONDS
