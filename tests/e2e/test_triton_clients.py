"""Sequences of Triton's own client library, which is in the same process as the server here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc.aio as triton
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import service_pb2 as theirs
from tritonclient.utils import InferenceServerException

from service.auth.principal import READ, STEP
from service.spec import Float32
from tests.conftest import Running, Serve
from tests.e2e.calls import until
from tests.e2e.versions import put, settled
from tests.service.rpc.test_stream import Turns
from tests.support.rich_models import rich, simple_sequence
from tests.support.tiny_models import doubling
from tests.support.tokens import bearer, token_line
from tests.support.valkey import Valkey

MODEL = "ledger"


@asynccontextmanager
async def client(running: Running) -> AsyncIterator[Any]:
    """Triton's asyncio client of a server."""
    async with triton.InferenceServerClient(running.address) as client:
        yield client


def given(values: Any, kind: str = "FP32") -> list[Any]:
    """The ledger's input."""
    array = np.asarray(values, {"FP32": np.float32, "INT32": np.int32}[kind])
    tensor = triton.InferInput("x", list(array.shape), kind)
    tensor.set_data_from_numpy(array)
    return [tensor]


async def step(client: Any, values: Any, sequence: Any = 1, **more: Any) -> Float32:
    """The outputs of a step of a sequence."""
    answer = await client.infer(MODEL, given(values), sequence_id=sequence, **more)
    outputs: Float32 = answer.as_numpy("y")
    return outputs


async def refused(call: Any) -> tuple[str, str]:
    """The code and the message that a call fails with."""
    with pytest.raises(InferenceServerException) as error:
        await call
    return error.value.status().removeprefix("StatusCode."), error.value.message()


async def test_a_sequence_starts_steps_and_ends(running: Running) -> None:
    """Its state lasts from START to END; then the session is gone, and START begins anew."""
    async with client(running) as triton_client:
        for _ in range(2):
            first = await step(triton_client, [[1, 2]], sequence_start=True)
            assert first.tolist() == [[1, 2]]
            assert (await step(triton_client, [[3, 4]])).tolist() == [[4, 6]]
            last = await step(triton_client, [[1, 1]], sequence_end=True)
            assert last.tolist() == [[5, 7]]
            code, message = await refused(step(triton_client, [[1, 1]]))
            assert code == "INVALID_ARGUMENT"
            assert message == (
                "inference request for sequence 1 to model 'ledger' must specify the START flag on "
                "the first request of the sequence: the sequence has ended"
            )
    assert running.metric("ntm_sessions", model=MODEL) == 0


async def test_start_on_a_living_sequence_begins_it_anew(running: Running) -> None:
    """The state of before is gone; other sequences, also of a text of the same digits, go on."""
    async with client(running) as triton_client:
        for sequence in (1, 2, "1"):
            await step(triton_client, [[1, 1]], sequence, sequence_start=True)
        again = await step(triton_client, [[5, 5]], 1, sequence_start=True)
        assert again.tolist() == [[5, 5]]
        assert (await step(triton_client, [[1, 1]], 2)).tolist() == [[2, 2]]
        assert (await step(triton_client, [[1, 1]], "1")).tolist() == [[2, 2]]


async def test_start_takes_the_current_version_and_the_locations_asked_for(
    serve: Serve, folder: Path
) -> None:
    """A living sequence stays on its version and locations until it starts again."""
    async with serve(models_dir=folder) as running, client(running) as triton_client:
        await step(triton_client, [[1, 1]], sequence_start=True, parameters={"locations": 5})
        old = await triton_client.infer(MODEL, given([[1, 1]]), sequence_id=1)
        put(folder, doubling())
        await settled(running, "taken")
        stays = await triton_client.infer(MODEL, given([[1, 1]]), sequence_id=1)
        assert stays.as_numpy("y").tolist() == [[3, 3]]
        assert stays.get_response().model_version == old.get_response().model_version
        chosen = old.get_response().model_version
        by_number = await triton_client.infer(
            MODEL, given([[1, 1]]), chosen, sequence_id=7, sequence_start=True
        )
        assert by_number.as_numpy("y").tolist() == [[1, 1]]
        new = await triton_client.infer(
            MODEL, given([[1, 1]]), sequence_id=1, sequence_start=True, sequence_end=True
        )
        assert new.as_numpy("y").tolist() == [[2, 2]]
        assert new.get_response().model_version != chosen


async def test_requests_that_do_not_wait_for_answers_keep_their_order(running: Running) -> None:
    """Starts, steps and ends of many sequences, all sent at once, on one stream."""
    sequences, steps = [*range(1, 21), *(f"s{number}" for number in range(20))], 8

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for life in range(2):
            for number in range(steps):
                for sequence in sequences:
                    yield {
                        "model_name": MODEL,
                        "inputs": given([[1, life]]),
                        "request_id": f"{sequence}/{life}/{number}",
                        "sequence_id": sequence,
                        "sequence_start": number == 0,
                        "sequence_end": number == steps - 1,
                    }

    got: dict[str, list[tuple[str, list[float]]]] = {}
    async with client(running) as triton_client:
        async for answer, error in triton_client.stream_infer(requests()):
            assert error is None
            response = answer.get_response()
            assert response.parameters["triton_final_response"].bool_param
            sequence, which = response.id.split("/", 1)
            got.setdefault(sequence, []).append((which, answer.as_numpy("y")[0].tolist()))
    expected = [
        (f"{life}/{number}", [number + 1, life * (number + 1)])
        for life in range(2)
        for number in range(steps)
    ]
    assert got == {str(sequence): expected for sequence in sequences}
    assert running.metric("ntm_sessions", model=MODEL) == 0


async def test_an_error_on_a_stream_names_its_request_and_ends_nothing(running: Running) -> None:
    """The next request of the stream is answered."""

    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": MODEL, "inputs": given([[1, 1]]), "request_id": "a", "sequence_id": 3}
        yield {
            "model_name": MODEL,
            "inputs": given([[1, 1]]),
            "request_id": "b",
            "sequence_id": 3,
            "sequence_start": True,
        }

    async with client(running) as triton_client:
        answers = [each async for each in triton_client.stream_infer(requests())]
    (_, error), (answer, none) = answers
    assert "must specify the START flag on the first request" in str(error)
    assert none is None
    assert answer.get_response().id == "b"
    assert running.metric("ntm_errors_total", reason="INVALID_REQUEST") == 1


async def test_an_end_whose_step_fails_ends_nothing(running: Running) -> None:
    """The sequence goes on where it was, and a later END ends it; on a stream and in calls."""

    def asked(value: float, *, end: bool = False, first_step: int | None = None) -> dict[str, Any]:
        parameters = {} if first_step is None else {"first_step": first_step}
        request = {"inputs": given([[value, value]]), "sequence_end": end, "sequence_id": 3}
        return {"model_name": MODEL, "parameters": parameters, **request}

    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield asked(2, end=True, first_step=7)
        yield asked(3)
        yield asked(4, end=True, first_step=2)
        yield asked(5)

    async with client(running) as triton_client:
        await step(triton_client, [[1, 1]], 3, sequence_start=True)
        answers = [each async for each in triton_client.stream_infer(requests())]
        (_, wrong), (on, none), (last, nothing), (_, gone) = answers
        assert "starts at step 7" in str(wrong)
        assert (none, nothing) == (None, None)
        assert on.as_numpy("y").tolist() == [[4, 4]]
        assert last.as_numpy("y").tolist() == [[8, 8]]
        assert "the sequence has ended" in str(gone)
        assert running.metric("ntm_sessions", model=MODEL) == 0
        await step(triton_client, [[1, 1]], 3, sequence_start=True)
        code, _ = await refused(triton_client.infer(**asked(2, end=True, first_step=7)))
        assert code == "ABORTED"
        assert (await step(triton_client, [[1, 1]], 3)).tolist() == [[2, 2]]


async def test_a_stream_that_breaks_off_at_an_end_lets_the_sequence_start_again(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for the end of the sequence is told of it, though nobody hears the answer."""
    stream = running.channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        theirs.ModelInferRequest.SerializeToString,
        theirs.ModelStreamInferResponse.FromString,
    )
    request = theirs.ModelInferRequest(model_name=MODEL)
    request.parameters["sequence_id"].int64_param = 1
    request.parameters["sequence_end"].bool_param = True
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(bytes(8))
    async with client(running) as triton_client:
        await step(triton_client, [[1, 1]], sequence_start=True)
        (session,) = [each.id for each in running.server.worker.engine.lifecycle.sessions]
        turns = Turns(running, monkeypatch)
        call = stream()
        await call.write(request)
        await until(lambda: running.server.worker.engine.lifecycle.has_work(session))
        starting = asyncio.create_task(step(triton_client, [[2, 2]], sequence_start=True))
        call.cancel()
        await until(lambda: running.metric("ntm_streams") == 0)
        turns.left = 99
        assert (await starting).tolist() == [[2, 2]]


async def test_requests_of_one_form_have_ids_values_and_steps_of_their_own(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a request's form is known from one before or not."""
    monkeypatch.setattr("service.rpc.inference.requests.MAX_FORMS", 2)
    infer = running.channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        theirs.ModelInferRequest.SerializeToString,
        theirs.ModelInferResponse.FromString,
    )

    def request(sequence: int, number: int, steps: int) -> theirs.ModelInferRequest:
        made = theirs.ModelInferRequest(model_name=MODEL, id=f"{sequence}/{number}")
        made.parameters["sequence_id"].int64_param = sequence
        made.parameters["sequence_start"].bool_param = number == 0
        made.parameters["first_step"].int64_param = number * steps
        made.inputs.add(name="x", datatype="FP32", shape=[1, steps, 2])
        made.raw_input_contents.append(np.full((steps, 2), sequence, "<f4").tobytes())
        return made

    for number in range(3):
        for steps in (1, 2, 3):
            answer = await infer(request(steps, number, steps))
            assert answer.id == f"{steps}/{number}"
            assert answer.parameters["next_step"].int64_param == (number + 1) * steps
            assert list(answer.outputs[0].shape) == [1, steps, 2]
            values = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(-1, 2)
            assert values[-1].tolist() == [(number + 1) * steps * steps] * 2
            wrong = request(steps, number + 1, steps)
            wrong.raw_input_contents[0] += bytes(8)
            expected = f"Expected {8 * steps}, got {8 * steps + 8}"
            with pytest.raises(grpc.aio.AioRpcError, match=expected):
                await infer(wrong)


async def test_chunks_and_traces_are_asked_for_by_shape_and_name(running: Running) -> None:
    """A second axis has steps; traces are outputs that come only when named."""
    async with client(running) as triton_client:
        outputs = [triton.InferRequestedOutput(name) for name in ("add_vector", "y")]
        answer = await triton_client.infer(
            MODEL, given([[[1, 2], [3, 4]]]), sequence_id=1, sequence_start=True, outputs=outputs
        )
        assert [tensor.name for tensor in answer.get_response().outputs] == ["add_vector", "y"]
        assert answer.as_numpy("y").tolist() == [[[1, 2], [4, 6]]]
        assert answer.as_numpy("add_vector").tolist() == [[[[1, 2]], [[3, 4]]]]
        plain = await triton_client.infer(MODEL, given([[1, 1]]), sequence_id=1)
        assert [tensor.name for tensor in plain.get_response().outputs] == ["y"]


async def test_typed_contents_are_taken_as_well_as_bytes(running: Running) -> None:
    """But not both."""
    infer = running.channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        theirs.ModelInferRequest.SerializeToString,
        theirs.ModelInferResponse.FromString,
    )
    request = theirs.ModelInferRequest(model_name=MODEL)
    request.parameters["sequence_id"].int64_param = 1
    request.parameters["sequence_start"].bool_param = True
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    tensor.contents.fp32_contents.extend([1, 2])
    answer = await infer(request)
    assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [1, 2]
    request.raw_input_contents.append(bytes(8))
    with pytest.raises(grpc.aio.AioRpcError, match="contents field must not be specified"):
        await infer(request)


async def test_a_step_index_makes_a_retry_safe(running: Running) -> None:
    """The same request gets the same answer; another index is refused."""
    async with client(running) as triton_client:
        await step(triton_client, [[1, 1]], sequence_start=True)
        for _ in range(2):
            answer = await triton_client.infer(
                MODEL, given([[2, 2]]), sequence_id=1, parameters={"first_step": 1}
            )
            assert answer.as_numpy("y").tolist() == [[3, 3]]
            assert answer.get_response().parameters["next_step"].int64_param == 2
        code, message = await refused(step(triton_client, [[2, 2]], parameters={"first_step": 7}))
        assert (code, "2" in message) == ("ABORTED", True)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"sequence_id": 0}, "must specify a non-zero or non-empty correlation ID"),
    ({"sequence_id": "x" * 129}, "cannot be longer than 128 characters"),
    ({"inputs": given([[1, 2], [3, 4]])}, "must specify batch-size 1"),
    ({"inputs": given([[1, 2, 3]])}, r"unexpected shape for input 'x' .* Expected \[-1,2\]"),
    ({"inputs": given([[1, 2]], "INT32")}, "data-type is 'INT32', but model 'ledger' expects"),
    ({"inputs": given([[1, 2]]) * 2}, "expected 1 inputs but got 2 inputs"),
    ({"outputs": [triton.InferRequestedOutput("z")]}, "unexpected inference output 'z'"),
    ({"inputs": given([[np.nan, 2]])}, "must be finite"),
    ({"parameters": {"first_step": "1"}}, "invalid value type for 'first_step' parameter"),
    ({"parameters": {"locations": -1}}, "parameter 'locations' is -1"),
    ({"model_version": "7"}, "Request for unknown model: 'ledger' version '7' is not found"),
    ({"model_name": "none"}, "Request for unknown model: 'none' is not found"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
async def test_what_is_wrong_is_refused_and_changes_nothing(
    running: Running, changes: dict[str, Any], message: str
) -> None:
    """A sequence that lives goes on."""
    async with client(running) as triton_client:
        await step(triton_client, [[1, 1]], 9, sequence_start=True)
        asked = {"model_name": MODEL, "inputs": given([[1, 1]]), "sequence_id": 9} | changes
        with pytest.raises(InferenceServerException, match=message):
            await triton_client.infer(**asked)
        assert (await step(triton_client, [[1, 1]], 9)).tolist() == [[2, 2]]


async def test_models_and_server_are_described(running: Running) -> None:
    """In the messages of Triton's client: shapes have the batch first, traces are left out."""
    async with client(running) as triton_client:
        assert await triton_client.is_server_live()
        assert await triton_client.is_server_ready()
        assert await triton_client.is_model_ready(MODEL)
        assert not await triton_client.is_model_ready("none")
        server = await triton_client.get_server_metadata(as_json=True)
        assert "sequence" in server["extensions"]
        model = await triton_client.get_model_metadata(MODEL, as_json=True)
        assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "2"]}]
        assert model["outputs"] == [{"name": "y", "datatype": "FP32", "shape": ["-1", "2"]}]
        (version,) = model["versions"]
        assert await triton_client.is_model_ready(MODEL, version)
        config = (await triton_client.get_model_config(MODEL)).config
        assert (config.max_batch_size, config.HasField("sequence_batching")) == (1, True)
        assert config.sequence_batching.max_sequence_idle_microseconds == 300_000_000
        assert [list(each.dims) for each in (*config.input, *config.output)] == [[2], [2]]
        index = await triton_client.get_model_repository_index(as_json=True)
        assert index["models"] == [{"name": MODEL, "version": version, "state": "READY"}]
        code, _ = await refused(triton_client.get_trace_settings())
        assert code == "UNIMPLEMENTED"


async def test_requests_are_counted(running: Running) -> None:
    """Answers, failures and steps, with equal counts of each part of the work."""
    async with client(running) as triton_client:
        await step(triton_client, [[[1, 1], [1, 1], [1, 1]]], sequence_start=True)
        await refused(step(triton_client, [[1, 1, 1]]))
        (counted,) = (await triton_client.get_inference_statistics(MODEL)).model_stats
    assert (counted.inference_count, counted.execution_count) == (3, 1)
    stats = counted.inference_stats
    assert (stats.success.count, stats.fail.count) == (1, 1)
    parts = (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)
    assert {part.count for part in parts} == {1}
    assert running.metric("ntm_rpcs_ended_total", method="ModelInfer", code="OK") == 1


async def test_equal_ids_of_two_principals_are_two_sequences(serve: Serve, tmp_path: Path) -> None:
    """Neither reaches the other's; a token that may only read may not step."""
    tokens = tmp_path / "tokens.jsonl"
    tokens.write_text(
        token_line("alice", "tok-alice", READ, STEP)
        + token_line("bob", "tok-bob", READ, STEP)
        + token_line("reader", "tok-reader", READ)
    )
    alice, bob, reader = (dict(bearer(f"tok-{name}")) for name in ("alice", "bob", "reader"))
    async with serve(tokens_file=str(tokens)) as running, client(running) as triton_client:
        await step(triton_client, [[1, 1]], sequence_start=True, headers=alice)
        code, message = await refused(step(triton_client, [[1, 1]], headers=bob))
        assert (code, "there is no such sequence" in message) == ("INVALID_ARGUMENT", True)
        await step(triton_client, [[7, 7]], sequence_start=True, headers=bob)
        assert (await step(triton_client, [[1, 1]], headers=alice)).tolist() == [[2, 2]]
        code, _ = await refused(step(triton_client, [[1, 1]], headers=reader))
        assert code == "PERMISSION_DENIED"
        assert await triton_client.is_server_live(headers=reader)
        code, _ = await refused(step(triton_client, [[1, 1]]))
        assert code == "UNAUTHENTICATED"


def tensor(name: str, values: Any, kind: str) -> Any:
    """An input of any name and type."""
    array = np.asarray(values)
    made = triton.InferInput(name, list(array.shape), kind)
    made.set_data_from_numpy(array)
    return made


async def test_integers_go_through_and_a_sequence_knows_its_first_step(
    serve: Serve, tmp_path: Path
) -> None:
    """As with the network of Triton's examples: 1 is added in the first step."""
    put(tmp_path, simple_sequence(), "simple_sequence")
    async with serve(models_dir=tmp_path) as running, client(running) as triton_client:
        outputs = []
        for number, value in enumerate((11, 7, 5)):
            answer = await triton_client.infer(
                "simple_sequence",
                [tensor("INPUT", np.array([[value]], np.int32), "INT32")],
                sequence_id=1000,
                sequence_start=number == 0,
                sequence_end=number == 2,
            )
            outputs.append(answer.as_numpy("OUTPUT").tolist())
        assert outputs == [[[12]], [[7]], [[5]]]


async def test_several_tensors_of_several_types_and_given_values(
    serve: Serve, tmp_path: Path
) -> None:
    """A value of the state comes with START, and holds for the whole sequence."""
    put(tmp_path, rich(), "rich")
    speaker = tensor("speaker", np.array([[1, 2, 3]], np.float32), "FP32")
    audio = tensor("audio", np.ones((1, 2, 3), np.float32), "FP32")
    tokens = tensor("token", np.array([[1, 2]]), "INT64")
    async with serve(models_dir=tmp_path) as running, client(running) as triton_client:
        answer = await triton_client.infer(
            "rich", [tokens, audio, speaker], sequence_id=1, sequence_start=True
        )
        assert answer.as_numpy("score")[0, :, :, 0].tolist() == [[4, 6, 8], [7, 9, 11]]
        assert answer.as_numpy("counted").tolist() == [[[6, -6], [8, -4]]]
        assert answer.as_numpy("flag").tolist() == [[[True], [False]]]
        assert answer.as_numpy("loud").dtype == np.float16
        again = await triton_client.infer("rich", [audio, tokens], sequence_id=1)
        assert again.as_numpy("score")[0, 0, :, 0].tolist() == [4, 6, 8]
        with pytest.raises(InferenceServerException, match="only with the START flag"):
            await triton_client.infer("rich", [audio, tokens, speaker], sequence_id=1)
        other = tensor("speaker", np.zeros((1, 3), np.float32), "FP32")
        anew = await triton_client.infer(
            "rich", [audio, tokens, other], sequence_id=1, sequence_start=True
        )
        assert anew.as_numpy("score")[0, 0, :, 0].tolist() == [3, 4, 5]
        with pytest.raises(InferenceServerException, match="speaker"):
            await triton_client.infer("rich", [audio, tokens], sequence_id=2, sequence_start=True)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server for all tests here."""
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    yield server
    server.stop()


@pytest.mark.parametrize("policy", ["none", "synchronous"])
@pytest.mark.parametrize("store", ["directory", "valkey"])
async def test_a_sequence_goes_on_at_another_replica(
    serve: Serve, tmp_path: Path, valkey: Valkey, store: str, policy: str
) -> None:
    """Between any two requests; it ends at either, and starts again at either."""
    url = valkey.url if store == "valkey" else f"directory:{tmp_path / 'store'}"
    stored: dict[str, Any] = {"store": url, "store_sync": "no", "durability": policy}
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(serve(**stored)) for _ in range(2)]
        one, two = [await stack.enter_async_context(client(each)) for each in replicas]
        first, second = (one, two) if policy == "synchronous" else (one, one)
        for start, end in ((first, first), (first, second), (second, first)):
            await step(start, [[1, 1]], "s", sequence_start=True)
            assert (await step(second, [[1, 1]], "s")).tolist() == [[2, 2]]
            assert (await step(first, [[1, 1]], "s")).tolist() == [[3, 3]]
            assert (await step(end, [[1, 1]], "s", sequence_end=True)).tolist() == [[4, 4]]
            for each in (one, two):
                assert (await refused(step(each, [[1, 1]], "s")))[0] == "INVALID_ARGUMENT"


async def test_cancelled_requests_lose_no_sequence(running: Running) -> None:
    """Sixty-four sequences, each with a request that is given up: all go on, and end."""

    async def one(triton_client: Any, sequence: int) -> list[float]:
        await step(triton_client, [[1, 0]], sequence, sequence_start=True)
        given_up = asyncio.ensure_future(
            step(triton_client, [[1, 0]], sequence, parameters={"first_step": 1})
        )
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        again = await step(triton_client, [[1, 0]], sequence, parameters={"first_step": 1})
        await step(triton_client, [[1, 0]], sequence, sequence_end=True)
        return list(again[0].tolist())

    async with client(running) as triton_client:
        made = await asyncio.gather(*(one(triton_client, number) for number in range(1, 65)))
    assert made == [[2, 0]] * 64
    await until(lambda: running.metric("ntm_sessions", model=MODEL) == 0)


async def test_reflection_tells_of_the_service_by_the_protocols_names(running: Running) -> None:
    """So that tools without the .proto files can call it; our own API is told as before."""
    ask = reflection_pb2_grpc.ServerReflectionStub(running.channel).ServerReflectionInfo
    for symbol, message in (
        ("inference.GRPCInferenceService", "inference.ModelInferRequest"),
        ("ntm.v1.NtmService", "ntm.v1.StepRequest"),
    ):
        call = ask()
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
        answer = (await call.read()).file_descriptor_response
        pool = descriptor_pool.DescriptorPool()
        for file in reversed(answer.file_descriptor_proto):
            pool.AddSerializedFile(file)
        methods = pool.FindServiceByName(symbol).methods_by_name
        assert message in {method.input_type.full_name for method in methods.values()}
