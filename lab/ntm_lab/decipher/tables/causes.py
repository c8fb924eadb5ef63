"""
Changes the memory of a running session where a table of counts is said to be, and compares the
effect with that on the table.

Two sessions are stepped through two sequences. Then the locations of one context are copied from
the memory of the second session into that of the first, by checkpoint and restore, and the first
goes on. If the counts are there and nowhere else, the first session then predicts from the second
one's counts after this context, and from its own after all others. A context of which these
locations have a part of the shares gets this part of the second one's counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ntm_client import checkpoint
from ntm_client.values import Float32
from ntm_lab.decipher.samples import ServedNetwork
from ntm_lab.decipher.tables.counting import SMALLEST, divergence
from ntm_lab.decipher.tables.places import Places
from ntm_lab.decipher.tables.table import CountTable, Float64, TableMachine
from ntm_tasks import TaskSequence

Kind = Literal["one context", "one context, from earlier", "all of memory"]

KINDS: tuple[Kind, ...] = ("one context", "one context, from earlier", "all of memory")
"""
The locations of one context from another sequence, these from an earlier step of the same sequence,
and the whole memory from another sequence.
"""


@dataclass(frozen=True)
class TableEffect:
    """The effect of changes of one kind, summed over sequences."""

    kind: Kind
    sequences: int
    network_changed: float
    """
    How much the network's predictions after the change differ from those without it, in bits a
    sequence.
    """
    left: float
    """How much they differ from those of the table after its change, in bits a sequence."""
    foretold: float
    """
    The part of the change that the table foretold: 1 - sum (a - b)^2 / sum a^2, where a is the
    change of the network's log-odds in a step, and b that of the table's.
    """
    foretold_inside: float
    """
    The same in the steps of the contexts that should change: those of which at least half of the
    shares are at the changed locations.
    """


@dataclass(frozen=True)
class _Change:
    """A change for one sequence."""

    kind: Kind
    step: int
    """The first step after the change."""
    context: int
    earlier: int
    """The step whose memory is taken, if it is the same sequence's."""


@dataclass(frozen=True, eq=False)
class _Runs:
    """Probabilities [steps after the change] with and without it, of both, and more."""

    network_before: Float64
    network: Float64
    table_before: Float64
    table: Float64
    inside: npt.NDArray[np.bool_]


def table_effects(
    table: CountTable,
    places: Places,
    network: ServedNetwork,
    sequences: Sequence[TaskSequence],
    seed: int = 0,
) -> list[TableEffect]:
    """
    Make one change of each kind in each sequence, at a step and a context drawn from the seed.

    A change of one context is made at one whose counts were found. There must be two sequences.
    """
    found = [number for number, place in enumerate(places.places) if place.locations]
    plain = network.outputs([sequence.inputs for sequence in sequences])
    effects = []
    for kind in KINDS:
        luck = np.random.default_rng([seed, KINDS.index(kind)])
        changes = []
        for index, sequence in enumerate(sequences):
            steps = len(sequence.inputs)
            step = int(luck.integers(steps // 3, 2 * steps // 3 + 1))
            context = int(luck.choice(found)) if found else 0
            change = _Change(kind, step, context, earlier=step // 3)
            changes.append((index, change))

        def run(each: tuple[int, _Change]) -> _Runs:
            index, change = each
            other = sequences[(index + 1) % len(sequences)]
            return _run(table, places, network, sequences[index], other, plain[index], change)

        if found or kind == "all of memory":
            effects.append(_effect(kind, network.each(run, changes)))
    return effects


def _run(
    table: CountTable,
    places: Places,
    network: ServedNetwork,
    sequence: TaskSequence,
    other: TaskSequence,
    plain: Float32,
    change: _Change,
) -> _Runs:
    """Run a sequence with a change; `plain` has the network's outputs without it."""
    inputs, step = sequence.inputs, change.step
    given = inputs[: change.earlier] if "earlier" in change.kind else other.inputs[:step]
    with network.session() as session, network.session() as donor:
        session.step(inputs[:step])
        donor.step(given)
        state = checkpoint.decode(session.checkpoint())
        memory = state.tensor("memory", session.model)
        theirs = checkpoint.decode(donor.checkpoint()).tensor("memory", session.model)
        if change.kind == "all of memory":
            parts = np.ones(len(places.shares))
            memory = theirs
        else:
            locations = places.locations(change.context)
            parts = np.clip(places.shares[:, locations].sum(1), 0, 1)
            # The locations of a context have all of its counts but a rest.
            parts[change.context] = 1
            memory[:, locations] = theirs[:, locations]
        session.restore(checkpoint.encode(state.changed(memory=memory)))
        after = session.step(inputs[step:]).array
    machine, unchanged, giver = (TableMachine(table) for _ in range(3))
    for each in (machine, unchanged):
        each.run(inputs[:step])
    giver.run(given)
    found, before, inside = [], [], []
    for later, x in enumerate(inputs[step:]):
        if later == places.delay:
            # What was read before the change serves the predictions until here.
            machine.counts += parts[:, None] * (giver.counts - machine.counts)
        found.append(machine.step(x))
        before.append(unchanged.step(x))
        inside.append(machine.context is not None and parts[machine.context] >= 0.5)
    counts = sequence.mask[step:] > 0
    return _Runs(
        plain[step:, 0].astype(np.float64)[counts],
        after[:, 0].astype(np.float64)[counts],
        np.array(before)[counts],
        np.array(found)[counts],
        np.array(inside, np.bool_)[counts],
    )


def _effect(kind: Kind, runs: Sequence[_Runs]) -> TableEffect:
    network_before, network, table_before, table = (
        np.concatenate([getattr(run, name) for run in runs])
        for name in ("network_before", "network", "table_before", "table")
    )
    inside = np.concatenate([run.inside for run in runs])
    by_network = _logits(network) - _logits(network_before)
    missed = by_network - (_logits(table) - _logits(table_before))
    return TableEffect(
        kind,
        len(runs),
        network_changed=float(divergence(network, network_before).sum() / len(runs)),
        left=float(divergence(network, table).sum() / len(runs)),
        foretold=_foretold(by_network, missed),
        foretold_inside=_foretold(by_network[inside], missed[inside]),
    )


def _foretold(change: Float64, missed: Float64) -> float:
    total = float((change**2).sum())
    return 1 - float((missed**2).sum()) / total if total else 0.0


def _logits(probabilities: Float64) -> Float64:
    kept = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    logits: Float64 = np.log(kept / (1 - kept))
    return logits
