"""The first session on a GPU, run on the CPU: every piece, and pieces that fail or hang."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.gpu import __main__ as program
from bench.gpu import autograd
from bench.gpu.pieces import PIECES, Finding, _difference
from bench.processes import MODEL
from bench.row import ROOT
from export.architectures import ARCHITECTURES
from service.models import runtime
from service.models.bound_run import Tensors
from service.models.folder import MODEL_FILE
from service.models.runtime import Network


def report(path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit status, and what the report has of each piece."""
    status = program.main([f"--report={path}", *arguments])
    pieces: dict[str, Any] = json.loads(path.read_text())["pieces"]
    return status, pieces


@pytest.mark.slow
def test_a_piece_runs_on_the_cpu_and_says_what_it_saw(tmp_path: Path) -> None:
    """The report has the versions, and of each model that its slab is stepped in place."""
    status, pieces = report(
        tmp_path / "gpu.json", "--device=cpu", "--minutes=1.5", "--pieces", "provider"
    )

    assert status == 0
    versions, *models = pieces["provider"]["seen"]
    assert versions["card"] == "none: this ran on the CPU"
    assert len(models) >= 15
    for model in models:
        checks = ("in place by address", "others unchanged", "stepped")
        assert [model[name] for name in checks] == [True] * 3, model["model"]


def test_a_piece_that_fails_is_told_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that is gone when they begin fails both; the report has the error's words."""
    path = tmp_path / "gpu.json"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(runtime, "provider", lambda device: "CUDAExecutionProvider")
    status, pieces = report(path, "--device=cuda", "--minutes=2", "--pieces", "copies", "error")

    assert status == 1
    assert [piece["seen"] for piece in pieces.values()] == [[], []]
    for piece in pieces.values():
        assert "--device is 'cuda', but" in str(piece["status"])


def test_errors_are_those_of_sessions_from_their_initial_states(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the memory held before, a CPU differs from itself by nothing."""
    allocate, random = Network.allocate, np.random.default_rng(1)

    def used(self: Network, capacity: int, locations: int) -> Tensors:
        tensors = allocate(self, capacity, locations)
        rows = {
            name: random.standard_normal(tensor.shape()).astype(np.float32)
            for name, tensor in tensors.items()
        }
        self.write_rows(tensors, range(capacity + 1), rows)
        return tensors

    monkeypatch.setattr(Network, "allocate", used)
    content = (ROOT / "models" / MODEL / MODEL_FILE).read_bytes()

    assert _difference(content, "cpu", 5) == 0


def test_a_device_that_is_not_there_is_told_before_any_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence has the reason, and no report is written."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    path = tmp_path / "gpu.json"

    assert program.main([f"--report={path}", "--device=cuda"]) == 2
    said = capsys.readouterr()
    assert (said.out, path.exists()) == ("", False)
    assert said.err.startswith("--device is 'cuda', but ")
    assert len(said.err.splitlines()) == 1


def test_ctrl_c_ends_it_and_its_piece_in_one_line(tmp_path: Path) -> None:
    """The report has the piece that was under way, and what it had seen."""
    path = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "bench.gpu", "--device=cpu", f"--report={path}"]
    with subprocess.Popen(
        [*command, "--pieces", "memory"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if line.startswith("    {"):  # the first finding
                break
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()

    assert process.returncode == 130
    assert said == "stopped; the report has what was seen until then\n"
    (piece,) = json.loads(path.read_text())["pieces"].values()
    assert (piece["status"], len(piece["seen"])) == ("under way", 1)


def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    """Let every piece be this shell script."""
    piece = tmp_path / "piece"
    piece.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    piece.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(piece))


def test_a_piece_that_hangs_is_ended_and_what_it_saw_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its limit ends it with all that it has started, which holds its output open."""
    stand_in(monkeypatch, tmp_path, "sleep 600 & echo '{\"child\":' $! '}'; wait")
    (status, finding), last = program._watched("memory", "cpu", seconds=600, limit=3)

    assert status == "under way"
    assert finding is not None
    assert last == ("stopped after 3 s", None)
    assert not Path(f"/proc/{finding['child']}/exe").exists()


def test_what_a_killed_piece_left_half_compiled_is_not_found_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a folder of its own for what torch.compile writes, which goes with it."""
    stand_in(monkeypatch, tmp_path, 'echo "{\\"folder\\": \\"$TORCHINDUCTOR_CACHE_DIR\\"}"')
    folders = []
    for _ in range(2):
        (_, seen), (status, _) = program._watched("engine", "cpu", seconds=1, limit=60)
        assert status == "done"
        assert seen is not None
        folders.append(Path(seen["folder"]))

    assert folders[0] != folders[1]
    assert not any(folder.exists() for folder in folders)


def test_every_piece_has_a_share_of_the_time() -> None:
    """The order is that of a first session: what others rest on comes first."""
    assert list(PIECES)[:3] == ["provider", "error", "invariance"]
    assert all(share > 0 for _, share in PIECES.values())


def findings(name: str) -> list[Finding]:
    """What a piece sees on the CPU in a second."""
    return list(PIECES[name][0]("cpu", 1.0))


@pytest.mark.slow
def test_a_session_has_the_same_bits_in_every_batch() -> None:
    """On the CPU, whatever the batch, the place and the mates."""
    seen = findings("invariance")

    assert {finding["batch"] for finding in seen} >= {1, 8, 32, 34, 128, 512}
    assert all(finding["same bits"] for finding in seen)


def test_packed_results_are_timed_beside_separate_ones() -> None:
    """Each batch has both times."""
    seen = findings("copies")

    assert [copy["batch"] for copy in seen] == [1, 32, 512]
    assert all(copy["packed, us"] > 0 and copy["apart, us"] > 0 for copy in seen)


def test_runs_without_captured_graphs_repeat_each_other() -> None:
    """Two shapes in turn, and another thread: no comparison of the state differs."""
    *_, last = findings("cuda-graphs")

    assert last["replays"] > 10
    assert last["comparisons that differ"] == 0


def test_training_by_autograd_has_the_costs_of_training_by_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From one seed, the first points of both curves agree; both ways have a speed."""
    monkeypatch.setattr(autograd, "BATCHES", {"cpu": (32,)})
    monkeypatch.setattr(autograd, "POINT", 5)
    try:
        said, *speeds, point = findings("training")
    finally:
        del ARCHITECTURES["by-autograd"]

    assert said == {"note": "no GPU: autograd runs on the CPU too"}
    assert [(each["trained by"], each["batch"]) for each in speeds] == [
        ("kernels on a CPU core", 32),
        ("autograd on cpu", 32),
    ]
    assert all(each["sequences/s"] > 0 for each in speeds)
    assert point["updates"] == 5
    assert point["autograd, bits"] == pytest.approx(point["kernels, bits"], rel=1e-4)
