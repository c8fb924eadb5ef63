"""The runtime: steps in place over slabs equal plain runs of the step graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from service.errors import ModelInvalid
from service.models import cuda, runtime
from service.models.runtime import Network
from service.spec import Float32
from tests.support.served import MODELS
from tests.support.tiny_models import LEDGER, ledger

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
    """Runs of every number of ticks, at slots out of order, give onnxruntime's own bits."""
    model = ledger() if name == "ledger" else (MODELS / name / "model.onnx").read_bytes()
    network = Network(model, "cpu")
    spec, batch = network.spec, 8
    locations = 16 if spec.has_memory and not spec.fixed_locations else spec.default_locations
    plain = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    state = {t.input: np.stack([t.initial_value(locations)] * batch) for t in spec.state}
    tensors = network.allocate(12, locations)
    slots = [11, 0, 5, 3, 2, 8, 9, 4]
    network.write_rows(tensors, slots, {t.name: state[t.input] for t in spec.state})
    rng = np.random.default_rng(2)
    names = [value.name for value in plain.get_outputs()]
    for ticks in (*network.bursts, 1, 2):
        traced = frozenset(t.output for t in spec.traces if ticks != 2)
        bound = network.bind(tensors, batch, locations, traced, ticks)
        bound.slots[:] = slots
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


def test_a_run_updates_the_slab_in_place(network: Network) -> None:
    """Only the batch's rows change, and the buffers stay where they are."""
    tensors = network.allocate(16, 8)
    zeros = {t.name: np.zeros((16, *t.shape_at(8)), np.float32) for t in LEDGER.state}
    network.write_rows(tensors, range(16), zeros)
    before = {name: value.data_ptr() for name, value in tensors.items()}
    bound = network.bind(tensors, 8, 8, frozenset(), 1)
    bound.slots[:] = range(8)
    bound.inputs[:] = 3
    bound.run()
    total = network.read_rows(tensors, range(16))["total"]
    assert total.tolist() == [[3, 3]] * 8 + [[0, 0]] * 8
    assert before == {name: value.data_ptr() for name, value in tensors.items()}


def test_every_run_on_a_device_gets_the_inputs_and_slots_of_that_run(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device has memory of its own, here a copy: what is written to an array must be brought."""
    tensors = network.allocate(16, 8)
    network.write_rows(
        tensors,
        range(16),
        {t.name: np.zeros((16, *t.shape_at(8)), np.float32) for t in LEDGER.state},
    )
    on_the_cpu = onnxruntime.OrtValue.ortvalue_from_numpy
    monkeypatch.setattr(
        onnxruntime.OrtValue,
        "ortvalue_from_numpy",
        lambda array, device="cpu": on_the_cpu(array if device == "cpu" else array.copy()),
    )
    monkeypatch.setattr(network, "_device", "cuda")
    bound = network.bind(tensors, 8, 8, frozenset(), 1)
    for start, value in ((0, 3), (8, 5)):
        bound.slots[:] = range(start, start + 8)
        bound.inputs[:] = value
        bound.run()
    total = network.read_rows(tensors, range(16))["total"]
    assert total.tolist() == [[3, 3]] * 8 + [[5, 5]] * 8


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
    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(ModelInvalid, match="not in this test"):
        runtime.provider("cuda")
    assert asked == [("CUDAExecutionProvider", {"use_tf32": "0"}), ("CPUExecutionProvider", {})]


@pytest.mark.skipif(works_on_cuda(), reason="CUDA works on this machine")
def test_cuda_is_refused_with_the_reason_where_it_does_not_work() -> None:
    """No silent fall-back to the CPU."""
    with pytest.raises(RuntimeError, match="--device is 'cuda', but"):
        Network(ledger(), "cuda")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_width": 3}, "spec says 3"),
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
