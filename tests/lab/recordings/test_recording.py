"""What is recorded of a session."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ntm_client import Client, InvalidRequest
from ntm_lab.recordings.recording import Recording, record, record_task
from ntm_tasks import TaskSequence
from tests.client.fake_server import FakeServer
from tests.support.recorded import recording

STEPS = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_all_traces_are_recorded(client: Client) -> None:
    """Every trace that the model has, with outputs and the memory before and after."""
    with client.create_session("sums", locations=6) as session:
        made = record(session, STEPS)

    assert made.title == "sums: 4 steps, 6 locations"
    assert set(made.traces) == {"read_weighting", "write_weighting", "add_vector", "read_vector"}
    np.testing.assert_array_equal(made.inputs, STEPS)
    np.testing.assert_array_equal(made.outputs, STEPS.cumsum(0))
    np.testing.assert_array_equal(made.traces["write_weighting"][:, 0], np.eye(4, 6))
    assert made.before is not None
    assert made.after is not None
    assert (made.before.next_step, made.after.next_step) == (0, 4)
    assert made.after.memory.shape == (6, 2)
    assert (made.target, made.mask, made.size, dict(made.marks)) == (None, None, None, {})


def test_a_network_without_memory_is_recorded(client: Client) -> None:
    """It has outputs, no traces, and no memory that could be read."""
    with client.create_session("bare") as session:
        made = record(session, STEPS)

    assert made.title == "bare: 4 steps, no memory"
    assert (made.traces, made.before, made.after) == ({}, None, None)
    assert made.window().tolist() == []


def test_a_memory_whose_weightings_are_not_traced_is_drawn(client: Client) -> None:
    """Its heads are those of its state, before and after."""
    sequence = TaskSequence.draw("copy", (5,), seed=1)
    with client.create_session("copy") as session:
        made = replace(record_task(session, sequence), traces={})

    assert made.after is not None
    assert set(made.after.write_weightings.argmax(1)) <= set(made.window())
    assert set(made.after.read_weightings.argmax(1)) <= set(made.window())


def test_a_task_is_recorded_with_what_it_asks(client: Client) -> None:
    """Target, mask, size and marks are the sequence's."""
    sequence = TaskSequence.draw("copy", (5,), seed=1)
    with client.create_session("copy") as session:
        made = record_task(session, sequence)

    assert made.size == (5,)
    assert made.marks == {5: "delimiter"}
    assert made.mask is not None
    assert made.mask.tolist() == [0.0] * 6 + [1.0] * 5
    np.testing.assert_array_equal(made.target, sequence.target)
    np.testing.assert_array_equal(sequence.answer(made.outputs), sequence.due)


def test_wrong_bits_are_told_where_they_count(client: Client) -> None:
    """What was forgotten is wrong; of inputs of one's own, and of guesses, nothing is."""
    sequence = TaskSequence.draw("copy", (5,), seed=1)
    with client.create_session("copy", locations=2) as session:
        made = record_task(session, sequence)
    wrong = made.wrong()

    assert wrong is not None
    np.testing.assert_array_equal(wrong[8:], sequence.due[2:] > 0)
    assert not wrong[:8].any()
    assert made.result() == f"{int(sequence.due[2:].sum())} of 40 bits wrong"
    assert replace(made, target=None, mask=None).result() is None
    assert replace(made, optimum=made.outputs).wrong() is None


def test_a_task_of_other_widths_is_refused(client: Client, fake: FakeServer) -> None:
    """A task of other widths is refused before a step is made."""
    with (
        client.create_session("sums") as session,
        pytest.raises(InvalidRequest, match="sums takes 3 values and gives 3: not a model of the"),
    ):
        record_task(session, TaskSequence.draw("copy"))

    assert fake.chunks == []


def test_a_recording_does_not_change() -> None:
    """Neither its fields, its arrays, nor what it has by name; what it was made of may."""
    inputs = np.ones((2, 9), np.float32)
    made = Recording(recording(heads=0).model, 0, inputs, np.ones((2, 8), np.float32), {})
    inputs[:] = 0

    assert made.inputs.all()
    with pytest.raises(ValueError, match="read-only"):
        made.inputs[0, 0] = 5
    for array in (*recording().traces.values(), recording().after.memory):  # type: ignore[union-attr]
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5
    with pytest.raises(TypeError):
        recording().traces["read_vector"] = inputs  # type: ignore[index]
    with pytest.raises(AttributeError):
        made.inputs = inputs  # type: ignore[misc]
