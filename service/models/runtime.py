"""Networks on a device, as onnxruntime runs them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
from collections.abc import Mapping, Sequence
from functools import cache, partial
from itertools import count
from pathlib import Path

import numpy as np
import onnxruntime

from service.errors import ModelInvalid, one_line
from service.models import cuda, graph
from service.models.bound_run import BoundRun, Sessions, Tensors
from service.models.cores import cores
from service.models.device import device_of
from service.spec import LOCATIONS, Array, ModelSpec

log = logging.getLogger(__name__)

CUDA_BATCHES = (8, 32, 128, 512, 1024, 2048, 4096)
"""
The sizes of batches on a GPU, and multiples of the last. Each costs memory and time, and CUDA's
libraries may compute a row of one size in another way than a row of another.
"""

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""The names of onnxruntime's execution providers."""

OPTIONS: dict[str, dict[str, str]] = {
    "cpu": {},
    "cuda": {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"},
}
"""
The options of each provider. CUDA would by default round the factors of matrix products to 10 bits
(TF32), and a network's answers then differ from its card's by more than `export` lets a file
differ. And each session's arena would double with each kind of run, rather than grow by what is
asked of it.
"""


class Network:
    """One model, loaded: runs steps over slabs that it allocates."""

    def __init__(
        self,
        model: bytes,
        device: str = "auto",
        threads: int = 1,
        max_burst: int = 8,
        *,
        cuda_graphs: bool = False,
    ) -> None:
        """
        Load a step graph from the bytes of its ONNX file.

        Args:
            device: `cpu`, `cuda`, or `auto` for CUDA where it works.
            threads: onnxruntime threads inside one run.
            max_burst: the largest number of ticks in one run.
            cuda_graphs: on CUDA, capture each kind of run once and replay it.

        Raises:
            ModelInvalid: the bytes break the contract of `service.spec`.
            RuntimeError: `cuda` was asked for and CUDA does not work here.
        """
        read, self.spec = graph.parse(model)
        proto = graph.served(read, self.spec)
        self.content_hash = content_hash(model)
        self.why_alone = "" if self.spec.batched else "its spec says so"
        """Why a run steps one session; empty if it may step several. The batch check sets it."""
        self.bursts = [2**power for power in range(max_burst.bit_length())]
        """The numbers of ticks that a run can make."""
        self._steps = {
            (ticks, traced): _load(
                graph.slab_graph(proto, self.spec, ticks, traced=traced),
                device,
                threads,
                cuda_graphs=cuda_graphs,
            )
            for ticks in self.bursts
            for traced in (False, True)
        }
        step = self._steps[1, True]
        self.provider: str = step.get_providers()[0]
        self._device = device_of("cuda" if self.provider == PROVIDERS["cuda"] else "cpu")
        self.on_cpu = self._device.is_cpu
        self._graph_ids = count(1) if cuda_graphs and not self.on_cpu else None
        self._multiple = graph.batch_multiple(proto) if self.on_cpu else CUDA_BATCHES[-1]
        self._alone = graph.alone(proto, self.spec) if self.on_cpu else frozenset()
        chooses = self.spec.has_memory and not self.spec.fixed_locations
        self.may_try_lone_rows = self.on_cpu and not chooses and not self._alone
        """Whether only a trial can tell that a lone row may be a batch of its own."""
        self.lone_rows = False
        """Whether the trial showed it."""
        name = self._device.name
        self._read = _load(graph.read_graph(self.spec, proto), name, threads)
        self._write = _load(graph.write_graph(self.spec.state, proto), name, threads)
        self._write_next = (
            _load(
                graph.write_graph(graph.changing(self.spec), proto),
                name,
                threads,
                cuda_graphs=cuda_graphs,
            )
            if graph.is_written_apart(proto, self.spec)
            else None
        )
        self._copy = _load(graph.copy_graph(self.spec, proto), name, threads)
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
        if not self.on_cpu and rows <= CUDA_BATCHES[-1]:
            return next(size for size in CUDA_BATCHES if size >= rows)
        return -(-rows // self._multiple) * self._multiple

    def allocate(self, capacity: int, locations: int) -> Tensors:
        """
        Allocate slab tensors with room for `capacity` slots, and the spare row behind them.

        Their contents are undefined. This and the methods below raise CapacityExceeded if the
        device has no memory for what they do.
        """
        return self._device.do(self._allocate, capacity, locations)

    def read_rows(self, tensors: Tensors, slots: Sequence[int]) -> dict[str, Array]:
        """Copy the slots' rows, by state name, each [slots, ...]."""
        return self._device.do(self._read_rows, tensors, slots)

    def write_rows(self, tensors: Tensors, slots: Sequence[int], rows: Mapping[str, Array]) -> None:
        """Overwrite the slots' rows, by state name, each [slots, ...]; others stay as they are."""
        self._device.do(self._write_rows, tensors, slots, rows)

    def copy_row(self, tensors: Tensors, source: int, target: int) -> None:
        """Overwrite the row of one slot with that of another, on the device."""
        self._device.do(self._copy_row, tensors, source, target)

    def bind(
        self, tensors: Tensors, batch: int, locations: int, traced: frozenset[str], ticks: int
    ) -> BoundRun:
        """
        Prepare runs of `batch` rows; `ticks` is one of `bursts`.

        They give the graph outputs `traced` besides the model's output. The result keeps the
        tensors alive.
        """
        sessions = Sessions(self._steps[ticks, bool(traced)], self._write_next)
        shapes = self._shapes(locations, traced)
        shape, graph_id = (ticks, batch), next(self._graph_ids) if self._graph_ids else 0
        return self._device.do(
            BoundRun, sessions, self.spec, tensors, shape, shapes, self._device, graph_id
        )

    def _allocate(self, capacity: int, locations: int) -> Tensors:
        return {
            tensor.name: onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                (capacity + 1, *tensor.shape_at(locations)), tensor.dtype, self._device.name
            )
            for tensor in self.spec.state
        }

    def _read_rows(self, tensors: Tensors, slots: Sequence[int]) -> dict[str, Array]:
        binding = self._bind_slabs(self._read, tensors, {graph.SOURCES: slots})
        for tensor in self.spec.state:
            binding.bind_output(tensor.input, "cpu")
        self._read.run_with_iobinding(binding)
        rows = binding.copy_outputs_to_cpu()
        return {tensor.name: row for tensor, row in zip(self.spec.state, rows, strict=True)}

    def _write_rows(
        self, tensors: Tensors, slots: Sequence[int], rows: Mapping[str, Array]
    ) -> None:
        binding = self._bind_slabs(self._write, tensors, {graph.SLOTS: slots})
        for tensor in self.spec.state:
            row = np.ascontiguousarray(rows[tensor.name])
            binding.bind_cpu_input(graph.next_name(tensor), row)
            slab = graph.slab_name(graph.next_name(tensor))
            binding.bind_ortvalue_output(slab, tensors[tensor.name])
        self._write.run_with_iobinding(binding)

    def _copy_row(self, tensors: Tensors, source: int, target: int) -> None:
        rows = {graph.SOURCES: [source], graph.SLOTS: [target]}
        binding = self._bind_slabs(self._copy, tensors, rows)
        for tensor in self.spec.state:
            slab = graph.slab_name(graph.next_name(tensor))
            binding.bind_ortvalue_output(slab, tensors[tensor.name])
        self._copy.run_with_iobinding(binding)

    def _shapes(self, locations: int, traced: frozenset[str]) -> dict[str, tuple[int, int]]:
        """Shapes [heads, width] of the traced graph outputs."""
        shapes = {}
        for name in traced:
            _, heads, width = self._output_shapes[name]
            shapes[name] = (heads, locations if isinstance(width, str) else width)
        return shapes

    def _bind_slabs(
        self,
        session: onnxruntime.InferenceSession,
        tensors: Tensors,
        rows: Mapping[str, Sequence[int]],
    ) -> onnxruntime.IOBinding:
        binding = session.io_binding()
        for name, slots in rows.items():
            binding.bind_cpu_input(name, np.array(slots, np.int64))
        for tensor in self.spec.state:
            binding.bind_ortvalue_input(graph.slab_name(tensor.input), tensors[tensor.name])
        return binding


def content_hash(model: bytes) -> str:
    """The hash that identifies a model's content: SHA-256 of its file, in hexadecimal."""
    return hashlib.sha256(model).hexdigest()


def provider(device: str, *, cuda_graphs: bool = False) -> str:
    """
    The execution provider that networks on that device will run on.

    Raises:
        RuntimeError: `cuda` or CUDA graphs were asked for and CUDA does not work here.
    """
    session = _load(graph.identity(), device, threads=1)
    name: str = session.get_providers()[0]
    if cuda_graphs and name != PROVIDERS["cuda"]:
        raise RuntimeError(
            "--cuda-graphs is 'yes', but networks run on the CPU here, which has no CUDA graphs; "
            "leave it out, or set --device to cuda to learn what CUDA lacks"
        )
    return name


def parallel_runs(provider: str) -> int:
    """
    The number of runs to make at once on a provider.

    On a GPU, runs are made one after another. On a CPU, one core is left to the event loop. Runs on
    all cores would make more steps in total, but a single step would wait longer.
    """
    return 1 if provider == PROVIDERS["cuda"] else max(1, cores() - 1)


def _load(
    model: bytes, device: str, threads: int, *, cuda_graphs: bool = False
) -> onnxruntime.InferenceSession:
    fault = _cuda_fault() if device != "cpu" else None
    if device == "cuda" and fault:
        raise RuntimeError(f"--device is 'cuda', but {fault}; set it to auto or cpu otherwise")
    names = ["cpu"] if device == "cpu" or fault else ["cuda", "cpu"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # What fails is raised, and said in the log. On its own onnxruntime writes coloured lines too.
    options.log_severity_level = 4
    if names[0] == "cuda":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    chosen = dict(OPTIONS)
    if cuda_graphs:
        chosen["cuda"] = {**chosen["cuda"], "enable_cuda_graph": "1"}
    load = partial(
        onnxruntime.InferenceSession,
        model,
        options,
        providers=[(PROVIDERS[name], chosen[name]) for name in names],
    )
    try:
        session = device_of(names[0]).do(load)
    except Exception as error:  # onnxruntime's errors share no other base class
        raise ModelInvalid(f"onnxruntime cannot load the model: {one_line(error)}") from error
    runs_on_cuda = session.get_providers()[0] == PROVIDERS["cuda"]
    if device == "cuda" and not runs_on_cuda:
        raise RuntimeError("--device is 'cuda', but onnxruntime found no GPU that it can use")
    elsewhere = _nodes_not_on(PROVIDERS["cuda"], session) if runs_on_cuda else []
    if elsewhere:
        raise ModelInvalid(
            f"onnxruntime leaves {len(elsewhere)} nodes of the model to the CPU, and each would "
            f"cost copies in every step: {', '.join(elsewhere[:5])}; export the model without "
            "them, or serve it with --device cpu"
        )
    return session


def _nodes_not_on(provider: str, session: onnxruntime.InferenceSession) -> list[str]:
    """The nodes that run on another provider, as "name (operator)"."""
    return [
        f"{node.name or 'one without a name'} ({node.op_type})"
        for assigned in session.get_provider_graph_assignment_info()
        if assigned.ep_name != provider
        for node in assigned.get_nodes()
    ]


@cache
def _cuda_fault() -> str | None:
    """
    The reason why CUDA cannot be used here, or None. It is found out and logged once.

    onnxruntime lists the provider wherever it was built in. If the provider cannot load,
    onnxruntime uses the CPU and only prints a line on standard error.
    """
    if PROVIDERS["cuda"] in onnxruntime.get_available_providers():
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
