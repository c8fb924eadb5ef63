"""Models that cannot be served, beside good ones: at the start, and put while a server runs."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import urllib.request
from collections import Counter
from pathlib import Path

import grpc.aio
import pytest

from ntm.v1 import ntm_pb2 as pb
from service.models import folder as model_folder
from service.models import loading
from tests.conftest import Running, Serve
from tests.e2e.calls import opened, reason, stepped
from tests.e2e.test_rpcs import refused
from tests.e2e.versions import put, settled
from tests.support.broken_models import WRONG_NAMES, Broken, broken, contents
from tests.support.tiny_models import doubling, ledger

BROKEN = broken()


@pytest.fixture(params=BROKEN)
def case(request: pytest.FixtureRequest) -> Broken:
    """Each way to break a model."""
    return BROKEN[request.param]


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """How often each content was tried."""
    counted: Counter[bytes] = Counter()
    try_out = loading.try_out

    def count(content: bytes, *arguments: int) -> object:
        counted[content] += 1
        return try_out(content, *arguments)

    monkeypatch.setattr(model_folder, "try_out", count)
    return counted


async def models(running: Running) -> list[str]:
    """The models that the server lists."""
    response = await running.stub.ListModels(pb.ListModelsRequest())
    return [model.name for model in response.models]


async def check_refused(running: Running, model: str) -> None:
    """Callers of the model are told that its file is wrong, however often they ask."""
    for _ in range(3):
        for call in (
            running.stub.GetModel(pb.GetModelRequest(name=model)),
            running.stub.CreateSession(pb.CreateSessionRequest(model=model)),
        ):
            error: grpc.aio.AioRpcError = await refused(call)
            assert reason(error) == "MODEL_INVALID"
            assert error.details() == (
                f"the file of model '{model}' cannot be served; the server's log says why"
            )


def check_log(caplog: pytest.LogCaptureFixture, model: str, why: str) -> None:
    """One line of the log names the file and the reason, without a traceback."""
    (record,) = (each for each in caplog.records if each.levelno >= logging.WARNING)
    assert record.message == "model file not taken over"
    assert not record.exc_info
    fields = vars(record)
    assert fields["model"] == model
    assert re.search(why, fields["why"])
    assert fields["file"] in fields["why"]
    assert "\n" not in fields["why"]


def failures(running: Running, model: str) -> float:
    """How often a file of the model was not taken over."""
    return running.metric("ntm_model_reloads_total", model=model, outcome="failed")


async def test_a_broken_model_at_the_start_keeps_no_other_from_being_served(
    serve: Serve,
    folder: Path,
    case: Broken,
    tries: Counter[bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged and counted once, not listed and refused; once it is replaced it is served."""
    broken = folder / "broken"
    case.make(broken)
    async with serve(models_dir=folder) as running:
        assert await models(running) == ["ledger"]
        await check_refused(running, "broken")
        assert (await stepped(running, await opened(running), [[1, 1]])).tolist() == [[1, 1]]
        assert failures(running, "broken") == 1
        check_log(caplog, "broken", case.why)
        assert max(tries.values()) == 1
        broken.rename(folder.with_name("taken-away"))
        put(folder, doubling(), "broken")
        await settled(running, "taken", model="broken")
        session = await opened(running, "broken")
        assert (await stepped(running, session, [[1, 1]])).tolist() == [[2, 2]]


async def test_a_broken_model_put_beside_a_running_servers_keeps_no_other_from_being_taken_over(
    serve: Serve,
    folder: Path,
    case: Broken,
    tries: Counter[bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Good files that come with it, before and after it in the order of names, are served."""
    async with serve(models_dir=folder) as running:
        put(folder, doubling(), "aaa")
        case.make(folder / "broken")
        put(folder, ledger(), "ccc")
        await settled(running, "failed", model="broken")
        for model in ("aaa", "ccc"):
            await settled(running, "taken", model=model)
        assert await models(running) == ["aaa", "ccc", "ledger"]
        await check_refused(running, "broken")
        session = await opened(running, "aaa")
        assert (await stepped(running, session, [[1, 1]])).tolist() == [[2, 2]]
        put(folder, doubling(), "ccc")
        await settled(running, "taken", 2, model="ccc")
        assert failures(running, "broken") == 1
        check_log(caplog, "broken", case.why)
        assert max(tries[content] for content, _ in contents().values()) <= 1


@pytest.mark.parametrize("name", contents())
async def test_a_broken_file_in_place_of_a_good_one_changes_nothing(
    serve: Serve, folder: Path, name: str, tries: Counter[bytes]
) -> None:
    """The version before is served on, and the file is tried once."""
    content, _ = contents()[name]
    async with serve(models_dir=folder) as running:
        session = await opened(running)
        put(folder, content)
        await settled(running, "failed")
        put(folder, ledger(), "other")
        await settled(running, "taken", model="other")
        assert await models(running) == ["ledger", "other"]
        assert (await stepped(running, session, [[1, 1]])).tolist() == [[1, 1]]
        assert (await stepped(running, await opened(running), [[1, 1]])).tolist() == [[1, 1]]
        assert tries[content] == 1


async def test_a_folder_that_may_not_be_read_keeps_no_other_from_being_served(
    serve: Serve, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as lost+found of a volume, which only root may read."""
    (folder / "lost+found").mkdir(mode=0)
    if os.access(folder / "lost+found", os.R_OK):
        pytest.skip("this user may read every folder")
    async with serve(models_dir=folder) as running:
        assert await models(running) == ["ledger"]
        check_log(caplog, "lost+found", "Permission denied")


async def test_a_folder_that_can_no_longer_be_read_takes_no_version_away(
    serve: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are reported, and its versions are served on."""
    put(folder, doubling(), place="versions/old.onnx")
    listed, whole, is_readable = os.listdir, Path.read_bytes, [True]

    def refuse(path: Path) -> None:
        if not is_readable[0] and path.is_relative_to(folder / "ledger"):
            raise PermissionError(13, "Permission denied", str(path))

    def listdir(path: Path | str) -> list[str]:
        refuse(Path(path))
        return listed(path)

    def read_bytes(path: Path) -> bytes:
        refuse(path)
        return whole(path)

    async with serve(models_dir=folder) as running:
        monkeypatch.setattr(os, "listdir", listdir)
        monkeypatch.setattr(Path, "read_bytes", read_bytes)
        is_readable[0] = False
        put(folder, ledger(), "other")
        await settled(running, "taken", model="other")
        described = await running.stub.GetModel(pb.GetModelRequest(name="ledger"))
        assert len(described.model.versions) == 2
        assert (await stepped(running, await opened(running), [[1, 1]])).tolist() == [[1, 1]]
        is_readable[0] = True
        put(folder, doubling())
        await settled(running, "taken")


def scraped(running: Running) -> str:
    """What Prometheus gets."""
    url = f"http://127.0.0.1:{running.server.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=100) as response:
        text: str = response.read().decode()
        return text


@pytest.mark.parametrize("name", WRONG_NAMES)
@pytest.mark.parametrize("is_running", [False, True], ids=["at the start", "while it runs"])
async def test_a_model_of_a_wrong_name_is_not_served_and_breaks_no_list_and_no_metric(
    serve: Serve, folder: Path, name: str, is_running: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged and counted under a name that can be shown, also once it is gone."""
    wrong = WRONG_NAMES[name]
    if not is_running:
        put(folder, doubling(), wrong)
    async with serve(models_dir=folder) as running:
        if is_running:
            put(folder, doubling(), wrong)
        await settled(running, "failed", model=repr(wrong))
        assert await models(running) == ["ledger"]
        check_log(caplog, repr(wrong), f"the name {re.escape(repr(wrong))} is not allowed")
        assert "ntm_serving 1.0" in await asyncio.to_thread(scraped, running)
        shutil.rmtree(folder / wrong)
        await settled(running, "removed", model=repr(wrong))
        assert "ntm_serving 1.0" in await asyncio.to_thread(scraped, running)


@pytest.mark.parametrize("name", WRONG_NAMES)
async def test_a_version_of_a_wrong_name_is_not_served(
    serve: Serve, folder: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The model's other versions are."""
    wrong = f"{WRONG_NAMES[name]}.onnx"
    put(folder, doubling(), place=f"versions/{wrong}")
    async with serve(models_dir=folder) as running:
        check_log(caplog, "ledger", f"the name {re.escape(repr(wrong))} is not allowed")
        described = await running.stub.GetModel(pb.GetModelRequest(name="ledger"))
        assert len(described.model.versions) == 1
        assert "ntm_serving 1.0" in await asyncio.to_thread(scraped, running)
