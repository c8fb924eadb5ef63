"""
The batch check: whether a session gets the same results alone as among others in a batch.

It runs a network once at every batch size and number of ticks, which a server does anyway, so that
no client pays for onnxruntime's first run of a shape.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from service.errors import ModelInvalid
from service.models.runtime import Network
from service.models.slab import Slab
from service.spec import Array, StateTensor, StepTensor, parts

_CLOSE = 1e-2
"""
How far results may differ, relative to the largest, where equal bits are not promised: on a GPU,
and with several threads in a run.
"""


class _Session(NamedTuple):
    """A session of the check: its slot, the state it starts with, and its steps."""

    slot: int
    state: dict[str, Array]
    inputs: Array


def fit_batches(network: Network, locations: int, max_batch: int, *, exact: bool) -> None:
    """
    Run every batch size up to a largest one and every number of ticks.

    A session's results alone are compared with its results among others: bit by bit if `exact`. A
    lone row is a batch of its own where that gives the bits of larger batches. Where no padding
    does, `network.why_alone` has the difference, and the network steps one session a run.
    """
    try:
        _fit(network, locations, max_batch, largest_whole=1, exact=exact)
    # Whatever onnxruntime raises: not every network takes a 1 as a whole number. A network that
    # does not take zeros either cannot be served.
    except Exception:
        _fit(network, locations, max_batch, largest_whole=0, exact=exact)


def _fit(
    network: Network, locations: int, max_batch: int, *, largest_whole: int, exact: bool
) -> None:
    slab = Slab(network, locations)
    generator = np.random.default_rng(1)
    steps = network.bursts[-1]
    one, other = (_session(slab, generator, steps, largest_whole) for _ in range(2))
    difference = network.why_alone
    if not difference:
        for lone in (True, False) if network.may_try_lone_rows else (False,):
            network.lone_rows = lone
            difference = _difference(slab, one, other, max_batch, exact=exact)
            if not difference:
                return
    network.why_alone = difference
    _alone(slab, one)


def _session(
    slab: Slab, generator: np.random.Generator, steps: int, largest_whole: int
) -> _Session:
    """A session with inputs, and values of the tensors that have to be given, drawn at random."""
    spec = slab.network.spec
    inputs = np.zeros(steps, spec.input_record)
    for tensor, values in zip(spec.inputs, parts(inputs, spec.inputs), strict=True):
        values[...] = _drawn(tensor, values.shape, generator, largest_whole)
    state = {
        tensor.name: _drawn(tensor, tensor.shape_at(slab.locations), generator, largest_whole)
        for tensor in spec.state
        if tensor.is_given
    }
    return _Session(slab.acquire(), state, inputs)


def _drawn(
    tensor: StepTensor | StateTensor,
    shape: tuple[int, ...],
    generator: np.random.Generator,
    largest_whole: int,
) -> Array:
    if tensor.dtype.kind == "f":
        return generator.standard_normal(shape).astype(tensor.dtype)
    return generator.integers(0, largest_whole + 1, shape).astype(tensor.dtype)


def _difference(slab: Slab, one: _Session, other: _Session, max_batch: int, *, exact: bool) -> str:
    """The first batch in which a session's results differ from those alone; empty if none."""
    network = slab.network
    outputs, state = _alone(slab, one)
    sizes = {network.batch(rows, slab.locations) for rows in range(1, max_batch + 1)}
    for batch in sorted(sizes):
        for number, ticks in enumerate(network.bursts):
            place = 0 if number % 2 else batch - 1
            found, after = _among(slab, one, other, (batch, ticks, place))
            same = _are_same(found, outputs[:ticks], exact=exact)
            if same and ticks == len(outputs):
                same = all(_are_same(after[name], state[name], exact=exact) for name in state)
            if not same:
                return f"a session alone and one of {batch} in a batch get different results"
    return ""


def _alone(slab: Slab, one: _Session) -> tuple[Array, dict[str, Array]]:
    """The outputs of a session alone, [steps, ...], and its state after them, at all ticks."""
    for ticks in slab.network.bursts:
        slab.reset(one.slot, one.state)
        bound = slab.bind(1, frozenset(), ticks)
        bound.seat([one.slot])
        bound.inputs[:] = one.inputs[:ticks, None]
        bound.run()
    return bound.output[:, 0].copy(), slab.read([one.slot])


def _among(
    slab: Slab, one: _Session, other: _Session, shape: tuple[int, int, int]
) -> tuple[Array, dict[str, Array]]:
    """
    The same for its first ticks at one place of a batch, whose other rows read another's state.

    Raises ModelInvalid if that state is changed.
    """
    batch, ticks, place = shape
    for each in (one, other):
        slab.reset(each.slot, each.state)
    before = slab.read([other.slot])
    bound = slab.bind(batch, frozenset(), ticks)
    bound.seat_one(one.slot, place, others=other.slot)
    bound.inputs[:] = other.inputs[:ticks, None]
    bound.inputs[:, place] = one.inputs[:ticks]
    bound.run()
    after = slab.read([other.slot])
    if any(after[name].tobytes() != before[name].tobytes() for name in before):
        raise ModelInvalid("a run changes the state of sessions that it does not step")
    return bound.output[:, place].copy(), slab.read([one.slot])


def _are_same(found: Array, expected: Array, *, exact: bool) -> bool:
    if exact:
        return found.tobytes() == expected.tobytes()
    for name in found.dtype.names or ("",):
        one, other = (
            (array[name] if name else array).astype(np.float64) for array in (found, expected)
        )
        if not np.allclose(one, other, rtol=0, atol=_CLOSE * max(1.0, np.abs(other).max())):
            return False
    return True
