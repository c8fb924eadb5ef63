"""The models that ship, measured through a running server, as on their cards."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from export import __main__ as command_line
from export import card, evaluation
from export.configuration import Trial
from export.configurations import CONFIGURATIONS, PAPER
from export.served import ServedModel
from export.verification import OnnxRunner
from ntm_client import Client
from ntm_tasks import TASKS, Purpose
from tests.conftest import Serve
from tests.support.served import MODELS

SHIPPED = sorted(path.parent.name for path in MODELS.glob("*/model.onnx"))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_client_measures_what_onnxruntime_does(shipped: Client, name: str) -> None:
    """The same sequences, streamed to the server's sessions, cost the same bits."""
    row = CONFIGURATIONS[name]
    task = TASKS[row.task]
    trial = Trial(task.largest, row.default_locations, 3)
    alone = evaluation.answers_of(OnnxRunner((MODELS / name / card.MODEL_NAME).read_bytes()))
    expected = evaluation.evaluate(alone, task, trial, Purpose.EVALUATION, seed=5)

    served = ServedModel(shipped, name)
    found = evaluation.evaluate(served, task, trial, Purpose.EVALUATION, seed=5)

    assert found.bits_per_sequence == pytest.approx(expected.bits_per_sequence, rel=1e-3, abs=1e-3)
    assert (found.wrong_bits, found.exact_match_rate) == (
        expected.wrong_bits,
        expected.exact_match_rate,
    )


async def test_all_models_are_listed_and_one_is_loaded(serve: Serve) -> None:
    """A server of all of them loads the one that a session is opened for, once."""
    async with serve(models_dir=MODELS) as running:
        with Client(running.address) as client:
            names = [model.name for model in await asyncio.to_thread(client.models)]
            assert names == SHIPPED
            assert set(names) >= set(PAPER)
            loaded = [running.metric("ntm_model_load_seconds", model=name) for name in names]
            assert loaded == [0.0] * len(names)
            for _ in range(2):
                await asyncio.to_thread(client.create_session, "copy-ntm-ff")
        loaded = [running.metric("ntm_model_load_seconds", model=name) for name in names]
        assert [name for name, seconds in zip(names, loaded, strict=True) if seconds] == [
            "copy-ntm-ff"
        ]


async def test_another_model_of_the_same_name_is_not_measured(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server with other weights than the card's is refused, with both hashes."""
    for served, file in (("copy-ntm-ff", "copy-ntm-lstm"),):
        (tmp_path / served).mkdir()
        content = (MODELS / file / card.MODEL_NAME).read_bytes()
        (tmp_path / served / card.MODEL_NAME).write_bytes(content)
    async with serve(models_dir=tmp_path) as running:
        arguments = ["evaluate", str(MODELS / "copy-ntm-ff"), "--server", running.address]
        status = await asyncio.to_thread(command_line.main, arguments)

    assert status == 2
    assert "serves another copy-ntm-ff" in capsys.readouterr().err
