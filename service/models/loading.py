"""From the bytes of a model's file to a network that has run, or to one sentence on why not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import ModelInvalid, one_line
from service.models.batch_check import fit_batches
from service.models.runtime import Network
from service.models.slab import Slab
from service.spec import ModelSpec

_TRIED_ROWS = 8
"""The largest batch that `try_out` runs; every setting of the largest batch allows it."""

_TRIED_LOCATIONS = 128
"""The most locations that `try_out` takes where sessions may choose."""

MAX_STATE_BYTES = 2 << 30
"""The most that the state of a session may take where no setting says otherwise."""


def try_out(content: bytes, max_state_bytes: int = MAX_STATE_BYTES) -> ModelSpec:
    """
    Show that a model can be served, and return its spec.

    The network is loaded on the CPU and steps from its initial state, with all traces, in batches
    of several sizes and, if sessions may choose, at two numbers of locations. This takes about a
    tenth of the time of `load`. A session's state may have `max_state_bytes`.

    Raises:
        ModelInvalid: the file breaks the contract of `service.spec`, or onnx or onnxruntime fails.
    """
    with refusals():
        network = Network(content, "cpu", threads=1, max_burst=1)
        spec = network.spec
        state_bytes = spec.state_bytes(spec.default_locations)
        if state_bytes > max_state_bytes:
            raise ModelInvalid(
                f"a session's state takes {state_bytes} bytes, more than --max-state-bytes, "
                f"{max_state_bytes}"
            )
        choices = [spec.default_locations]
        if spec.has_memory and not spec.fixed_locations:
            few = min(spec.default_locations, _TRIED_LOCATIONS)
            choices = [few, few + 1]
        traced = frozenset(trace.output for trace in spec.traces)
        for locations in choices:
            _run(network, locations, _TRIED_ROWS, traced)
        return spec


def load(
    content: bytes,
    device: str = "auto",
    threads: int = 1,
    max_burst: int = 8,
    max_batch: int = 32,
    *,
    cuda_graphs: bool = False,
) -> Network:
    """
    Load a network, and run it once at every batch size and number of ticks: the batch check.

    So no client pays for onnxruntime's first run of a shape. The arguments are those of `Network`,
    and the largest batch.

    Raises:
        ModelInvalid: the file breaks the contract of `service.spec`, or onnx, onnxruntime or the
            device fails.
    """
    with refusals():
        network = Network(content, device, threads, max_burst, cuda_graphs=cuda_graphs)
        locations = network.spec.default_locations
        exact = network.on_cpu and threads == 1
        fit_batches(network, locations, max_batch, exact=exact)
        return network


def _run(network: Network, locations: int, max_batch: int, traced: frozenset[str]) -> None:
    """Run every batch size up to a largest one, and every number of ticks, once."""
    slab = Slab(network, locations)
    slot = slab.acquire()
    for rows in sorted({network.batch(rows, locations) for rows in range(1, max_batch + 1)}):
        for ticks in network.bursts:
            bound = slab.bind(rows, traced, ticks)
            bound.seat([slot])
            try:
                bound.run()
            except Exception as error:  # see `refusals`
                if rows == 1 or not _steps_one(slab, slot):
                    raise
                raise ModelInvalid(
                    f"the network steps one session in a run, but not {rows} "
                    f"({one_line(error).rstrip('.')}); export it with the batch as the first axis "
                    "of every input, state and output, or with a spec that says it is not batched"
                ) from error


def _steps_one(slab: Slab, slot: int) -> bool:
    """Whether a network that is given up can step one row, which tells what is wrong with it."""
    slab.network.why_alone = "it cannot step more"
    bound = slab.bind(1, frozenset(), 1)
    bound.seat([slot])
    try:
        bound.run()
    except Exception:  # see `refusals`
        return False
    return True


@contextmanager
def refusals() -> Iterator[None]:
    """Make ModelInvalid of everything that is raised."""
    try:
        yield
    except ModelInvalid:
        raise
    # onnx and onnxruntime promise no errors: they raise RuntimeError, ValueError, TypeError,
    # IndexError, MemoryError and classes of their own, which share no other base class. Each means
    # that this file cannot be served here, and must not reach other files or sessions.
    except Exception as error:
        raise ModelInvalid(f"the network cannot be run: {one_line(error)}") from error
