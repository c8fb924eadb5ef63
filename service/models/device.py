"""What networks run on: the CPU, or a GPU, which a thread of its own uses and nobody else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from queue import SimpleQueue
from typing import Any, TypeVar

from service.errors import CapacityExceeded

T = TypeVar("T")

_OUT_OF_MEMORY = (
    "bad_alloc",  # of C++, from the CPU
    "Failed to allocate memory",  # of onnxruntime's arenas
    "Available memory of",  # of an arena with a limit
    "out of memory",  # of CUDA
    "ALLOC_FAILED",  # of cuBLAS and cuDNN
)
"""What errors say that tell of missing memory. onnxruntime has no class of its own for them."""


class Device:
    """
    Where networks run: `do` makes their runs and copies, and allocates what these work on.

    On a GPU it does so on one thread, since captured CUDA graphs belong to a thread, and since a
    capture fails if another thread allocates meanwhile. On a CPU the caller's thread does it.
    """

    def __init__(self, name: str, thread: DeviceThread | None = None) -> None:
        """Take the name that onnxruntime has for the device's memory, and the thread if any."""
        self.name = name
        self._thread = thread

    @property
    def is_cpu(self) -> bool:
        """Whether the device's memory is the host's."""
        return self.name == "cpu"

    def do(self, function: Callable[..., T], *arguments: Any) -> T:
        """
        Call a function where the device is used, and wait for it.

        Raises CapacityExceeded if there is not enough memory, and whatever else the function does.
        """
        try:
            if self._thread is None:
                return function(*arguments)
            return self._thread.call(function, *arguments)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise CapacityExceeded(
                f"the memory of the {'server' if self.is_cpu else 'GPU'} has no room for this; try "
                "again later, or use fewer locations or a smaller batch",
                limit="memory",
            ) from error

    def do_later(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function where the device is used. A GPU's thread calls it later."""
        if self._thread is None:
            function(*arguments)
        else:
            self._thread.begin(function, *arguments)


class DeviceThread:
    """A thread that calls functions one after another, in the order in which they come."""

    def __init__(self) -> None:
        """Start the thread. It lasts as long as the process, unless it is told to `end`."""
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function on the thread, and wait for it. Raises what the function raises."""
        if threading.current_thread() is self._thread:
            return function(*arguments)
        return self.begin(function, *arguments).result()

    def begin(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Let the thread call a function after all else that it has to call."""
        future: Future[T] = Future()

        def resolve() -> None:
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)

        self._calls.put(resolve)
        return future

    def end(self) -> None:
        """End the thread after what was asked of it, and wait for that."""
        self._calls.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error tells that memory is missing, on the host or on a device."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


def device_of(name: str) -> Device:
    """The device of this name; all networks on a GPU share its thread."""
    return Device(name, None if name == "cpu" else _gpu_thread())


@cache
def _gpu_thread() -> DeviceThread:
    return DeviceThread()
