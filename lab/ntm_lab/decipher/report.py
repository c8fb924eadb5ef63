"""
Finds the program of a served network, and measures how much of the network it explains.

    with Client() as client:
        report = decipher(client, "copy-ntm-lstm")
    print(report.found, markdown(report))

A program is found in recordings of some sequences, and judged on fresh ones. A false program is
worse than none. So a program counts as found only if it explains the fresh sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ntm_client.blocking import Client
from ntm_client.errors import InvalidRequest
from ntm_client.values import Model
from ntm_lab.decipher.agreement import Agreement, agree
from ntm_lab.decipher.assumptions import Assumption, assumptions, missing_traces
from ntm_lab.decipher.claims import check_sequences, measures
from ntm_lab.decipher.counterexamples import Search, search
from ntm_lab.decipher.habits import Habit, habits
from ntm_lab.decipher.hardening import WAYS, Hardening, harden
from ntm_lab.decipher.induction import HELD_OUT, Candidate, induce
from ntm_lab.decipher.interventions import Effect, change_sequences, effects, responding
from ntm_lab.decipher.measures import Measure
from ntm_lab.decipher.mechanism.busiest import busiest
from ntm_lab.decipher.mechanism.study import Study, study
from ntm_lab.decipher.mistakes import Mistakes, find_mistakes
from ntm_lab.decipher.phases import find_phases
from ntm_lab.decipher.program import Program
from ntm_lab.decipher.samples import ServedNetwork, Stage, in_range, of_size
from ntm_lab.decipher.tables.report import TableReport, decipher_table, find_table
from ntm_lab.recordings.recording import Recording
from ntm_tasks import TASKS, size_text

SEQUENCES = 1000
"""The number of fresh sequences by which a program is judged, if nothing else is asked for."""

RECORDINGS = 128
"""
The number of recorded sequences from which a program is induced and the paper's claims are
measured.
"""

EXPLAINED_SEQUENCES = 0.9
"""
A program counts as found if it explains at least this share of the fresh sequences in every bit.

The share is counted from 0, what the best constant answer explains, to 1, all sequences. A program
that is wrong in more sequences describes only a part of what the network does. If the outputs
hardly depend on the inputs, as in networks that have learned nothing, a constant explains as much
as any program, so that no program counts as found.
"""

EXACT_SEQUENCES = 0.5
"""
A network that makes mistakes must do its task without one in at least this share of the fresh
sequences, if a program is to count that differs only where the network is wrong.
"""

EXPLAINED_EXACT = 0.99
"""Such a program must explain at least this share of the sequences without a mistake."""

CHANGED_SEQUENCES = 100
"""The largest number of sequences that are run with hard heads, and with each kind of change."""

JUDGED = 200
"""The largest number of fresh sequences in range by which a mechanism is judged."""

FITTED = 256
"""The largest number of sequences from which a mechanism is fitted."""

HARD_STEPS = 4000
"""
The largest number of steps with hard heads, each of which takes several calls. Long sequences are
therefore fewer.
"""

LONGER_PART = 20
"""At each longer size, the number of sequences is the number in range divided by this."""


@dataclass(frozen=True, eq=False)
class Report:
    """Everything that was found out about a network, from a server or from recordings alone."""

    model: Model
    locations: int
    seed: int
    candidate: Candidate
    in_range: Agreement | None
    """The agreement on fresh sequences of sizes as in training; None without a server."""
    longer: tuple[Agreement, ...]
    """The agreement on longer sequences, one entry for each size."""
    habits: tuple[Habit, ...]
    measures: tuple[Measure, ...]
    hardenings: tuple[Hardening, ...]
    """Empty for a network without memory, and without a server."""
    search: Search | None
    """The search for counter-examples; None without a program, and without a server."""
    effects: tuple[Effect, ...]
    """The effects of changes; empty without a program, and without a server."""
    table: TableReport | None = None
    """The search for a table of counts; None if heads and tape are a program."""
    mistakes: Mistakes | None = None
    """Why a network that sorts makes mistakes; None if it does not sort, or makes none."""
    mechanism: Study | None = None
    """What the heads do on the real memory; None if heads and tape are no program."""
    assumptions: tuple[Assumption, ...] = ()
    """What a program on a tape takes for granted, and whether it holds; empty if there is one."""
    seeks_mechanism: bool = True
    """Whether a mechanism was asked for."""

    @property
    def explained(self) -> float:
        """
        The part of the fresh sequences that the program explains in every bit, from 0 to 1.

        Without fresh sequences, the part of the recordings' bits that it explains.
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
        """Whether there is a program or a table that explains enough of the fresh sequences."""
        return self._tape_found or (self.table is not None and self.table.found)

    @property
    def _tape_found(self) -> bool:
        if self.candidate.program is None:
            return False
        return self.explained >= EXPLAINED_SEQUENCES or self._explains_all_but_errors

    @property
    def _explains_all_but_errors(self) -> bool:
        """
        Whether the program does what the network does wherever the network does its task.

        The network has to do it in most of the sequences, and a constant must not, so that none
        that has learned nothing gets a program by this.
        """
        one = self.in_range
        return (
            one is not None
            and EXACT_SEQUENCES * one.sequences <= one.network_exact < one.sequences
            and one.constant_agreeing < EXACT_SEQUENCES * one.network_exact
            and (one.agreeing_exact or 0) >= EXPLAINED_EXACT * one.network_exact
        )

    @property
    def program(self) -> Program | None:
        """The program of heads on a tape, if one was found."""
        return self.candidate.program if self._tape_found else None

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        if self.table is not None and self.table.found:
            return f"program found: {self.table.verdict}"
        if self.candidate.program is None:
            return f"no program found: {self.candidate.reason}"
        if self.in_range is None:
            words = f"it explains {self.explained:.1%} of the recordings' bits"
        else:
            words = f"it explains {self.explained:.1%} of {self.in_range.sequences} fresh sequences"
        if self.found:
            one = self.in_range
            if one is not None and self.explained < EXPLAINED_SEQUENCES:
                words += (
                    f", {one.agreeing_exact} of the {one.network_exact} that the network answers "
                    "without a mistake"
                )
            return f"program found: {words}"
        return f"no program found: of the best, {words}, and {EXPLAINED_SEQUENCES:.0%} are asked"


def decipher(
    client: Client,
    model: str,
    *,
    sequences: int = SEQUENCES,
    locations: int | None = None,
    seed: int = 0,
    mechanism: bool = True,
    progress: Callable[[str], None] = lambda stage: None,
) -> Report:
    """
    Find the program of a served model, and measure how much of the network it explains.

    Args:
        client: A client of the server that has the model.
        model: Name of the model. Its task must be one of `ntm_tasks.TASKS`.
        sequences: Number of fresh sequences in range that the program is judged on. A mechanism is
            fitted to as many others, up to 256.
        locations: Memory locations of all sessions; None for the model's default.
        seed: Seed of all sequences. The same seed gives the same report.
        mechanism: Whether to look for a mechanism too, which takes most of the time.
        progress: Gets what is done next, in a few words, each time that this changes.

    Raises:
        InvalidRequest: the model's task is unknown, or `sequences` is less than 1.
    """
    network = ServedNetwork(client, model, locations)
    task = network.model.task
    if task not in TASKS:
        raise InvalidRequest(
            f"{model} has the task {task!r}, and sequences can be drawn of {', '.join(TASKS)}; "
            "load the task with `ntm_tasks.load`, or register it with `ntm_tasks.register`"
        )
    if sequences < 1:
        raise InvalidRequest(f"a program is judged by at least 1 sequence, not {sequences}")
    progress("recording sequences")
    recordings = network.recordings(in_range(task, RECORDINGS, seed, Stage.INDUCTION))
    missing = missing_traces(network.model)
    progress("looking for a program")
    candidate = _induced(recordings)
    program = candidate.program
    fresh = in_range(task, sequences, seed, Stage.AGREEMENT)
    some = in_range(task, min(sequences, CHANGED_SEQUENCES), seed, Stage.CHANGES)
    steps = np.cumsum([len(sequence.inputs) for sequence in some])
    hard = some[: max(1, int((steps <= HARD_STEPS).sum()))]
    beyond = max(1, sequences // LONGER_PART)
    table = None
    if program is None and not missing:
        progress("looking for a table of counts")
        table = decipher_table(network, recordings, some, sequences, beyond, seed)
    longer = [(size_text(size), of_size(task, size, beyond, seed)) for size in TASKS[task].longer]
    progress("comparing fresh sequences")
    alike = agree(program, network, fresh, "in range")
    alike_beyond = tuple(agree(program, network, each, sizes) for sizes, each in longer)
    judged = [("in range", fresh[:JUDGED]), *longer]
    fitted = min(sequences, FITTED)
    changes: list[Effect] = []
    studied: Study | None = None
    if program is not None:
        progress("changing states")
        made = change_sequences(program, network, some, seed)
        changes = effects(made, responding(program, network.memory_locations))
        if mechanism:
            progress("fitting a mechanism")
            studied = study(program, program.phases, network, judged, made, seed, fitted)
    elif mechanism and not missing and alike.network_exact >= EXACT_SEQUENCES * len(fresh):
        phases = find_phases([recording.inputs for recording in recordings])
        heads = busiest(recordings)
        if phases is not None and heads is not None:
            progress("fitting a mechanism")
            made = change_sequences(heads, network, some, seed)
            studied = study(heads, phases, network, judged, made, seed, fitted)
    progress("hardening heads and looking for counter-examples")
    return Report(
        network.model,
        network.memory_locations,
        seed,
        candidate,
        alike,
        alike_beyond,
        () if missing else tuple(habits(recordings)),
        () if missing else tuple(measures(recordings)),
        tuple(harden(network, hard, by) for by in WAYS)
        if network.memory_locations and not missing
        else (),
        search(program, network, seed) if program else None,
        tuple(changes),
        table,
        find_mistakes(program, network, fresh) if program else None,
        studied,
        () if program else tuple(assumptions(recordings)),
        mechanism,
    )


def _induced(recordings: Sequence[Recording]) -> Candidate:
    """Find a program on a tape; none if the network does not trace what that needs."""
    missing = missing_traces(recordings[0].model)
    if missing:
        names = ", ".join(missing)
        return Candidate(None, 0.0, 0.0, f"the network's heads are not an NTM's: no {names}")
    return induce(recordings)


def decipher_recordings(recordings: Sequence[Recording]) -> Report:
    """
    Find the program in recordings alone, without a server.

    The program is judged on the recordings that it was not induced from. Everything that needs the
    running network is left out.

    Raises:
        InvalidRequest: there are too few, they are not of one model and memory size, one lacks a
            trace, or one is no sequence of its task.
    """
    kinds = {(each.model.name, each.model.content_hash, each.locations) for each in recordings}
    if len(kinds) != 1:
        named = ", ".join(
            f"{name} {content_hash[:12]} with {locations} locations"
            for name, content_hash, locations in sorted(kinds)
        )
        raise InvalidRequest(f"the recordings are not of one model and memory size: {named}")
    # The same sequence again tells nothing new, and would be judged by what it was found in.
    recordings = list({each.inputs.tobytes(): each for each in recordings}.values())
    if len(recordings) < HELD_OUT:
        raise InvalidRequest(
            f"{len(recordings)} different sequence{'s' * (len(recordings) != 1)} cannot tell; "
            f"give recordings of at least {HELD_OUT}"
        )
    check_sequences(recordings)
    first = recordings[0]
    missing = missing_traces(first.model)
    candidate = _induced(recordings)
    return Report(
        first.model,
        first.locations,
        seed=0,
        candidate=candidate,
        in_range=None,
        longer=(),
        habits=() if missing else tuple(habits(recordings)),
        measures=() if missing else tuple(measures(recordings)),
        hardenings=(),
        search=None,
        effects=(),
        table=None if candidate.program or missing else find_table(recordings),
        assumptions=() if candidate.program else tuple(assumptions(recordings)),
    )
