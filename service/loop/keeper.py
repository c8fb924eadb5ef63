"""The keeper: carries sessions to the store and back, so that the engine need not wait for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

from service import record
from service.engine.engine import Engine
from service.engine.lifecycle import draining
from service.engine.saving import RENEW_SECONDS, Policy, Snapshot
from service.engine.sessions import Session, deleted
from service.engine.work import Work
from service.errors import CapacityExceeded, NotStored, NtmError, SessionUnknown
from service.loop.deletions import Deletions
from service.loop.worker import Worker
from service.models.catalogue import Catalogue
from service.settings import Settings
from service.stores.base import Saved, Store, StoreUnavailable
from service.telemetry.logs import session_tag
from service.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

SAVED_AT_ONCE = 64
"""Sessions that are put to sleep, or stored before the server stops, in one go."""

MOST_WAIT_SECONDS = 10.0
"""How long a session that is asked for waits until another one can sleep."""

GRACE_SECONDS = 2 * RENEW_SECONDS
"""How much longer than its idle timeout a session is kept in the store, or its deletion."""

LOOK_SECONDS = 1.0
"""How often sessions that have been idle for long are looked for."""


class Keeper:
    """
    Works on the event loop, beside the worker.

    A session that is asked for and not awake is claimed from the store; what is asked of it waits,
    in order. When there are too many awake, those unused for longest are put to sleep.
    """

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        engine: Engine,
        worker: Worker,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        """Serve the engine from now on."""
        self._store = store
        self._catalogue = catalogue
        self._engine = engine
        self._worker = worker
        self._most_awake = settings.max_awake_sessions
        self._sleep_after_seconds = settings.sleep_after_seconds
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()
        self._waking: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, list[Work]] = {}
        self._deletions = Deletions(store, partial(self._timed, "delete"), GRACE_SECONDS)
        self._placing = asyncio.Lock()
        self._advanced = asyncio.Event()
        self._looking = asyncio.create_task(self._look_for_idle())
        worker.advance_store = self.advance
        # The first failure is seen only where there was a count of none before.
        for operation in ("save", "claim", "epoch", "delete"):
            metrics.store_errors.labels(operation)
        metrics.undeleted_sessions.set_function(lambda: len(self._deletions))
        for outcome in ("stored", "refused", "failed"):
            metrics.checkpoints.labels(outcome)

    def advance(self) -> None:
        """Begin what the engine has left to do with the store; waits for nothing."""
        self._advanced.set()
        if wanted := self._engine.saving.wanted():
            self._start(self._save(wanted))
        for forgotten in self._engine.forgotten():
            self._start(self._deletions.delete(forgotten))
        for work in self._engine.absent():
            if waiting := self._waiting.get(work.session_id):
                waiting.append(work)
            else:
                self._waiting[work.session_id] = [work]
                self._start(self._wake_for_work(work.session_id))

    async def wake(self, session_id: str) -> None:
        """
        Have a session awake that may be in the store.

        Raises:
            SessionUnknown, NotStored: it is not there, or the store does not answer.
            Draining: another replica is to have it.
            NtmError: it cannot go on here.
        """
        if self._engine.draining:
            raise draining()
        task = self._waking.get(session_id)
        if task is None:
            task = asyncio.create_task(self._wake(session_id))
            task.add_done_callback(partial(self._woken, session_id))
            self._waking[session_id] = task
        # One who stops waiting must not stop the waking that others wait for.
        await asyncio.shield(task)

    def _woken(self, session_id: str, task: asyncio.Task[None]) -> None:
        """A session is awake, or not; those who wanted to know may be gone."""
        del self._waking[session_id]
        if not task.cancelled():
            task.exception()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """
        Room for one more session that is awake; if need be, others are put to sleep.

        One at a time, in the order of asking.

        Raises:
            CapacityExceeded: all that are awake were busy all the time.
        """
        async with self._placing:
            if self._most_awake:
                await self._have_room()
            yield

    async def _have_room(self) -> None:
        try:
            async with asyncio.timeout(MOST_WAIT_SECONDS):
                while self._engine.awake >= self._most_awake:
                    self._advanced.clear()
                    await self._make_room()
                    if self._engine.awake >= self._most_awake:
                        await self._advanced.wait()
        except TimeoutError:
            raise CapacityExceeded(
                f"{self._engine.awake} sessions are awake, as many as max_awake_sessions allows, "
                "and none could be put to sleep; try again later",
                limit="max_awake_sessions",
            ) from None

    async def keep(self, session_id: str) -> None:
        """
        Have the store keep a session that is awake and idle as it is.

        Raises:
            NotStored: it could not.
        """
        session = self._engine.session(session_id)
        self._engine.saving.take([session])
        await self._save_to_the_end(self._engine.saving.wanted())
        if session.durable is None or not session.durable.is_clean:
            raise NotStored(f"session {session_id!r} could not be stored; try again")

    async def enter(self, session_id: str) -> bool:
        """
        Have a session that was just opened be the only one of its id, which its client has chosen.

        Whether it is. If not, the session that the store has of that id is awake in its place.

        Raises:
            SessionDeleted: there was one, which was deleted.
            NotStored: the store does not answer.
            NtmError: as `wake`. There is no session of that id here then.
        """
        session = self._engine.session(session_id)
        is_new = False
        try:
            is_new = await self._is_new(session)
        finally:
            if not is_new and session.is_open:
                self._engine.passed_over(session)
        if not is_new:
            try:
                await self.wake(session_id)
            except SessionUnknown:
                raise deleted(session_id) from None
        return is_new

    async def _is_new(self, session: Session) -> bool:
        """Whether the store knows no session of that id; then it has this one, if it is to."""
        durable, saving = session.durable, self._engine.saving
        assert durable is not None, "there is a store"
        try:
            if durable.durability.policy is Policy.NONE:
                with self._timed("epoch"):
                    return await self._store.epoch(session.id) == 0
            saving.take([session])
            snapshot, wanted = durable.under_way, saving.wanted()
            assert snapshot is not None, "nothing was under way"
            wanted.remove(snapshot)
            if wanted:
                self._start(self._save(wanted))
            saved = _saved(snapshot)
            self._metrics.stored_bytes.inc(len(saved.record))
            with self._timed("claim"):
                found = await self._store.open(saved)
        except StoreUnavailable as error:
            raise NotStored(
                f"session {session.id!r} could not be stored: {error}; send the same request again"
            ) from error
        if found is None:
            raise deleted(session.id)
        if found[1] != saved.record:
            return False
        durable.epoch = found[0]
        self._engine.stored(snapshot, is_kept=True)
        self._metrics.checkpoints.labels("stored").inc()
        return True

    async def epoch(self, session_id: str) -> int:
        """
        The session's epoch in the store; 0 if it knows none.

        Raises NotStored if it does not answer: who has the session is then not known.
        """
        if not self._engine.may_be_elsewhere(session_id):
            return 0
        try:
            with self._timed("epoch"):
                return await self._store.epoch(session_id)
        except StoreUnavailable as error:
            raise NotStored(
                f"whether session {session_id!r} is still here is not known: {error}; try again"
            ) from error

    async def drain(self, seconds: float) -> int:
        """Have the store keep every session as it is, within that time; how many it has not."""
        try:
            async with asyncio.timeout(seconds):
                await self._settled()
                while left := self._engine.unsaved():
                    for start in range(0, len(left), SAVED_AT_ONCE):
                        self._engine.saving.take(left[start : start + SAVED_AT_ONCE])
                        self.advance()
                    await self._settled()
                    if len(self._engine.unsaved()) >= len(left):
                        break  # the store takes nothing more
                await self._deletions.retry()
        except TimeoutError:
            log.warning("the store was too slow to take every session")
        if left_over := len(self._deletions):
            log.warning("the store was not told of deletions", extra={"count": left_over})
        return len(self._engine.unsaved())

    async def stop(self) -> None:
        """Let go of the store."""
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
        # Who stops waiting must not stop the saving of sessions that others wait for.
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
                self._engine.saving.not_saved(snapshot, why)
            self._metrics.checkpoints.labels("failed").inc(len(snapshots))
        else:
            for snapshot, is_kept in zip(snapshots, kept, strict=True):
                self._engine.stored(snapshot, is_kept=is_kept)
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
        # Those that came while the session could not be woken, or just after it was.
        for work in self._waiting.pop(session_id, ()):
            if error is None:
                self._submit(work)
            else:
                work.error = error
                self._worker.give_up(work)
        self._worker.resume()

    async def _wake(self, session_id: str) -> None:
        if self._engine.is_awake(session_id):
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
            self._engine.lost(session_id)
            raise self._engine.unknown(session_id)
        epoch, data = found
        stored = record.decode(data)
        async with self._catalogue.using(stored.version), self.place():
            await self._worker.call(self._adopt, session_id, epoch, stored)

    def _adopt(self, session_id: str, epoch: int, stored: record.Stored) -> None:
        """Between two turns: what waits for the session comes before what comes later."""
        self._engine.adopt(session_id, epoch, stored)
        for work in self._waiting.pop(session_id, ()):
            self._submit(work)

    def _submit(self, work: Work) -> None:
        """Submit work for a session that was claimed: nobody can know a later epoch of it."""
        work.known_epoch = 0
        self._engine.submit(work)

    async def _make_room(self, idle_seconds: float = 0.0) -> None:
        sleepers = self._engine.sleepers(SAVED_AT_ONCE, idle_seconds)
        for session in sleepers:
            if session.durable and session.durable.is_clean:
                self._engine.put_to_sleep(session)
        awake = [session for session in sleepers if session.is_open]
        self._engine.saving.take(awake, puts_to_sleep=True)
        if wanted := self._engine.saving.wanted():
            await self._save_to_the_end(wanted)

    async def _look_for_idle(self) -> None:
        """Put to sleep who is unused for long, have a little room, tell of deletions again."""
        headroom = self._most_awake // 16
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._deletions.retry()
                if self._sleep_after_seconds:
                    await self._make_room(self._sleep_after_seconds)
                while self._most_awake and self._engine.awake > self._most_awake - headroom:
                    before = self._engine.awake
                    await self._make_room()
                    if self._engine.awake >= before:
                        break
            except Exception:
                log.exception("sessions could not be put to sleep, or their deletions be told")

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
    return Saved(snapshot.view.id, snapshot.durable.epoch, record.encode(snapshot), seconds)
