"""Slabs: slots are taken, given back and kept apart."""

from __future__ import annotations

from itertools import count

import numpy as np
import onnxruntime
import pytest

from service.errors import CapacityExceeded
from service.models.runtime import Network
from service.models.slab import MAX_BINDINGS, Slab, first_capacity
from tests.support.devices import ALLOCATE, BIND, COPY, READ, WRITE, scarce_network
from tests.support.tiny_models import ledger


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


def test_one_run_writes_the_states_of_all_that_were_opened() -> None:
    """And one run the states of those that were set back, or restored; a fork copies once."""
    network, device = scarce_network()
    slab = Slab(network, 5)
    slots = [slab.acquire() for _ in range(8)]
    assert device.done[WRITE] == 0
    step(slab, slots[0], 3)
    assert device.done[WRITE] == 1
    saved = slab.read(slots[:1])
    slab.reset(slots[0])
    for slot in slots[1:7]:
        slab.write(slot, saved)
    slab.copy(slots[6], slots[7])
    assert (device.done[WRITE], device.done[COPY], device.done[READ]) == (2, 1, 1)
    totals = slab.read(slots)["total"][:, 0].tolist()
    assert totals == [0, *[3] * 7]
    assert device.done[READ] == 2


def test_a_slab_of_many_states_is_written_and_read_by_parts() -> None:
    """So that the memory for it is bounded; the parts come together in order."""
    network, device = scarce_network()
    slab = Slab(network, 5)
    slots = [slab.acquire() for _ in range(600)]
    for number, slot in enumerate(slots):
        slab.reset(slot, {"total": np.full(2, number, np.float32)})
    device.done.clear()
    assert slab.read(slots)["total"][:, 1].tolist() == list(range(600))
    assert (device.done[WRITE], device.done[READ]) == (3, 3)


def test_a_slab_that_cannot_grow_stays_as_it_was() -> None:
    """Whatever there is no memory for: the new tensors, or moving a part of the states."""
    network, device = scarce_network()
    slab = Slab(network, 5)
    slots = [slab.acquire() for _ in range(8)]
    for number, slot in enumerate(slots):
        step(slab, slot, number)
    for missing in (ALLOCATE, READ, WRITE):
        device.full_for = {missing}
        with pytest.raises(CapacityExceeded):
            slab.acquire()
        device.full_for = set()
        assert (slab.capacity, slab.used) == (8, 8)
        slab.check_integrity()
        for slot in slots:
            step(slab, slot, 1)
        totals = slab.read(slots)["total"][:, 0] - range(8)
        assert len(set(totals.tolist())) == 1
    assert slab.acquire() == 8


def test_buffers_that_wait_give_their_memory_to_those_that_are_needed() -> None:
    """Binding is tried again without the other buffers; then it is refused."""
    network, device = scarce_network()
    slab = Slab(network, 5)
    slot = slab.acquire()
    kept = slab.bind(4, frozenset())
    device.full_for = {BIND}
    with pytest.raises(CapacityExceeded):
        slab.bind(8, frozenset())
    assert device.done[BIND] == 3
    device.full_for = set()
    assert slab.bind(4, frozenset()) is not kept
    step(slab, slot, 2)
    assert slab.read([slot])["total"].tolist() == [[2, 2]]


def test_a_state_that_could_not_be_written_is_written_later() -> None:
    """Nothing steps before it is."""
    network, device = scarce_network()
    slab = Slab(network, 5)
    first, second = slab.acquire(), slab.acquire()
    step(slab, first, 3)
    slab.reset(first)
    device.full_for = {WRITE}
    with pytest.raises(CapacityExceeded):
        step(slab, second, 1)
    device.full_for = set()
    step(slab, second, 1)
    assert slab.read([first, second])["total"].tolist() == [[0, 0], [1, 1]]


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> tuple[Network, list[int]]:
    """A ledger that captures graphs as far as a CPU can; and the graphs that were dropped."""
    network, dropped = Network(ledger(), "cpu"), list[int]()
    network._graph_ids = count(1)
    monkeypatch.setattr(
        onnxruntime.InferenceSession,
        "release_captured_graph",
        lambda _, number: dropped.append(number),
    )
    return network, dropped


def test_graphs_are_captured_on_the_spare_row(captured: tuple[Network, list[int]]) -> None:
    """To capture takes several runs, which would step sessions several times."""
    network, _ = captured
    slab = Slab(network, 5)
    slots = [slab.acquire() for _ in range(8)]
    for slot in slots:
        step(slab, slot, 2)
    before = slab.read(slots)
    bound = slab.bind(5, frozenset(), 4)
    assert bound.sources.tolist() == bound.slots.tolist() == [8] * 8
    for name, rows in slab.read(slots).items():
        np.testing.assert_array_equal(rows, before[name])
    step(slab, slots[0], 2)
    assert slab.read(slots)["total"][:, 0].tolist() == [4, *[2] * 7]


def test_graphs_are_dropped_with_their_buffers(captured: tuple[Network, list[int]]) -> None:
    """A slab that has grown lies elsewhere; what a turn still holds is dropped after it."""
    network, dropped = captured
    slab = Slab(network, 5)
    for _ in range(8):
        slab.acquire()
    slab.bind(1, frozenset())
    held = slab.bind(8, frozenset())
    slab.acquire()
    assert dropped == [1]
    del held
    assert dropped == [1, 2]
    slab.bind(1, frozenset())
    del slab
    assert dropped == [1, 2, 3]


def test_a_slab_of_large_states_begins_small_on_a_gpu() -> None:
    """There is no memory to waste on free slots; on a CPU they cost nothing until they are used."""
    for on_cpu, capacities in ((True, [8, 8]), (False, [8, 1])):
        network, _ = scarce_network(on_cpu=on_cpu)
        assert [first_capacity(network, locations) for locations in (128, 1 << 22)] == capacities


def test_what_nobody_reads_is_not_written() -> None:
    """The initial states of a slot that was given back, and of one that a fork's state replaces."""
    network, device = scarce_network()
    slab = Slab(network, 5)
    source = slab.acquire()
    step(slab, source, 3)
    slab.release(slab.acquire())
    fork = slab.acquire()
    slab.copy(source, fork)
    assert slab.read([fork])["total"].tolist() == [[3, 3]]
    assert device.done[WRITE] == 1
