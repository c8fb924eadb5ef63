"""The slots of sessions, in the slabs of every version and memory size, and their state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from service.engine import checkpoint
from service.engine.checkpoint import Checkpoint
from service.engine.sessions import Session
from service.errors import CapacityExceeded, CheckpointForeign
from service.models.runtime import Network
from service.models.slab import Slab, first_capacity
from service.models.version import Version
from service.spec import Array


class Slots:
    """Gives sessions their slots and takes them back; makes and drops slabs as needed."""

    def __init__(self, networks: Mapping[Version, Network], max_state_bytes: int) -> None:
        """
        Networks may be added to the mapping, and removed while they have no slab.

        The slabs on a GPU may take `max_state_bytes` together, with a slab that grows and the one
        that replaces it. On a CPU memory that nothing was written to costs nothing.
        """
        self._networks = networks
        self._max_state_bytes = max_state_bytes
        self._slabs: dict[tuple[Version, int], Slab] = {}

    def __iter__(self) -> Iterator[Slab]:
        """The slabs in use. Safe from any thread."""
        return iter(list(self._slabs.values()))

    def of(self, model: str) -> list[Slab]:
        """A model's slabs in use. Safe from any thread."""
        return [slab for (version, _), slab in list(self._slabs.items()) if version.model == model]

    def place(self, version: Version, locations: int) -> tuple[Slab, int]:
        """
        A slot at the version's initial state, and its slab; no run may be under way, unless the
        slab `has_free`.

        The slab is made for the first slot of its memory size, and grows when it is full.

        Raises CapacityExceeded if there is no memory for that; nothing was changed.
        """
        network = self._networks[version]
        slab = self._slabs.get((version, locations))
        if not network.on_cpu and (slab is None or not slab.has_free):
            capacity = 2 * slab.capacity if slab else first_capacity(network, locations)
            self._check_room((capacity + 1) * network.spec.state_bytes(locations))
        if slab is None:
            slab = self._slabs[version, locations] = Slab(network, locations)
        return slab, slab.acquire()

    def has_free(self, version: Version, locations: int) -> bool:
        """Whether a slot is free in a slab that there is, so that to place a session moves none."""
        slab = self._slabs.get((version, locations))
        return slab is not None and slab.has_free

    def leave(self, session: Session) -> None:
        """Take a session's slot back, and the slab with the last one."""
        session.slab.release(session.slot)
        if not session.slab.used:
            del self._slabs[session.version, session.locations]

    @staticmethod
    def state(session: Session) -> dict[str, Array]:
        """Copy a session's state, by name, without a batch axis."""
        rows = session.slab.read([session.slot])
        return {name: values[0] for name, values in rows.items()}

    @staticmethod
    def checkpoints(sessions: Sequence[Session]) -> list[Checkpoint]:
        """A checkpoint of each session."""
        taken: dict[Session, Checkpoint] = {}
        by_slab: dict[Slab, list[Session]] = {}
        for session in sessions:
            by_slab.setdefault(session.slab, []).append(session)
        for slab, its in by_slab.items():
            rows = slab.read([session.slot for session in its])
            for row, session in enumerate(its):
                state = {name: values[row].ravel() for name, values in rows.items()}
                hash_, locations = slab.network.content_hash, slab.locations
                taken[session] = Checkpoint(hash_, locations, session.next_step, state)
        return [taken[session] for session in sessions]

    @staticmethod
    def restore(session: Session, taken: Checkpoint) -> None:
        """
        Set a session's state to a checkpoint's.

        Raises:
            CheckpointForeign, CheckpointDamaged: it does not fit this session; nothing was changed.
        """
        network = session.slab.network
        state = checkpoint.state_for(taken, network.spec, network.content_hash)
        if taken.locations != session.locations:
            raise CheckpointForeign(
                f"the checkpoint has {taken.locations} locations, the session {session.locations}",
                expected=session.locations,
                actual=taken.locations,
            )
        session.slab.write(session.slot, state)

    @staticmethod
    def copy(source: Session, target: Session) -> None:
        """
        Copy a session's state to another session of the same slab. The state does not leave the
        device.
        """
        source.slab.copy(source.slot, target.slot)

    def _check_room(self, new_bytes: int) -> None:
        taken = sum(slab.allocated_bytes for slab in self if not slab.network.on_cpu)
        if taken + new_bytes > self._max_state_bytes:
            raise CapacityExceeded(
                f"room for more sessions needs {new_bytes} bytes on the GPU, and {taken} of "
                f"{self._max_state_bytes}, which is --max-state-bytes, are taken; use fewer "
                "locations or try again later",
                limit="max_state_bytes",
            )

    def check_integrity(self) -> None:
        """Raise RuntimeError, with the counts, unless every slot is either free or taken, once."""
        for slab in self:
            slab.check_integrity()
