"""Programs are found in recordings of what runs them, and in nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ntm_client import Client
from ntm_lab.decipher.induction import Candidate, induce
from ntm_lab.decipher.machine import Machine
from ntm_lab.decipher.program import Place, Program, StoreRule
from ntm_lab.decipher.samples import ServedNetwork, Stage, in_range
from ntm_lab.recordings.recording import Recording
from tests.lab.decipher.programs import COPY, ON, PROGRAMS, recorded, sequence


def recordings(program: Program, count: int = 48) -> list[Recording]:
    """Recordings of so many sequences."""
    random = np.random.default_rng(1)
    return [recorded(program, sequence(program, random)) for _ in range(count)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_found_that_does_the_same(name: str) -> None:
    """On fresh sequences it puts out what the true one does, with the heads at the same places."""
    program = PROGRAMS[name]
    found = induce(recordings(program))

    assert found.program is not None
    assert (found.explained, found.located) == (1, 1)
    random = np.random.default_rng(2)
    for _ in range(50):
        inputs = sequence(program, random)
        true = recorded(program, inputs)
        assert true.mask is not None
        outputs = Machine(found.program, program.locations).run(inputs)
        np.testing.assert_array_equal(outputs[true.mask > 0], true.outputs[true.mask > 0])


def test_a_program_for_one_size_holds_for_longer_sequences() -> None:
    """What was found on up to 5 vectors copies 12, for nothing in it is counted out."""
    found = induce(recordings(COPY)).program
    assert found is not None
    random = np.random.default_rng(3)
    inputs = np.zeros((25, 4), np.float32)
    inputs[:12, :3] = random.integers(0, 2, (12, 3))
    inputs[12, 3] = 1

    np.testing.assert_array_equal(Machine(found, 16).run(inputs)[12:24], inputs[:12, :3])


@pytest.mark.parametrize("locations", [16, 40, None])
def test_a_first_step_of_its_own_is_told_by_where_the_head_starts(locations: int | None) -> None:
    """A head that holds and then shifts on shifts from one location before, on any ring."""
    found = induce(recordings(COPY)).program
    assert found is not None
    inputs = sequence(COPY, np.random.default_rng(4))

    assert (found.write_from, found.read_from) == (-1, -1)
    assert (found.body[0].write, found.body[1].read) == ((ON,), (ON,))
    np.testing.assert_array_equal(
        Machine(found, locations).run(inputs), Machine(COPY, locations).run(inputs)
    )


@pytest.mark.parametrize("name", ["repeat-copy-ntm-lstm", "repeat-copy-ntm-ff"])
def test_repeat_copy_is_found_as_a_queue_and_as_a_loop(shipped: Client, name: str) -> None:
    """The one writes again all that it reads, behind the last vector; the other only the first."""
    network = ServedNetwork(shipped, name)
    found = induce(network.recordings(in_range("repeat-copy", 64, 0, Stage.INDUCTION))).program

    assert found is not None
    answering = found.body[1]
    # Which way a network goes on is chance.
    end, onwards = (2, -1) if name == "repeat-copy-ntm-ff" else (None, 1)
    assert answering.store == StoreRule("read", first=1 if end else 0, end=end)
    assert Place("end", 0, offset=onwards) in [rule.move.place for rule in answering.write]


def test_names_of_tasks_and_targets_do_not_matter() -> None:
    """The same program is found if the recordings say that they are of another task."""
    plain = recordings(COPY)
    misled = [
        replace(
            recording,
            model=replace(recording.model, task="priority-sort"),
            target=np.ones_like(recording.outputs),
        )
        for recording in plain
    ]

    assert induce(misled) == induce(plain)


def test_outputs_by_chance_have_no_program() -> None:
    """A network whose outputs have nothing to do with its heads explains nothing."""
    random = np.random.default_rng(4)
    noise = [
        replace(recording, outputs=random.random(recording.outputs.shape, np.float32))
        for recording in recordings(COPY)
    ]

    found = induce(noise)
    assert found.program is None
    assert found.explained < 0.5
    assert "the best program explains" in found.reason


def test_a_program_that_explains_most_is_none() -> None:
    """With one bit in twenty wrong by chance, nine tenths are explained: too little."""
    random = np.random.default_rng(6)
    faulty = [
        replace(
            recording,
            outputs=np.abs(recording.outputs - (random.random(recording.outputs.shape) < 0.05)),
        )
        for recording in recordings(COPY)
    ]

    found = induce(faulty)
    assert found.program is None
    assert 0.8 < found.explained < 0.95


def test_heads_that_are_elsewhere_have_no_program() -> None:
    """The right outputs with heads that stand still are not the work of these heads."""
    still = [
        replace(
            recording,
            traces={
                **recording.traces,
                "write_weighting": recording.traces["write_weighting"][:1].repeat(
                    len(recording.inputs), 0
                ),
            },
        )
        for recording in recordings(COPY)
    ]

    assert induce(still).program is None


def test_spread_heads_have_no_program() -> None:
    """Heads that are nowhere in particular cannot be followed."""
    spread = [
        replace(
            recording,
            traces={
                name: np.full_like(values, 1 / 16) if name.endswith("weighting") else values
                for name, values in recording.traces.items()
            },
        )
        for recording in recordings(COPY)
    ]

    found = induce(spread)
    assert found.program is None
    assert found.explained < 0.5


def test_constant_outputs_have_no_program() -> None:
    """A program that always says the same would agree, and say nothing."""
    silent = [
        replace(recording, outputs=np.zeros_like(recording.outputs))
        for recording in recordings(COPY)
    ]

    expected = "the outputs hardly vary: a constant gives 100.0% of the bits"
    assert induce(silent) == Candidate(None, 0.0, 0.0, expected)


def test_networks_without_heads_have_no_program() -> None:
    """An LSTM has no heads, so no program is found in it."""
    without = [
        replace(
            recording,
            model=replace(recording.model, read_heads=0, write_heads=0, traces=()),
            traces={},
            before=None,
            after=None,
        )
        for recording in recordings(COPY, 4)
    ]

    assert induce(without).reason == "the network has no heads and no memory"


def test_too_few_recordings_are_refused() -> None:
    """Three recordings are refused, because none could be held out."""
    with pytest.raises(ValueError, match="3 recordings are too few; take 4 or more"):
        induce(recordings(COPY, 3))
