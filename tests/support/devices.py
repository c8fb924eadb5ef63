"""Devices for tests: the CPU, but with a thread or a lack of memory as a GPU has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import onnxruntime

from service.models.device import Device
from service.models.runtime import Network
from tests.support.tiny_models import ledger

T = TypeVar("T")

ALLOCATE, BIND = "_allocate", "BoundRun"
READ, WRITE, COPY = "_read_rows", "_write_rows", "_copy_row"
"""What networks do on a device."""


class ScarceDevice(Device):
    """A CPU that counts what is done on it, and that has no memory for some of it."""

    def __init__(self) -> None:
        """Have memory for everything."""
        super().__init__("cpu")
        self.full_for: set[str] = set()
        self.done: Counter[str] = Counter()

    def do(self, function: Callable[..., T], *arguments: Any) -> T:
        """Do it, or raise what comes of onnxruntime's error for missing memory."""
        self.done[function.__name__] += 1
        if function.__name__ in self.full_for:
            function = no_memory
        return super().do(function, *arguments)


def no_memory(*_: object) -> Any:
    """Raise an error as onnxruntime does where memory is missing."""
    raise RuntimeError("Failed to allocate memory for requested buffer of size 9")


def memory_apart(size: int, device: str) -> tuple[onnxruntime.OrtValue, onnxruntime.OrtValue]:
    """The bytes of a host and of a device as `bound_run.memory`, here all of the CPU's memory."""
    assert device == "cpu"
    host, there = (
        onnxruntime.OrtValue.ortvalue_from_shape_and_type((size,), np.uint8) for _ in range(2)
    )
    return host, there


def scarce_network(*, on_cpu: bool = True) -> tuple[Network, ScarceDevice]:
    """A ledger on a device whose memory may be short; if not `on_cpu`, treated as on a GPU."""
    network, device = Network(ledger(), "cpu"), ScarceDevice()
    network._device, network.on_cpu = device, on_cpu
    return network, device
