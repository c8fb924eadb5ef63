"""
Checks what a program takes for granted, so that a report can say why none was found.

A program of heads on a tape has phases that begin with flags, heads that are at one location, and
outputs that repeat inputs. A network of somebody else need not work like this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ntm_client.values import Model
from ntm_lab.decipher.dataflow import REPEATS, find_dataflows
from ntm_lab.decipher.episode import Episode
from ntm_lab.decipher.phases import find_phases
from ntm_lab.recordings.instructions import MAJORITY
from ntm_lab.recordings.recording import Recording

NEEDED = (
    *("read_weighting", "write_weighting", "erase_vector", "add_vector", "read_vector"),
    *(f"{kind}_{part}" for kind in ("read", "write") for part in ("key", "gate", "shift")),
)
"""The traces that programs are found in."""

FOCUSED = 0.9
"""Heads are taken to be at one location if they are in this part of the steps."""

FEW = 32
"""Recordings that are looked at."""


@dataclass(frozen=True)
class Assumption:
    """Something that a program takes for granted."""

    text: str
    holds: bool
    found: str
    """What was found, in words."""


def missing_traces(model: Model) -> tuple[str, ...]:
    """The traces that deciphering needs and a network with heads does not have."""
    names = {trace.name for trace in model.traces}
    if not (model.read_heads or model.write_heads or names & set(NEEDED)):
        return ()
    return tuple(name for name in NEEDED if name not in names)


def assumptions(recordings: Sequence[Recording]) -> list[Assumption]:
    """
    Check what a program on a tape assumes, in recordings of a network.

    Empty for a network without heads. If traces are missing, nothing else can be checked.
    """
    some = recordings[:FEW]
    model = some[0].model
    if not (model.read_heads and model.write_heads):
        return []
    missing = missing_traces(model)
    text = "the network traces all that its heads do"
    if missing:
        return [Assumption(text, holds=False, found=f"it has no {', '.join(missing)}")]
    found = [Assumption(text, holds=True, found="it does")]
    phases = find_phases([each.inputs for each in some])
    text = "flags divide every sequence into the same phases"
    if phases is None:
        return [*found, Assumption(text, holds=False, found="their order differs"), *_focus(some)]
    flags = ", ".join(f"input {flag}" for flag in phases.flags)
    words = f"flags: {flags or 'none'}; phases: {len(phases.openers)}"
    found.append(Assumption(text, holds=True, found=words))
    found += _focus(some)
    episodes = [Episode.of(each, phases) for each in some]
    best = find_dataflows(episodes, phases)[0]
    repeats = len(best.channels)
    found.append(
        Assumption(
            f"each output repeats an input in {REPEATS:.0%} of the steps",
            holds=repeats == model.output_width,
            found=f"{repeats} of {model.output_width} outputs do",
        )
    )
    return found


def _focus(recordings: Sequence[Recording]) -> list[Assumption]:
    """For each head, whether it is at one location."""
    found = []
    for kind in ("read", "write"):
        weightings = np.concatenate([each.traces[f"{kind}_weighting"] for each in recordings])
        for head in range(weightings.shape[1]):
            share = float((weightings[:, head].max(1) > MAJORITY).mean())
            found.append(
                Assumption(
                    f"{kind} head {head + 1} is at one location in {FOCUSED:.0%} of the steps",
                    holds=share >= FOCUSED,
                    found=f"{share:.1%}",
                )
            )
    return found
