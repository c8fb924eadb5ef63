"""
The keeper: carries sessions to the store and back, so that the engine never waits for the store.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

from service import codec
from service.engine.durability import RENEW_SECONDS, Policy, Snapshot, Stored
from service.engine.effects import Effects
from service.engine.lifecycle import draining_error
from service.engine.sessions import Session, closed_error
from service.engine.work import Work
from service.errors import CapacityExceeded, NotStored, NtmError, SessionDeleted, SessionUnknown
from service.loop.deletions import Deletions
from service.loop.worker import Worker
from service.models.catalogue import Catalogue
from service.session_ref import SERVER, SessionRef
from service.settings import Settings
from service.stores.base import Saved, Store, StoreUnavailable, epoch_after
from service.telemetry.logs import session_tag
from service.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

SAVED_AT_ONCE = 64
"""The number of sessions in one save, when they go to sleep or the server stops."""

MAX_WAIT_SECONDS = 10.0
"""How long a request for a session waits until another session can sleep."""

GRACE_SECONDS = 2 * RENEW_SECONDS
"""How much longer than its idle timeout a session, or its deletion, is kept in the store."""

LOOK_SECONDS = 1.0
"""The time between two searches for idle sessions."""


class Keeper:
    """
    Carries sessions to the store and back, on the event loop beside the worker.

    If work comes for a session that is not awake, the session is claimed from the store, and the
    work waits in order. When too many sessions are awake, those unused for longest are put to
    sleep.
    """

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        worker: Worker,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        """Begin to look for idle sessions. Start the worker with `apply`."""
        self._store = store
        self._catalogue = catalogue
        self._worker = worker
        self._engine = worker.engine
        self._lifecycle = worker.engine.lifecycle
        self._sessions = worker.engine.lifecycle.sessions
        self._saving = worker.engine.lifecycle.saving
        self._max_awake = settings.max_awake_sessions
        self._sleep_after_seconds = settings.sleep_after_seconds
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()
        self._waking: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, list[Work]] = {}
        self._deleting: dict[str, asyncio.Task[None]] = {}
        self._deletions = Deletions(store, partial(self._timed, "delete"), GRACE_SECONDS)
        self._placing = asyncio.Lock()
        self._advanced = asyncio.Event()
        self._looking = asyncio.create_task(self._look_for_idle())
        self._start(self._ask())
        metrics.undeleted_sessions.set_function(lambda: len(self._deletions))

    def apply(self, effects: Effects) -> None:
        """Begin the work of the store for these effects. This does not wait."""
        self._advanced.set()
        if effects.snapshots:
            self._start(self._save(effects.snapshots))
        for ended in effects.ended:
            deleting = self._start(self._deletions.delete(ended))
            self._deleting[ended.session_id] = deleting
            deleting.add_done_callback(partial(self._asked, ended.session_id))
        for work in effects.absent:
            session_id = work.ref.id
            if waiting := self._waiting.get(session_id):
                waiting.append(work)
            else:
                self._waiting[session_id] = [work]
                self._start(self._wake_for_work(session_id))

    async def deleted(self, session_id: str) -> None:
        """
        Wait until the store has deleted a session that has ended here. From then on no replica
        finds it, even if this one is lost.

        Raises:
            NotStored: the store does not answer. It is asked again until it does.
        """
        if deleting := self._deleting.get(session_id):
            await asyncio.shield(deleting)
        else:
            await self._deletions.again(session_id)
        if session_id in self._deletions:
            raise NotStored(
                f"session {session_id!r} is closed, but the store does not answer, and another "
                "replica could still find it; it is asked again: send the same request to know when"
            )

    def is_deleting(self, session_id: str) -> bool:
        """Whether the store has yet to delete a session that has ended here."""
        return session_id in self._deleting or session_id in self._deletions

    def _asked(self, session_id: str, deleting: asyncio.Task[None]) -> None:
        if self._deleting.get(session_id) is deleting:
            del self._deleting[session_id]

    async def wake(self, session_id: str) -> None:
        """
        Wake a session that may be in the store.

        Raises:
            SessionUnknown: the store does not have it. NotStored: the store does not answer.
            Draining: the server is stopping, so another replica should wake it.
            NtmError: the session cannot continue here.
        """
        if self._lifecycle.is_draining:
            raise draining_error()
        task = self._waking.get(session_id)
        if task is None:
            task = asyncio.create_task(self._wake(session_id))
            task.add_done_callback(partial(self._woken, session_id))
            self._waking[session_id] = task
        # If one caller is cancelled, the waking goes on for the others.
        await asyncio.shield(task)

    def _woken(self, session_id: str, task: asyncio.Task[None]) -> None:
        """Forget the task. Its error is retrieved here, also if every caller was cancelled."""
        del self._waking[session_id]
        if not task.cancelled():
            task.exception()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """
        Hold room for one more session that is awake. If necessary, others are put to sleep.

        Callers get it one at a time, in the order in which they asked.

        Raises:
            CapacityExceeded: every session that is awake stayed busy for `MAX_WAIT_SECONDS`.
        """
        async with self._placing:
            if self._max_awake:
                await self._have_room()
            yield

    async def _have_room(self) -> None:
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                while len(self._sessions) >= self._max_awake:
                    self._advanced.clear()
                    await self._make_room()
                    if len(self._sessions) >= self._max_awake:
                        await self._advanced.wait()
        except TimeoutError:
            raise CapacityExceeded(
                f"{len(self._sessions)} sessions are awake, as many as --max-awake-sessions "
                "allows, and none could be put to sleep; try again later",
                limit="max_awake_sessions",
            ) from None

    async def keep(self, session_id: str) -> None:
        """
        Store a session that is awake and idle, and wait for the store.

        Raises:
            NotStored: it could not be stored.
        """
        session = self._sessions.get(SessionRef(session_id, SERVER, 0))
        await self._save_to_the_end(self._saving.take([session]))
        if session.durable is None or not session.durable.is_clean:
            raise NotStored(f"session {session_id!r} could not be stored; try again")

    async def enter(self, session_id: str, *, again: bool = False) -> bool:
        """
        Enter a session that was just opened into the store under the id that its client chose;
        with `again` also where a session with this id was deleted.

        Returns True if the store had no session with this id. Otherwise the store's session is
        awake in its place.

        Raises:
            SessionDeleted: a session with this id was deleted.
            NotStored: the store does not answer.
            NtmError: as `wake`. After an error, no session with this id is open here.
        """
        session = self._sessions.get(SessionRef(session_id, SERVER, 0))
        is_new = False
        try:
            is_new = await self._is_new(session, again=again)
        finally:
            if not is_new and session.is_open:
                self._lifecycle.passed_over(session)
        if not is_new:
            try:
                await self.wake(session_id)
            except SessionUnknown:
                raise closed_error(SessionDeleted, session_id) from None
        return is_new

    async def _is_new(self, session: Session, *, again: bool) -> bool:
        """
        Whether the store had no session with this id. Depending on the policy, it now keeps this
        one.
        """
        durable = session.durable
        assert durable is not None, "there is a store"
        try:
            if durable.durability.policy is Policy.NONE:
                with self._timed("epoch"):
                    epoch = await self._store.epoch(session.id)
                if epoch == 0 or not again:
                    return epoch == 0
            taken = self._saving.take([session])
            if not taken:  # a snapshot is under way already
                raise NotStored(
                    f"session {session.id!r} was used before it was opened; send the same request "
                    "again"
                )
            (snapshot,) = taken
            saved = _saved(snapshot)
            self._metrics.stored_bytes.inc(len(saved.record))
            with self._timed("claim"):
                found = await self._store.open(saved)
                if found is None and again:
                    # A save in a later epoch than that of the deletion is kept. Another replica
                    # could do the same now: the claim tells whose session it is.
                    epoch = epoch_after(await self._store.epoch(session.id), time.time())
                    await self._store.save([saved._replace(epoch=epoch)])
                    found = await self._store.claim(session.id)
        except StoreUnavailable as error:
            raise NotStored(
                f"session {session.id!r} could not be stored: {error}; send the same request again"
            ) from error
        if found is None:
            if not session.is_open:  # the deletion is of its own end, such as that it expired
                self._sessions.get(SessionRef(session.id, SERVER, 0))
            raise closed_error(SessionDeleted, session.id)
        if found[1] != saved.record:
            return False
        self._lifecycle.entered(snapshot, found[0])
        self._metrics.checkpoints.labels("stored").inc()
        return True

    async def epoch(self, session_id: str) -> int:
        """
        The session's epoch in the store; 0 if the store does not have the session.

        Raises NotStored if the store does not answer, because the owner is then unknown.
        """
        if not self._lifecycle.may_be_elsewhere(session_id):
            return 0
        try:
            with self._timed("epoch"):
                return await self._store.epoch(session_id)
        except StoreUnavailable as error:
            raise NotStored(
                f"whether session {session_id!r} is still here is not known: {error}; try again"
            ) from error

    async def drain(self, seconds: float) -> int:
        """
        Store every session within `seconds`. Returns how many sessions the store lacks in their
        present state.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._settled()
                while left := self._lifecycle.unsaved():
                    for start in range(0, len(left), SAVED_AT_ONCE):
                        if batch := self._saving.take(left[start : start + SAVED_AT_ONCE]):
                            self._start(self._save(batch))
                    await self._settled()
                    if len(self._lifecycle.unsaved()) >= len(left):
                        break  # the store takes nothing more
                await self._deletions.retry()
        except TimeoutError:
            log.warning("the store was too slow to take every session")
        except CapacityExceeded as error:
            log.warning("not every session could be read", extra={"why": error.message})
        if left_over := len(self._deletions):
            log.warning("deletions did not reach the store", extra={"count": left_over})
        return len(self._lifecycle.unsaved())

    async def stop(self) -> None:
        """Stop the work that is under way, and close the store."""
        self._looking.cancel()
        for task in self._tasks:
            task.cancel()
        await self._store.close()

    async def _settled(self) -> None:
        """Wait until nothing is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _save_to_the_end(self, snapshots: Sequence[Snapshot]) -> None:
        # If the caller is cancelled, answers of other sessions still wait for this save.
        await asyncio.shield(self._start(self._save(snapshots)))

    async def _save(self, snapshots: Sequence[Snapshot]) -> None:
        why = "the server failed"
        kept: list[bool] = []
        try:
            sessions = [_saved(snapshot) for snapshot in snapshots]
            self._metrics.stored_bytes.inc(sum(len(session.record) for session in sessions))
            with self._timed("save"):
                kept = await self._store.save(sessions)
        except StoreUnavailable as error:
            why = str(error)
        except Exception:
            log.exception("sessions could not be stored")
        if not kept:
            for snapshot in snapshots:
                self._saving.not_saved(snapshot, why)
            self._metrics.checkpoints.labels("failed").inc(len(snapshots))
        else:
            for snapshot, is_kept in zip(snapshots, kept, strict=True):
                self._lifecycle.stored(snapshot, is_kept=is_kept)
            self._metrics.checkpoints.labels("stored").inc(sum(kept))
            self._metrics.checkpoints.labels("refused").inc(len(kept) - sum(kept))
        self._worker.resume()

    async def _wake_for_work(self, session_id: str) -> None:
        error: Exception | None = None
        try:
            await self.wake(session_id)
        except NtmError as known:
            error = known
        except Exception as unexpected:
            log.exception(
                "a session could not be woken", extra={"session": session_tag(session_id)}
            )
            error = unexpected
        # `_adopt` has submitted the work that came before the session woke. The rest came later, or
        # the session could not be woken.
        for work in self._waiting.pop(session_id, ()):
            if error is None:
                self._submit(work)
            else:
                work.error = error
                self._worker.fail(work)
        self._worker.resume()

    async def _wake(self, session_id: str) -> None:
        if session_id in self._sessions:
            return
        try:
            with self._timed("claim"):
                found = await self._store.claim(session_id)
        except StoreUnavailable as error:
            raise NotStored(
                f"session {session_id!r} is not awake here, and the store does not answer: "
                f"{error}; try again"
            ) from error
        if found is None:
            self._lifecycle.lost(session_id)
            raise self._sessions.gone_error(SessionRef(session_id, SERVER, 0))
        epoch, data = found
        stored = codec.decode_record(data)
        async with self._catalogue.using(stored.version), self.place():
            await self._worker.call(self._adopt, session_id, epoch, stored)

    def _adopt(self, session_id: str, epoch: int, stored: Stored) -> None:
        """
        Adopt a session between two turns, so that work that waits comes before work submitted
        later.
        """
        self._lifecycle.adopt(session_id, epoch, stored)
        for work in self._waiting.pop(session_id, ()):
            self._submit(work)

    def _submit(self, work: Work) -> None:
        """Submit work for a session that was just claimed. Its epoch is the latest one."""
        work.ref = work.ref._replace(epoch=0)
        self._engine.submit(work)

    async def _make_room(self, idle_seconds: float = 0.0) -> None:
        """
        Put sessions to sleep that were unused for this time. Those that are not stored yet are
        stored first.
        """
        sleepers = self._lifecycle.sleepers(SAVED_AT_ONCE, idle_seconds)
        for session in sleepers:
            if session.durable and session.durable.is_clean:
                self._lifecycle.put_to_sleep(session)
        unstored = [session for session in sleepers if session.is_open]
        if unstored:
            await self._save_to_the_end(self._saving.take(unstored, puts_to_sleep=True))

    async def _ask(self) -> None:
        """
        Ask for a session that there is not, so that the log says if no store answers.

        It is not counted: an increase would not show what happened before the first scrape.
        """
        try:
            await self._store.epoch("")
        except StoreUnavailable as error:
            log.warning("the store does not answer", extra={"why": str(error)})
        except Exception:  # as below: whatever a store raises, the server serves
            log.exception("the store could not be asked")

    async def _look_for_idle(self) -> None:
        """
        Every second: retry deletions, put idle sessions to sleep, and keep a sixteenth of the room
        free.
        """
        headroom = self._max_awake // 16
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._deletions.retry()
                if self._sleep_after_seconds:
                    await self._make_room(self._sleep_after_seconds)
                while self._max_awake and len(self._sessions) > self._max_awake - headroom:
                    before = len(self._sessions)
                    await self._make_room()
                    if len(self._sessions) >= before:
                        break
            except Exception:
                log.exception("sessions could not be put to sleep, or not deleted from the store")

    @contextmanager
    def _timed(self, operation: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        except StoreUnavailable as error:
            self._metrics.store_errors.labels(operation).inc()
            log.warning(
                "the store does not answer", extra={"operation": operation, "why": str(error)}
            )
            raise
        finally:
            self._metrics.store_seconds.labels(operation).observe(time.perf_counter() - started)


def _saved(snapshot: Snapshot) -> Saved:
    seconds = snapshot.view.idle_timeout_seconds + GRACE_SECONDS
    return Saved(snapshot.view.id, snapshot.durable.epoch, codec.encode_record(snapshot), seconds)
