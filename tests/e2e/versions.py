"""A folder of models whose files are replaced while a server serves them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ntm.v1 import ntm_pb2 as pb
from service.models import reloads
from service.models.runtime import content_hash
from tests.conftest import Running
from tests.e2e.calls import until
from tests.support.tiny_models import doubling, ledger

OLD, NEW = content_hash(ledger()), content_hash(doubling())
"""The ledger's versions: outputs of the first are sums, those of the second twice as much."""


def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have servers look at their folders a hundred times a second."""
    monkeypatch.setattr(reloads, "LOOK_SECONDS", 0.01)


def put(folder: Path, content: bytes, model: str = "ledger", place: str = "model.onnx") -> None:
    """Put a file into its place at once, in the place of another one if there is one."""
    path = folder / model / place
    path.parent.mkdir(parents=True, exist_ok=True)
    ready = path.with_name(".ready")
    ready.write_bytes(content)
    ready.rename(path)


async def settled(running: Running, outcome: str, count: int = 1, model: str = "ledger") -> None:
    """Wait until the count of a model's files with that outcome is reached."""

    def counted() -> bool:
        name = "ntm_model_reloads_total"
        return running.metric(name, model=model, outcome=outcome) == count

    await until(counted)


async def versions(running: Running, model: str = "ledger") -> list[tuple[str, bool, bool]]:
    """The versions of a model: content hash, whether it is current, whether it is loaded."""
    response: pb.GetModelResponse = await running.stub.GetModel(pb.GetModelRequest(name=model))
    found = response.model.versions
    return [(version.content_hash, version.current, version.loaded) for version in found]


def loaded(running: Running, version: str, model: str = "ledger") -> bool:
    """Whether the metrics tell that a version is loaded."""
    labels = {"model": model, "content_hash": version, "provider": "CPUExecutionProvider"}
    return running.metric("ntm_model_info", **labels) == 1
