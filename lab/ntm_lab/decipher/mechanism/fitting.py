"""Finds the maps of a mechanism from what a network's heads did."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ntm_client.values import Float32, Memory
from ntm_lab.decipher.mechanism.model import Counter, Mechanism, Part, Situation
from ntm_lab.decipher.mechanism.regression import (
    Floats,
    affine,
    hyperbolic,
    inverse_softplus,
    logistic,
)
from ntm_lab.decipher.mechanism.running import begins
from ntm_lab.decipher.mechanism.trials import PARAMETERS, Trial
from ntm_lab.decipher.phases import Phases

MAX_EXAMPLES = 4000
"""The largest number of steps from which the maps of a situation are fitted."""

LEAST_SHARE = 1e-6
"""The smallest weight of a shift whose logarithm is taken."""


def fitted(trials: Sequence[Trial], start: Memory, phases: Phases, *, remembers: bool) -> Mechanism:
    """
    The mechanism that does in each step of the trials nearly what the network did.

    `remembers` says that the controller has a state of its own. Then what it saw in the steps
    before is known too, and the jumps are counted if a flag's value asks for some.
    """
    past = 3 if remembers else 1
    mechanism = Mechanism(phases, start, past, max(1, past - 1), None, {})
    if remembers:
        mechanism = _with_counter(mechanism, trials)
    examples = _examples(mechanism, trials)
    maps = {situation: _maps(rows) for situation, rows in examples.items()}
    return replace(mechanism, maps=maps)


def _with_counter(mechanism: Mechanism, trials: Sequence[Trial]) -> Mechanism:
    """
    The mechanism with a counter, if the jumps of a read head follow a flag's value.

    The number of jumps is that before the last step that counts; the most frequent one for each
    value.
    """
    plain = [trial for trial in trials if trial.change is None]
    for head in range(mechanism.read_heads):
        jumps: dict[float, Tally[int]] = {}
        for trial in plain:
            last = int(np.flatnonzero(trial.counts)[-1])
            moment = trial.moments[last]
            first = next(
                step for step, one in enumerate(trial.moments) if one.phase == moment.phase
            )
            made = int((trial.traces["read_gate"][first:last, head, 0] > 0.5).sum())
            jumps.setdefault(moment.values[moment.phase], Tally())[made] += 1
        if len(jumps) < 3:
            return mechanism
        values = np.array(list(jumps))
        usual = np.array([tally.most_common(1)[0][0] for tally in jumps.values()])
        slope, intercept = np.polyfit(values, usual, 1)
        if slope and (np.rint(slope * values + intercept) == usual).mean() > 0.8:
            return replace(mechanism, counter=Counter(head, float(slope), float(intercept)))
    return mechanism


class _Rows:
    """The steps of one situation, of which lists become arrays."""

    def __init__(self) -> None:
        self.features: list[Floats] = []
        self.known: list[Floats] = []
        self.counted: list[bool] = []
        self.wanted: dict[Part, list[Floats]] = {}


def _examples(mechanism: Mechanism, trials: Sequence[Trial]) -> dict[Situation, _Rows]:
    found: dict[Situation, _Rows] = {}
    for trial in trials:
        wanted = _wanted(trial)
        reads = trial.traces["read_vector"]
        before: list[Float32] = [np.zeros_like(reads[:1])]
        count = 0.0
        for step, moment in enumerate(trial.moments):
            if begins(trial.moments, step):
                count = 0.0
            value = moment.values[moment.phase]
            features = mechanism.features(
                trial.inputs[None], step, np.array([value]), np.array([count]), before
            )[0]
            rows = found.setdefault(
                mechanism.situation(moment.phase, moment.offset, value, count), _Rows()
            )
            rows.features.append(features)
            rows.known.append(np.concatenate([features, reads[step].ravel().astype(np.float64)]))
            rows.counted.append(bool(trial.counts[step] > 0))
            for part, values in wanted.items():
                rows.wanted.setdefault(part, []).append(values[step])
            before = [reads[step : step + 1], *before][: mechanism.read_steps]
            if mechanism.counter is not None:
                count += trial.traces["read_gate"][step, mechanism.counter.head, 0] > 0.5
    return found


def _wanted(trial: Trial) -> dict[Part, Floats]:
    """What the heads did in each step [T, K], the heads side by side."""
    steps = len(trial.inputs)
    traces = {
        name: np.concatenate([trial.traces[f"read_{name}"], trial.traces[f"write_{name}"]], 1)
        for name in PARAMETERS
    }
    shares = np.maximum(traces["shift"].astype(np.float64), LEAST_SHARE)
    found: dict[Part, np.ndarray] = {
        "key": traces["key"],
        "strength": inverse_softplus(traces["strength"].astype(np.float64)),
        "gate": traces["gate"],
        "shift": np.log(shares / shares.max(2, keepdims=True)),
        "sharpening": inverse_softplus(traces["sharpening"].astype(np.float64) - 1),
        "erase": trial.traces["erase_vector"],
        "add": trial.traces["add_vector"],
        "output": trial.outputs,
    }
    return {part: values.reshape(steps, -1).astype(np.float64) for part, values in found.items()}


def _maps(rows: _Rows) -> dict[Part, Floats]:
    """The map of each part in a situation."""
    some = slice(None, None, -(-len(rows.features) // MAX_EXAMPLES))
    features, known = np.array(rows.features)[some], np.array(rows.known)[some]
    wanted = {part: np.array(values)[some] for part, values in rows.wanted.items()}
    counted = np.array(rows.counted)[some]
    outputs = wanted["output"][counted]
    fits = {
        "key": hyperbolic,
        "add": hyperbolic,
        "gate": logistic,
        "erase": logistic,
        "strength": affine,
        "sharpening": affine,
        "shift": affine,
    }
    maps: dict[Part, Floats] = {
        part: fits[part](features, values) for part, values in wanted.items() if part != "output"
    }
    maps["output"] = (
        logistic(known[counted], outputs)
        if len(outputs)
        else np.zeros((known.shape[1], wanted["output"].shape[1]))
    )
    return maps
