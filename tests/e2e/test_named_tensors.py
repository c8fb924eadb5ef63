"""Models of several named tensors over the API: blocking, asyncio, streams, stores, commands."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ntm.tensors import Array
from ntm.v1 import ntm_pb2 as pb
from ntm_client import (
    AsyncClient,
    Client,
    InvalidArgument,
    InvalidRequest,
    StepResult,
    StepTensor,
)
from ntm_client.checkpoint import decode, encode
from ntm_lab.cli import main
from service.telemetry.logs import JsonFormatter
from tests.conftest import Running, Serve
from tests.e2e.calls import info, reason
from tests.e2e.test_rpcs import refused
from tests.e2e.versions import put
from tests.support.rich_models import RICH, of_one_row, of_the_batch, rich
from tests.support.served import served
from tests.support.tiny_models import ledger

SPEAKER = {"speaker": [1, 2, 3]}
TWO: dict[str, Any] = {"audio": [[1, 1, 1], [2, 2, 2]], "token": [1, 2]}
"""Two steps."""

OF_TWO: dict[str, Any] = {
    "score": [[[4], [6], [8]], [[8], [11], [14]]],
    "flag": [[True], [False]],
    "counted": [[6, -6], [8, -4]],
    "loud": [[1.5, 1.5], [3.5, 3.5]],
}
"""What a new session gives for them."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model of named tensors and the ledger."""
    put(tmp_path / "models", rich(), "rich")
    put(tmp_path / "models", ledger())
    return tmp_path / "models"


@pytest.fixture
async def rich_running(serve: Serve, folder: Path) -> AsyncIterator[Running]:
    """A server of them."""
    async with serve(models_dir=folder) as running:
        yield running


def by_name(result: StepResult) -> dict[str, Array]:
    """The outputs of a model that gives several."""
    assert isinstance(result.outputs, dict)
    return result.outputs


def lists(outputs: dict[str, Array]) -> dict[str, Any]:
    """Outputs by name, as lists."""
    return {name: values.tolist() for name, values in outputs.items()}


def test_a_session_takes_and_gives_tensors_by_name(folder: Path) -> None:
    """Several steps or one, which has no axis of steps; each array is of its type, and writable."""
    with served(folder) as client, client.create_session("rich", initial=SPEAKER) as session:
        model = session.model
        result = session.step(TWO)
        outputs = by_name(result)
        with pytest.raises(InvalidArgument, match="a step gives 'score', 'flag', 'counted', 'lou"):
            _ = result.array
        one = by_name(session.step({"audio": [1, 1, 1], "token": 3}))
        none = by_name(session.step({"audio": np.zeros((0, 3)), "token": np.zeros(0, np.int64)}))

    assert model.inputs == RICH.inputs
    assert model.outputs == RICH.outputs
    assert (model.input_width, model.batched) == (0, True)
    assert [(each.type, each.given, each.constant) for each in model.state[2:]] == [
        ("float16", False, False),
        ("float32", True, True),
    ]
    assert lists(outputs) == OF_TWO
    assert outputs["loud"].dtype == np.float16
    outputs["score"][:] = 0
    assert one["score"].tolist() == [[10], [12], [14]]
    assert one["counted"].tolist() == [11, -1]
    assert {name: values.shape for name, values in none.items()} == {
        "score": (0, 3, 1),
        "flag": (0, 1),
        "counted": (0, 2),
        "loud": (0, 2),
    }


def test_a_chunk_is_split_between_steps(folder: Path) -> None:
    """A long sequence in many chunks gives what it gives in one."""
    generator = np.random.default_rng(3)
    steps = {
        "audio": generator.standard_normal((70, 3)).astype(np.float32),
        "token": generator.integers(0, 10, 70),
    }
    with served(folder) as client, Client(client.target, chunk_steps=8) as small:
        with client.create_session("rich", initial=SPEAKER) as session:
            whole = by_name(session.step(steps))
        with small.create_session("rich", initial=SPEAKER) as session:
            split = by_name(session.step(steps))

    for name, values in whole.items():
        assert values.tobytes() == split[name].tobytes()


def test_one_tensor_may_be_given_by_its_name(folder: Path) -> None:
    """A model of one vector takes a dict too, and gives an array either way."""
    with served(folder) as client, client.create_session("ledger") as session:
        assert session.step({"x": [[1, 2], [3, 4]]}).array.tolist() == [[1, 2], [4, 6]]
        assert session.step([1, 1]).array.tolist() == [5, 7]
        assert session.model.inputs == (StepTensor("x", "float32", (2,)),)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([1, 2, 3], r"takes audio float32\[3\] and token int64: give a dict"),
        ({"audio": [1, 2, 3]}, "the inputs have 'audio'$"),
        ({**TWO, "rate": 1}, "the inputs have 'audio', 'token', 'rate'"),
        ({"audio": [1, 2], "token": 1}, r"takes audio float32\[3\]; 'audio' has the shape \[2\]"),
        ({"audio": [1, 2, 3], "token": [1]}, "must all have the same number of steps"),
        ({"audio": [1, 2, 3], "token": 0.5}, "'token' must be int64, not values of type float64"),
        ({"audio": [1, np.nan, 3], "token": 1}, r"'audio' must be finite.* at \[1\] is nan"),
    ],
)
def test_wrong_inputs_are_refused_before_they_are_sent(
    folder: Path, inputs: Any, words: str
) -> None:
    """The error says what a step takes, and the session goes on."""
    with served(folder) as client, client.create_session("rich", initial=SPEAKER) as session:
        with pytest.raises(InvalidArgument, match=words):
            session.step(inputs)
        assert lists(by_name(session.step(TWO))) == OF_TWO


def test_a_step_that_cannot_be_made_leaves_the_session_at_it(folder: Path) -> None:
    """The client knows the step, and goes on from there."""
    with served(folder) as client, client.create_session("rich", initial=SPEAKER) as session:
        with pytest.raises(InvalidRequest, match="cannot be run on step 2 of the inputs"):
            session.step({"audio": [[1, 1, 1]] * 4, "token": [1, 2, 99, 3]})
        assert session.next_step == 2
        after = by_name(session.step({"audio": [1, 1, 1], "token": 3}))

    assert after["counted"].tolist() == [11, -1]


@pytest.mark.parametrize(
    ("initial", "words"),
    [
        ({"voice": [1, 2, 3]}, "rich has no state tensor 'voice'; it has count, on, level, spea"),
        ({"speaker": [1, 2]}, r"'speaker' has the shape \[2\]; it must be \[3\]"),
        ({"speaker": [1, 2, 1e300]}, "must be finite as float32"),
        ({**SPEAKER, "level": [0, 1e6]}, r"'level' must be finite as float16; .* at \[1\]"),
        ({**SPEAKER, "count": [2**63] * 2}, "'count' must be whole numbers from -922337203685477"),
        ({**SPEAKER, "on": [2]}, "'on' must be whole numbers from 0 to 1; the value at"),
        ([1, 2, 3], "initial must be a dict of arrays"),
    ],
)
def test_wrong_initial_values_are_refused_before_they_are_sent(
    folder: Path, initial: Any, words: str
) -> None:
    """The error says what the tensor is."""
    with served(folder) as client, pytest.raises(InvalidArgument, match=words):
        client.create_session("rich", initial=initial)


def test_a_model_that_needs_a_value_says_so(folder: Path) -> None:
    """The server's sentence names the tensor."""
    with served(folder) as client:
        with pytest.raises(InvalidRequest, match="needs a value of 'speaker' for each session"):
            client.create_session("rich")
        assert client.sessions() == []


def test_a_checkpoint_is_changed_in_the_types_of_its_tensors(folder: Path) -> None:
    """The client reads and writes them as the server has them."""
    with served(folder) as client, client.create_session("rich", initial=SPEAKER) as session:
        session.step(TWO)
        taken = decode(session.checkpoint())
        count = taken.tensor("count", session.model)
        session.restore(encode(taken.changed(count=count * 10, on=np.array([True]))))
        after = by_name(session.step({"audio": [0, 0, 0], "token": 1}))
        with pytest.raises(InvalidArgument, match="count must be int64"):
            taken.changed(count=np.array([0.5, 1]))

    assert count.dtype == np.int64
    assert count.tolist() == [8, -4]
    assert after["counted"].tolist() == [81, -39]
    assert after["flag"].tolist() == [False]


def test_a_session_goes_on_after_a_restart_with_what_it_was_given(
    folder: Path, tmp_path: Path
) -> None:
    """State of every type, and the values for a reset, are in the store."""
    store = f"--store=directory:{tmp_path / 'store'}"
    with served(folder, store, "--durability=synchronous") as client:
        session = client.create_session("rich", initial={**SPEAKER, "on": [True]})
        first = by_name(session.step(TWO))
    with served(folder, store, "--durability=synchronous") as client:
        again = client.session(session.id)
        on = by_name(again.step({"audio": [1, 1, 1], "token": 3}))
        again.reset()
        reset = by_name(again.step(TWO))

    assert on["counted"].tolist() == [11, -1]
    assert on["loud"].tolist() == [4.5, 4.5]
    assert lists(first) == {**OF_TWO, "flag": [[False], [True]]}
    assert lists(reset) == lists(first)


async def test_asyncio_and_streams_take_the_same(rich_running: Running) -> None:
    """Opened by a call and on a stream."""
    async with AsyncClient(rich_running.address) as client:
        async with await client.create_session("rich", initial=SPEAKER) as session:
            by_call = by_name(await session.step(TWO))
        async with (
            client.stream() as stream,
            await stream.open("rich", initial=SPEAKER) as session,
        ):
            on_stream = by_name(await session.step(TWO))

    assert lists(by_call) == lists(on_stream) == OF_TWO


async def test_a_request_with_initial_values_may_be_repeated(rich_running: Running) -> None:
    """The session is the same one; with other values, its id is taken."""
    stub = rich_running.stub

    def request(*values: float) -> pb.CreateSessionRequest:
        data = np.array(values, "<f4").tobytes()
        initial = [pb.TensorValue(name="speaker", data=data)]
        return pb.CreateSessionRequest(model="rich", session_id="ab" * 16, initial=initial)

    first = await stub.CreateSession(request(1, 2, 3))
    again = await stub.CreateSession(request(1, 2, 3))
    assert first.session.id == again.session.id
    assert reason(await refused(stub.CreateSession(request(1, 2, 4)))) == "SESSION_EXISTS"
    twice = request(1, 2, 3)
    twice.initial.append(twice.initial[0])
    twice.session_id = "cd" * 16
    error = await refused(stub.CreateSession(twice))
    assert info(error).reason == "INVALID_REQUEST"
    assert "has a tensor twice" in str(error.details())


async def test_a_model_whose_results_depend_on_the_batch_is_stepped_alone(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Sessions together get what each gets alone; model, metric and log say why they wait."""
    put(tmp_path, of_the_batch(), "mean")
    put(tmp_path, ledger())
    async with serve(models_dir=tmp_path) as running, AsyncClient(running.address) as client:
        assert (await client.model("mean")).batched
        async with client.stream() as stream:
            sessions = [await stream.open("mean") for _ in range(5)]
            await stream.open("ledger")
            for number, session in enumerate(sessions):
                made = await session.step(np.full((3, 2), number))
                assert made.array[:, 0].tolist() == [2 * number, 3 * number, 4 * number]
        mean, ledgers = await client.model("mean"), await client.model("ledger")
        assert (mean.batched, ledgers.batched) == (False, True)
        for model in (mean, ledgers):
            labels = {"model": model.name, "content_hash": model.content_hash}
            assert running.metric("ntm_model_batched", **labels) == model.batched
        assert running.metric("ntm_batch_rows_sum", model="mean") == 15
        assert running.metric("ntm_batch_rows_count", model="mean") == 15
    (warning,) = (each for each in caplog.records if each.levelno == logging.WARNING)
    said = json.loads(JsonFormatter().format(warning))
    assert (said["message"], said["model"]) == ("model steps one session a run", "mean")
    assert said["why"] == "a session alone and one of 2 in a batch get different results"


def test_commands_show_named_tensors_and_feed_vectors_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`ntm models` has names, types and shapes; what has one vector a step says what it has not."""
    put(tmp_path, rich(), "rich")
    put(tmp_path, of_one_row(), "row")
    with served(tmp_path) as client:
        server = ("--server", client.target)
        assert main(["models", *server]) == 0
        shown = capsys.readouterr().out
        file = tmp_path / "steps.csv"
        file.write_text("1,2\n3,4\n", encoding="utf-8")
        assert main(["stream", "row", *server, "--input", str(file)]) == 0
        streamed = capsys.readouterr().out
        with client.create_session("rich", initial=SPEAKER) as session:
            named = ["stream", "--session", session.id, "--input", str(file)]
            refusals = [
                (main([*command, *server]), capsys.readouterr().err)
                for command in (named, ["trace", "row"])
            ]

    assert "audio float32[3], token int64 -> score float32[3, 1], flag bool[1], counted" in shown
    assert "each is stepped alone: row" in shown
    assert streamed.splitlines() == ["1.0,2.0", "4.0,6.0"]
    assert [code for code, _ in refusals] == [2, 2]
    assert "and this command has one vector of float32 for each step" in refusals[0][1]
