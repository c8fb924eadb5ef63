"""Runs over a slab: the buffers of a batch, bound once and run many times."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

from service.models import graph
from service.models.device import Device
from service.spec import Array, Float32, ModelSpec, parts

Int64 = npt.NDArray[np.int64]
Tensors = Mapping[str, onnxruntime.OrtValue]
"""
The slab tensors by `StateTensor.name`, each [slots + 1, ...], on the network's device. The last row
is the spare one: it belongs to no session, and takes what the rows that pad a batch write.
"""

_ALIGNMENT = 256
"""Tensors begin at multiples of these bytes, as they would in allocations of their own on CUDA."""


class Sessions(NamedTuple):
    """The loaded graphs of a run."""

    step: onnxruntime.InferenceSession
    write: onnxruntime.InferenceSession | None
    """Writes the next states, where `step` does not."""


class BoundRun:
    """
    Buffers for some ticks of a batch of one size, which are bound to a slab once and run many
    times.

    Call `seat`, fill `inputs`, call `run`, read `output` and `traces`. On a device one copy brings
    slots and inputs there, and one brings outputs and traces back.
    """

    def __init__(
        self,
        sessions: Sessions,
        spec: ModelSpec,
        tensors: Tensors,
        shape: tuple[int, int],
        traced: Mapping[str, tuple[int, int]],
        device: Device,
        graph_id: int = 0,
    ) -> None:
        """
        Allocate for `shape` [ticks, batch]; `traced` has [heads, width] of each output.

        Runs are captured as CUDA graphs with the number `graph_id`, which no other runs have; 0 for
        none.
        """
        self._step, self._write = sessions
        self._device = device
        self._options = _run_options(graph_id)
        self.may_be_written = False
        """Whether the last run may have written rows of the slab, also if it failed."""
        ticks, batch = shape
        self._spare = spare(tensors)
        places = {
            name: _Place(1, (batch,), np.dtype(np.int64)) for name in (graph.SOURCES, graph.SLOTS)
        }
        for each in spec.inputs:
            places[each.name] = _Place(ticks, (batch, *each.shape), each.dtype)
        self._given = _Pack(places, device.name)
        places = {
            each.name: _Place(ticks, (batch, *each.shape), each.dtype) for each in spec.outputs
        }
        for name, widths in traced.items():
            places[name] = _Place(ticks, (batch, *widths), np.dtype(np.float32))
        self._taken = _Pack(places, device.name)
        self.sources: Int64 = self._given.arrays[graph.SOURCES][0]
        """[batch]: the slot that each row is read from."""
        self.slots: Int64 = self._given.arrays[graph.SLOTS][0]
        """[batch]: the slot that each row is written to. Only the spare row may come twice."""
        given = [self._given.arrays[each.name] for each in spec.inputs]
        self.inputs = given[0] if len(given) == 1 else np.zeros(shape, spec.input_record)
        """[ticks, batch] of records; [ticks, batch, X] for a model that takes one vector."""
        taken = [self._taken.arrays[each.name] for each in spec.outputs]
        self.output = taken[0] if len(taken) == 1 else np.zeros(shape, spec.output_record)
        """[ticks, batch] of records, or [ticks, batch, Y]; overwritten by each run."""
        self.traces: dict[str, Float32] = {name: self._taken.arrays[name] for name in traced}
        """By graph output, [ticks, batch, heads, width]; overwritten by each run."""
        # The network needs the rows of each tensor one after another. One tensor's are; those of
        # several lie in records, so that each has a buffer of its own.
        self._split = _pairs(self.inputs, parts(self.inputs, spec.inputs), given)
        self._joined = _pairs(self.output, parts(self.output, spec.outputs), taken)
        self._binding = self._step.io_binding()
        self._write_binding = self._write.io_binding() if self._write else None
        self._bind(spec, tensors, ticks, batch)
        if graph_id:
            self._capture(graph_id)

    def seat(self, slots: Sequence[int]) -> None:
        """
        Let the first rows step these slots, which are all different.

        The other rows pad the batch. They read what the last of the first reads, which is a state
        that the network can step, and write the spare row.
        """
        rows = len(slots)
        self.slots[:rows] = slots
        self.sources[:rows] = self.slots[:rows]
        self.sources[rows:] = slots[-1]
        self.slots[rows:] = self._spare

    def seat_one(self, slot: int, row: int, others: int) -> None:
        """Let one row step a slot. All other rows read another slot, and write the spare row."""
        self.sources[:], self.slots[:] = others, self._spare
        self.sources[row] = self.slots[row] = slot

    def run(self) -> None:
        """
        Make the ticks: updates the slab's rows, `output` and `traces` in place.

        Raises CapacityExceeded if the device has no memory for the run, and what onnxruntime does.
        """
        self.may_be_written = False
        self._device.do(self._run)

    def _run(self) -> None:
        for rows, array in self._split:
            array[...] = rows
        self._given.send()
        self.may_be_written = self._write is None
        self._step.run_with_iobinding(self._binding, self._options)
        if self._write is not None:
            self.may_be_written = True
            self._write.run_with_iobinding(self._write_binding, self._options)
        self._taken.fetch()
        for rows, array in self._joined:
            rows[...] = array

    def _capture(self, graph_id: int) -> None:
        """
        Capture the runs, which makes several of them: all rows read and write the spare row.

        The graphs are dropped with these buffers, since nothing else is at their addresses. So they
        are never captured again in a run that steps sessions.
        """
        self.sources[:] = self.slots[:] = self._spare
        for _ in range(2):  # the second one replays, however many onnxruntime makes to capture
            self._run()
        sessions = [each for each in (self._step, self._write) if each is not None]
        weakref.finalize(self, _release, self._device, sessions, graph_id).atexit = False

    def _bind(self, spec: ModelSpec, tensors: Tensors, ticks: int, batch: int) -> None:
        binding, write = self._binding, self._write_binding
        self._given.bind_input(binding, graph.SOURCES, graph.SOURCES, 0)
        self._given.bind_input(write or binding, graph.SLOTS, graph.SLOTS, 0)
        for tick in range(ticks):
            for each in spec.inputs:
                name = graph.tick_name(each.name, tick)
                self._given.bind_input(binding, name, each.name, tick)
            for name in self._taken.arrays:
                self._taken.bind_output(binding, graph.tick_name(name, tick), name, tick)
        for state in spec.state:
            binding.bind_ortvalue_input(graph.slab_name(state.input), tensors[state.name])
        for state in graph.changing(spec):
            slab, name = tensors[state.name], graph.slab_name(state.output)
            if write is None:
                binding.bind_ortvalue_output(name, slab)
                continue
            row = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                (batch, *slab.shape()[1:]), state.dtype, slab.device_name()
            )
            binding.bind_ortvalue_output(state.output, row)
            write.bind_ortvalue_input(state.output, row)
            write.bind_ortvalue_input(graph.slab_name(state.input), slab)
            write.bind_ortvalue_output(name, slab)


def _run_options(graph_id: int) -> onnxruntime.RunOptions | None:
    if not graph_id:
        return None
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph_id))
    return options


def _release(
    device: Device, sessions: Sequence[onnxruntime.InferenceSession], graph_id: int
) -> None:
    """Drop captured graphs, without waiting for the runs under way."""
    for session in sessions:
        device.do_later(session.release_captured_graph, graph_id)


def spare(tensors: Tensors) -> int:
    """The number of the spare row; 0 for a network without state."""
    return next((tensor.shape()[0] - 1 for tensor in tensors.values()), 0)


class _Place(NamedTuple):
    """What a pack has room for: the same tensor for some ticks."""

    ticks: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def bytes(self) -> int:
        """Bytes of one tick."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def stride(self) -> int:
        """Bytes from one tick to the next."""
        return -(-self.bytes // _ALIGNMENT) * _ALIGNMENT


class _Pack:
    """
    Tensors that lie one after another, on the host and on a device, so that one copy moves all.

    On a CPU both are the same memory, and nothing is copied.
    """

    def __init__(self, places: Mapping[str, _Place], device: str) -> None:
        self._places = places
        self._host, self._device = memory(
            sum(place.ticks * place.stride for place in places.values()), device
        )
        octets = self._host.numpy()
        octets[:] = 0
        self._starts: dict[str, int] = {}
        self.arrays: dict[str, Array] = {}
        """[ticks, ...] by name, on the host."""
        start = 0
        for name, place in places.items():
            self._starts[name] = start
            end = start + place.ticks * place.stride
            rows = octets[start:end].reshape(place.ticks, place.stride)[:, : place.bytes]
            self.arrays[name] = rows.view(place.dtype).reshape(place.ticks, *place.shape)
            start = end

    def send(self) -> None:
        """Bring what is on the host to the device."""
        if self._device is not self._host:
            self._device.update_inplace(self._host)

    def fetch(self) -> None:
        """Bring what is on the device to the host."""
        if self._device is not self._host:
            self._host.update_inplace(self._device)

    def bind_input(self, binding: onnxruntime.IOBinding, name: str, place: str, tick: int) -> None:
        """Let a graph read its input `name` at a place; the binding does not keep this alive."""
        binding.bind_input(name, *self._at(place, tick))

    def bind_output(self, binding: onnxruntime.IOBinding, name: str, place: str, tick: int) -> None:
        """Let a graph write its output `name` to a place; the binding does not keep this alive."""
        binding.bind_output(name, *self._at(place, tick))

    def _at(self, name: str, tick: int) -> tuple[str, int, type, tuple[int, ...], int]:
        place = self._places[name]
        address = self._device.data_ptr() + self._starts[name] + tick * place.stride
        return self._device.device_name(), 0, place.dtype.type, place.shape, address


def memory(size: int, device: str) -> tuple[onnxruntime.OrtValue, onnxruntime.OrtValue]:
    """
    Bytes that the CPU can reach, and bytes that a run on the device can: the same ones on a CPU.

    The CPU's are pinned where onnxruntime has such memory for the device. A copy from or to others
    goes through a pinned buffer of the driver's.
    """

    def allocate(**where: object) -> onnxruntime.OrtValue:
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type((size,), np.uint8, **where)

    if device == "cpu":
        host = allocate()
        return host, host
    pinned = next(
        (
            found
            for each in onnxruntime.get_ep_devices()
            if each.ep_name.lower().startswith(device)
            and (found := each.memory_info(onnxruntime.OrtDeviceMemoryType.HOST_ACCESSIBLE))
        ),
        None,
    )
    return allocate(memory_info=pinned) if pinned else allocate(), allocate(device_type=device)


def _pairs(
    whole: Array, views: Sequence[Array], buffers: Sequence[Array]
) -> list[tuple[Array, Array]]:
    """The views of records and the buffers to copy to or from; none where they are the same."""
    return [] if whole is buffers[0] else list(zip(views, buffers, strict=True))
