"""The catalogue: which models are known, when they are loaded, and what is said if they cannot."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import service.models.catalogue
from service.errors import ModelInvalid, ModelUnknown, ModelVersionUnknown
from service.models.catalogue import RETRY_SECONDS, Catalogue
from service.models.loading import load
from service.models.runtime import Network, content_hash
from service.models.version import Version
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.conftest import Clock
from tests.support.tiny_models import LEDGER, doubling, ledger


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two models and something else."""
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_bytes(ledger())
    (tmp_path / "notes").mkdir()
    return tmp_path


def catalogue(folder: Path, models: str = "") -> Catalogue:
    """The catalogue of a folder."""
    settings = Settings(models_dir=folder, models=models, device="cpu", max_batch=8)
    return Catalogue(settings, Metrics(CollectorRegistry()))


def test_all_models_are_served_unless_some_are_named(folder: Path) -> None:
    """In order of name, and folders without a model are passed over."""
    assert catalogue(folder).models == ["a", "b"]
    assert catalogue(folder, " b ").models == ["b"]


def test_a_name_that_no_model_gets_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """--model-name is for the model in the folder itself; without it, the log has a warning."""

    def models(models_dir: Path) -> list[str]:
        settings = Settings(models_dir=models_dir, model_name="mine", device="cpu")
        return Catalogue(settings, Metrics(CollectorRegistry())).models

    assert models(folder / "a") == ["mine"]
    assert not [record for record in caplog.records if record.levelname == "WARNING"]

    assert models(folder) == ["a", "b"]
    (record,) = (each for each in caplog.records if each.levelname == "WARNING")
    assert record.getMessage() == "--model-name is ignored: the folder is of models, not of one"
    assert (vars(record)["model_name"], vars(record)["models_dir"]) == ("mine", str(folder))


def test_a_model_is_known_before_it_is_loaded(folder: Path) -> None:
    """Its spec is read at the start, its network is not."""
    both = catalogue(folder)

    assert both.file(both.current("a")).spec == LEDGER
    assert both.provider == "CPUExecutionProvider"
    assert both.networks == {}


async def test_a_model_is_loaded_once_for_all_who_ask(folder: Path) -> None:
    """Three who ask at once, and one later, get the same network; the other stays unloaded."""
    both = catalogue(folder)
    version = both.current("a")
    await asyncio.gather(*(both.load(version) for _ in range(3)))
    network = both.networks[version]
    await both.load(version)

    assert both.networks == {version: network}
    assert network.content_hash == version.content_hash


async def test_one_who_stops_waiting_does_not_stop_the_loading(folder: Path) -> None:
    """A cancelled call leaves the others to be served."""
    both = catalogue(folder)
    first, second = (asyncio.create_task(both.load(both.current("a"))) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await second

    assert both.current("a") in both.networks


async def test_what_is_loaded_is_what_was_read(folder: Path) -> None:
    """Whatever the file holds by then, until the change is taken over."""
    both = catalogue(folder)
    version = both.current("a")
    (folder / "a" / "model.onnx").write_bytes(b"changed")
    await both.load(version)

    assert both.networks[version].content_hash == version.content_hash


async def test_a_network_that_cannot_be_loaded_is_tried_again_later(
    folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The file is good, and the device fails: all who ask get the error of one load, new sessions are
    not offered the model, and after some seconds it is loaded.
    """
    loads = []

    def fail(content: bytes, *arguments: Any, **named: Any) -> Network:
        loads.append(content)
        if len(loads) == 1:
            raise ModelInvalid("the device is out of memory")
        return load(content, *arguments, **named)

    monkeypatch.setattr(service.models.catalogue, "load", fail)
    registry = CollectorRegistry()
    settings = Settings(models_dir=folder, device="cpu", max_batch=8)
    both = Catalogue(settings, Metrics(registry), clock)
    version = both.current("a")
    for _ in range(3):
        with pytest.raises(ModelInvalid, match=r"^model .a. cannot be loaded: the device"):
            await both.load(version)
    assert len(loads) == 1
    assert both.models == ["b"]
    failed = {"model": "a", "outcome": "failed"}
    assert registry.get_sample_value("ntm_model_reloads_total", failed) == 1
    clock.seconds += RETRY_SECONDS
    assert both.models == ["a", "b"]
    await both.load(version)

    assert list(both.networks) == [version]
    assert both.models == ["a", "b"]


def test_an_unknown_model_is_named(folder: Path) -> None:
    """The error names the unknown model and how to list the models."""
    with pytest.raises(ModelUnknown, match="'c' is not served here; ListModels"):
        catalogue(folder).current("c")
    with pytest.raises(ModelUnknown, match="'c' is not served here; ListModels"):
        catalogue(folder).file(Version("c", "f" * 64))


async def test_an_unknown_version_is_told_with_those_there_are(folder: Path) -> None:
    """An unknown version is refused with the known ones, and nothing is kept for it."""
    both = catalogue(folder)
    known = both.current("a").content_hash
    with pytest.raises(ModelVersionUnknown, match=f"has no version 'f{{64}}' here, but {known}"):
        async with both.using(Version("a", "f" * 64)):
            pytest.fail("there is no such version")
    assert both.versions("a") == [both.current("a")]


def test_other_versions_are_known_and_none_is_for_new_sessions(folder: Path) -> None:
    """Whatever their files are called; other files of the folder are none."""
    others = folder / "a" / "versions"
    others.mkdir()
    (others / "last-year.onnx").write_bytes(doubling())
    (others / "README.md").write_text("those of last year")
    (others / ".upload.onnx").write_bytes(b"not whole yet")
    both = catalogue(folder)
    old = Version("a", content_hash(doubling()))

    assert both.versions("a") == [both.current("a"), old]
    assert both.current("a").content_hash == content_hash(ledger())
    assert both.file(old).content == doubling()
    assert both.versions("b") == [both.current("b")]


def test_a_model_with_other_versions_only_is_not_for_new_sessions(folder: Path) -> None:
    """Its sessions go on, and no other begins."""
    others = folder / "a" / "versions"
    others.mkdir()
    (folder / "a" / "model.onnx").rename(others / "old.onnx")
    both = catalogue(folder)

    assert both.models == ["b"]
    assert both.file(Version("a", content_hash(ledger()))).spec == LEDGER


def test_a_model_that_is_not_there_is_named(folder: Path) -> None:
    """A missing model is named together with the models that exist."""
    with pytest.raises(ModelInvalid, match=r"has no model c; --models takes .*; it has a, b$"):
        catalogue(folder, "a,c")


def test_a_name_cannot_lead_out_of_the_folder(folder: Path) -> None:
    """A path is no name of a model."""
    with pytest.raises(ModelInvalid, match="not"):
        catalogue(folder / "a", "../b")


@pytest.mark.parametrize("name", ["..", ".", "a/../b", "/etc", "a/b", "a\x00b", "*"])
def test_no_name_of_a_model_is_a_path(folder: Path, name: str) -> None:
    """A path is refused as a model's name, in the settings and in requests."""
    with pytest.raises(ModelInvalid, match="has no model"):
        catalogue(folder, name)
    with pytest.raises(ModelUnknown):
        catalogue(folder).current(name)


def test_links_in_the_folder_are_the_operators(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A folder or file may be a link, as in mounted volumes; no client can make one."""
    volume = tmp_path_factory.mktemp("volume") / "b"
    (folder / "b").rename(volume)
    (folder / "b").symlink_to(volume)
    (folder / "a" / "model.onnx").rename(volume / "other.onnx")
    (folder / "a" / "model.onnx").symlink_to(volume / "other.onnx")

    assert catalogue(folder).models == ["a", "b"]


def test_a_folder_that_is_being_made_ready_is_passed_over(folder: Path) -> None:
    """Its name begins with a dot, until it is moved to its place."""
    (folder / "a").rename(folder / ".a")

    assert catalogue(folder).models == ["b"]


def test_an_empty_folder_says_what_to_set(tmp_path: Path) -> None:
    """A server without a model is a mistake."""
    with pytest.raises(ModelInvalid, match="set --models-dir"):
        catalogue(tmp_path)


def test_a_broken_model_that_is_named_stops_the_start(folder: Path) -> None:
    """The error has its path; without its name in the settings, the others are served."""
    (folder / "a" / "model.onnx").write_bytes(b"broken")
    with pytest.raises(ModelInvalid, match=r"a/model\.onnx: not a valid ONNX model"):
        catalogue(folder, "b,a")
    both = catalogue(folder)

    assert both.models == ["b"]
    with pytest.raises(ModelInvalid, match="file of model 'a' cannot be served; the server's log"):
        both.current("a")


def test_a_folder_of_broken_models_stops_the_start(folder: Path) -> None:
    """A server without a model is a mistake; the error has one of the reasons."""
    for name in ("a", "b"):
        (folder / name / "model.onnx").write_bytes(b"broken")
    expected = r"no model in .* can be served: .*a/model\.onnx: not a valid.*; the log has 1 more$"
    with pytest.raises(ModelInvalid, match=expected):
        catalogue(folder)


async def test_a_version_that_somebody_is_about_to_use_is_kept(folder: Path) -> None:
    """It may take long until there is room for a session; after that it is forgotten."""
    both = catalogue(folder)
    old = both.current("a")
    path = folder / "a" / "model.onnx"
    async with both.using(old):
        path.write_bytes(doubling())
        both.folder.look()
        for change in both.folder.look():
            both.take(change)
        await both.tidy(lambda _: False)
        assert both.networks.keys() == {old}
        assert both.versions("a") == [both.current("a"), old]
    await both.tidy(lambda version: version == old)
    assert both.networks.keys() == {old}
    await both.tidy(lambda _: False)

    assert both.networks == {}
    assert both.versions("a") == [Version("a", content_hash(doubling()))]
