"""The only user of onnxruntime: networks on a device, and the buffers that they run on."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from service.errors import ModelInvalid, one_line
from service.models import cuda, graph
from service.models.cores import cores
from service.spec import LOCATIONS, Array, Float32, ModelSpec, parts

log = logging.getLogger(__name__)

CUDA_BATCH_MULTIPLE = 8
"""Batch sizes on a GPU are multiples of this, because each new size costs memory and time."""

Int64 = npt.NDArray[np.int64]
Tensors = Mapping[str, onnxruntime.OrtValue]
"""The slab tensors by `StateTensor.name`, each [capacity, ...], on the network's device."""

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

_OPTIONS: dict[str, dict[str, str]] = {"cpu": {}, "cuda": {"use_tf32": "0"}}
"""
The options of each provider. CUDA would by default round the factors of matrix products to 10 bits
(TF32), and a network's answers then differ from its card's by more than `export` lets a file
differ.
"""


class Network:
    """One model, loaded: runs steps over slabs that it allocates."""

    def __init__(
        self, model: bytes, device: str = "auto", threads: int = 1, max_burst: int = 8
    ) -> None:
        """
        Load a step graph from the bytes of its ONNX file.

        Args:
            device: `cpu`, `cuda`, or `auto` for CUDA where it works.
            threads: onnxruntime threads inside one run.
            max_burst: the largest number of ticks in one run.

        Raises:
            ModelInvalid: the bytes break the contract of `service.spec`.
            RuntimeError: `cuda` was asked for and CUDA does not work here.
        """
        read, self.spec = graph.parse(model)
        proto = graph.served(read, self.spec)
        self.content_hash = content_hash(model)
        self.why_alone = "" if self.spec.batched else "its spec says so"
        """Why a run steps one session; empty if it may step several. The batch check sets it."""
        self.keeps_state_on_failure = graph.is_written_apart(proto, self.spec)
        """Whether a run that fails leaves every state as it was."""
        self.bursts = [2**power for power in range(max_burst.bit_length())]
        """The numbers of ticks that a run can make."""
        self._steps = {
            (ticks, traced): _load(
                graph.slab_graph(proto, self.spec, ticks, traced=traced), device, threads
            )
            for ticks in self.bursts
            for traced in (False, True)
        }
        step = self._steps[1, True]
        self.provider: str = step.get_providers()[0]
        self._device = "cuda" if self.provider == _PROVIDERS["cuda"] else "cpu"
        self.on_cpu = self._device == "cpu"
        self._multiple = graph.batch_multiple(proto) if self.on_cpu else CUDA_BATCH_MULTIPLE
        self._alone = graph.alone(proto, self.spec) if self.on_cpu else frozenset()
        chooses = self.spec.has_memory and not self.spec.fixed_locations
        self.may_try_lone_rows = self.on_cpu and not chooses and not self._alone
        """Whether only a trial can tell that a lone row may be a batch of its own."""
        self.lone_rows = False
        """Whether the trial showed it."""
        self._read = _load(graph.read_graph(self.spec, proto), self._device, threads)
        self._write = _load(graph.write_graph(self.spec.state, proto), self._device, threads)
        self._write_next = (
            _load(graph.write_graph(graph.changing(self.spec), proto), self._device, threads)
            if self.keeps_state_on_failure
            else None
        )
        self._copy = _load(graph.copy_graph(self.spec, proto), self._device, threads)
        self._output_shapes = {
            value.name.removeprefix(graph.tick_name("", 0)): value.shape
            for value in step.get_outputs()
        }
        _check_shapes(self.spec, self._output_shapes)

    @property
    def batched(self) -> bool:
        """Whether a run may step several sessions."""
        return not self.why_alone

    def batch(self, rows: int, locations: int) -> int:
        """The least size of a batch of `rows` in which no result depends on a row's neighbours."""
        if not self.batched:
            return 1
        if rows == 1 and (self.lone_rows or locations % graph.PACKET in self._alone):
            return 1
        return -(-rows // self._multiple) * self._multiple

    def allocate(self, capacity: int, locations: int) -> Tensors:
        """Allocate slab tensors with room for `capacity` slots. Their contents are undefined."""
        return {
            tensor.name: onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                (capacity, *tensor.shape_at(locations)), tensor.dtype, self._device
            )
            for tensor in self.spec.state
        }

    def read_rows(self, tensors: Tensors, slots: Sequence[int]) -> dict[str, Array]:
        """Copy the slots' rows, by state name, each [slots, ...]."""
        binding = self._bind_slabs(self._read, tensors, slots)
        for tensor in self.spec.state:
            binding.bind_output(tensor.input, "cpu")
        self._read.run_with_iobinding(binding)
        rows = binding.copy_outputs_to_cpu()
        return {tensor.name: row for tensor, row in zip(self.spec.state, rows, strict=True)}

    def write_rows(self, tensors: Tensors, slots: Sequence[int], rows: Mapping[str, Array]) -> None:
        """Overwrite the slots' rows, by state name, each [slots, ...]; others stay as they are."""
        binding = self._bind_slabs(self._write, tensors, slots)
        for tensor in self.spec.state:
            row = np.ascontiguousarray(rows[tensor.name])
            binding.bind_cpu_input(graph.next_name(tensor), row)
            slab = graph.slab_name(graph.next_name(tensor))
            binding.bind_ortvalue_output(slab, tensors[tensor.name])
        self._write.run_with_iobinding(binding)

    def copy_row(self, tensors: Tensors, source: int, target: int) -> None:
        """Overwrite the row of one slot with that of another, on the device."""
        binding = self._bind_slabs(self._copy, tensors, [target])
        binding.bind_cpu_input(graph.SOURCES, np.array([source], np.int64))
        for tensor in self.spec.state:
            slab = graph.slab_name(graph.next_name(tensor))
            binding.bind_ortvalue_output(slab, tensors[tensor.name])
        self._copy.run_with_iobinding(binding)

    def bind(
        self, tensors: Tensors, batch: int, locations: int, traced: frozenset[str], ticks: int
    ) -> BoundRun:
        """
        Prepare runs of `batch` rows; `ticks` is one of `bursts`.

        They give the graph outputs `traced` besides the model's output. The result keeps the
        tensors alive.
        """
        sessions = self._steps[ticks, bool(traced)], self._write_next
        shapes = self._shapes(locations, traced)
        return BoundRun(sessions, self.spec, tensors, (ticks, batch), shapes, self._device)

    def _shapes(self, locations: int, traced: frozenset[str]) -> dict[str, tuple[int, int]]:
        """Shapes [heads, width] of the traced graph outputs."""
        shapes = {}
        for name in traced:
            _, heads, width = self._output_shapes[name]
            shapes[name] = (heads, locations if isinstance(width, str) else width)
        return shapes

    def _bind_slabs(
        self, session: onnxruntime.InferenceSession, tensors: Tensors, slots: Sequence[int]
    ) -> onnxruntime.IOBinding:
        binding = session.io_binding()
        binding.bind_cpu_input(graph.SLOTS, np.array(slots, np.int64))
        for tensor in self.spec.state:
            binding.bind_ortvalue_input(graph.slab_name(tensor.input), tensors[tensor.name])
        return binding


class BoundRun:
    """
    Buffers for some ticks of a batch of one size, which are bound to a slab once and run many
    times.

    Fill `inputs` and `slots`, call `run`, read `output` and `traces`; rows that pad the batch must
    repeat one of its rows, which is stepped only once.
    """

    def __init__(
        self,
        sessions: tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession | None],
        spec: ModelSpec,
        tensors: Tensors,
        shape: tuple[int, int],
        traced: Mapping[str, tuple[int, int]],
        device: str,
    ) -> None:
        """
        Allocate for `shape` [ticks, batch]; `traced` has [heads, width] of each output. The second
        session writes the next states where the first, which steps, does not.
        """
        self._session, self._write = sessions
        self._binding = self._session.io_binding()
        ticks, batch = shape
        self.inputs: Array = np.zeros(shape, spec.input_record)
        """[ticks, batch] of records; [ticks, batch, X] for a model that takes one vector."""
        self.slots: Int64 = np.zeros(batch, np.int64)
        """[batch]."""
        self.output: Array = np.zeros(shape, spec.output_record)
        """[ticks, batch] of records, or [ticks, batch, Y]; overwritten by each run."""
        self.traces: dict[str, Float32] = {
            name: np.zeros((*shape, *widths), np.float32) for name, widths in traced.items()
        }
        """By graph output, [ticks, batch, heads, width]; overwritten by each run."""
        self._copies: list[tuple[onnxruntime.OrtValue, npt.NDArray[Any]]] = []
        self._split, taken = _apart(parts(self.inputs, spec.inputs))
        self._joined, given = _apart(parts(self.output, spec.outputs))
        outputs = dict(zip((each.name for each in spec.outputs), given, strict=True))
        slots = self._bind_input(graph.SLOTS, self.slots, device)
        for tick in range(ticks):
            for tensor, array in zip(spec.inputs, taken, strict=True):
                self._bind_input(graph.tick_name(tensor.name, tick), array[tick], device)
            for name, array in (*outputs.items(), *self.traces.items()):
                value = _wrap(array[tick])
                self._binding.bind_ortvalue_output(graph.tick_name(name, tick), value)
        for state in spec.state:
            slab = tensors[state.name]
            self._binding.bind_ortvalue_input(graph.slab_name(state.input), slab)
        self._write_binding = self._write.io_binding() if self._write else None
        if self._write_binding:
            self._write_binding.bind_ortvalue_input(graph.SLOTS, slots)
        for state in graph.changing(spec):
            slab, name = tensors[state.name], graph.slab_name(state.output)
            if self._write_binding:
                row = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                    (batch, *slab.shape()[1:]), state.dtype, device
                )
                self._binding.bind_ortvalue_output(state.output, row)
                self._write_binding.bind_ortvalue_input(state.output, row)
                self._write_binding.bind_ortvalue_input(graph.slab_name(state.input), slab)
                self._write_binding.bind_ortvalue_output(name, slab)
            else:
                self._binding.bind_ortvalue_output(name, slab)

    def run(self) -> None:
        """Make the ticks: updates the slab's rows, `output` and `traces` in place."""
        for rows, array in self._split:
            array[...] = rows
        for value, array in self._copies:
            value.update_inplace(array)
        self._session.run_with_iobinding(self._binding)
        if self._write is not None:
            self._write.run_with_iobinding(self._write_binding)
        for rows, array in self._joined:
            rows[...] = array

    def _bind_input(self, name: str, array: npt.NDArray[Any], device: str) -> onnxruntime.OrtValue:
        value = onnxruntime.OrtValue.ortvalue_from_numpy(array, device)
        self._binding.bind_ortvalue_input(name, value)
        if device != "cpu":
            # Binding the array itself would copy it to the device once, for all runs.
            self._copies.append((value, array))
        return value


def _apart(rows: list[Array]) -> tuple[list[tuple[Array, Array]], list[Array]]:
    """
    The buffers of a step's tensors, and pairs of what to copy between records and buffers.

    The network needs the rows of each tensor one after another. One tensor's are; those of several
    lie in records, so that each gets a buffer of its own.
    """
    if len(rows) == 1:
        return [], rows
    buffers = [np.zeros(each.shape, each.dtype) for each in rows]
    return list(zip(rows, buffers, strict=True)), buffers


def content_hash(model: bytes) -> str:
    """The hash that identifies a model's content: SHA-256 of its file, in hexadecimal."""
    return hashlib.sha256(model).hexdigest()


def provider(device: str) -> str:
    """
    The execution provider that networks on that device will run on.

    Raises:
        RuntimeError: `cuda` was asked for and CUDA does not work here.
    """
    session = _load(graph.identity(), device, threads=1)
    name: str = session.get_providers()[0]
    return name


def parallel_runs(provider: str) -> int:
    """
    The number of runs to make at once on a provider.

    On a GPU, runs are made one after another. On a CPU, one core is left to the event loop. Runs on
    all cores would make more steps in total, but a single step would wait longer.
    """
    return 1 if provider == _PROVIDERS["cuda"] else max(1, cores() - 1)


def _wrap(array: npt.NDArray[Any]) -> onnxruntime.OrtValue:
    """An OrtValue over the array's own memory."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _load(model: bytes, device: str, threads: int) -> onnxruntime.InferenceSession:
    fault = _cuda_fault() if device != "cpu" else None
    if device == "cuda" and fault:
        raise RuntimeError(f"--device is 'cuda', but {fault}; set it to auto or cpu otherwise")
    names = ["cpu"] if device == "cpu" or fault else ["cuda", "cpu"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # What fails is raised, and said in the log. On its own onnxruntime writes coloured lines too.
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model, options, providers=[(_PROVIDERS[name], _OPTIONS[name]) for name in names]
        )
    except Exception as error:  # onnxruntime's errors share no other base class
        raise ModelInvalid(f"onnxruntime cannot load the model: {one_line(error)}") from error
    if device == "cuda" and session.get_providers()[0] != _PROVIDERS["cuda"]:
        raise RuntimeError("--device is 'cuda', but onnxruntime found no GPU that it can use")
    return session


@cache
def _cuda_fault() -> str | None:
    """
    The reason why CUDA cannot be used here, or None. It is found out and logged once.

    onnxruntime lists the provider wherever it was built in. If the provider cannot load,
    onnxruntime uses the CPU and only prints a line on standard error.
    """
    if _PROVIDERS["cuda"] in onnxruntime.get_available_providers():
        # Load CUDA and cuDNN from where pip installs them, which the dynamic linker does not
        # search.
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
        folder = Path(onnxruntime.__file__).parent / "capi"
        fault = cuda.why_not(onnxruntime.__version__, onnxruntime.cuda_version, folder)
    else:
        fault = f"onnxruntime {onnxruntime.__version__} has no CUDA provider (onnxruntime-gpu has)"
    if fault:
        log.info("no CUDA", extra={"reason": fault})
    return fault


def _check_shapes(spec: ModelSpec, shapes: Mapping[str, Sequence[int | str]]) -> None:
    """Raise ModelInvalid for an output or traces that the graph does not have in that shape."""
    for tensor in spec.outputs:
        # What onnxruntime does not know is found by a run.
        sizes = shapes[tensor.name][1:]
        if shapes[tensor.name] and (
            len(sizes) != len(tensor.shape)
            or any(
                isinstance(size, int) and size != wanted
                for size, wanted in zip(sizes, tensor.shape, strict=True)
            )
        ):
            wanted = " x ".join(map(str, tensor.shape)) or "one number"
            raise ModelInvalid(
                f"output {tensor.name!r} has shape {shapes[tensor.name]}, spec says {wanted}"
            )
    for trace in spec.traces:
        shape = shapes[trace.output]
        if len(shape) != 3 or not isinstance(shape[1], int):
            raise ModelInvalid(
                f"trace {trace.name!r}: {trace.output!r} has shape {shape}; it must be [B, heads, "
                "width] with a fixed number of heads"
            )
        if trace.first_head < 0 or trace.first_head + trace.heads > shape[1]:
            last = trace.first_head + trace.heads - 1
            raise ModelInvalid(
                f"trace {trace.name!r}: {trace.output!r} has {shape[1]} heads, and the spec names "
                f"heads {trace.first_head} to {last}"
            )
        widths = {LOCATIONS if isinstance(shape[2], str) else shape[2]}
        if spec.fixed_locations and shape[2] == spec.default_locations:
            widths.add(LOCATIONS)
        if trace.width not in widths:
            raise ModelInvalid(
                f"trace {trace.name!r}: {trace.output!r} has width {shape[2]}, spec says "
                f"{trace.width}"
            )
