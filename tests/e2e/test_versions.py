"""Files of models that are replaced, put and removed while sessions go on."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest

from ntm.v1 import ntm_pb2 as pb
from ntm_lab import cli
from service.models import catalogue, loading
from service.models.runtime import Network
from tests.conftest import Running, Serve
from tests.e2e.calls import info, opened, reason, stepped, until
from tests.e2e.test_rpcs import refused
from tests.e2e.versions import NEW, OLD, loaded, put, settled, versions
from tests.support.served import MODELS
from tests.support.tiny_models import doubling, ledger, not_loadable


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> weakref.WeakSet[Network]:
    """The networks that there are, of those loaded from now on."""
    alive: weakref.WeakSet[Network] = weakref.WeakSet()

    class Watched(Network):
        """A network that is noted when it is made."""

        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            alive.add(self)

    monkeypatch.setattr(loading, "Network", Watched)
    return alive


async def version_of(running: Running, session: str) -> str:
    """The version that a session is on."""
    response: pb.GetSessionResponse = await running.stub.GetSession(
        pb.GetSessionRequest(session_id=session)
    )
    return response.session.content_hash


async def deleted(running: Running, session: str) -> None:
    """Delete a session."""
    await running.stub.DeleteSession(pb.DeleteSessionRequest(session_id=session))


async def test_new_sessions_get_the_new_version_and_open_ones_stay(
    serve: Serve, folder: Path
) -> None:
    """The model is there all the time, and each session computes with the file it began with."""
    async with serve(models_dir=folder) as running:
        before = await opened(running)
        await stepped(running, before, [[1, 1]])
        put(folder, doubling())
        await settled(running, "taken")
        after = await opened(running)

        assert (await stepped(running, before, [[2, 2]], first_step=1)).tolist() == [[3, 3]]
        assert (await stepped(running, after, [[2, 2]])).tolist() == [[4, 4]]
        assert await version_of(running, before) == OLD
        assert await version_of(running, after) == NEW
        assert await versions(running) == [(NEW, True, True), (OLD, False, True)]


async def test_an_open_session_is_undisturbed_bit_for_bit(serve: Serve, tmp_path: Path) -> None:
    """Its outputs while the model is replaced, and after that, are those of an undisturbed run."""
    name, folder = "copy-ntm-ff", tmp_path / "models"
    content = (MODELS / name / "model.onnx").read_bytes()
    proto = onnx.load_model_from_string(content)
    for tensor in proto.graph.initializer:
        if tensor.name.endswith("bias") or len(tensor.dims) == 2:
            tensor.raw_data = (onnx.numpy_helper.to_array(tensor) * np.float32(0.9)).tobytes()
    put(folder, content, name)
    inputs = (np.random.default_rng(1).random((1000, 9)) > 0.5).astype(np.float32)
    async with serve(models_dir=MODELS, models=name) as undisturbed:
        session = await opened(undisturbed, name)
        expected = await stepped(undisturbed, session, inputs)

    async with serve(models_dir=folder, models=name) as running:
        session = await opened(running, name)
        put(folder, proto.SerializeToString(), name)
        found, step = [], 0
        while not running.metric("ntm_model_reloads_total", model=name, outcome="taken"):
            assert step < 500, "the file was not taken over in all that time"
            found.append(await stepped(running, session, inputs[step : step + 1], first_step=step))
            step += 1
            await asyncio.sleep(0.02)
        other = await opened(running, name)
        different = await stepped(running, other, inputs[:step])
        found.append(await stepped(running, session, inputs[step:], first_step=step))

    assert step > 10
    assert different.tobytes() != expected[:step].tobytes()
    assert np.concatenate(found).tobytes() == expected.tobytes()


@pytest.mark.parametrize("content", [b"broken", ledger()[:-40], not_loadable(), b""])
async def test_a_file_that_cannot_be_served_changes_nothing(
    serve: Serve, folder: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Broken, cut short or refused by onnxruntime: that is logged and counted, the old goes on."""
    async with serve(models_dir=folder, models="ledger") as running:
        session = await opened(running)
        with caplog.at_level(logging.ERROR):
            put(folder, content)
            await settled(running, "failed")
        assert await versions(running) == [(OLD, True, True)]
        assert (await stepped(running, session, [[1, 1]])).tolist() == [[1, 1]]
        assert (await stepped(running, await opened(running), [[1, 1]])).tolist() == [[1, 1]]
        record = next(each for each in caplog.records if "not taken over" in each.message)
        assert record.__dict__["model"] == "ledger"
        assert record.__dict__["why"]
        put(folder, doubling())
        await settled(running, "taken")
        assert (await stepped(running, await opened(running), [[1, 1]])).tolist() == [[2, 2]]
        assert running.metric("ntm_model_reloads_total", model="ledger", outcome="failed") == 1


async def freed(networks: weakref.WeakSet[Network], left: str) -> None:
    """Wait until the network of that content hash alone is in memory."""

    def found() -> list[str]:
        gc.collect()  # gRPC keeps frames of calls in cycles
        return [network.content_hash for network in networks]

    await until(lambda: found() == [left])


async def test_the_old_version_is_unloaded_with_its_last_session(
    serve: Serve, folder: Path, networks: weakref.WeakSet[Network]
) -> None:
    """An old version is unloaded only with its last session; its network is then freed."""
    async with serve(models_dir=folder) as running:
        first, second = await opened(running), await opened(running)
        await stepped(running, first, [[1, 1]])
        put(folder, doubling())
        await settled(running, "taken")
        await deleted(running, first)
        third = await opened(running)
        assert (loaded(running, OLD), loaded(running, NEW)) == (True, True)
        assert len(networks) == 2
        await stepped(running, second, [[1, 1]])
        await deleted(running, second)
        await until(lambda: not loaded(running, OLD))
        assert await versions(running) == [(NEW, True, True)]
        await freed(networks, NEW)
        await stepped(running, third, [[1, 1]])


async def test_a_version_without_sessions_is_unloaded_at_once(
    serve: Serve, folder: Path, networks: weakref.WeakSet[Network]
) -> None:
    """Ten times in a row, and memory holds one network all the time."""
    async with serve(models_dir=folder, models="ledger") as running:
        for count in range(1, 11):
            content, old = (doubling(), OLD) if count % 2 else (ledger(), NEW)
            put(folder, content)
            await settled(running, "taken", count)
            await until(lambda old=old: not loaded(running, old))  # type: ignore[misc] # of a string
            await freed(networks, NEW if count % 2 else OLD)


async def test_what_was_not_loaded_is_not_loaded_for_a_new_file(serve: Serve, folder: Path) -> None:
    """Its first session loads it; what was loaded is loaded again before any session asks."""
    put(folder, ledger(), "other")
    async with serve(models_dir=folder) as running:
        await opened(running, "ledger")
        for model in ("ledger", "other"):
            put(folder, doubling(), model)
            await settled(running, "taken", model=model)
        assert (NEW, True, True) in await versions(running)
        assert await versions(running, "other") == [(NEW, True, False)]
        session = await opened(running, "other")
        assert (await stepped(running, session, [[1, 1]])).tolist() == [[2, 2]]


async def test_a_removed_model_refuses_new_sessions_and_old_ones_finish(
    serve: Serve, folder: Path
) -> None:
    """It is listed no more, and is described to those who are on it until the last has gone."""
    async with serve(models_dir=folder) as running:
        session = await opened(running)
        (folder / "ledger" / "model.onnx").unlink()
        await settled(running, "removed")
        describing = pb.GetModelRequest(name="ledger", content_hash=OLD)

        assert reason(await refused(opened(running))) == "MODEL_UNKNOWN"
        pinned = pb.CreateSessionRequest(model="ledger", content_hash=OLD)
        assert reason(await refused(running.stub.CreateSession(pinned))) == "MODEL_UNKNOWN"
        assert not (await running.stub.ListModels(pb.ListModelsRequest())).models
        assert (await stepped(running, session, [[1, 1]])).tolist() == [[1, 1]]
        assert (await running.stub.GetModel(describing)).model.input_width == 2
        await deleted(running, session)
        await until(lambda: not loaded(running, OLD))
        assert reason(await refused(running.stub.GetModel(describing))) == "MODEL_UNKNOWN"


async def test_a_new_folder_is_a_new_model(serve: Serve, folder: Path) -> None:
    """A new folder becomes a new model, unless the settings name the models to serve."""
    async with (
        serve(models_dir=folder) as running,
        serve(models_dir=folder, models="ledger") as few,
    ):
        put(folder, doubling(), "added")
        await settled(running, "taken", model="added")
        put(folder, doubling(), "ledger")
        await settled(few, "taken")

        session = await opened(running, "added")
        assert (await stepped(running, session, [[1, 1]])).tolist() == [[2, 2]]
        assert reason(await refused(opened(few, "added"))) == "MODEL_UNKNOWN"


async def test_a_session_can_be_opened_on_a_version_that_is_not_current(
    serve: Serve, folder: Path
) -> None:
    """A session can be opened on an older version by its hash, and its fork is on it too."""
    put(folder, doubling(), place="versions/next.onnx")
    async with serve(models_dir=folder) as running:
        assert await versions(running) == [(OLD, True, False), (NEW, False, False)]
        request = pb.CreateSessionRequest(model="ledger", content_hash=NEW)
        session = (await running.stub.CreateSession(request)).session
        fork = await running.stub.ForkSession(pb.ForkSessionRequest(session_id=session.id))
        memory = await running.stub.ReadMemory(pb.ReadMemoryRequest(session_id=session.id))

        assert (session.content_hash, fork.session.content_hash) == (NEW, NEW)
        assert memory.locations == 8
        assert (await stepped(running, fork.session.id, [[1, 1]])).tolist() == [[2, 2]]
        assert await versions(running) == [(OLD, True, False), (NEW, False, True)]
        for each in (session.id, fork.session.id):
            await deleted(running, each)
        await until(lambda: not loaded(running, NEW))
        # It is unloaded, and can be loaded again.
        assert await versions(running) == [(OLD, True, False), (NEW, False, False)]
        await running.stub.CreateSession(request)


async def test_a_version_that_is_not_there_is_refused(serve: Serve, folder: Path) -> None:
    """A missing version is refused with its own reason and with the version in the metadata."""
    async with serve(models_dir=folder) as running:
        for call in (
            running.stub.CreateSession(pb.CreateSessionRequest(model="ledger", content_hash=NEW)),
            running.stub.GetModel(pb.GetModelRequest(name="ledger", content_hash=NEW)),
        ):
            error = await refused(call)
            assert error.code() is grpc.StatusCode.NOT_FOUND
            assert reason(error) == "MODEL_VERSION_UNKNOWN"
            assert dict(info(error).metadata)["content_hash"] == NEW
        assert running.metric("ntm_sessions", model="ledger") == 0


async def test_a_checkpoint_goes_on_with_its_version_or_not_at_all(
    serve: Serve, folder: Path
) -> None:
    """A session of another version refuses it; a new one is on its version if that is there."""
    async with serve(models_dir=folder) as running:
        old = await opened(running)
        await stepped(running, old, [[1, 1]])
        request = pb.CheckpointSessionRequest(session_id=old)
        checkpoint = (await running.stub.CheckpointSession(request)).checkpoint
        put(folder, ledger(), place="versions/old.onnx")
        await settled(running, "taken", 1)
        put(folder, doubling())
        await settled(running, "taken", 2)
        await deleted(running, old)
        await until(lambda: not loaded(running, OLD))
        new = await opened(running)
        restoring = pb.RestoreSessionRequest(session_id=new, checkpoint=checkpoint)
        error = await refused(running.stub.RestoreSession(restoring))
        assert reason(error) == "CHECKPOINT_FOREIGN"
        assert dict(info(error).metadata) == {"expected": NEW, "actual": OLD}

        creating = pb.CreateSessionRequest(model="ledger", checkpoint=checkpoint)
        restored = (await running.stub.CreateSession(creating)).session
        assert restored.content_hash == OLD
        assert (await stepped(running, restored.id, [[2, 2]], first_step=1)).tolist() == [[3, 3]]
        creating.content_hash = NEW
        assert reason(await refused(running.stub.CreateSession(creating))) == "CHECKPOINT_FOREIGN"

        creating.content_hash = ""
        await deleted(running, restored.id)
        (folder / "ledger" / "versions" / "old.onnx").unlink()
        await settled(running, "removed")
        error = await refused(running.stub.CreateSession(creating))
        assert reason(error) == "CHECKPOINT_FOREIGN"
        assert dict(info(error).metadata) == {"expected": NEW, "actual": OLD}


async def test_sessions_come_and_go_while_versions_do(
    serve: Serve, folder: Path, networks: weakref.WeakSet[Network]
) -> None:
    """Each computes with the version that it says, and in the end one network is left."""
    async with serve(models_dir=folder) as running:
        swapping = True

        async def use() -> set[str]:
            used = set()
            while swapping:
                session = (
                    await running.stub.CreateSession(pb.CreateSessionRequest(model="ledger"))
                ).session
                factor = 2 if session.content_hash == NEW else 1
                for step in range(3):
                    found = await stepped(running, session.id, [[1, 1]], first_step=step)
                    assert found.tolist() == [[factor * (step + 1)] * 2]
                await deleted(running, session.id)
                used.add(session.content_hash)
            return used

        users = [asyncio.create_task(use()) for _ in range(8)]
        for count in range(1, 9):
            put(folder, doubling() if count % 2 else ledger())
            await settled(running, "taken", count)
        swapping = False
        used = set.union(*await asyncio.gather(*users))
        await until(lambda: not loaded(running, NEW))

        assert used == {OLD, NEW}
        assert await versions(running) == [(OLD, True, True)]
        await freed(networks, OLD)


async def test_nobody_waits_while_a_version_is_loaded(
    serve: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions step and open on the old one meanwhile; a server that stops does not wait either."""
    started, may_go_on = threading.Event(), threading.Event()

    def slow(content: bytes, *arguments: Any, **options: Any) -> Network:
        """Load a network in as much time as the test wants."""
        if content == doubling():
            started.set()
            may_go_on.wait(60)
        return loading.load(content, *arguments, **options)

    monkeypatch.setattr(catalogue, "load", slow)
    try:
        async with serve(models_dir=folder, models="ledger") as running:
            before = await opened(running)
            put(folder, doubling())
            await asyncio.to_thread(started.wait, 60)
            during = await opened(running)
            assert await version_of(running, during) == OLD
            for session in (before, during):
                assert (await stepped(running, session, [[1, 1]])).tolist() == [[1, 1]]
            assert await versions(running) == [(OLD, True, True), (NEW, False, False)]
            async with asyncio.timeout(20):
                await running.stop()
    finally:
        may_go_on.set()


async def test_a_folder_that_cannot_be_read_changes_nothing(
    serve: Serve, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A mishap of the file system is logged once, and takes no model away."""
    elsewhere = folder.with_name("elsewhere")
    async with serve(models_dir=folder) as running:
        os.rename(folder, elsewhere)
        await until(lambda: "cannot be looked at" in caplog.text)
        assert (await stepped(running, await opened(running), [[1, 1]])).tolist() == [[1, 1]]
        os.rename(elsewhere, folder)
        put(folder, doubling())
        await settled(running, "taken")
        assert caplog.text.count("cannot be looked at") == 1


async def test_the_command_line_lists_the_versions_of_models_that_have_several(
    serve: Serve, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By content hash, with which one is for new sessions and what is loaded."""
    put(folder, doubling(), place="versions/next.onnx")
    put(folder, ledger(), "other")
    async with serve(models_dir=folder, models="ledger,other") as running:
        command = ["models", "--server", running.address]
        assert await asyncio.to_thread(cli.main, command) == 0
    models, versions = capsys.readouterr().out.split("\n\n")

    assert [line.split()[0] for line in models.splitlines()] == ["model", "ledger", "other"]
    assert [line.split() for line in versions.splitlines()] == [
        ["model", "version", "for", "new", "sessions", "loaded"],
        ["ledger", OLD, "yes", "yes"],
        ["ledger", NEW, "no", "no"],
    ]
