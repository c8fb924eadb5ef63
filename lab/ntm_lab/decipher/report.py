"""
Finds the program of a served network and says how true it is.

    with Client() as client:
        report = decipher(client, "copy-ntm-lstm")
    print(report.found, markdown(report))

A program is found in recordings of some sequences, and judged by others. A false program is worse
than none: the verdict is that there is none unless the fresh sequences say otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ntm_client.blocking import Client
from ntm_client.errors import InvalidRequest
from ntm_client.values import Model
from ntm_lab.decipher.agreement import Agreement, agree
from ntm_lab.decipher.claims import measures
from ntm_lab.decipher.counterexamples import Search, search
from ntm_lab.decipher.habits import Habit, habits
from ntm_lab.decipher.hardening import WAYS, Hardening, harden
from ntm_lab.decipher.induction import HELD_OUT, Candidate, induce
from ntm_lab.decipher.interventions import Effect, intervene
from ntm_lab.decipher.measures import Measure
from ntm_lab.decipher.program import Program
from ntm_lab.decipher.samples import ServedNetwork, Stage, in_range, of_size
from ntm_lab.recordings.recording import Recording
from ntm_tasks import TASKS, size_text

RECORDINGS = 128
"""Sequences that a program is found in, and that the paper's claims are measured on."""

EXPLAINED_SEQUENCES = 0.9
"""
A program counts as found if it explains at least this share of the fresh sequences in every bit.

0 is what the best constant answer explains and 1 all. A program that is wrong in one sequence out
of ten or more leaves out something that the network does; it is told as what it is, a part. And
where the outputs hardly depend on the inputs, as in networks that have learned nothing, a constant
does as well, so that no program explains more.
"""

CHANGED_SEQUENCES = 100
"""Of the sequences, as many at most are run with hard heads, and with each kind of change."""

HARD_STEPS = 4000
"""Steps with hard heads, of which each takes several calls: fewer sequences where they are long."""

LONGER_PART = 20
"""At each of the longer sizes, the number of sequences in range divided by this is run."""


@dataclass(frozen=True, eq=False)
class Report:
    """What was found of a network. Without a server it rests on recordings alone."""

    model: Model
    locations: int
    seed: int
    candidate: Candidate
    in_range: Agreement | None
    """On fresh sequences of sizes as in training; None where only recordings were looked at."""
    longer: tuple[Agreement, ...]
    """On longer ones, a size each."""
    habits: tuple[Habit, ...]
    measures: tuple[Measure, ...]
    hardenings: tuple[Hardening, ...]
    """For a network with a memory."""
    search: Search | None
    """For a program."""
    effects: tuple[Effect, ...]
    """Likewise."""

    @property
    def explained(self) -> float:
        """
        Part of the fresh sequences that the program explains in every bit, from 0 to 1.

        Without fresh sequences: what it explains of the recordings.
        """
        one = self.in_range
        if one is None or self.candidate.program is None:
            return self.candidate.explained
        if one.constant_agreeing == one.sequences:
            return 0.0
        more = (one.agreeing or 0) - one.constant_agreeing
        return more / (one.sequences - one.constant_agreeing)

    @property
    def found(self) -> bool:
        """Whether there is a program, and it is true enough."""
        return self.candidate.program is not None and self.explained >= EXPLAINED_SEQUENCES

    @property
    def program(self) -> Program | None:
        """The program, if one was found."""
        return self.candidate.program if self.found else None

    @property
    def verdict(self) -> str:
        """In a sentence."""
        if self.candidate.program is None:
            return f"no program found: {self.candidate.reason}"
        if self.in_range is None:
            words = f"it explains {self.explained:.1%} of the recordings' bits"
        else:
            words = f"it explains {self.explained:.1%} of {self.in_range.sequences} fresh sequences"
        if self.found:
            return f"program found: {words}"
        return f"no program found: of the best, {words}, and {EXPLAINED_SEQUENCES:.0%} are asked"


def decipher(
    client: Client,
    model: str,
    *,
    sequences: int = 1000,
    locations: int | None = None,
    seed: int = 0,
) -> Report:
    """
    Find the program of a served model, and measure how true it is.

    Args:
        client: Of the server that has the model.
        model: Its name. Its task has to be one of `ntm_tasks.TASKS`.
        sequences: Fresh sequences in range that the program is judged by.
        locations: Memory locations of all sessions; the model's default without.
        seed: Of all sequences; the same give the same report.

    Raises:
        InvalidRequest: the model's task is not known, or nothing is to be judged by.
    """
    network = ServedNetwork(client, model, locations)
    task = network.model.task
    if task not in TASKS:
        raise InvalidRequest(
            f"{model} has the task {task!r}, and sequences can be drawn of {', '.join(TASKS)}; "
            "register the task with `ntm_tasks.register`"
        )
    if sequences < 1:
        raise InvalidRequest(f"a program is judged by at least 1 sequence, not {sequences}")
    recordings = network.recordings(in_range(task, RECORDINGS, seed, Stage.INDUCTION))
    candidate = induce(recordings)
    program = candidate.program
    fresh = in_range(task, sequences, seed, Stage.AGREEMENT)
    some = in_range(task, min(sequences, CHANGED_SEQUENCES), seed, Stage.CHANGES)
    steps = np.cumsum([len(sequence.inputs) for sequence in some])
    hard = some[: max(1, int((steps <= HARD_STEPS).sum()))]
    beyond = max(1, sequences // LONGER_PART)
    return Report(
        network.model,
        network.memory_locations,
        seed,
        candidate,
        agree(program, network, fresh, "in range"),
        tuple(
            agree(program, network, of_size(task, size, beyond, seed), size_text(size))
            for size in TASKS[task].longer
        ),
        tuple(habits(recordings)),
        tuple(measures(recordings)),
        tuple(harden(network, hard, by) for by in WAYS) if network.memory_locations else (),
        search(program, network, seed) if program else None,
        tuple(intervene(program, network, some, seed)) if program else (),
    )


def decipher_recordings(recordings: Sequence[Recording]) -> Report:
    """
    Find the program in recordings alone, without a server.

    What only the network itself could tell is left out: the program is judged by the recordings
    that it was not made from.

    Raises:
        InvalidRequest: there are too few, they are not of one model and memory size, or one lacks
            a trace.
    """
    kinds = {(each.model.content_hash, each.locations) for each in recordings}
    if len(kinds) != 1:
        raise InvalidRequest(f"the recordings are of {len(kinds)} models or memory sizes, not one")
    if len(recordings) < HELD_OUT:
        raise InvalidRequest(f"{len(recordings)} recordings are too few; give at least {HELD_OUT}")
    first = recordings[0]
    return Report(
        first.model,
        first.locations,
        seed=0,
        candidate=induce(recordings),
        in_range=None,
        longer=(),
        habits=tuple(habits(recordings)),
        measures=tuple(measures(recordings)),
        hardenings=(),
        search=None,
        effects=(),
    )
