"""
The pieces of a first session on a GPU, in their order. Each says what it saw as soon as it saw it.

A piece is a generator: from a device and seconds that it may take to findings, which are values by
name. Each runs in a process of its own, so that one that fails or hangs ends alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bench.engine import EngineLoad
from bench.gpu.loop import Loop, Shape, median_us
from bench.processes import MODEL
from bench.row import ROOT, Options
from bench.serving import server_and_load, stepped_together, streams
from service.models import runtime
from service.models.folder import MODEL_FILE
from service.models.runtime import Network
from service.models.slab import Slab
from service.spec import Float32

Finding = dict[str, Any]
Piece = Callable[[str, float], Iterator[Finding]]

LOCATIONS = 128
MANY = 1_000
"""Steps after which errors may have grown."""

REPLAYS = 100_000
"""Runs that captured CUDA graphs have to repeat bit for bit."""


def provider(device: str, seconds: float) -> Iterator[Finding]:
    """Versions, the provider, that every node of every model is on it, and that slabs stay."""
    yield {
        "onnxruntime": onnxruntime.__version__,
        "provider": runtime.provider(device),
        "card": card(device),
        "python": sys.version.split()[0],
    }
    for name, content in models():
        network = Network(content, device)
        slab = Slab(network, network.spec.default_locations)
        slots = [slab.acquire() for _ in range(3)]
        before, tensors = slab.read(slots), slab.tensors
        addresses = {name: tensor.data_ptr() for name, tensor in tensors.items()}
        bound = slab.bind(1, frozenset())
        bound.seat(slots[1:2])
        bound.inputs[..., 0] = 1
        bound.run()
        after = slab.read(slots)
        yield {
            "model": name,
            "provider": network.provider,
            "in place by address": addresses
            == {name: tensor.data_ptr() for name, tensor in slab.tensors.items()},
            "others unchanged": all(
                np.array_equal(before[each][[0, 2]], after[each][[0, 2]]) for each in before
            ),
            "stepped": any(not np.array_equal(before[each][1], after[each][1]) for each in before),
        }


def error(device: str, seconds: float) -> Iterator[Finding]:
    """The largest differences from the CPU: of all models, and after a thousand steps."""
    for name, content in models():
        yield {"model": name, "steps": 41, "largest difference": _difference(content, device, 41)}
    content = dict(models())[MODEL]
    yield {"model": MODEL, "steps": MANY, "largest difference": _difference(content, device, MANY)}


def invariance(device: str, seconds: float) -> Iterator[Finding]:
    """Whether a session's bits depend on the size of the batch, its place, and its mates."""
    network = Network(dict(models())[MODEL], device)
    inputs = bits(16, 512, network.spec.input_width)
    alone = _among(network, inputs, 1, 0, 0)
    for size in (1, 8, 9, 32, 33, 128, 512):
        for place in sorted({0, size // 2, size - 1}):
            for mates in (0, 1):
                found = _among(network, inputs, size, place, mates)
                yield {
                    "batch": network.batch(size, LOCATIONS),
                    "rows": size,
                    "place": place,
                    "mates": mates,
                    "same bits": found.tobytes() == alone.tobytes(),
                    "largest difference": float(np.abs(found - alone).max()),
                }


def runs(device: str, seconds: float) -> Iterator[Finding]:
    """Microseconds of a run by ticks, batch and locations; launches of one tick."""
    content = dict(models())[MODEL]
    yield {"launches of a run of one tick": _launches(content, device)}
    shapes = [
        Shape(ticks, batch, locations)
        for locations in (LOCATIONS, 1024)
        for batch in (1, 8, 32, 128, 512, 4096)
        for ticks in (1, 8)
        if batch * locations <= 4096 * LOCATIONS
    ]
    ends = time.monotonic() + seconds
    for number, shape in enumerate(shapes):
        share = (ends - time.monotonic()) / (len(shapes) - number)
        loop = Loop(content, device, shape)
        us = median_us(loop.run, min(0.5, share / 2))
        state = sum(
            value.numpy().nbytes if device == "cpu" else int(np.prod(value.shape())) * 4
            for value in loop.slab.values()
        )
        yield {**shape._asdict(), "us": us, "state bytes": state}


def copies(device: str, seconds: float) -> Iterator[Finding]:
    """A run with traces whose results come back in one copy, and in a copy of each."""
    content = dict(models())[MODEL]
    network = Network(content, device)
    for batch in (1, 32, 512):
        slab = Slab(network, LOCATIONS)
        rows = network.batch(batch, LOCATIONS)
        slots = [slab.acquire() for _ in range(rows)]
        bound = slab.bind(rows, frozenset(each.output for each in network.spec.traces))
        bound.seat(slots)
        loop = Loop(content, device, Shape(1, rows, LOCATIONS), traced=True)
        yield {
            "batch": rows,
            "packed, us": median_us(bound.run, seconds / 12),
            "apart, us": median_us(loop.run_and_take, seconds / 12),
        }


def synchronisation(device: str, seconds: float) -> Iterator[Finding]:
    """A run that ends with the provider's synchronisation, and one with that of its outputs."""
    content = dict(models())[MODEL]
    for batch in (1, 32, 512):
        shape = Shape(1, batch, LOCATIONS)
        entries = {"disable_synchronize_execution_providers": "1"}
        yield {
            "batch": batch,
            "provider's, us": median_us(Loop(content, device, shape).run, seconds / 12),
            "outputs', us": median_us(
                Loop(content, device, shape, run_entries=entries).run, seconds / 12
            ),
        }


def cuda_graphs(device: str, seconds: float) -> Iterator[Finding]:
    """
    The server's captured graphs against its plain runs, bit for bit, with another shape and another
    thread in between, and slabs that move.
    """
    content = dict(models())[MODEL]
    if device == "cpu":
        yield {"note": "no CUDA graphs on this device: plain runs are compared with plain runs"}
    plain, captured = (
        Network(content, device, max_burst=1, cuda_graphs=wanted)
        for wanted in (False, device != "cpu")
    )
    pairs = [(_Stepped(plain, batch), _Stepped(captured, batch)) for batch in (8, 32)]
    for one, other in pairs:
        yield {
            "batch": one.batch,
            "plain, us": median_us(one.run, seconds / 20),
            "captured, us": median_us(other.run, seconds / 20),
        }
        for each in (one, other):
            each.reset()
    generator = np.random.default_rng(1)
    ends, made, compared, unequal = time.monotonic() + 0.7 * seconds, 0, 0, 0
    while made < REPLAYS and time.monotonic() < ends:
        for one, other in pairs:
            x = generator.integers(0, 2, (one.batch, plain.spec.input_width)).astype(np.float32)
            one.run(x)
            if made % 1000 < 2:
                elsewhere = threading.Thread(target=other.run, args=(x,))
                elsewhere.start()
                elsewhere.join()
            else:
                other.run(x)
            made += 1
            if made % 100 < 2:
                compared += 1
                unequal += one.state() != other.state()
            if made % 10_000 < 2:
                one.move()
                other.move()
    yield {
        "replays": made,
        "wanted": REPLAYS,
        "comparisons": compared,
        "comparisons that differ": unequal,
    }


class _Stepped:
    """The sessions of a slab, stepped together."""

    def __init__(self, network: Network, batch: int) -> None:
        """Open the sessions, as many as a batch has."""
        self.batch = batch
        self._network = network
        self._slab = Slab(network, LOCATIONS)
        self._slots = [self._slab.acquire() for _ in range(batch)]

    def run(self, x: Float32 | None = None) -> None:
        """Make a step of all, with inputs [batch, X] or the last ones."""
        bound = self._slab.bind(self.batch, frozenset())
        bound.seat(self._slots)
        if x is not None:
            bound.inputs[0] = x
        bound.run()

    def reset(self) -> None:
        """Set all to the initial state."""
        for slot in self._slots:
            self._slab.reset(slot)

    def move(self) -> None:
        """Bring the states to another slab, whose runs need graphs of their own."""
        state = self._slab.read(self._slots)
        self._slab = Slab(self._network, LOCATIONS)
        self._slots = [self._slab.acquire() for _ in self._slots]
        for row, slot in enumerate(self._slots):
            self._slab.write(slot, {name: rows[row : row + 1] for name, rows in state.items()})

    def state(self) -> list[bytes]:
        """The states of all, to the bit."""
        return [rows.tobytes() for _, rows in sorted(self._slab.read(self._slots).items())]


def engine(device: str, seconds: float) -> Iterator[Finding]:
    """Steps a second of the engine, beside a CPU core and PyTorch on the same device."""
    content = dict(models())[MODEL]
    for sessions in (64, 1024, 4096, 16384):
        network = Network(content, device)
        load = EngineLoad(network, sessions, chunk=8, max_batch=min(sessions, 4096))
        load.steps_a_second(0)
        yield {"sessions": sessions, "steps/s": load.steps_a_second(seconds / 12)}
    load = EngineLoad(Network(content, "cpu"), 64, chunk=8)
    load.steps_a_second(0)
    yield {"sessions": 64, "device": "cpu", "steps/s": load.steps_a_second(seconds / 12)}
    try:
        from bench.gpu.peers import torch_steps_a_second
    except ImportError as missing:
        yield {"note": f"no comparison with PyTorch: {missing}"}
        return
    for compiled in (False, True):
        for batch in (64, 4096):
            rate = torch_steps_a_second(device, batch, seconds / 12, compiled=compiled)
            name = "torch.compile" if compiled else "PyTorch, eager"
            yield {"peer": name, "sessions": batch, "steps/s": rate}


def memory(device: str, seconds: float) -> Iterator[Finding]:
    """Memory over time, while numbers of sessions come and go."""
    content = dict(models())[MODEL]
    network = Network(content, device)
    ends, round_ = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        for sessions in (8, 100, 700):
            EngineLoad(network, sessions, chunk=8).steps_a_second(0.2)
        round_ += 1
        yield {"round": round_, "bytes": used_bytes(device)}


def server(device: str, seconds: float) -> Iterator[Finding]:
    """The server, end to end."""
    with server_and_load(Options(device=device)) as (served, load):
        for _ in range(2):
            yield load("round_trips", address=served.address, count=300)
        yield {"a stream each": streams(served, load)()}
        yield {"one stream": stepped_together(served, load)()}
        yield {"one stream, chunks of 32": stepped_together(served, load, 32)()}


def training(device: str, seconds: float) -> Iterator[Finding]:
    """Sequences a second and costs in training: on the device, and on a CPU core."""
    if device == "cpu":
        yield {"note": "no GPU: autograd runs on the CPU too"}
    try:
        from bench.gpu import autograd
    except ImportError as missing:
        yield {"note": f"no training: {missing}"}
        return
    yield from autograd.findings(device, seconds)


PIECES: dict[str, tuple[Piece, float]] = {
    "provider": (provider, 1),
    "error": (error, 1),
    "invariance": (invariance, 1),
    "runs": (runs, 2),
    "copies": (copies, 0.5),
    "synchronisation": (synchronisation, 0.5),
    "cuda-graphs": (cuda_graphs, 2),
    "memory": (memory, 1),
    "server": (server, 1),
    "engine": (engine, 3),
    "training": (training, 2),
}
"""Each piece by its name, with its share of the time."""


def models() -> Iterator[tuple[str, bytes]]:
    """Every model that ships, by name."""
    for path in sorted((ROOT / "models").glob(f"*/{MODEL_FILE}")):
        yield path.parent.name, path.read_bytes()


def bits(ticks: int, batch: int, width: int, seed: int = 0) -> Float32:
    """Inputs [ticks, batch, width] of random bits; those of a delimiter, the last, are 0."""
    drawn = np.random.default_rng(seed).integers(0, 2, (ticks, batch, width)).astype(np.float32)
    drawn[..., -1] = 0
    return drawn


def card(device: str) -> str:
    """The name of the card and its driver."""
    if device == "cpu":
        return "none: this ran on the CPU"
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, encoding="utf-8", check=True).stdout.strip()


def used_bytes(device: str) -> int:
    """Memory in use: of the card, or of this process."""
    if device == "cpu":
        pages = Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]
        return int(pages) * 4096
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    found = subprocess.run(query, capture_output=True, encoding="utf-8", check=True).stdout
    return int(found.split()[0]) << 20


def _difference(content: bytes, device: str, steps: int) -> float:
    """The largest difference of outputs from the CPU's, over steps of eight sessions."""
    here, there = Network(content, device), Network(content, "cpu")
    inputs = bits(steps, 8, here.spec.input_width)
    inputs[20::41, :, -1] = 1
    largest = 0.0
    bounds = []
    for network in (here, there):
        slab = Slab(network, network.spec.default_locations)
        slots = [slab.acquire() for _ in range(8)]
        bound = slab.bind(8, frozenset())  # which sets them to their initial states
        bound.seat(slots)
        bounds.append(bound)
    for x in inputs:
        for bound in bounds:
            bound.inputs[0] = x
            bound.run()
        difference = np.abs(bounds[0].output - bounds[1].output).max()
        largest = float(np.maximum(largest, difference))  # unlike max, it keeps what is no number
    return largest


def _among(network: Network, inputs: Float32, size: int, place: int, mates: int) -> Float32:
    """The outputs [ticks, Y] of one session at a place among mates."""
    slab = Slab(network, LOCATIONS)
    slots = [slab.acquire() for _ in range(size)]
    bound = slab.bind(size, frozenset())
    bound.seat(slots)
    outputs = []
    others = bits(len(inputs), len(bound.slots), inputs.shape[2], seed=2 + mates)
    for x, rest in zip(inputs, others, strict=True):
        bound.inputs[0] = rest
        bound.inputs[0, place] = x[0]
        bound.run()
        outputs.append(bound.output[0, place].copy())
    return np.stack(outputs)


def _launches(content: bytes, device: str) -> int:
    """The kernels of one run of one tick."""
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(content, device, Shape(1, 32, LOCATIONS), profile=f"{folder}/profile")
        for _ in range(2):
            loop.run()
        events = json.loads(Path(loop.session.end_profiling()).read_text(encoding="utf-8"))
    kernels = [
        event
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    ]
    return len(kernels) // 2
