"""The worker: turns the engine on the event loop, and runs networks on threads beside it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

from service.engine.effects import Effects
from service.engine.engine import Engine
from service.engine.turn import Turn
from service.engine.work import Work
from service.errors import Draining

log = logging.getLogger(__name__)

T = TypeVar("T")
PendingCall = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class Worker:
    """
    Turns an engine in such a way that the event loop never waits long for a network's run.

    The engine belongs to the event loop. Only the run of a turn is made on one of the worker's
    threads, where onnxruntime releases the interpreter's lock. A run that is shorter than waking a
    thread is made on the event loop.

    Work that comes alone, as the last one did, is begun at once. Other work is begun with all that
    arrives in the same round of the event loop.
    """

    def __init__(self, engine: Engine, parallel_runs: int) -> None:
        """
        Prepare to turn an engine. Call this inside the event loop that the engine will belong to.

        The worker begins turns while the engine can schedule them. For all threads to be busy, the
        engine must allow one turn more than `parallel_runs`, as `Server` sets it.
        """
        self.engine = engine
        self.parallel_runs = parallel_runs
        self._loop = asyncio.get_running_loop()
        self._turns: SimpleQueue[Turn | None] = SimpleQueue()
        self._begun: set[Turn] = set()
        self._is_due = False
        self._came = 0
        """How often work was submitted since the last advance that was due."""
        self._came_together = 0
        """How often it was submitted for the last advance with new work."""
        self._is_answering = False
        self._once_answered: list[Callable[[], None]] = []
        self._calls: deque[PendingCall] = deque()
        self._expiry: asyncio.TimerHandle | None = None
        self._stopping = False
        self._pending: set[Work] = set()
        self._nothing_pending = asyncio.Event()
        self._nothing_pending.set()
        self.crashed: asyncio.Future[None] = self._loop.create_future()
        """Fails with the error when the engine cannot recover from a failure."""
        self._store: Callable[[Effects], None] | None = None
        self._threads = [
            threading.Thread(target=self._run, name=f"runs-{number}", daemon=True)
            for number in range(parallel_runs)
        ]

    def start(self, store: Callable[[Effects], None] | None = None) -> None:
        """Start the threads. Whenever effects are taken, `store` is called with them first."""
        self._store = store
        for thread in self._threads:
            thread.start()

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run `function(*arguments)`, a method of the engine, between two turns."""
        if self._stopping:
            raise _stopped_error()
        future: asyncio.Future[T] = self._loop.create_future()
        self._calls.append((lambda: function(*arguments), future))
        if not self._begun:
            self._perform_calls()
        return await future

    @property
    def is_between_turns(self) -> bool:
        """Whether no turn is under way, so that a `call` would be made at once."""
        return not self._begun

    def call_at_once(self, function: Callable[[], T]) -> T:
        """
        Run a method of the engine that finishes no work: when `is_between_turns`, or one that may
        be run during turns.
        """
        if self._stopping:
            raise _stopped_error()
        result = function()
        self._expire_in_time()
        return result

    def submit(self, works: Sequence[Work]) -> None:
        """Queue work. Its `answered` is called when it has an outcome or an error."""
        if self._stopping:
            for work in works:
                work.error = _stopped_error()
                self._loop.call_soon(work.answered, work)
            return
        self._pending.update(works)
        self._nothing_pending.clear()
        try:
            for work in works:
                self.engine.submit(work)
        except Exception as error:
            self._crash(error)
            return
        self._came += 1
        is_alone = self._came == self._came_together == 1 and not self._is_due
        # Also behind work that is begun at once, to learn whether other work comes with it.
        self._advance_soon()
        if is_alone and not self._is_answering:
            self._advance()

    def ask(self, work: Work) -> asyncio.Future[Any]:
        """
        Queue work, and return a future that gets its outcome or its error.

        Cancelling the future drops work that waits, and stops a chunk after the turn under way.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        work.answered = lambda done: _resolve(future, done.outcome, done.error)
        self.submit([work])
        if not future.done():
            future.add_done_callback(lambda done: setattr(work, "cancelled", done.cancelled()))
        return future

    def once_answered(self, callback: Callable[[], None]) -> None:
        """Call `callback` when all work is answered that finished together, if not soon."""
        if self._is_answering:
            self._once_answered.append(callback)
        else:
            self._loop.call_soon(callback)

    def resume(self) -> None:
        """
        Continue turning after something outside of a turn has changed sessions or finished work.
        """
        if not self._stopping:
            self._advance_soon()

    def fail(self, work: Work) -> None:
        """Answer work that has an error and that is not in the engine."""
        self._answer([work])

    async def drain(self, seconds: float) -> bool:
        """
        Refuse new work, and wait at most `seconds` for the rest. Returns whether all work was
        finished.
        """
        self.engine.lifecycle.drain()
        try:
            await asyncio.wait_for(self._nothing_pending.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """End the threads after the runs under way. Work still waiting fails."""
        self._stopping = True
        for _ in self._threads:
            self._turns.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        if self._expiry:
            self._expiry.cancel()
        self._fail_all(_stopped_error())

    def _run(self) -> None:
        """Run turns, on a thread of the worker, until None comes."""
        while (turn := self._turns.get()) is not None:
            turn.run()
            try:
                self._loop.call_soon_threadsafe(self._ran, turn)
            except RuntimeError:
                return  # the loop has closed, so there is no call left to answer

    def _ran(self, turn: Turn) -> None:
        self._begun.discard(turn)
        if self._stopping:
            return
        try:
            self.engine.commit(turn)
        except Exception as error:
            self._crash(error)
            return
        if self._calls and not self._begun:
            self._perform_calls()
        self._advance()

    def _perform_calls(self) -> None:
        """Make the calls that wait for the moment between two turns."""
        while self._calls:
            call, future = self._calls.popleft()
            if future.done():
                continue  # its caller was cancelled
            try:
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)
        # Now, so that the store is asked before the callers continue: they may wait for its answer.
        self._hand_over()
        self._advance_soon()
        self._expire_in_time()

    def _advance_soon(self) -> None:
        """
        Advance after the callbacks that are ready, because they may bring work for the same batch.
        """
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._advance_due)

    def _advance_due(self) -> None:
        self._is_due = False
        if self._came:
            self._came_together, self._came = self._came, 0
        self._advance()

    def _advance(self) -> None:
        """Begin turns, or make one if it is short; then pass on the effects so far."""
        if self._stopping:
            return
        try:
            self._begin()
        except Exception as error:
            self._crash(error)
            return
        self._hand_over()
        if self.engine.busy and not self._begun:
            self._advance_soon()

    def _hand_over(self) -> None:
        """Give the effects so far to the store, then answer the work that is finished."""
        try:
            effects = self.engine.take_effects()
            if self._store is not None:
                self._store(effects)
        except Exception as error:
            self._crash(error)
            return
        self._answer(effects.finished)

    def _begin(self) -> None:
        """Queue turns for the threads, one more than they can run, or make a short turn here."""
        while self.engine.can_schedule and not self._calls:
            turn = self.engine.schedule()
            if turn is None:
                return
            if turn.short and not self._begun:
                turn.run()
                self.engine.commit(turn)
                return
            self._begun.add(turn)
            self._turns.put(turn)

    def _answer(self, finished: Sequence[Work]) -> None:
        self._is_answering = True  # an answer that brings work must not overtake the next answer
        for work in finished:
            self._pending.discard(work)
            work.answered(work)
        self._is_answering = False
        callbacks, self._once_answered = self._once_answered, []
        for callback in callbacks:
            callback()
        if not self._pending:
            self._nothing_pending.set()

    def _expire_in_time(self) -> None:
        """Set the timer to the next deadline of a session."""
        seconds = self.engine.lifecycle.seconds_to_deadline()
        if seconds is None or self._stopping:
            return
        when = self._loop.time() + seconds
        if self._expiry is None or when < self._expiry.when():
            if self._expiry:
                self._expiry.cancel()
            self._expiry = self._loop.call_at(when, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        try:
            self.engine.lifecycle.expire()
        except Exception as error:
            self._crash(error)
            return
        self._advance_soon()
        self._expire_in_time()

    def _crash(self, error: Exception) -> None:
        log.critical("the engine failed", exc_info=error)
        self._stopping = True
        self._fail_all(error)
        _resolve(self.crashed, None, error)

    def _fail_all(self, error: BaseException) -> None:
        for work in self._pending:
            work.error = error
        self._answer(list(self._pending))
        for _, future in self._calls:
            _resolve(future, None, error)
        self._calls.clear()


def _stopped_error() -> Draining:
    return Draining("this server has stopped; connect to another replica")


def _resolve(future: asyncio.Future[Any], outcome: Any, error: BaseException | None) -> None:
    if future.done():
        return  # cancelled meanwhile
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(outcome)
