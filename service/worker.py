"""The worker: one thread that runs the engine, and the event loop's way to talk to it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from service.engine import Engine
from service.errors import Draining, NtmError
from service.work import Work

log = logging.getLogger(__name__)

T = TypeVar("T")
Call = Callable[[], Any]
Answer = tuple[asyncio.Future[Any], Any, BaseException | None]


class Worker:
    """
    Runs an engine on a thread of its own, so that the event loop never waits for a network's run.

    Calls and work enter through one queue, in order. After each turn of the engine everything that
    is finished goes back to the event loop in one wake-up.
    """

    def __init__(self, engine: Engine) -> None:
        """
        Prepare, inside the event loop that gets the answers.

        From `start` on the engine belongs to the thread.
        """
        self._engine = engine
        self._inbox: deque[tuple[Work | Call, asyncio.Future[Any]]] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._futures: dict[Work, asyncio.Future[Any]] = {}
        self._answers: list[Answer] = []
        self._loop = asyncio.get_running_loop()
        self.crashed: asyncio.Future[None] = self._loop.create_future()
        """Done when the engine has failed in a way that it cannot recover from."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run `function(*arguments)`, a method of the engine, between two turns."""
        result: T = await self._enter(lambda: function(*arguments))
        return result

    def submit(self, work: Work) -> asyncio.Future[Any]:
        """
        Hand work to the engine; the future gets its outcome or its error.

        Cancelling the future drops the work if it waits, or stops it after the turn under way.
        """
        future = self._enter(work)
        future.add_done_callback(lambda done: setattr(work, "cancelled", done.cancelled()))
        return future

    async def drain(self, seconds: float) -> bool:
        """Refuse new work, wait that long for the work there is; whether all was finished."""
        await self.call(setattr, self._engine, "draining", True)
        deadline = time.monotonic() + seconds
        while pending := await self.call(lambda: list(self._futures.values())):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            await asyncio.wait(pending, timeout=left)
        return True

    async def stop(self) -> None:
        """End the thread after the turn under way. Work still waiting fails as cancelled."""
        self._stopping = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join)
        unanswered = [future for _, future in self._inbox]
        for future in [*self._futures.values(), *unanswered]:
            future.cancel()

    def _enter(self, item: Work | Call) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._stopping:
            future.set_exception(Draining("this server has stopped; connect to another replica"))
            return future
        self._inbox.append((item, future))
        self._wake.set()
        return future

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._wake.clear()
                self._turn()
                if not self._engine.busy and not self._inbox:
                    self._wake.wait(self._engine.seconds_to_deadline())
        except Exception as error:
            log.critical("the engine failed", exc_info=True)
            self._stopping = True
            unanswered = [*self._futures.values(), *(future for _, future in self._inbox)]
            self._answers += [(future, None, error) for future in [*unanswered, self.crashed]]
            self._deliver()

    def _turn(self) -> None:
        self._receive()
        for work in self._engine.turn():
            self._answers.append((self._futures.pop(work), work.outcome, work.error))
        self._engine.expire()
        self._deliver()

    def _receive(self) -> None:
        """Take in what came since the last turn."""
        for _ in range(len(self._inbox)):
            item, future = self._inbox.popleft()
            if isinstance(item, Work):
                self._engine.submit(item)
                self._futures[item] = future
                continue
            try:
                self._answers.append((future, item(), None))
            except NtmError as error:
                self._answers.append((future, None, error))
            except Exception as error:
                log.exception("engine call failed")
                self._answers.append((future, None, error))

    def _deliver(self) -> None:
        """Wake the event loop once for all that was answered."""
        if self._answers:
            answers, self._answers = self._answers, []
            try:
                self._loop.call_soon_threadsafe(_resolve, answers)
            except RuntimeError:
                self._stopping = True  # the loop has closed: nobody is left to answer


def _resolve(answers: list[Answer]) -> None:
    for future, outcome, error in answers:
        if future.done():
            continue  # cancelled while the engine worked on it
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(outcome)
