"""The runtime: steps in place over slabs equal plain runs of the step graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from service.errors import ModelInvalid
from service.models import bound_run, cuda, graph, runtime
from service.models.device import Device
from service.models.runtime import Network
from service.models.slab import Slab
from service.spec import Float32, vector
from tests.support.devices import memory_apart
from tests.support.served import MODELS
from tests.support.tiny_models import LEDGER, ledger

LARGEST_DIFFERENCE = 1e-5
"""The largest difference from PyTorch that `export.verification` lets a file have."""

SHIPPED = sorted(path.parent.name for path in MODELS.glob("*/model.onnx"))


def test_rows_are_written_and_read_back(network: Network) -> None:
    """Writing some slots leaves the others as they are."""
    tensors = network.allocate(4, 5)
    rng = np.random.default_rng(1)

    def rows(count: int) -> dict[str, Float32]:
        return {
            tensor.name: rng.normal(size=(count, *tensor.shape_at(5))).astype(np.float32)
            for tensor in LEDGER.state
        }

    everything, some = rows(4), rows(2)
    network.write_rows(tensors, [0, 1, 2, 3], everything)
    network.write_rows(tensors, [3, 1], some)
    read = network.read_rows(tensors, [0, 1, 2, 3])
    for name, values in read.items():
        np.testing.assert_array_equal(values[[0, 2]], everything[name][[0, 2]])
        np.testing.assert_array_equal(values[[3, 1]], some[name])


@pytest.mark.parametrize("name", ["ledger", *SHIPPED])
def test_steps_over_a_slab_equal_plain_runs_of_the_step_graph(name: str) -> None:
    """Runs of every number of ticks, at slots out of order, give the bits of single steps."""
    model = ledger() if name == "ledger" else (MODELS / name / "model.onnx").read_bytes()
    network = Network(model, "cpu")
    spec, batch = network.spec, 8
    locations = 16 if spec.has_memory and not spec.fixed_locations else spec.default_locations
    step = graph.served(*graph.parse(model)).SerializeToString()
    plain = onnxruntime.InferenceSession(step, providers=["CPUExecutionProvider"])
    state = {t.input: np.stack([t.initial_value(locations)] * batch) for t in spec.state}
    tensors = network.allocate(12, locations)
    slots = [11, 0, 5, 3, 2, 8, 9, 4]
    network.write_rows(tensors, slots, {t.name: state[t.input] for t in spec.state})
    rng = np.random.default_rng(2)
    names = [value.name for value in plain.get_outputs()]
    for ticks in (*network.bursts, 1, 2):
        traced = frozenset(t.output for t in spec.traces if ticks != 2)
        bound = network.bind(tensors, batch, locations, traced, ticks)
        bound.seat(slots)
        bound.inputs[:] = rng.integers(0, 2, bound.inputs.shape)
        bound.run()
        for tick in range(ticks):
            feeds = {spec.input: bound.inputs[tick], **state}
            values = dict(zip(names, plain.run(None, feeds), strict=True))
            state = {t.input: values[t.output] for t in spec.state}
            np.testing.assert_array_equal(bound.output[tick], values[spec.output])
            for output, trace in bound.traces.items():
                np.testing.assert_array_equal(trace[tick], values[output])
    rows = network.read_rows(tensors, slots)
    for tensor in spec.state:
        np.testing.assert_array_equal(rows[tensor.name], state[tensor.input])


@pytest.mark.parametrize("name", SHIPPED)
def test_a_step_as_served_differs_from_the_files_step_by_roundings(name: str) -> None:
    """From the same state, outputs, next state and traces agree as closely as exporting demands."""
    model = (MODELS / name / "model.onnx").read_bytes()
    proto, spec = graph.parse(model)
    served = graph.served(proto, spec).SerializeToString()
    of_file, of_served = (
        onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        for content in (model, served)
    )
    state = {t.input: np.stack([t.initial_value(spec.default_locations)] * 4) for t in spec.state}
    rng = np.random.default_rng(4)
    names = [value.name for value in of_file.get_outputs()]
    assert names == [value.name for value in of_served.get_outputs()]
    for _ in range(100):
        feeds = {spec.input: rng.integers(0, 2, (4, spec.input_width)).astype(np.float32), **state}
        expected = dict(zip(names, of_file.run(None, feeds), strict=True))
        found = dict(zip(names, of_served.run(None, feeds), strict=True))
        for output, values in expected.items():
            scale = np.maximum(1, np.abs(values))
            assert np.abs((found[output] - values) / scale).max() <= LARGEST_DIFFERENCE, output
        state = {t.input: found[t.output] for t in spec.state}


def stepped(network: Network, inputs: Float32, locations: int, rows: int) -> list[bytes]:
    """The outputs of the first of `rows` sessions, and its state afterwards; inputs [T, 64, X]."""
    slab = Slab(network, locations)
    slots = [slab.acquire() for _ in range(rows)]
    bound = slab.bind(rows, frozenset())
    bound.seat(slots)
    outputs = []
    for x in inputs:
        bound.inputs[0] = np.resize(x[:rows], bound.inputs[0].shape)
        bound.run()
        outputs.append(bound.output[0, 0].copy())
    state = slab.read(slots[:1])
    return [np.stack(outputs).tobytes(), *(state[name].tobytes() for name in sorted(state))]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_row_alone_gets_the_bits_of_a_row_among_others(name: str) -> None:
    """Outputs and state, with an even and an odd number of locations where sessions may choose."""
    network = Network((MODELS / name / "model.onnx").read_bytes(), "cpu", max_burst=1)
    spec = network.spec
    inputs = np.random.default_rng(6).integers(0, 2, (40, 64, spec.input_width))
    chooses = spec.has_memory and not spec.fixed_locations
    for locations in (16, 17) if chooses else (spec.default_locations,):
        alone = stepped(network, inputs.astype(np.float32), locations, 1)
        for rows in (2, 5, 64):
            assert stepped(network, inputs.astype(np.float32), locations, rows) == alone


@pytest.mark.parametrize(
    "name", [name for name in SHIPPED if not name.endswith(("-dnc", "-transformer"))]
)
def test_one_row_is_a_batch_where_it_fills_whole_packets(name: str) -> None:
    """With an even number of locations; two heads have an odd number of pairs with an odd one."""
    network = Network((MODELS / name / "model.onnx").read_bytes(), "cpu", max_burst=1)
    spec = network.spec
    assert network.batch(1, spec.default_locations) == 1
    assert [network.batch(rows, spec.default_locations) for rows in (2, 3, 64)] == [2, 4, 64]
    if spec.has_memory:
        assert network.batch(1, 17) == (2 if spec.read_heads == 1 else 1)


@pytest.mark.parametrize(
    ("name", "sizes"), [("copy-dnc", [4, 4, 8, 64]), ("copy-transformer", [2, 2, 6, 64])]
)
def test_rows_of_other_networks_come_in_packets(name: str, sizes: list[int]) -> None:
    """Their operators are not all known to compute a lone row as a row among others."""
    network = Network((MODELS / name / "model.onnx").read_bytes(), "cpu", max_burst=1)
    assert [network.batch(rows, 128) for rows in (1, 2, 5, 64)] == sizes


def test_sharp_heads_leave_no_denormal_numbers() -> None:
    """A step of the file makes some of the same state; what is served makes none, nor keeps any."""
    model = (MODELS / "priority-sort-ntm-lstm" / "model.onnx").read_bytes()
    network = Network(model, "cpu", max_burst=1)
    spec = network.spec
    plain = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    slab = Slab(network, spec.default_locations)
    slots = [slab.acquire() for _ in range(8)]
    bound = slab.bind(8, frozenset())
    bound.seat(slots)
    rng = np.random.default_rng(7)
    (weighting,) = (tensor for tensor in spec.state if tensor.name == "weighting")
    of_file = 0
    for _ in range(300):
        state = slab.read(slots)
        bound.inputs[:] = rng.integers(0, 2, bound.inputs.shape)
        bound.run()
        assert {
            name: denormal(values) for name, values in slab.read(slots).items()
        } == dict.fromkeys(state, 0)
        feeds = {spec.input: bound.inputs[0], **{t.input: state[t.name] for t in spec.state}}
        of_file += denormal(plain.run([weighting.output], feeds)[0])
    assert of_file > 0


def denormal(values: Float32) -> int:
    """How many of the values are denormal."""
    return int(((values != 0) & (np.abs(values) < np.finfo(np.float32).tiny)).sum())


def test_a_broken_state_still_shows_in_the_outputs() -> None:
    """An infinite memory gives outputs that are not numbers, by which the engine finds the row."""
    network = Network((MODELS / "copy-ntm-lstm" / "model.onnx").read_bytes(), "cpu", max_burst=1)
    slab = Slab(network, 16)
    slots = [slab.acquire(), slab.acquire()]
    state = slab.read(slots[:1])
    state["memory"][..., 3] = np.inf
    slab.write(slots[0], state)
    bound = slab.bind(2, frozenset())
    bound.seat(slots)
    bound.run()
    assert np.isnan(bound.output[0, 0]).all()
    assert np.isfinite(bound.output[0, 1]).all()


def test_a_run_updates_the_slab_in_place(network: Network) -> None:
    """Only the batch's rows change, and the buffers stay where they are."""
    tensors = zeroed(network)
    before = {name: value.data_ptr() for name, value in tensors.items()}
    bound = network.bind(tensors, 8, 8, frozenset(), 1)
    bound.seat(range(8))
    bound.inputs[:] = 3
    bound.run()
    total = network.read_rows(tensors, range(16))["total"]
    assert total.tolist() == [[3, 3]] * 8 + [[0, 0]] * 8
    assert before == {name: value.data_ptr() for name, value in tensors.items()}


def zeroed(network: Network) -> Mapping[str, onnxruntime.OrtValue]:
    """The tensors of 16 slots and the spare row, for 8 locations, all zero."""
    tensors = network.allocate(16, 8)
    zeros = {t.name: np.zeros((17, *t.shape_at(8)), np.float32) for t in LEDGER.state}
    network.write_rows(tensors, range(17), zeros)
    return tensors


def test_every_run_on_a_device_gets_and_gives_what_is_of_that_run(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device has memory of its own, here other memory of the CPU, to which all is copied."""

    expected, tensors = zeroed(network), zeroed(network)
    traced = frozenset(trace.output for trace in LEDGER.traces)
    plain = network.bind(expected, 8, 8, traced, 2)
    monkeypatch.setattr(bound_run, "memory", memory_apart)
    bound = network.bind(tensors, 8, 8, traced, 2)
    for first, value in ((0, 3), (8, 5), (4, 7)):
        for each in (plain, bound):
            each.seat(range(first, first + 6))
            each.inputs[0], each.inputs[1] = value, value + 0.5
            each.run()
        np.testing.assert_array_equal(bound.output, plain.output)
        assert bound.output.any()
        for name, trace in plain.traces.items():
            np.testing.assert_array_equal(bound.traces[name], trace)
    rows = network.read_rows(tensors, range(16))
    for name, values in network.read_rows(expected, range(16)).items():
        np.testing.assert_array_equal(rows[name], values)


def test_rows_that_pad_a_batch_write_the_spare_row_alone(network: Network) -> None:
    """So no two rows of a batch write the state of one session, which CUDA leaves undefined."""
    tensors = zeroed(network)
    bound = network.bind(tensors, 8, 8, frozenset(), 1)
    bound.seat([11, 2])
    assert bound.slots.tolist() == [11, 2, *[16] * 6]
    assert bound.sources.tolist() == [11, *[2] * 7]
    bound.inputs[:] = np.arange(8)[:, None]
    bound.run()
    total = network.read_rows(tensors, range(16))["total"][:, 0]
    assert np.flatnonzero(total).tolist() == [2]
    assert total[2] == 1


def test_batches_on_a_gpu_have_few_sizes(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs memory and time there; beyond the largest, sizes are its multiples."""
    monkeypatch.setattr(network, "on_cpu", False)
    monkeypatch.setattr(network, "_multiple", runtime.CUDA_BATCHES[-1])
    sizes = [network.batch(rows, 8) for rows in (1, 8, 9, 33, 4095, 4097)]
    assert sizes == [8, 8, 32, 128, 4096, 8192]


def test_nodes_that_a_provider_leaves_to_another_are_named() -> None:
    """A graph that is not whole on the GPU would cross the bus in every step."""
    proto, spec = graph.parse(ledger())
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(
        graph.slab_graph(proto, spec, 1, traced=False), options, ["CPUExecutionProvider"]
    )
    assert runtime._nodes_not_on("CPUExecutionProvider", session) == []
    assert "one without a name (ScatterND)" in runtime._nodes_not_on("CUDA", session)


def works_on_cuda() -> bool:
    """Whether CUDA works on this machine, asked of onnxruntime itself."""
    return Network(ledger(), "auto").provider == "CUDAExecutionProvider"


@pytest.mark.parametrize(("cores", "runs"), [(1, 1), (2, 1), (8, 7)])
def test_runs_leave_a_core_to_the_event_loop(
    cores: int, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run at a time on a GPU; on processors as many as there are but one, at least one."""
    monkeypatch.setattr(runtime, "cores", lambda: cores)
    assert runtime.parallel_runs("CPUExecutionProvider") == runs
    assert runtime.parallel_runs("CUDAExecutionProvider") == 1


def test_auto_tells_which_provider_really_runs() -> None:
    """Where CUDA does not load, `auto` means the CPU and says so."""
    listed = onnxruntime.get_available_providers()
    provider = Network(ledger(), "auto").provider
    assert provider in listed
    assert Network(ledger(), "cpu").provider == "CPUExecutionProvider"


@pytest.fixture
def broken_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A machine with the CUDA provider but without a GPU; holds a line for each look at it."""
    looks = list[str]()

    def why_not(release: str, version: str, folder: Path) -> str:
        looks.append(f"{release} {version} {folder.name}")
        return "the cat took the GPU"

    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "cuda_version", "13.0", raising=False)
    monkeypatch.setattr(cuda, "why_not", why_not)
    runtime._cuda_fault.cache_clear()
    yield looks
    runtime._cuda_fault.cache_clear()


def test_auto_takes_the_cpu_where_cuda_cannot_be_used_and_logs_why_once(
    broken_cuda: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Without CUDA, `auto` uses the CPU, and the reason is logged once for all networks."""
    caplog.set_level("INFO", "service.models.runtime")

    assert [Network(ledger(), "auto").provider for _ in range(2)] == ["CPUExecutionProvider"] * 2
    assert broken_cuda == [f"{onnxruntime.__version__} 13.0 capi"]
    assert [vars(record)["reason"] for record in caplog.records] == ["the cat took the GPU"]


@pytest.mark.usefixtures("broken_cuda")
def test_cuda_is_refused_with_that_reason() -> None:
    """If CUDA was asked for, the error has the reason why it cannot be used."""
    with pytest.raises(RuntimeError, match="--device is 'cuda', but the cat took the GPU; set it"):
        runtime.provider("cuda")


def test_cuda_is_asked_for_whole_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exported networks are verified to 1e-5, which TF32, CUDA's default, would not reach."""
    asked = []

    def refuse(*_: object, providers: list[tuple[str, dict[str, str]]]) -> None:
        asked.extend(providers)
        raise ValueError("not in this test")

    monkeypatch.setattr(runtime, "_cuda_fault", lambda: None)
    monkeypatch.setattr(runtime, "device_of", Device)
    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(ModelInvalid, match="not in this test"):
        runtime.provider("cuda")
    (cuda_options, *rest) = asked
    assert rest == [("CPUExecutionProvider", {})]
    assert cuda_options[0] == "CUDAExecutionProvider"
    assert cuda_options[1]["use_tf32"] == "0"


def test_cuda_graphs_are_refused_on_the_cpu() -> None:
    """A setting that changes nothing is a mistake."""
    assert runtime.provider("cpu") == "CPUExecutionProvider"
    with pytest.raises(RuntimeError, match="--cuda-graphs is 'yes', but networks run on the CPU"):
        runtime.provider("cpu", cuda_graphs=True)


def test_cuda_graphs_are_asked_for_in_the_graphs_that_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that read, write and copy rows get other addresses in each run."""
    session, asked = onnxruntime.InferenceSession, list[bool]()

    def on_cpu(
        model: bytes, options: onnxruntime.SessionOptions, providers: list[Any]
    ) -> onnxruntime.InferenceSession:
        asked.append("enable_cuda_graph" in providers[0][1])
        return session(model, options, ["CPUExecutionProvider"])

    monkeypatch.setattr(runtime, "_cuda_fault", lambda: None)
    monkeypatch.setattr(runtime, "device_of", lambda _: Device("cpu"))
    monkeypatch.setattr(onnxruntime, "InferenceSession", on_cpu)
    Network(ledger(), "auto", max_burst=2, cuda_graphs=True)
    assert asked == [True] * 4 + [False] * 3


@pytest.mark.skipif(works_on_cuda(), reason="CUDA works on this machine")
def test_cuda_is_refused_with_the_reason_where_it_does_not_work() -> None:
    """No silent fall-back to the CPU."""
    with pytest.raises(RuntimeError, match="--device is 'cuda', but"):
        Network(ledger(), "cuda")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": (vector("y", 3),)}, "spec says 3"),
        ({"traces": (replace(LEDGER.traces[0], heads=3),)}, "'a_weighting' has 2 heads"),
        ({"traces": (replace(LEDGER.traces[0], output="y"),)}, r"'y' has shape"),
        ({"traces": (replace(LEDGER.traces[0], width=8),)}, "has width N"),
    ],
)
def test_a_spec_that_disagrees_with_the_graph_is_refused(
    changes: dict[str, object], message: str
) -> None:
    """Shapes are compared when the model is loaded, not when a client steps."""
    spec = replace(LEDGER, **changes)  # type: ignore[arg-type] # chosen to be wrong
    with pytest.raises(ModelInvalid, match=message):
        Network(ledger(metadata=spec.to_json()), "cpu")
