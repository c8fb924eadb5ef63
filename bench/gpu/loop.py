"""A step graph over a slab on onnxruntime, with options that the server does not use (yet)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

from service.models import graph
from service.models.runtime import OPTIONS, PROVIDERS
from service.spec import Float32, ModelSpec

Int64 = npt.NDArray[np.int64]


class Shape(NamedTuple):
    """The shape of a run."""

    ticks: int
    batch: int
    locations: int


class Loop:
    """
    Runs of one shape, whose inputs, outputs and slab stay where they are in the device's memory.

    Row r of the batch steps slot r. The slab has one slot more, which no row reads or writes.
    """

    def __init__(
        self,
        model: bytes,
        device: str,
        shape: Shape,
        *,
        traced: bool = False,
        run_entries: Mapping[str, str] | None = None,
        profile: str = "",
    ) -> None:
        """
        Load the graph of a model, and set its slab to the initial state.

        Args:
            traced: The runs give traces too.
            run_entries: Of each run's configuration.
            profile: What the name of onnxruntime's profile begins with; empty for none.
        """
        read, spec = graph.parse(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        if profile:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        proto = graph.slab_graph(graph.served(read, spec), spec, shape.ticks, traced=traced)
        self.session = onnxruntime.InferenceSession(
            proto, options, providers=[(PROVIDERS[device], OPTIONS[device])]
        )
        self.spec: ModelSpec = spec
        self.shape = shape
        self._run_options = onnxruntime.RunOptions()
        for name, value in (run_entries or {}).items():
            self._run_options.add_run_config_entry(name, value)
        self._entries = run_entries or {}
        self._binding = self.session.io_binding()
        slots = onnxruntime.OrtValue.ortvalue_from_numpy(np.arange(shape.batch), device)
        for name in (graph.SOURCES, graph.SLOTS):
            self._binding.bind_ortvalue_input(name, slots)
        self.inputs = [
            self._value((shape.batch, *spec.inputs[0].shape), device) for _ in range(shape.ticks)
        ]
        self.outputs: dict[str, onnxruntime.OrtValue] = {}
        for tick, value in enumerate(self.inputs):
            self._binding.bind_ortvalue_input(graph.tick_name(spec.input, tick), value)
        widths = {
            each.name: [each.shape[0], *(n if isinstance(n, int) else 0 for n in each.shape[1:])]
            for each in self.session.get_outputs()
        }
        for name, (_, *sizes) in widths.items():
            if not name.endswith(".slab"):
                sizes = [size or shape.locations for size in sizes]
                self.outputs[name] = self._value((shape.batch, *sizes), device)
                self._binding.bind_ortvalue_output(name, self.outputs[name])
        self._slots = slots
        self.slab = {
            each.name: self._value((shape.batch + 1, *each.shape_at(shape.locations)), device)
            for each in spec.state
        }
        for each in spec.state:
            name, slab = graph.slab_name(each.input), self.slab[each.name]
            self._binding.bind_ortvalue_input(name, slab)
            self._binding.bind_ortvalue_output(graph.slab_name(graph.next_name(each)), slab)
        for each in spec.state:
            rows = [each.initial_value(shape.locations)] * (shape.batch + 1)
            self.slab[each.name].update_inplace(np.stack(rows))

    def _value(self, shape: Sequence[int], device: str) -> onnxruntime.OrtValue:
        zeros = np.zeros(shape, np.float32)
        if device == "cpu":
            value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(zeros.shape, np.float32)
            value.update_inplace(zeros)
            return value
        return onnxruntime.OrtValue.ortvalue_from_numpy(zeros, device)

    def run(self) -> None:
        """Make the ticks."""
        self.session.run_with_iobinding(self._binding, self._run_options)
        if self._entries:
            self._binding.synchronize_outputs()

    def run_and_take(self) -> dict[str, Float32]:
        """Make the ticks, and copy each output and trace from the device, one by one."""
        self.run()
        return {name: value.numpy() for name, value in self.outputs.items()}


def median_us(work: Callable[[], object], seconds: float) -> float:
    """Return the median time of some work in microseconds, after three times to warm up."""
    times: list[float] = []
    for _ in range(3):
        work()
    ends = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < ends:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1e6 * float(np.median(times))
