"""Every row of the configurations goes the whole way: trained, exported, served."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch

from export import __main__ as command_line
from export import card, verification
from export.configuration import Configuration, Trial
from export.configurations import CONFIGURATIONS, PAPER
from export.served import ServedModel
from export.verification import OnnxRunner
from ntm_client import Client
from ntm_tasks import TASKS
from tests.conftest import Serve

FEW = (
    "copy-ntm-lstm",
    "repeat-copy-ntm-ff",
    "associative-recall-dnc",
    "ngrams-lstm",
    "priority-sort-ntm-ff",
    "priority-sort-gru",
    "copy-transformer",
)
"""Rows that have every task and every architecture between them. The others take minutes."""

ROWS = [
    pytest.param(row, False, id=row.name, marks=() if row.name in FEW else pytest.mark.long)
    for row in CONFIGURATIONS.values()
] + [
    pytest.param(row, True, id=f"paper {row.name}", marks=pytest.mark.long)
    for row in PAPER.values()
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def cut(row: Configuration) -> list[str]:
    """The settings of two updates, and of the same trials with one sequence each, of at most 20."""

    def short(trials: tuple[Trial, ...]) -> str:
        return ",".join(
            str(trial._replace(size=tuple(min(n, 20) for n in trial.size), sequences=1))
            for trial in trials
        )

    settings: dict[str, object] = {"updates": 2, "report_every": 2, "batch": min(row.batch, 2)}
    settings |= {"validation": short(row.validation), "evaluation": short(row.evaluation)}
    return [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]


def test_few_rows_have_every_task_and_every_architecture() -> None:
    """What only some task or some architecture has is tried in every run of the tests."""
    few = [CONFIGURATIONS[name] for name in FEW]
    assert {row.task for row in few} == {row.task for row in CONFIGURATIONS.values()}
    assert {row.architecture for row in few} == {
        row.architecture for row in CONFIGURATIONS.values()
    }


@pytest.mark.parametrize(("row", "paper"), ROWS)
async def test_a_row_is_trained_exported_and_served(
    row: Configuration,
    paper: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    serve: Serve,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two updates of it become a model whose sessions answer as its file does, with all traces."""
    monkeypatch.setattr(card, "VERIFIED_LOCATIONS", (40,))
    monkeypatch.setattr(verification.verify, "__defaults__", ((1, 7), 20))
    threads = torch.get_num_threads()
    train = ["train", row.task, "--architecture", row.architecture, *cut(row)]
    train += ["--runs", str(tmp_path / "runs"), *(["--paper"] if paper else [])]
    assert await asyncio.to_thread(command_line.main, train) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    export = ["export", str(folder), "--models", str(tmp_path / "models")]
    assert await asyncio.to_thread(command_line.main, export) == 0
    torch.set_num_threads(threads)
    assert "torchvision" not in capsys.readouterr().err

    runner = OnnxRunner((tmp_path / "models" / row.name / card.MODEL_NAME).read_bytes())
    task = TASKS[row.task]
    size = tuple(min(number, 5) for number in task.largest)
    batch = task.generate(np.random.default_rng(1), 2, size)
    locations = row.default_locations
    async with serve(models_dir=tmp_path / "models") as running:
        with Client(running.address) as client:
            found = await asyncio.to_thread(ServedModel(client, row.name), batch, 0)
            traces = await asyncio.to_thread(traces_of, client, row.name, batch.inputs[:, 0])

    state = runner.start(2, locations)
    for x, y in zip(batch.inputs, found, strict=True):
        expected, state = runner.step(x, state)
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)
    assert {name: values.shape[1:] for name, values in traces.items()} == {
        trace.name: (trace.heads, locations if trace.width == "N" else trace.width)
        for trace in runner.spec.traces
    }


def traces_of(
    client: Client, model: str, inputs: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """All traces of a sequence, by name."""
    (described,) = (each for each in client.models() if each.name == model)
    names = [trace.name for trace in described.traces]
    with client.create_session(model) as session:
        return dict(session.step(inputs, traces=names).traces)
