"""What a mechanism is fitted to."""

from __future__ import annotations

import numpy as np

from ntm_client.values import Float32, Memory
from ntm_lab.decipher.mechanism.fitting import fitted
from ntm_lab.decipher.mechanism.model import columns, with_one
from ntm_lab.decipher.mechanism.trials import Trial
from ntm_lab.decipher.phases import Opener, Phases, moments

PHASES = Phases((), (0,), (Opener(None, again=False),))
FIRST = np.eye(3, dtype=np.float32)[:1]
START = Memory(0, np.zeros((3, 1), np.float32), FIRST, FIRST)
STEPS = 40


def trial(noise: Float32 | None) -> Trial:
    """One head of each kind, with nothing to read; what is added is half of the noise."""
    nothing = np.zeros((STEPS, 1, 1), np.float32)
    one = {
        "key": nothing,
        "strength": nothing + 1,
        "gate": nothing + 0.5,
        "shift": np.repeat(nothing + 1 / 3, 3, 2),
        "sharpening": nothing + 2,
    }
    traces = {f"{kind}_{name}": each for kind in ("read", "write") for name, each in one.items()}
    traces |= {"read_vector": nothing, "erase_vector": nothing + 0.5}
    traces["add_vector"] = nothing if noise is None else noise / 2
    inputs = nothing[:, 0]
    counts = np.ones(STEPS, np.float32)
    return Trial(inputs, counts, moments(PHASES, inputs), None, inputs + 0.5, traces, noise)


def test_noise_on_what_was_read_is_known_to_the_layer() -> None:
    """So that what heads do follows it, as it does in the network."""
    luck = np.random.default_rng(0)
    noises = luck.uniform(-1, 1, (60, STEPS, 1, 1)).astype(np.float32)
    trials = [trial(None), *(trial(noise) for noise in noises)]
    layer = fitted(trials, START, PHASES, remembers=False, seed=0).layer

    read = np.linspace(-0.9, 0.9, 7, dtype=np.float32)[:, None]
    units = np.tanh(with_one(np.concatenate([0 * read, read], 1)) @ layer.units)
    added = np.tanh((with_one(units) @ layer.heads)[:, columns(START)["add"]] / 2)
    assert np.abs(added - read / 2).max() < 0.1


def test_disturbed_trials_outweigh_the_others_however_few_they_are() -> None:
    """Where one of them adds a half after the same reads as sixty others, which add nothing."""
    disturbed = trial(np.zeros((STEPS, 1, 1), np.float32))
    disturbed.traces["add_vector"][:] = 0.5
    layer = fitted([*[trial(None)] * 60, disturbed], START, PHASES, remembers=False, seed=0).layer

    units = np.tanh(with_one(np.zeros((1, 2), np.float32)) @ layer.units)
    added = np.tanh((with_one(units) @ layer.heads)[0, columns(START)["add"]] / 2)
    assert added[0] > 0.25
