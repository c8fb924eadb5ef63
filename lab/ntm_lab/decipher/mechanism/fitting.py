"""Fits a mechanism to what a network's heads did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ntm_client.values import Float32, Memory
from ntm_lab.decipher.mechanism.activations import (
    Floats,
    inverse_hyperbolic,
    inverse_softplus,
    logit,
)
from ntm_lab.decipher.mechanism.descent import SATURATED, Aim, Examples, fitted_layer
from ntm_lab.decipher.mechanism.knowledge import FIRST_STEPS, Knowledge, Known
from ntm_lab.decipher.mechanism.model import Mechanism, Part, columns
from ntm_lab.decipher.mechanism.trials import PARAMETERS, Trial
from ntm_lab.decipher.phases import Phases

REMEMBERED = 4
"""The last steps that are known where the controller has a state of its own."""

DECAY = 0.003
"""How fast coefficients decay where what is known decides all that the heads do."""

DECAY_IF_REMEMBERED = 0.1
"""The same where the controller remembers more than what is known."""

DISTURBED_MORE = 1.5
"""All disturbed trials are drawn so many times as often as all others."""

ADDED = 2.0
"""
The weight of what is added. A head still finds its place if its key is a bit off, but what is
written a bit off is read so later, and written again.
"""

LEAST_SHARE = 1e-30
"""The smallest weight of a shift whose logarithm is taken."""


def fitted(
    trials: Sequence[Trial], start: Memory, phases: Phases, *, remembers: bool, seed: int
) -> Mechanism:
    """
    The mechanism that does in each step of the trials nearly what the network did.

    `remembers` says that the controller has a state of its own. Then what was seen in the steps
    before is known too, and so is the place among the phases; a mechanism counts if the value of a
    flag varies.
    """
    known = Known(REMEMBERED, clock=True, counts=_asks(trials)) if remembers else Known()
    parts = columns(start)
    weights = np.zeros(max(part.stop for part in parts.values()), np.float32)
    ends = np.full_like(weights, SATURATED)
    for part, place in parts.items():
        weights[place] = (place.stop - place.start) ** -0.5
        if part in ("strength", "sharpening"):
            ends[place] = np.inf
    weights[parts["add"]] *= ADDED
    aim = Aim(weights, ends, DECAY_IF_REMEMBERED if remembers else DECAY)
    layer = fitted_layer(_examples(trials, known, phases), aim, seed)
    return Mechanism(phases, start, known, layer)


def _asks(trials: Sequence[Trial]) -> bool:
    """Whether the flag that began the last phase had more than one value."""
    return len({trial.moments[-1].values[-1] for trial in trials}) > 1


def _examples(trials: Sequence[Trial], known: Known, phases: Phases) -> Examples:
    """All steps of all trials. Steps of rare situations are drawn more often than others."""
    places = [
        (one.phase, min(one.offset, FIRST_STEPS)) for trial in trials for one in trial.moments
    ]
    often = Counter(places)
    shares = np.array([often[place] ** -0.5 for place in places], np.float32)
    disturbed = np.concatenate([[trial.noise is not None] * len(trial.inputs) for trial in trials])
    if disturbed.any():
        shares[disturbed] *= DISTURBED_MORE * shares[~disturbed].sum() / shares[disturbed].sum()
    counted = np.concatenate([trial.counts > 0 for trial in trials])
    outputs = np.concatenate([logit(trial.outputs.astype(np.float64)) for trial in trials])
    return Examples(
        np.concatenate([_known(trial, known, phases) for trial in trials]),
        np.concatenate(
            [trial.traces["read_vector"].reshape(len(trial.inputs), -1) for trial in trials]
        ),
        np.concatenate([_wanted(trial) for trial in trials]),
        outputs.astype(np.float32),
        counted[:, None].astype(np.float32),
        shares,
    )


def _known(trial: Trial, known: Known, phases: Phases) -> Float32:
    """[T, F]: what was known in each step."""
    knowledge = Knowledge(known, phases, trial.inputs[None], trial.seen[0].size)
    rows = [knowledge.at(step, read[None]) for step, read in enumerate(trial.seen)]
    return np.concatenate(rows)


def _wanted(trial: Trial) -> Float32:
    """[T, K]: what the heads did in each step, before the activation functions."""
    traces = {
        name: np.concatenate(
            [trial.traces[f"read_{name}"], trial.traces[f"write_{name}"]], 1, dtype=np.float64
        )
        for name in PARAMETERS
    }
    shares = np.log(np.maximum(traces["shift"], LEAST_SHARE))
    found: dict[Part, Floats] = {
        "key": inverse_hyperbolic(traces["key"]),
        "strength": inverse_softplus(traces["strength"]),
        "gate": logit(traces["gate"]),
        "shift": shares - shares.mean(2, keepdims=True),
        "sharpening": inverse_softplus(traces["sharpening"] - 1),
        "erase": logit(trial.traces["erase_vector"].astype(np.float64)),
        "add": inverse_hyperbolic(trial.traces["add_vector"].astype(np.float64)),
    }
    steps = len(trial.inputs)
    return np.concatenate(
        [values.reshape(steps, -1) for values in found.values()], 1, dtype=np.float32
    )
