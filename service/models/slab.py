"""Slots: which rows of the preallocated state tensors belong to a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType

import numpy as np

from service.errors import CapacityExceeded
from service.models.bound_run import BoundRun
from service.models.runtime import Network
from service.spec import Array

_FIRST_CAPACITY = 8

MAX_BINDINGS = 512
"""The largest number of buffers: one for each batch size, ticks, traces and turn."""

_ROWS_MOVED = 256
_BYTES_MOVED = 16 << 20
"""The most rows, and the most bytes of several rows, that one run reads or writes."""


def first_capacity(network: Network, locations: int) -> int:
    """
    The slots of a new slab. On a GPU free ones take memory too, so large states begin with fewer.
    """
    if network.on_cpu:
        return _FIRST_CAPACITY
    state_bytes = max(1, network.spec.state_bytes(locations))
    return max(1, min(_FIRST_CAPACITY, _BYTES_MOVED // state_bytes))


class Slab:
    """
    The state of all resident sessions of one network at one memory size.

    Grows by doubling, so that a slot costs no more than about twice its state. All rows of a
    session lie at its slot; no other session reads or writes them.

    What is set waits for the next run, reading or copying of any slot, so that one run writes the
    states of all sessions that were opened meanwhile.
    """

    def __init__(self, network: Network, locations: int) -> None:
        """
        Start with room for a few slots; locations are 0 for a network without memory.

        Raises CapacityExceeded if the device has no memory for them.
        """
        self.network = network
        self.locations = locations
        self.capacity = first_capacity(network, locations)
        self.slot_bytes = network.spec.state_bytes(locations)
        self._moved = max(1, min(_ROWS_MOVED, _BYTES_MOVED // max(1, self.slot_bytes)))
        self.tensors = network.allocate(self.capacity, locations)
        """What the rows lie in; others when the slab has grown."""
        self._free = list(reversed(range(self.capacity)))
        self._used: set[int] = set()
        # A captured graph is first run on the spare row, which then has a state to step.
        self._unwritten: dict[int, Mapping[str, Array]] = {self.capacity: {}}
        """Slots whose rows are to be set to the initial state, but for these values."""
        self._bindings: dict[tuple[int, frozenset[str], int, int], BoundRun] = {}

    @property
    def used(self) -> int:
        """The number of slots that are taken."""
        return len(self._used)

    @property
    def allocated_bytes(self) -> int:
        """The bytes of the tensors, with the rows that are free and the spare one."""
        return (self.capacity + 1) * self.slot_bytes

    @property
    def has_free(self) -> bool:
        """Whether `acquire` leaves the slab in its place, so that a run may be under way."""
        return bool(self._free)

    def acquire(self) -> int:
        """
        Take a slot and set it to the initial state. Grows the slab when none is free.

        Raises CapacityExceeded if the device has no memory for that; the slab stays as it was.
        """
        if len(self._unwritten) >= self._moved:
            self._write_out()
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._used.add(slot)
        self.reset(slot)
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back. Raises KeyError if it is not taken."""
        self._used.remove(slot)
        self._unwritten.pop(slot, None)
        self._free.append(slot)

    def reset(self, slot: int, given: Mapping[str, Array] = MappingProxyType({})) -> None:
        """Set a slot to the model's initial state, with `given` values for some tensors of it."""
        self._unwritten[slot] = given

    def read(self, slots: Sequence[int]) -> dict[str, Array]:
        """
        Copy the slots' states, by name, each [slots, ...].

        Raises CapacityExceeded if the device has no memory for that.
        """
        self._write_out()
        parts = [
            self.network.read_rows(self.tensors, slots[start : start + self._moved])
            for start in range(0, max(1, len(slots)), self._moved)
        ]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def unsound(self, slots: Sequence[int]) -> set[int]:
        """The places in `slots` where a state that outputs do not show is infinite or NaN."""
        network, places = self.network, set[int]()
        states = {} if network.on_cpu else self.read(slots)
        for tensor in network.spec.unseen:
            if network.on_cpu:  # a run that reads the rows would take several times as long
                rows = self.tensors[tensor.name].numpy().take(slots, 0)
            else:
                rows = states[tensor.name]
            sound = np.isfinite(rows)
            if not sound.all():
                places |= set(np.flatnonzero(~sound.reshape(len(slots), -1).all(1)).tolist())
        return places

    def write(self, slot: int, state: Mapping[str, Array]) -> None:
        """Overwrite a slot's state, by name, each [1, ...]."""
        self._unwritten[slot] = {name: rows[0] for name, rows in state.items()}

    def copy(self, source: int, target: int) -> None:
        """
        Overwrite a slot's state with another's.

        Raises CapacityExceeded if the device has no memory for that; the target's state is then
        undefined.
        """
        self._unwritten.pop(target, None)
        self._write_out()
        self.network.copy_row(self.tensors, source, target)

    def bind(self, rows: int, traced: frozenset[str], ticks: int = 1, buffers: int = 0) -> BoundRun:
        """
        Return buffers for `ticks` ticks of at least `rows` rows; equal arguments give the same
        buffers.

        Each number `buffers` stands for another set, so that one can be filled while others are
        run. Buffers are valid until the slab grows, and for what was set before.

        Raises CapacityExceeded if the device has no memory for them, or for what is to be set.
        """
        if self._unwritten:
            self._write_out()
        batch = self.network.batch(rows, self.locations)
        key = (batch, traced, ticks, buffers)
        bound = self._bindings.get(key)
        if bound is None:
            if len(self._bindings) >= MAX_BINDINGS:
                self._bindings.clear()
            bind = partial(self.network.bind, self.tensors, batch, self.locations, traced, ticks)
            try:
                bound = bind()
            except CapacityExceeded:
                self._bindings.clear()  # those that no turn uses give their memory back
                bound = bind()
            self._bindings[key] = bound
        return bound

    def check_integrity(self) -> None:
        """Raise RuntimeError, with the counts, unless each slot is either free or taken, once."""
        free = set(self._free)
        if (
            len(free) != len(self._free)
            or free & self._used
            or free | self._used != set(range(self.capacity))
        ):
            raise RuntimeError(
                f"slots do not add up: capacity {self.capacity}, free {len(self._free)} "
                f"({len(free)} distinct), used {len(self._used)}, both {len(free & self._used)}"
            )

    def _grow(self) -> None:
        """Double the capacity; every slot keeps its number and its state."""
        self._bindings.clear()  # they are of the old tensors, and the new ones may need the memory
        grown = self.network.allocate(2 * self.capacity, self.locations)
        for start in range(0, self.capacity, self._moved):
            slots = range(start, min(start + self._moved, self.capacity))
            self.network.write_rows(grown, slots, self.network.read_rows(self.tensors, slots))
        self.tensors = grown
        self._free.extend(reversed(range(self.capacity, 2 * self.capacity)))
        self.capacity *= 2
        self._unwritten[self.capacity] = {}

    def _write_out(self) -> None:
        """Write the rows of the slots that were set. Those that fail are still to be written."""
        while self._unwritten:
            slots = list(self._unwritten)[: self._moved]
            given = [self._unwritten[slot] for slot in slots]
            rows = {}
            # The state is made each time. Keeping it would take one session's memory in each slab.
            for tensor in self.network.spec.state:
                name = tensor.name
                if lacking := any(name not in each for each in given):
                    initial = tensor.initial_value(self.locations)
                values = [each.get(name, initial) if lacking else each[name] for each in given]
                rows[name] = values[0][None] if len(values) == 1 else np.stack(values)
            self.network.write_rows(self.tensors, slots, rows)
            for slot in slots:
                del self._unwritten[slot]
