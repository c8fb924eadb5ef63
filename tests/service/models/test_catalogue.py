"""The catalogue: which models are known, when they are loaded, and what is said if they cannot."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.errors import ModelInvalid, ModelUnknown, ModelVersionUnknown
from service.models.catalogue import Catalogue
from service.models.runtime import content_hash
from service.models.version import Version
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.support.tiny_models import LEDGER, doubling, ledger, not_loadable


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


async def test_a_network_that_cannot_be_loaded_is_told_to_all_who_ask(tmp_path: Path) -> None:
    """Each caller gets the error, which refers to the log, and other models are served."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "model.onnx").write_bytes(not_loadable())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "model.onnx").write_bytes(ledger())
    both = catalogue(tmp_path)
    for _ in range(2):
        with pytest.raises(ModelInvalid, match="'a' cannot be loaded; the server's log says why"):
            await both.load(both.current("a"))
    await both.load(both.current("b"))

    assert list(both.networks) == [both.current("b")]


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
    with pytest.raises(ModelInvalid, match=r"has the models \['a', 'b'\], not \['c'\]"):
        catalogue(folder, "a,c")


def test_a_name_cannot_lead_out_of_the_folder(folder: Path) -> None:
    """A path is no name of a model."""
    with pytest.raises(ModelInvalid, match="not"):
        catalogue(folder / "a", "../b")


@pytest.mark.parametrize("name", ["..", ".", "a/../b", "/etc", "a/b", "a\x00b", "*"])
def test_no_name_of_a_model_is_a_path(folder: Path, name: str) -> None:
    """A path is refused as a model's name, in the settings and in requests."""
    with pytest.raises(ModelInvalid, match="has the models"):
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
    with pytest.raises(ModelInvalid, match="set the models-dir"):
        catalogue(tmp_path)


def test_a_broken_model_is_named_with_its_path(folder: Path) -> None:
    """A broken model stops the start with its path, whether it would be loaded or not."""
    (folder / "a" / "model.onnx").write_bytes(b"broken")
    with pytest.raises(ModelInvalid, match=r"a/model\.onnx: not a valid ONNX model"):
        catalogue(folder)


async def test_a_version_that_somebody_is_about_to_use_is_kept(folder: Path) -> None:
    """It may take long until there is room for a session; after that it is forgotten."""
    both = catalogue(folder)
    old = both.current("a")
    (place,) = (place for place in both.folder.read() if place.model == "a")
    async with both.using(old):
        place.path.write_bytes(doubling())
        both.put(place, both.folder.read()[place])
        await both.tidy(lambda _: False)
        assert both.networks.keys() == {old}
        assert both.versions("a") == [both.current("a"), old]
    await both.tidy(lambda version: version == old)
    assert both.networks.keys() == {old}
    await both.tidy(lambda _: False)

    assert both.networks == {}
    assert both.versions("a") == [Version("a", content_hash(doubling()))]
