"""Slabs: slots are taken, given back and kept apart."""

from __future__ import annotations

import numpy as np
import pytest

from service.models.runtime import Network
from service.models.slab import MAX_BINDINGS, Slab


def step(slab: Slab, slot: int, value: float) -> None:
    """Step one slot of a ledger's slab."""
    bound = slab.bind(1, frozenset())
    bound.inputs[:] = value
    bound.seat([slot])
    bound.run()


def test_growing_keeps_every_state(network: Network) -> None:
    """After the slab has doubled three times, each slot has the state it had."""
    slab = Slab(network, 5)
    slots = []
    for number in range(40):
        slots.append(slab.acquire())
        step(slab, slots[-1], number)
    assert slab.capacity == 64
    for number, slot in enumerate(slots):
        state = {name: rows[0] for name, rows in slab.read([slot]).items()}
        assert state["total"].tolist() == [number, number]
        assert state["memory"][:, 0].tolist() == [number, number]
    slab.check_integrity()


def test_a_slot_given_back_is_taken_again_and_is_fresh(network: Network) -> None:
    """A slot starts from the initial state whatever was in it."""
    slab = Slab(network, 5)
    slot = slab.acquire()
    step(slab, slot, 7)
    slab.release(slot)
    assert slab.acquire() == slot
    assert not slab.read([slot])["memory"].any()
    assert slab.read([slot])["weighting"].tolist() == [[[1, 0, 0, 0, 0]] * 2]


def test_a_slot_cannot_be_given_back_twice(network: Network) -> None:
    """Two sessions would then get the same slot."""
    slab = Slab(network, 5)
    slot = slab.acquire()
    slab.release(slot)
    with pytest.raises(KeyError):
        slab.release(slot)
    slab.check_integrity()


def test_batches_are_padded_to_whole_packets(network: Network) -> None:
    """Buffers come in multiples of what the network needs, and the same ones for the same size."""
    slab = Slab(network, 5)
    assert network.batch(1, 5) == 4
    assert slab.bind(1, frozenset()) is slab.bind(4, frozenset())
    assert slab.bind(9, frozenset(), 8).inputs.shape == (8, 12, 2)


def test_many_kinds_of_binding_take_a_bounded_memory(network: Network) -> None:
    """Asking for ever new combinations forgets old buffers rather than keep them all."""
    slab = Slab(network, 5)
    for rows in range(2, 2 * 3 * MAX_BINDINGS, 2):
        slab.bind(rows, frozenset())
    assert len(slab._bindings) <= MAX_BINDINGS


def test_integrity_names_the_counts(network: Network) -> None:
    """A slot both free and taken is reported."""
    slab = Slab(network, 5)
    slab._free.append(slab.acquire())
    with pytest.raises(RuntimeError, match=r"capacity 8, free 8 \(8 distinct\), used 1, both 1"):
        slab.check_integrity()
    assert np.isfinite(slab.read([0])["total"]).all()
