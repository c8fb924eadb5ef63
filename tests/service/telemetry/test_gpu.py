"""GPUs are told of where there are some; NVML, the driver's interface, is a fake here."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest
from prometheus_client import CollectorRegistry

from service.telemetry.gpu import GpuCollector


def test_without_a_driver_there_is_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metrics have their names and no values."""

    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    registry = CollectorRegistry()
    GpuCollector(registry)

    assert [metric.samples for metric in registry.collect()] == [[], [], []]


def test_every_gpu_that_answers_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two GPUs the second one is lost: the first is told of all the same."""

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
