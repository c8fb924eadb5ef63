"""Finds the table of counts of a network, where it is kept, and how true it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ntm_lab.decipher.samples import ServedNetwork, Stage, in_range, of_size
from ntm_lab.decipher.tables.causes import TableEffect, table_effects
from ntm_lab.decipher.tables.counting import Bits
from ntm_lab.decipher.tables.induction import (
    DIVERGENCE,
    Divergence,
    TableCandidate,
    induce_table,
    measured,
)
from ntm_lab.decipher.tables.places import Places, find_places
from ntm_lab.decipher.tables.table import CountTable
from ntm_lab.recordings.recording import Recording
from ntm_tasks import TASKS, TaskSequence, size_text

LOCATED = 0.5
"""A table counts as found if the counts of more than this part of the contexts were located."""

FORETOLD = 0.5
"""
A table counts as found if it foretells more than this part of what changes of memory do, of either
kind that takes the counts of another sequence.
"""


@dataclass(frozen=True, eq=False)
class TableReport:
    """Everything that was found out about a network's table of counts."""

    candidate: TableCandidate
    places: Places | None = None
    """Where the counts are; None if there is no table."""
    fresh: Divergence | None = None
    """The divergence on fresh sequences; None without a table, and without a server."""
    longer: tuple[tuple[str, Divergence], ...] = ()
    """The same on longer ones, with their sizes in words."""
    effects: tuple[TableEffect, ...] = ()
    """The effects of changes; empty without a table, and without a server."""

    @property
    def found(self) -> bool:
        """Whether there is a table that explains the predictions, the memory and the changes."""
        return self._missing() is None

    @property
    def table(self) -> CountTable | None:
        """The table, if one was found."""
        return self.candidate.table if self.found else None

    @property
    def verdict(self) -> str:
        """What was found, or what is missing, as a phrase."""
        missing = self._missing()
        if missing or self.candidate.table is None:
            return missing or self.candidate.reason
        known = self.fresh or self.candidate.divergence
        assert known is not None
        return (
            f"a table of counts by the last {self.candidate.table.window} bits, {known.table:.2f} "
            f"bits a sequence from the network's predictions, {known.share:.1%} of what there is "
            "to explain"
        )

    def _missing(self) -> str | None:
        """What a table lacks; None if nothing."""
        if self.candidate.table is None or self.places is None:
            return self.candidate.reason
        if self.fresh and self.fresh.share > DIVERGENCE:
            return f"on fresh sequences the best table leaves {self.fresh.share:.1%} unexplained"
        if self.places.located <= LOCATED:
            return (
                "a table of counts predicts what the network does, but the counts of only "
                f"{self.places.located:.0%} of the contexts are in its memory"
            )
        for effect in self.effects:
            if "earlier" not in effect.kind and effect.foretold_inside <= FORETOLD:
                return (
                    "a table of counts predicts what the network does, but of a change of "
                    f"{effect.kind} it foretells {effect.foretold_inside:.0%}"
                )
        return None


def find_table(recordings: Sequence[Recording]) -> TableReport:
    """Find a table in recordings alone."""
    candidate = induce_table(recordings)
    if candidate.table is None:
        return TableReport(candidate)
    return TableReport(candidate, find_places(candidate.table, recordings))


def decipher_table(
    network: ServedNetwork,
    recordings: Sequence[Recording],
    changed: Sequence[TaskSequence],
    sequences: int,
    longer: int,
    seed: int,
) -> TableReport:
    """
    Find the table of counts of a served network in recordings, and test it.

    It is tested on as many fresh `sequences` in range, on `longer` of each longer size, and by
    changes of memory in the sequences `changed`.
    """
    found = find_table(recordings)
    table, places = found.candidate.table, found.places
    if table is None or places is None:
        return found
    task = network.model.task
    learned = Bits.of(recordings)

    def judged(sequences: Sequence[TaskSequence]) -> Divergence:
        outputs = network.outputs([sequence.inputs for sequence in sequences])
        return measured(table, Bits.answered(sequences, outputs), learned)

    return TableReport(
        found.candidate,
        places,
        judged(in_range(task, sequences, seed, Stage.AGREEMENT)),
        tuple(
            (size_text(size), judged(of_size(task, size, longer, seed)))
            for size in TASKS[task].longer
        ),
        tuple(table_effects(table, places, network, changed, seed)) if len(changed) > 1 else (),
    )
