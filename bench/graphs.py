"""Rows about the step of the network: the served graph against other implementations."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from bench.engine import EngineLoad
from bench.fused import FusedStep
from bench.literal import CELLS, WIDTH, LiteralStep
from bench.processes import MODEL
from bench.row import ROOT, BenchmarkUnavailable, Options, Row, alternated
from bench.serving import bare_steps_a_second, load_network
from export.card import load as load_from_card
from export.to_onnx import ServedStep
from ntm_tasks import TASKS
from service.models.bound_run import BoundRun
from service.models.folder import MODEL_FILE
from service.models.runtime import Network
from service.models.slab import Slab

BATCH, LOCATIONS, CHUNK, INPUT_WIDTH = 64, 128, 32, 9
SECONDS = 1.0
SHARPEST = "priority-sort-ntm-lstm"
"""The model whose heads leave the smallest weights."""

EARLY, LATE = 10, 1000
"""The numbers of steps after which `denormals` measures."""

TIMED_STEPS, REPEATS = 16, 9
AGREEMENT = 1e-4
"""The largest difference of a peer's outputs from the served graph's in a copy sequence."""

Array = npt.NDArray[np.float32]
Step = Callable[[Array], Array]
"""Makes one step of a batch and keeps its state: [B, X] -> [B, Y]."""


def graph(options: Options) -> Row:
    """Compare the served graph with one exported from the paper's equations as written."""
    network = _network_on_cpu(options)
    literal = literal_step()
    check(literal, network)
    samples = alternated(
        options.rounds,
        {
            "served graph, steps/s": lambda: bare_steps_a_second(network, BATCH, SECONDS),
            "literal graph, steps/s": lambda: steps_a_second(literal),
        },
    )
    served, other = (median(values) for values in samples.values())
    workload = f"batch {BATCH}, one thread, the graph that is served / the paper's equations"
    return Row("graph", workload, served / other, 2.5, True, samples)


def kernel(options: Options) -> Row:
    """Compare the served graph with a step fused by hand."""
    network = _network_on_cpu(options)
    fused = FusedStep(parameters(), BATCH, LOCATIONS)
    check(fused, network)
    samples = alternated(
        options.rounds,
        {
            "served graph, us a step": lambda: 1e6 / bare_steps_a_second(network, BATCH, SECONDS),
            "fused kernel, us a step": lambda: 1e6 / steps_a_second(fused),
        },
    )
    served, other = (median(values) for values in samples.values())
    workload = f"time a step, batch {BATCH}, the graph that is served / numba and BLAS"
    return Row("kernel", workload, served / other, 3, False, samples)


def peer_torch(options: Options) -> Row:
    """
    Compare the server's engine, end to end, with PyTorch's eager step of the same network.

    A step fused by hand is less than three times as fast as PyTorch's, so the goal is below that.
    """
    network = load_network(options)
    eager = eager_step()
    check(eager, _network_on_cpu(options))
    samples = alternated(
        options.rounds,
        {
            "engine, steps/s": lambda: EngineLoad(network, BATCH, CHUNK).steps_a_second(SECONDS),
            "PyTorch, steps/s": lambda: steps_a_second(eager),
        },
    )
    served, other = (median(values) for values in samples.values())
    workload = f"{BATCH} sessions, the engine with chunks of {CHUNK} / PyTorch eager, one thread"
    return Row("peer-torch", workload, served / other, 1.5, True, samples)


def denormals(options: Options) -> Row:
    """
    Compare late steps with early steps of sequences without a reset between them.

    Late ones would take longer if the network's sharp heads made denormal numbers, of which there
    would be more with every step. The row is of the network with the sharpest heads; the times of
    all others are kept as samples.
    """
    measures: dict[str, Callable[[], float]] = {}
    for path in sorted((ROOT / "models").glob(f"*/{MODEL_FILE}")):
        continued = ContinuedSteps(Network(path.read_bytes(), "cpu"))
        for steps in (EARLY, LATE):
            name = f"{path.parent.name} after {steps:,}, us a step"
            measures[name] = partial(continued.us_a_step, steps)
    samples = alternated(options.rounds, measures)
    early, late = (samples[f"{SHARPEST} after {steps:,}, us a step"] for steps in (EARLY, LATE))
    # The two times of a round are neighbours, so that other load weighs on both.
    ratio = median(after / before for before, after in zip(early, late, strict=True))
    workload = f"time a step, batch {BATCH}, {SHARPEST} after {LATE:,} steps / after {EARLY}"
    return Row("denormals", workload, ratio, 1.1, False, samples)


BENCHMARKS: dict[str, Callable[[Options], Row]] = {
    "denormals": denormals,
    "graph": graph,
    "kernel": kernel,
    "peer-torch": peer_torch,
}


class ContinuedSteps:
    """A network at two points of its task's sequences, one after another, in 64 sessions."""

    def __init__(self, network: Network) -> None:
        """Make the steps up to the later point."""
        spec = network.spec
        self._network = network
        self._slab = Slab(network, spec.default_locations)
        self._slots = [self._slab.acquire() for _ in range(BATCH)]
        task, generator = TASKS[spec.task], np.random.default_rng(0)
        parts: list[Array] = []
        while sum(map(len, parts)) < LATE + TIMED_STEPS:
            parts.append(task.generate(generator, BATCH, task.largest).inputs)
        self._inputs = np.concatenate(parts)
        self.states: dict[int, dict[str, Array]] = {}
        """By the number of steps made: the state of all sessions by name."""
        bound = self._bound(1)
        for step in range(LATE + 1):
            if step in (EARLY, LATE):
                self.states[step] = self._slab.read(self._slots)
            bound.inputs[0] = self._inputs[step]
            bound.run()

    def us_a_step(self, steps: int) -> float:
        """Return the time of one session's step after so many, in microseconds."""
        bound = self._bound(self._network.bursts[-1])
        ticks, times = len(bound.inputs), []
        for _ in range(REPEATS):
            for row, slot in enumerate(self._slots):
                state = {name: values[row : row + 1] for name, values in self.states[steps].items()}
                self._slab.write(slot, state)
            took = 0.0
            for first in range(steps, steps + TIMED_STEPS, ticks):
                bound.inputs[:] = self._inputs[first : first + ticks]
                started = time.perf_counter()
                bound.run()
                took += time.perf_counter() - started
            times.append(1e6 * took / (TIMED_STEPS * BATCH))
        return median(times)

    def _bound(self, ticks: int) -> BoundRun:
        bound = self._slab.bind(BATCH, frozenset(), ticks)
        bound.seat(self._slots)
        return bound


def literal_step() -> Step:
    """
    Return the literal graph on onnxruntime with one thread.

    It gathers and scatters nothing: the state of the batch is in two sets of buffers. Each run
    reads one set and writes the other.
    """
    tensors = {name: torch.from_numpy(value) for name, value in parameters().items()}
    cells = [tensors[f"controller.initial_{name}"].repeat(BATCH, 1) for name in ("hidden", "cell")]
    weighting = torch.zeros(BATCH, LOCATIONS)
    weighting[:, 0] = 1
    memory = torch.full((BATCH, LOCATIONS, WIDTH), 1e-6)
    state = (memory, weighting, weighting.clone(), torch.zeros(BATCH, WIDTH), *cells)
    assert state[4].shape == (BATCH, CELLS)
    x = torch.zeros(BATCH, INPUT_WIDTH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's about itself
        program = torch.onnx.export(
            LiteralStep(tensors).eval(), (x, state), dynamo=True, opset_version=18, verbose=False
        )
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return _PingPong(session, [tensor.numpy() for tensor in state])


def eager_step() -> Step:
    """Return the network of the model in PyTorch with one thread."""
    torch.set_num_threads(1)
    served = ServedStep(load_from_card(ROOT / "models" / MODEL)).eval()
    with torch.no_grad():
        state = served.network.initial_state(BATCH, LOCATIONS)

    def step(x: Array) -> Array:
        nonlocal state
        with torch.inference_mode():
            y, *after = served(torch.from_numpy(x), state)
        state = type(state)(*after[: len(state)])
        outputs: Array = y.numpy()
        return outputs

    return step


def steps_a_second(step: Step) -> float:
    """Return the steps a second, over all sessions of the batch."""
    inputs = _copy_inputs(CHUNK)
    step(inputs[0])
    started, ticks = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        step(inputs[ticks % CHUNK])
        ticks += 1
    return BATCH * ticks / (time.perf_counter() - started)


def check(step: Step, network: Network) -> None:
    """Raise ArithmeticError if a peer differs from the served graph on a copy of 20 vectors."""
    slab = Slab(network, LOCATIONS)
    slots = [slab.acquire() for _ in range(BATCH)]
    bound = slab.bind(BATCH, frozenset())
    bound.seat(slots)
    for number, x in enumerate(_copy_inputs(41, length=20)):
        bound.inputs[:] = x
        bound.run()
        difference = float(np.abs(bound.output[0] - step(x)).max())
        if not difference <= AGREEMENT:
            raise ArithmeticError(f"the peer differs by {difference:.2g} at step {number}")


class _PingPong:
    """Runs a graph with inputs x and state, and outputs y and state."""

    def __init__(self, session: onnxruntime.InferenceSession, state: list[Array]) -> None:
        inputs = [value.name for value in session.get_inputs()]
        outputs = [value.name for value in session.get_outputs()]
        self._session = session
        self._x = np.zeros((BATCH, INPUT_WIDTH), np.float32)
        self._y = np.zeros(session.get_outputs()[0].shape, np.float32)
        buffers = [[value.copy() for value in state], [value.copy() for value in state]]
        self._bindings = []
        for here in (0, 1):
            binding = session.io_binding()
            for name, array in zip(inputs, [self._x, *buffers[here]], strict=True):
                binding.bind_ortvalue_input(name, _wrap(array))
            for name, array in zip(outputs, [self._y, *buffers[1 - here]], strict=True):
                binding.bind_ortvalue_output(name, _wrap(array))
            self._bindings.append(binding)

    def __call__(self, x: Array) -> Array:
        self._x[:] = x
        self._session.run_with_iobinding(self._bindings[0])
        self._bindings.reverse()
        return self._y


def _wrap(array: Array) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _copy_inputs(steps: int, length: int | None = None) -> Array:
    """Return copy inputs [steps, B, X]: `length` vectors, a delimiter, blanks; or only vectors."""
    inputs = np.zeros((steps, BATCH, INPUT_WIDTH), np.float32)
    vectors = steps if length is None else length
    inputs[:vectors, :, :-1] = np.random.default_rng(0).integers(0, 2, (vectors, BATCH, 8))
    if length is not None:
        inputs[length, :, -1] = 1
    return inputs


def parameters() -> dict[str, Array]:
    """Return the parameters of the model by name."""
    network = load_from_card(ROOT / "models" / MODEL)
    return {name: value.detach().numpy() for name, value in network.named_parameters()}


def _network_on_cpu(options: Options) -> Network:
    if options.device == "cuda":
        raise BenchmarkUnavailable("its peer runs on the CPU only; use --device cpu")
    return load_network(Options(device="cpu"))
