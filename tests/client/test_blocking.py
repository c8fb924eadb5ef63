"""The blocking client against a server that sums."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from ntm_client import (
    CapacityExceeded,
    Client,
    InvalidRequest,
    ModelUnknown,
    NoMemory,
    NtmClientError,
    SessionDeleted,
    SessionFailed,
    SessionUnknown,
    StepIndexMismatch,
    TimedOut,
    Unavailable,
)
from tests.client.conftest import Running
from tests.client.fake_server import DATA_LOSS, FakeServer, refuse

INPUTS = np.arange(30, dtype=np.float32).reshape(10, 3)
SUMS = INPUTS.cumsum(0)


def test_outputs_come_in_the_order_of_the_inputs(client: Client) -> None:
    """A session gives one output for each step, and each goes on from the one before."""
    with client.create_session("sums") as session:
        first = session.step(INPUTS[:4])
        second = session.step(INPUTS[4:])

    assert np.array_equal(SUMS, np.concatenate([first.outputs, second.outputs]))
    assert np.float32 == first.array.dtype
    assert (first.first_step, second.first_step, session.next_step) == (0, 4, 10)


def test_long_inputs_are_split_and_joined(client: Client, fake: FakeServer) -> None:
    """Inputs longer than a chunk go out in several, and come back as one result."""
    client.own_limits = type(client.own_limits)(chunk_steps=4)
    with client.create_session("sums") as session:
        result = session.step(INPUTS, traces=["write_weighting"])

    assert [chunk.first_step for chunk in fake.chunks] == [0, 4, 8]
    assert np.array_equal(SUMS, result.array)
    assert result.traces["write_weighting"].shape == (10, 1, 8)


def test_one_vector_is_one_step(client: Client) -> None:
    """A step given as a vector gives an output and traces without the axis of steps."""
    with client.create_session("sums") as session:
        session.step(INPUTS[0])
        result = session.step(INPUTS[1], traces=["write_weighting"], top_k=2)

    assert np.array_equal(SUMS[1], result.array)
    assert result.traces["write_weighting"].shape == (1, 2)
    assert result.locations["write_weighting"].shape == (1, 2)


def test_no_steps_give_empty_arrays(client: Client, fake: FakeServer) -> None:
    """Inputs of no step make no call and give arrays of the right shape without rows."""
    with client.create_session("sums") as session:
        result = session.step(np.zeros((0, 3)), traces=["read_weighting", "add_vector"], top_k=2)

    assert fake.chunks == []
    assert result.array.shape == (0, 3)
    assert {name: values.shape for name, values in result.traces.items()} == {
        "read_weighting": (0, 1, 2),
        "add_vector": (0, 1, 3),
    }
    assert list(result.locations) == ["read_weighting"]


def test_dense_traces(client: Client) -> None:
    """Traces come by name as [steps, heads, width]."""
    with client.create_session("sums", locations=5) as session:
        result = session.step(INPUTS, traces=["read_weighting", "read_vector"])

    assert np.array_equal(
        0.75 * np.eye(5)[np.arange(10) % 5], result.traces["read_weighting"][:, 0]
    )
    assert np.array_equal(SUMS, result.traces["read_vector"][:, 0])
    assert result.locations == {}


def test_largest_elements_of_weightings(client: Client) -> None:
    """With top_k a weighting has its largest elements and where they are; vectors stay whole."""
    with client.create_session("sums") as session:
        result = session.step(INPUTS, traces=["write_weighting", "read_vector"], top_k=2)

    assert result.traces["write_weighting"][3].tolist() == [[1.0, 0.0]]
    assert result.locations["write_weighting"][3, 0, 0] == 3
    assert result.traces["read_vector"].shape == (10, 1, 3)


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ([[1, 2]], "have the shape 1 x 2"),
        ([1, 2, 3, 4], "have the shape 4"),
        ([[[1, 2, 3]]], "have the shape 1 x 1 x 3"),
        (1.0, "are one number"),
        (["a", "b", "c"], "must be real numbers"),
    ],
)
def test_inputs_of_another_shape_are_refused(
    client: Client, fake: FakeServer, inputs: list[object], told: str
) -> None:
    """Inputs that are no steps of the model fail before anything is sent."""
    with (
        client.create_session("sums") as session,
        pytest.raises(InvalidRequest, match=f"takes 3 values; the inputs {told}") as raised,
    ):
        session.step(inputs)  # type: ignore[arg-type]  # wrong on purpose

    assert (raised.value.code.name, raised.value.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert fake.chunks == []


def test_an_unknown_trace_is_refused(client: Client) -> None:
    """The error names the traces that there are."""
    with (
        client.create_session("sums") as session,
        pytest.raises(InvalidRequest, match="no trace 'gate'; its traces: read_weighting"),
    ):
        session.step(INPUTS, traces=["gate"])


def test_a_session_elsewhere_in_its_sequence(client: Client) -> None:
    """A chunk that is not the next makes no step; the error and `describe` tell where to go on."""
    with client.create_session("sums") as session:
        other = client.session(session.id)
        other.step(INPUTS[:4])
        with pytest.raises(StepIndexMismatch) as raised:
            session.step(INPUTS[4:])
        session.describe()
        result = session.step(INPUTS[4:])

    assert raised.value.expected == 4
    assert raised.value.code.name == "ABORTED"
    assert np.array_equal(SUMS[4:], result.array)


def test_chunks_before_a_failure_stay_made(client: Client, fake: FakeServer) -> None:
    """After a failure in the middle, next_step is that of the chunk that failed."""
    client.own_limits = type(client.own_limits)(chunk_steps=4)
    with client.create_session("sums") as session:
        session.step(INPUTS[:4])
        fake.failures.append(refuse(8, "CAPACITY_EXCEEDED", "too many steps wait"))
        with pytest.raises(CapacityExceeded):
            session.step(INPUTS[4:])

        assert session.next_step == 4
        assert np.array_equal(SUMS[4:], session.step(INPUTS[4:]).array)


def test_an_error_carries_reason_metadata_and_delay(client: Client, fake: FakeServer) -> None:
    """What the server says for programs reaches the exception."""
    refused = refuse(8, "CAPACITY_EXCEEDED", "too many steps wait", limit="4096")
    refused.error.retry_delay.FromMilliseconds(250)
    fake.failures.append(refused)
    with client.create_session("sums") as session, pytest.raises(CapacityExceeded) as raised:
        session.step(INPUTS)

    assert str(raised.value) == "too many steps wait"
    assert (raised.value.reason, raised.value.metadata) == ("CAPACITY_EXCEEDED", {"limit": "4096"})
    assert raised.value.retry_delay_seconds == 0.25


def test_a_reason_of_a_later_server(client: Client, fake: FakeServer) -> None:
    """A reason this client does not know raises the base of its errors."""
    fake.failures.append(refuse(DATA_LOSS, "MOON_PHASE", "not today"))
    with client.create_session("sums") as session, pytest.raises(NtmClientError) as raised:
        session.step(INPUTS)

    assert NtmClientError is type(raised.value)
    assert (raised.value.reason, raised.value.code.name) == ("MOON_PHASE", "DATA_LOSS")


def test_leaving_the_block_deletes_the_session(client: Client, fake: FakeServer) -> None:
    """A session is deleted at the end of its block, and can not be used after it."""
    with client.create_session("sums") as session:
        pass

    assert {session.id} == fake.deleted
    with pytest.raises(SessionDeleted):
        session.describe()


def test_a_session_already_gone_leaves_its_block(client: Client) -> None:
    """Leaving the block of a session deleted inside is no error."""
    with client.create_session("sums") as session:
        session.delete()


def test_the_error_inside_the_block_is_the_one_raised(client: Client, fake: FakeServer) -> None:
    """A session that failed raises that, not that it could not be deleted."""
    fake.failures.append(refuse(DATA_LOSS, "SESSION_FAILED", "not finite"))
    session = client.create_session("sums")
    with pytest.raises(SessionFailed, match="not finite"), session:
        session.step(INPUTS)


def test_attached_sessions_go_on(client: Client) -> None:
    """A session found by its id continues where it is."""
    session = client.create_session("sums", locations=6)
    session.step(INPUTS[:7])
    same = client.session(session.id)

    assert (same.next_step, same.locations, same.model.name) == (7, 6, "sums")
    assert np.array_equal(SUMS[7:], same.step(INPUTS[7:]).array)


def test_reset_starts_over(client: Client) -> None:
    """After a reset the session is as new."""
    with client.create_session("sums") as session:
        session.step(INPUTS)
        session.reset()

        assert session.next_step == 0
        assert np.array_equal(SUMS, session.step(INPUTS).array)


def test_sessions_of_all_pages(client: Client) -> None:
    """The list holds every session, however many pages it came in."""
    opened = [client.create_session("sums").id for _ in range(5)]

    assert opened == [session.id for session in client.sessions()]


def test_description(client: Client) -> None:
    """Times and sizes are plain Python values."""
    with client.create_session("sums", idle_timeout=timedelta(seconds=90)) as session:
        info = session.describe()

    assert (timedelta(seconds=90), 1000) == (info.idle_timeout, info.state_bytes)
    assert info.expire_time.timestamp() == 100
    assert repr(session) == f"<Session {session.id} of sums, 8 locations, next step 0>"


def test_memory(client: Client) -> None:
    """The memory is [locations, width], the weightings [heads, locations]."""
    with client.create_session("sums") as session:
        memory = session.read_memory()

    assert memory.memory[0].tolist() == [0, 1]
    assert memory.memory.shape == (8, 2)
    assert [int(memory.read_weightings.argmax()), int(memory.write_weightings.argmax())] == [0, 1]


def test_a_network_without_memory(client: Client) -> None:
    """Reading the memory of a network that has none says so."""
    with client.create_session("bare") as session, pytest.raises(NoMemory):
        session.read_memory()


def test_models(client: Client) -> None:
    """Models are described by plain values."""
    assert [model.name for model in client.models()] == ["bare", "copy", "sums"]

    model = client.model("sums")
    weighting = model.trace("read_weighting")
    assert (model.input_width, model.output_width, model.default_locations) == (3, 3, 8)
    assert weighting is not None
    assert (weighting.width_at(100), weighting.width_at(100, top_k=7)) == (100, 7)
    assert model.trace("gate") is None


def test_unknown_names(client: Client) -> None:
    """Models and sessions that are not there have errors of their own."""
    with pytest.raises(ModelUnknown):
        client.create_session("tetris")
    with pytest.raises(ModelUnknown):
        client.model("tetris")
    with pytest.raises(SessionUnknown):
        client.session("0" * 32)


@pytest.mark.parametrize(
    ("replica", "told"),
    [("", "did not answer in time"), ("one", r"did not answer in 0\.05 s; allow more")],
)
def test_an_answer_too_late(trying_once: Client, fake: FakeServer, replica: str, told: str) -> None:
    """A step that is not answered within its timeout, as a call or on a stream, says so."""
    fake.replica = replica
    session = trying_once.create_session("sums")
    fake.released.clear()
    with pytest.raises(TimedOut, match=told):
        session.step(INPUTS, timeout_seconds=0.05)


def test_a_session_that_can_not_be_deleted(trying_once: Client, running: Running) -> None:
    """Leaving the block fails if the server is lost, unless the block failed already."""
    first, second = trying_once.create_session("sums"), trying_once.create_session("sums")
    with pytest.raises(Unavailable), first:
        running.stop()

    with pytest.raises(KeyError), second:
        raise KeyError


def test_no_server() -> None:
    """Where no server answers, the error has the address and what to do."""
    with (
        Client("127.0.0.1:1", timeout_seconds=20) as client,
        pytest.raises(Unavailable, match=r"no server answers at 127\.0\.0\.1:1 .*start one"),
    ):
        client.models()
