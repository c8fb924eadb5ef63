"""What any store should answer, kept beside a real one."""

from __future__ import annotations

from service.stores.base import Saved, Store
from tests.support.any_store import LONG, fresh


class Model:
    """What a store should answer to a few owners of a few sessions."""

    def __init__(self, stores: list[Store]) -> None:
        """One store for each owner."""
        self._stores = stores
        self._ids = [fresh(), fresh()]
        self._epochs: dict[tuple[int, str], int] = {}
        self._kept: dict[str, tuple[int, bytes]] = {}
        """Epochs and records; of what is deleted, the epoch after the owner's."""
        self._deleted: set[str] = set()
        self._saves = 0

    async def do(self, kind: str, owner: int, place: int) -> None:
        """Do it, and compare."""
        store, session = self._stores[owner], self._ids[place]
        if kind == "claim":
            await self._claim(store, owner, session)
        elif not any(known == session for _, known in self._epochs):
            self._epochs[owner, session] = 1  # who comes first opens it
        epoch = self._epochs.get((owner, session))
        is_owner = epoch is not None and self._kept.get(session, (0, b""))[0] <= epoch
        if kind == "save" and epoch is not None:
            self._saves += 1
            record = str(self._saves).encode()
            assert await store.save([Saved(session, epoch, record, LONG)]) == [is_owner]
            if is_owner:
                self._kept[session] = epoch, record
        elif kind == "delete" and epoch is not None:
            await store.delete(session, epoch, LONG)
            if is_owner:
                self._deleted.add(session)
                self._kept[session] = epoch + 1, b""

    async def _claim(self, store: Store, owner: int, session: str) -> None:
        expected = None if session in self._deleted else self._kept.get(session)
        found = await store.claim(session)
        assert (found and found[1]) == (expected and expected[1])
        if found is not None and expected is not None:
            assert found[0] > expected[0]
            self._epochs[owner, session] = found[0]
            self._kept[session] = found
