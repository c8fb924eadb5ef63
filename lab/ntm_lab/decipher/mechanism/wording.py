"""Writes a mechanism as pseudo-code: what each head does in each phase, and its constant keys."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from ntm_client.values import Float32
from ntm_lab.decipher.mechanism.knowledge import FIRST_STEPS
from ntm_lab.decipher.mechanism.model import Mechanism
from ntm_lab.decipher.mechanism.trials import Trial
from ntm_lab.decipher.phases import Moment

OPEN = 0.5
"""A head goes by content if its gate is above this, and else by its last weighting."""

OFTEN = 0.95
"""What a head does in this part of the steps is said without a condition."""

CONSTANT = 0.9
"""A key is called constant if its mean cosine with the mean key is above this."""


class MechanismLine(NamedTuple):
    """A line of the pseudo-code, and the steps that it speaks of."""

    text: str
    phase: int | None
    """The phase; None for a line about every phase."""
    first: int = 0
    """The first step in the phase."""
    last: int | None = None
    """The last step in the phase; None if the line holds to the phase's end."""
    executed: bool = True
    """Whether heads or outputs do it; otherwise it explains a key."""

    def holds(self, moment: Moment) -> bool:
        """Whether the line is about this step."""
        inside = self.first <= moment.offset and (self.last is None or moment.offset <= self.last)
        return self.executed and self.phase in (None, moment.phase) and inside


def pseudo_code(mechanism: Mechanism, trials: Sequence[Trial]) -> tuple[MechanismLine, ...]:
    """The lines of the pseudo-code, from plain trials with traces."""
    plain = [trial for trial in trials if trial.change is None]
    keys: list[str] = []
    phases = range(len(mechanism.phases.openers))
    heads = range(mechanism.read_heads + mechanism.write_heads)
    doing = [
        [
            line
            for head in heads
            if head not in mechanism.dropped
            for line in _head(mechanism, plain, phase, head, keys)
        ]
        for phase in phases
    ]
    always = [
        line._replace(phase=None)
        for line in doing[0]
        if len(phases) > 1
        and all(line._replace(phase=phase) in one for phase, one in enumerate(doing))
    ]
    lines = [MechanismLine("in every phase, at each step:", None), *always] if always else []
    for phase, own in zip(phases, doing, strict=True):
        lines.append(MechanismLine(_opening(mechanism, phase), phase))
        lines += [line for line in own if line._replace(phase=None) not in always]
        if any(
            trial.counts[step] > 0
            for trial in plain
            for step, moment in enumerate(trial.moments)
            if moment.phase == phase
        ):
            emits = "    emit what the vectors read now and one step ago stand for"
            lines.append(MechanismLine(emits, phase))
    explained = (f"K{index + 1}: {text}" for index, text in enumerate(keys))
    return (*lines, *(MechanismLine(text, None, executed=False) for text in explained))


def _opening(mechanism: Mechanism, phase: int) -> str:
    openers = mechanism.phases.openers
    channel = openers[phase].channel
    text = f"phase {phase}"
    if channel is not None:
        text += f", from the step 0 in which input {channel} is set"
        text += ", and again whenever it is" if openers[phase].again else ""
    return f"{text}, at each step:"


def _head(
    mechanism: Mechanism, trials: Sequence[Trial], phase: int, head: int, keys: list[str]
) -> list[MechanismLine]:
    """The lines of one head in one phase. Neighbouring steps with the same words share a line."""
    reads = head < mechanism.read_heads
    row = head if reads else head - mechanism.read_heads
    kind = "read" if reads else "write"
    words = []
    for first in range(FIRST_STEPS + 1):
        found = [
            (trial, step)
            for trial in trials
            for step, moment in enumerate(trial.moments)
            if moment.phase == phase and min(moment.offset, FIRST_STEPS) == first
        ]
        if found:
            words.append((first, _words(trials, found, kind, row, keys)))
    lines = []
    for text, group in groupby(words, key=lambda one: one[1]):
        steps = [step for step, _ in group]
        first, last = steps[0], None if steps[-1] == words[-1][0] else steps[-1]
        if len(steps) == len(words):
            when = ""
        elif last is None:
            when = f"from step {first} on: "
        else:
            when = f"at step {first}: " if first == last else f"from step {first} to {last}: "
        does = "reads" if reads else "writes a code of the input and of what was read"
        lines.append(
            MechanismLine(f"    {when}{kind} head {row + 1} {text} and {does}", phase, first, last)
        )
    return lines


def _words(
    trials: Sequence[Trial],
    found: Sequence[tuple[Trial, int]],
    kind: str,
    row: int,
    keys: list[str],
) -> str:
    def of(name: str) -> Float32:
        values: Float32 = np.array(
            [trial.traces[f"{kind}_{name}"][step, row] for trial, step in found]
        )
        return values

    opened = of("gate")[:, 0] > OPEN
    share = float(opened.mean())
    shift = of("shift").argmax(1) - 1

    def shifted(rows: Float32) -> str:
        usual = int(np.bincount(rows.astype(int) + 1, minlength=3).argmax()) - 1
        return f"shifts {usual:+d}" if usual else "stays"

    if share < 1 - OFTEN:
        return shifted(shift)
    key = _key(trials, of("key")[opened], found, keys)
    usual = shifted(shift[opened])
    goes = f"goes to the location most like {key}" + ("" if usual == "stays" else f", {usual}")
    if share > OFTEN:
        return goes
    other = shifted(shift[~opened])
    return f"{other}, or, where the last read or the input opens its gate, {goes},"


def _key(
    trials: Sequence[Trial], keys: Float32, found: Sequence[tuple[Trial, int]], names: list[str]
) -> str:
    """A name of a constant key, with its explanation added to `names`; or a function in words."""
    units = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    mean = units.mean(0)
    if float(np.linalg.norm(mean)) < CONSTANT:
        silent = all(not trial.inputs[step].any() for trial, step in found)
        return "a key made of what was read" if silent else "a key made of the input"
    best, likest = "", -2.0
    places = sorted({(one.phase, one.offset) for trial in trials for one in trial.moments})
    for phase, offset in places:
        if offset > FIRST_STEPS:
            continue
        added = [
            vector
            for trial in trials
            for step, one in enumerate(trial.moments)
            if (one.phase, one.offset) == (phase, offset)
            for vector in [trial.traces["add_vector"][step]]
        ]
        for head, vector in enumerate(np.mean(added, axis=0)):
            cosine = float(vector @ mean / np.linalg.norm(vector) / np.linalg.norm(mean))
            if cosine > likest:
                likest = cosine
                best = f"write head {head + 1} adds on average at step {offset} of phase {phase}"
    text = f"a learned constant, most like what {best} (cosine {likest:.2f})"
    if text not in names:
        names.append(text)
    return f"K{names.index(text) + 1}"
