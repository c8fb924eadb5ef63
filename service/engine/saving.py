"""Saving: takes snapshots of sessions, and withholds answers until the store has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from service.engine.durability import Durable, Policy, SessionView, Snapshot, Withheld
from service.engine.effects import Outbox
from service.engine.sessions import Session, closed_error
from service.engine.slots import Slots
from service.engine.work import Chunk, Work
from service.errors import CapacityExceeded, NotStored, NtmError, StepIndexMismatch


class Saving:
    """
    Takes snapshots of sessions, and withholds answers that have to wait until these are stored.

    A session has at most one snapshot under way. The store may finish saves in any order, so with
    two of them the earlier state could replace the later one.
    """

    def __init__(self, view: Callable[[Session], SessionView], outbox: Outbox) -> None:
        """Snapshots carry the `view` of a session; answers and late snapshots go to the outbox."""
        self._view = view
        self._outbox = outbox

    def take(self, sessions: Sequence[Session], *, puts_to_sleep: bool = False) -> list[Snapshot]:
        """
        Take a snapshot of each session; none of them may be in a turn that is under way.

        Returns the snapshots to be stored now. A session that has one under way already keeps the
        new one back, in the place of any that it kept back before, and puts it in the outbox when
        the first has arrived.

        Raises CapacityExceeded if there is no memory to read their states; nothing was changed.
        """
        now = []
        for session, checkpoint in zip(sessions, Slots.checkpoints(sessions), strict=True):
            durable = session.durable
            assert durable is not None, "only where there is a store"
            snapshot = Snapshot(
                durable,
                self._view(session),
                session.owner,
                checkpoint,
                session.replays.all(),
                session.given,
                durable.version,
                puts_to_sleep,
            )
            if durable.under_way is None:
                _begin(durable, snapshot)
                now.append(snapshot)
            else:
                durable.next = snapshot
        return now

    def finish(self, session: Session, work: Work, *, set_back: bool = False) -> None:
        """
        Answer work that is done, in its place, as soon as the session's policy allows it.

        Two answers wait for the store whatever the policy:

        - A step mismatch. Only the current owner may report it, and a successful save confirms the
          ownership. If another replica owns the session, the step here may be out of date.
        - A reset or restore (`set_back`), if the store has the session. Otherwise the session
          could come back from the store as it was before.
        """
        durable = session.durable
        if durable is None:
            self._outbox.finished.append(work)
            return
        is_mismatch = isinstance(work.error, StepIndexMismatch)
        policy = durable.durability.policy
        comes_back = policy is not Policy.NONE or durable.may_be_stored
        must_be_stored = policy is Policy.SYNCHRONOUS or (set_back and comes_back)
        waits = is_mismatch or (must_be_stored and work.error is None and not durable.is_clean)
        # For a mismatch the session is saved even if the store has it as it is, because only a save
        # asks the store for the owner.
        if is_mismatch or (waits and not durable.is_covered):
            try:
                self._outbox.snapshots += self.take([session])
            except CapacityExceeded as error:
                work.error = _not_stored(session.id, error.message)
                waits = False
        # Work behind withheld work is withheld too, because answers of a session keep their order.
        if waits or durable.withheld:
            durable.withheld.append(Withheld(work, durable.version if waits else -1))
        else:
            self._answer(durable, work)

    def saved(self, snapshot: Snapshot) -> None:
        """A snapshot is stored: answer what waited for it, and begin the next one."""
        durable = snapshot.durable
        durable.stored_version = snapshot.version
        durable.step = snapshot.view.next_step
        self._arrived(durable)

    def not_saved(self, snapshot: Snapshot, why: str) -> None:
        """A snapshot could not be stored: what waited for it fails with NotStored."""
        durable = snapshot.durable
        for withheld in durable.withheld:
            waited = durable.stored_version < withheld.version <= snapshot.version
            if waited or isinstance(withheld.work.error, StepIndexMismatch):
                withheld.work.error = _not_stored(snapshot.view.id, why)
        self._arrived(durable)

    def close(self, session: Session, why: type[NtmError]) -> None:
        """Answer all withheld work of a session that is closed."""
        durable = session.durable
        if durable is None:
            return
        durable.next = None
        for withheld in durable.withheld:
            if withheld.work.error is None or isinstance(withheld.work.error, StepIndexMismatch):
                withheld.work.error = closed_error(why, session.id)
            self._outbox.finished.append(withheld.work)
        durable.withheld.clear()
        session.durable = None

    def _arrived(self, durable: Durable) -> None:
        durable.under_way = None
        if durable.next is not None:
            snapshot, durable.next = durable.next, None
            _begin(durable, snapshot)
            self._outbox.snapshots.append(snapshot)
        withheld = durable.withheld
        while withheld and (
            withheld[0].version <= durable.stored_version or withheld[0].work.error
        ):
            self._answer(durable, withheld.popleft().work)

    def _answer(self, durable: Durable, work: Work) -> None:
        if isinstance(work, Chunk):
            work.durable_step = durable.step
            work.epoch = durable.epoch
        self._outbox.finished.append(work)


def _not_stored(session_id: str, why: str) -> NotStored:
    return NotStored(
        f"session {session_id!r} could not be stored: {why}; steps may have been made: send the "
        "same chunk again"
    )


def _begin(durable: Durable, snapshot: Snapshot) -> None:
    durable.under_way = snapshot
    durable.may_be_stored = True
