"""The benchmark against Triton, as far as it can be tested without Triton."""

from __future__ import annotations

import json
import runpy
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench import perf_analyzer, processes, triton, triton_environment
from bench.row import BenchmarkUnavailable, Options
from service.models.graph import parse
from service.spec import Float32
from tests.support import tiny_models

REPORT = """\
Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,\
Server Compute Input,Server Compute Infer,Server Compute Output,Client Recv,p50 latency,\
p90 latency,p95 latency,p99 latency
64,6026.15,2,1178,3236,574,2957,2428,0,10026,14389,15961,20106
"""
"""As perf_analyzer 2.60 writes it."""

BENCH = Path(triton.__file__).parent
START, END = 1, 2


@dataclass(frozen=True)
class Tensor:
    """A named array, as in Triton's module for Python models."""

    name: str
    values: Float32

    def as_numpy(self) -> Float32:
        """The array."""
        return self.values


@dataclass(frozen=True)
class Request:
    """One step of a sequence, as Triton hands it to the model."""

    sequence: int
    step: Float32
    flag: int = 0

    def correlation_id(self) -> int:
        """The sequence's id."""
        return self.sequence

    def flags(self) -> int:
        """Whether the sequence starts or ends."""
        return self.flag


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Load the Python model as Triton does, with the ledger, whose outputs are running sums."""
    fake: Any = ModuleType("triton_python_backend_utils")
    fake.Tensor = Tensor
    fake.InferenceResponse = lambda tensors: SimpleNamespace(tensors=tensors)
    fake.get_input_tensor_by_name = lambda request, name: Tensor(name, request.step)
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.onnx").write_bytes(tiny_models.ledger())
    loaded = runpy.run_path(str(BENCH / "triton_model.py"))["TritonPythonModel"]()
    loaded.initialize({"model_repository": str(tmp_path), "model_version": "1"})
    return loaded


def step(model: Any, *requests: tuple[int, int, int]) -> list[list[float]]:
    """Return the output rows of a batch of requests (sequence, value, flag)."""
    batch = [
        Request(sequence, np.full((1, tiny_models.WIDTH), value, np.float32), flag)
        for sequence, value, flag in requests
    ]
    tensors = [response.tensors for response in model.execute(batch)]
    assert [[tensor.name for tensor in row] for row in tensors] == [["y"]] * len(batch)
    assert all(row[0].values.shape == (1, tiny_models.WIDTH) for row in tensors)
    return [row[0].values[0].tolist() for row in tensors]


def test_sequences_keep_their_states_in_batches_of_any_mix(model: Any) -> None:
    """Each sequence gets the sums of its own steps, at any place in a batch."""
    assert step(model, (1, 1, START), (2, 10, START)) == [[1, 1], [10, 10]]
    assert step(model, (3, 40, START), (1, 2, 0)) == [[40, 40], [3, 3]]
    assert step(model, (2, 20, 0), (1, 3, 0), (3, 50, 0)) == [[30, 30], [6, 6], [90, 90]]


def test_a_sequence_that_ended_leaves_nothing(model: Any) -> None:
    """A sequence with the id of an ended one starts from the initial state."""
    step(model, (1, 1, START), (2, 10, START))

    assert step(model, (1, 2, END)) == [[3, 3]]
    assert step(model, (1, 5, START), (2, 20, 0)) == [[5, 5], [30, 30]]


def test_throughput_and_latencies_are_read_from_the_report() -> None:
    """The columns are found by name."""
    assert perf_analyzer.parse(REPORT) == perf_analyzer.Measured(6026.15, 10026, 20106)


def test_the_configuration_is_the_models() -> None:
    """Triton's configuration has the names and widths of the network."""
    _, spec = parse(triton.GRAPH.read_bytes())
    configuration = (BENCH / "triton_model.pbtxt").read_text()

    assert spec.input_width == triton.WIDTH
    assert f'name: "{processes.MODEL}"' in configuration
    for kind, name, width in (
        ("input", spec.input, spec.input_width),
        ("output", spec.output, spec.output_width),
    ):
        line = f'{kind} {{ name: "{name}" data_type: TYPE_FP32 dims: {width} }}'
        assert line in configuration


def test_sequences_are_whole_copies_of_differing_length(tmp_path: Path) -> None:
    """Each sequence has vectors, a delimiter and as many empty steps, and lengths differ."""
    written = json.loads(triton.write_sequences(tmp_path / "inputs.json").read_text())["data"]
    sequences = [np.array([step["x"] for step in steps]) for steps in written]

    assert len({len(steps) for steps in sequences}) == len(sequences)
    for steps in sequences:
        vectors = len(steps) // 2
        assert np.flatnonzero(steps[:, -1]).tolist() == [vectors]
        assert not steps[vectors + 1 :].any()


def test_the_mirror_is_the_one_that_apt_uses() -> None:
    """The mirror is that of the system's own suite, not that of its updates."""
    printed = (
        "'http://updates.example/debian/dists/bookworm-updates/InRelease' a 0 \n"
        "'http://mirror.example/debian/dists/bookworm/InRelease' b 0 \n"
    )

    assert triton_environment.mirror(printed, "bookworm") == "http://mirror.example/debian"
    with pytest.raises(BenchmarkUnavailable, match="apt has no source for sid"):
        triton_environment.mirror(printed, "sid")


def test_is_not_measured_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the reason, and nothing is installed."""
    monkeypatch.setattr(sys, "platform", "darwin")

    with pytest.raises(BenchmarkUnavailable, match="Linux"):
        triton.peer_triton(Options(rounds=1, device="cpu"))
    with pytest.raises(BenchmarkUnavailable, match="CPU"):
        triton.peer_triton(Options(rounds=1, device="cuda"))


def test_both_servers_are_checked_and_measured_by_perf_analyzer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each row is the throughput of ours divided by that of Triton, which stand-ins give."""
    rates = {"ours": 6000.0, "theirs": 2000.0}
    checked: list[str] = []

    def measure(command: list[str], address: str, *_: object) -> perf_analyzer.Measured:
        assert command == ["analyzer"]
        return perf_analyzer.Measured(rates[address], 1.0, 2.0)

    def check(_: object, address: str, __: Path) -> None:
        checked.append(address)

    for module, name, stand_in in (
        (processes, "server", lambda _: nullcontext(SimpleNamespace(address="ours"))),
        (triton, "FOLDER", tmp_path),
        (triton, "_triton", lambda _: nullcontext("theirs")),
        (triton, "_check", check),
        (triton_environment, "ready", lambda: SimpleNamespace(perf_analyzer=["analyzer"])),
        (perf_analyzer, "measure", measure),
    ):
        monkeypatch.setattr(module, name, stand_in)
    rows = triton.peer_perf_analyzer(Options(rounds=2))
    assert [row.name for row in rows] == [f"peer-perf-analyzer-{each}" for each in (1, 16, 64)]
    for row in rows:
        assert (row.ratio, row.goal) == (3.0, 2.0)
        assert row.samples["served, steps/s"] == [6000.0, 6000.0]
        assert row.samples["Triton, p99, us"] == [2.0, 2.0]
    assert checked == ["ours", "theirs"]
