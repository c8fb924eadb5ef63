"""Devices: one thread uses a GPU, and missing memory is told apart from other failures."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from service.errors import CapacityExceeded
from service.models.device import Device, DeviceThread, is_out_of_memory


@pytest.fixture
def thread() -> Iterator[DeviceThread]:
    """A device's thread, which ends with the test."""
    thread = DeviceThread()
    yield thread
    thread.end()


def test_all_is_done_on_the_devices_thread(thread: DeviceThread) -> None:
    """Also what is asked for on that thread, which must not wait for itself."""
    device = Device("cuda", thread)

    def names() -> list[str]:
        return [threading.current_thread().name, device.do(name)]

    def name() -> str:
        return threading.current_thread().name

    assert device.do(names) == ["device", "device"]
    assert Device("cpu").do(name) == threading.current_thread().name


def test_what_is_done_later_keeps_nobody_waiting(thread: DeviceThread) -> None:
    """It is done in its turn, on the device's thread; where there is none, at once."""
    entered, names = threading.Event(), list[str]()

    def note() -> None:
        entered.wait()
        names.append(threading.current_thread().name)

    device = Device("cuda", thread)
    device.do_later(note)
    assert names == []
    entered.set()
    device.do(len, names)
    Device("cpu").do_later(note)
    assert names == ["device", threading.current_thread().name]


def test_an_error_of_the_thread_reaches_the_caller_and_the_thread_goes_on(
    thread: DeviceThread,
) -> None:
    """The error is the one that was raised."""
    device = Device("cuda", thread)
    with pytest.raises(ZeroDivisionError):
        device.do(divmod, 1, 0)
    assert device.do(divmod, 7, 2) == (3, 1)


@pytest.mark.parametrize(
    "words",
    [
        "bfc_arena.cc:360 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, "
        "onnxruntime::Stream*) Failed to allocate memory for requested buffer of size 4585490",
        "Available memory of 104 is smaller than requested bytes of 2048",
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=a ; file=cuda_allocator.cc ; line=48",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
        "Non-zero status code returned while running MatMul node. Status Message: std::bad_alloc",
    ],
)
def test_missing_memory_is_capacity_exceeded(words: str, thread: DeviceThread) -> None:
    """In the words of onnxruntime, CUDA and cuBLAS, which have no class of error for it."""

    def fail() -> None:
        raise RuntimeError(words)

    with pytest.raises(CapacityExceeded, match="the memory of the GPU has no room") as raised:
        Device("cuda", thread).do(fail)
    assert raised.value.metadata == {"limit": "memory"}


def test_other_failures_of_a_device_stay_what_they_are() -> None:
    """A broken kernel or a wrong index will not pass."""
    for words in ("CUDA failure 700: an illegal memory access was encountered", "indices element"):
        assert not is_out_of_memory(RuntimeError(words))


SCARCE = """
import json, resource
from pathlib import Path
import numpy as np
from service.errors import CapacityExceeded
from service.models.runtime import Network
from service.models.slab import Slab
from tests.support.tiny_models import ledger

MB = 1 << 20
network = Network(ledger(), "cpu")
small = Slab(network, 8)
slot = small.acquire()
bound = small.bind(1, frozenset())
bound.seat([slot])
bound.inputs[:] = 1
bound.run()
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 192 * MB, -1))
seen = {}

def refused(what, function):
    try:
        function()
    except CapacityExceeded as error:
        seen[what] = [str(error.__cause__), error.message]

large = Slab(network, 1 << 18)  # 4 MB and more a session
def fill():
    for _ in range(100):
        large.acquire()
refused("grow", fill)
seen["grown to"] = [large.capacity, large.used]
refused("allocate", lambda: Slab(network, 1 << 24))
refused("bind", lambda: small.bind(1 << 23, frozenset()))
refused("read", lambda: network.read_rows(small.tensors, np.zeros(1 << 22, np.int64)))
large.check_integrity()
bound.run()
seen["total"] = small.read([slot])["total"][0].tolist()
print(json.dumps(seen))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_a_process_without_memory_refuses_and_goes_on() -> None:
    """Real failures of allocations: a slab that cannot grow stays as it was, and runs go on."""
    done = subprocess.run(
        [sys.executable, "-c", SCARCE], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    for what in ("grow", "allocate", "bind", "read"):
        assert "the memory of the server has no room" in seen[what][1], what
    capacity, used = seen["grown to"]
    assert capacity == used >= 8
    assert seen["total"] == [2, 2]
