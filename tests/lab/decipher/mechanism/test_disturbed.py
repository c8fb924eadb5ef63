"""Sequences whose state is disturbed all the time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ntm_client import Client, checkpoint
from ntm_lab.decipher.mechanism.disturbed import NOISE, disturbed_trials
from ntm_lab.decipher.mechanism.trials import Trial, plain_trials
from ntm_lab.decipher.samples import ServedNetwork, Stage, in_range
from tests.lab.decipher.copy_program import copy_program

SEQUENCES = in_range("copy", 8, 0, Stage.INDUCTION)


@pytest.fixture(scope="module")
def network(shipped: Client) -> ServedNetwork:
    """A network whose controller sees nothing but the input and what was read."""
    return ServedNetwork(shipped, "copy-ntm-ff")


def disturbed(network: ServedNetwork) -> list[Trial]:
    """Each sequence once."""
    return disturbed_trials(network, SEQUENCES, copy_program().phases, seed=1)


def test_what_was_seen_leads_to_what_was_done(network: ServedNetwork) -> None:
    """In a fresh session that is given the same as read, the heads have the same keys and adds."""
    trial = disturbed(network)[0]
    for step in (0, 1, len(trial.inputs) - 1):
        with network.session() as session:
            state = checkpoint.decode(session.checkpoint())
            given = state.changed(read_vector=trial.seen[step])
            session.restore(checkpoint.encode(given))
            found = session.step(trial.inputs[step : step + 1], traces=["read_key", "add_vector"])
        for name, values in found.traces.items():
            assert values[0] == pytest.approx(trial.traces[name][step], abs=1e-4)


def test_noise_is_of_another_size_in_each_sequence(network: ServedNetwork) -> None:
    """It stays between the two bounds, and begins after the first step."""
    sizes = []
    for trial in disturbed(network):
        assert trial.noise is not None
        assert not trial.noise[0].any()
        sizes.append(float(trial.noise[1:].std()))
    assert NOISE[0] < min(sizes) < max(sizes) / 4
    assert max(sizes) < NOISE[1]


def test_memory_and_heads_are_changed_too(network: ServedNetwork) -> None:
    """With little noise on what is read, some sequences still lead to other outputs."""
    sequences = [SEQUENCES[0]] * 24
    phases = copy_program().phases
    plain = plain_trials(network, sequences[:1], phases)[0]
    found = disturbed_trials(network, sequences, phases, seed=1)
    quiet = [one for one in found if one.noise is not None and one.noise.std() < 0.05]
    wrong = [_wrong(one, plain) for one in quiet]
    assert len(wrong) > 4
    assert max(wrong) > 4
    assert min(wrong) == 0


def _wrong(one: Trial, plain: Trial) -> int:
    counted = plain.counts > 0
    return int(((one.outputs > 0.5) != (plain.outputs > 0.5))[counted].sum())


def test_equal_seeds_disturb_alike(network: ServedNetwork) -> None:
    """Whatever the order in which sessions run."""

    def outputs(trials: Sequence[Trial]) -> list[list[float]]:
        return [trial.outputs.ravel().tolist() for trial in trials]

    assert outputs(disturbed(network)) == outputs(disturbed(network))
