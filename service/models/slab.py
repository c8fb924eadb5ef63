"""Slots: which rows of the preallocated state tensors belong to a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from service.models.bound_run import BoundRun
from service.models.runtime import Network
from service.spec import Array

_FIRST_CAPACITY = 8
MAX_BINDINGS = 512
"""The largest number of buffers: one for each batch size, ticks, traces and turn."""

_ROWS_MOVED = 256


class Slab:
    """
    The state of all resident sessions of one network at one memory size.

    Grows by doubling, so that a slot costs no more than about twice its state. All rows of a
    session lie at its slot; no other session reads or writes them.
    """

    def __init__(self, network: Network, locations: int) -> None:
        """Start with room for a few slots; locations are 0 for a network without memory."""
        self.network = network
        self.locations = locations
        self.capacity = _FIRST_CAPACITY
        self.slot_bytes = network.spec.state_bytes(locations)
        self.tensors = network.allocate(self.capacity, locations)
        """What the rows lie in; others when the slab has grown."""
        self._free = list(reversed(range(self.capacity)))
        self._used: set[int] = set()
        self._bindings: dict[tuple[int, frozenset[str], int, int], BoundRun] = {}

    @property
    def used(self) -> int:
        """The number of slots that are taken."""
        return len(self._used)

    @property
    def has_free(self) -> bool:
        """Whether `acquire` leaves the slab in its place, so that a run may be under way."""
        return bool(self._free)

    def acquire(self) -> int:
        """Take a slot and set it to the initial state. Grows the slab when none is free."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._used.add(slot)
        self.reset(slot)
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back. Raises KeyError if it is not taken."""
        self._used.remove(slot)
        self._free.append(slot)

    def reset(self, slot: int, given: Mapping[str, Array] = MappingProxyType({})) -> None:
        """Set a slot to the model's initial state, with `given` values for some tensors of it."""
        # The state is made each time. Keeping it would take the memory of one session in each slab.
        initial = {
            tensor.name: (
                given[tensor.name] if tensor.name in given else tensor.initial_value(self.locations)
            )[None]
            for tensor in self.network.spec.state
        }
        self.network.write_rows(self.tensors, [slot], initial)

    def read(self, slots: Sequence[int]) -> dict[str, Array]:
        """Copy the slots' states, by name, each [slots, ...]."""
        return self.network.read_rows(self.tensors, slots)

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
        self.network.write_rows(self.tensors, [slot], state)

    def copy(self, source: int, target: int) -> None:
        """Overwrite a slot's state with another's."""
        self.network.copy_row(self.tensors, source, target)

    def bind(self, rows: int, traced: frozenset[str], ticks: int = 1, buffers: int = 0) -> BoundRun:
        """
        Return buffers for `ticks` ticks of at least `rows` rows; equal arguments give the same
        buffers.

        Each number `buffers` stands for another set, so that one can be filled while others are
        run. Buffers are valid until the slab grows.
        """
        batch = self.network.batch(rows, self.locations)
        key = (batch, traced, ticks, buffers)
        bound = self._bindings.get(key)
        if bound is None:
            if len(self._bindings) >= MAX_BINDINGS:
                self._bindings.clear()
            bound = self.network.bind(self.tensors, batch, self.locations, traced, ticks)
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
        grown = self.network.allocate(2 * self.capacity, self.locations)
        for start in range(0, self.capacity, _ROWS_MOVED):
            slots = range(start, min(start + _ROWS_MOVED, self.capacity))
            self.network.write_rows(grown, slots, self.network.read_rows(self.tensors, slots))
        self.tensors = grown
        self._bindings.clear()
        self._free.extend(reversed(range(self.capacity, 2 * self.capacity)))
        self.capacity *= 2
