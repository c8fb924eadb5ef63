"""The programs that the networks that ship run, found through the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from ntm_client import Client
from ntm_lab.decipher.induction import Candidate, induce
from ntm_lab.decipher.listing import listing
from ntm_lab.decipher.machine import Machine
from ntm_lab.recordings.instructions import instructions
from ntm_lab.recordings.recording import Recording, record_task
from ntm_tasks import TASKS, Size, TaskSequence
from service.settings import Settings
from tests.conftest import Running, serving
from tests.support.served import MODELS

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """A server of the models that ship."""
    settings = Settings(models_dir=MODELS, device="cpu", port=0, metrics_port=0)
    async with serving(settings) as running:
        yield running


async def recorded(
    running: Running, model: str, count: int, seed: int, size: Size | None = None
) -> list[Recording]:
    """So many sequences of a model's task, of that size or of all sizes of training."""

    def record() -> list[Recording]:
        random = np.random.default_rng(seed)
        made = []
        with Client(running.address) as client:
            name = client.model(model).task
            task = TASKS[name]
            for _ in range(count):
                drawn = [
                    int(random.integers(low, high + 1))
                    for low, high in zip(task.smallest, task.largest, strict=True)
                ]
                sequence = TaskSequence.draw(
                    name, size or tuple(drawn), int(random.integers(2**31))
                )
                with client.create_session(model) as session:
                    made.append(record_task(session, sequence))
        return made

    return await asyncio.to_thread(record)


def disagreements(found: Candidate, recordings: list[Recording]) -> list[Recording]:
    """The recordings in which a bit that counts is not the program's."""
    assert found.program is not None
    return [
        recording
        for recording in recordings
        if recording.mask is not None
        and (
            (Machine(found.program, recording.locations).run(recording.inputs) > 0.5)
            != (recording.outputs > 0.5)
        )[recording.mask > 0].any()
    ]


def network_errs(recording: Recording) -> bool:
    """Whether a bit is not what the task asks."""
    assert recording.target is not None
    assert recording.mask is not None
    wrong = (recording.outputs > 0.5) != (recording.target > 0.5)
    return bool(wrong[recording.mask > 0].any())


@pytest.mark.parametrize("controller", ["ntm-ff", "ntm-lstm"])
@pytest.mark.parametrize("task", ["copy", "repeat-copy", "associative-recall"])
async def test_the_program_of_a_network_is_found(
    running: Running, task: str, controller: str
) -> None:
    """It agrees on every bit of fresh sequences, but where the network itself errs."""
    model = f"{task}-{controller}"
    found = await asyncio.to_thread(induce, await recorded(running, model, 128, seed=1))

    assert found.program is not None
    assert found.explained > 0.995
    assert found.located > 0.98
    wrong = disagreements(found, await recorded(running, model, 100, seed=2))
    assert all(network_errs(recording) for recording in wrong)
    assert len(wrong) <= 3
    if task == "copy":
        assert not disagreements(found, await recorded(running, model, 4, seed=3, size=(100,)))
        assert len(listing(found.program)) <= 9


async def test_sorting_is_found_as_reading_by_rank(running: Running) -> None:
    """Where program and network disagree it is the network that errs."""
    recordings = await recorded(running, "priority-sort-ntm-lstm", 64, seed=1)
    found = await asyncio.to_thread(induce, recordings)

    assert found.program is not None
    assert "by content to what has the next largest input 8" in "".join(
        line.text for line in listing(found.program)
    )
    fresh = await recorded(running, "priority-sort-ntm-lstm", 40, seed=2)
    assert all(network_errs(recording) for recording in disagreements(found, fresh))


@pytest.mark.parametrize("model", ["ngrams-ntm-lstm", "copy-lstm"])
async def test_there_is_no_program_where_there_is_none(running: Running, model: str) -> None:
    """Counting in shades of memory is no program of these, and an LSTM has no heads."""
    found = await asyncio.to_thread(induce, await recorded(running, model, 12, seed=1))

    assert found.program is None
    assert found.explained < 0.5


async def test_the_heads_of_copy_are_told_in_words(running: Running) -> None:
    """The write head moves on through the sequence, the read head follows it in the answer."""
    (recording,) = await recorded(running, "copy-ntm-ff", 1, seed=1, size=(4,))
    words = [[each.words().partition(";")[0] for each in row] for row in instructions(recording)]

    assert [row[1] for row in words[:4]] == [
        f"shift +1 to location {n}, write" for n in range(1, 5)
    ]
    assert [row[0] for row in words[4:8]] == [
        f"shift +1 to location {n}, read" for n in range(1, 5)
    ]
