"""The catalogue: which models are known, when they are loaded, and what is said if they cannot."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.catalogue import Catalogue
from service.errors import ModelInvalid, ModelUnknown
from service.metrics import Metrics
from service.settings import Settings
from tests.tiny_models import LEDGER, ledger


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
    assert list(catalogue(folder).models) == ["a", "b"]
    assert list(catalogue(folder, " b ").models) == ["b"]


def test_a_model_is_known_before_it_is_loaded(folder: Path) -> None:
    """Its spec is read at the start, its network is not."""
    both = catalogue(folder)

    assert both.model("a").spec == LEDGER
    assert both.provider == "CPUExecutionProvider"
    assert both.networks == {}


async def test_a_model_is_loaded_once_for_all_who_ask(folder: Path) -> None:
    """Three who ask at once, and one later, get the same network; the other stays unloaded."""
    both = catalogue(folder)
    await asyncio.gather(*(both.load("a") for _ in range(3)))
    network = both.networks["a"]
    await both.load("a")

    assert both.networks == {"a": network}
    assert network.content_hash == both.model("a").content_hash


async def test_one_who_stops_waiting_does_not_stop_the_loading(folder: Path) -> None:
    """A cancelled call leaves the others to be served."""
    both = catalogue(folder)
    first, second = (asyncio.create_task(both.load("a")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await second

    assert "a" in both.networks


async def test_a_file_changed_since_the_start_is_not_loaded(folder: Path) -> None:
    """The client learns that the model cannot be loaded, and the next who asks does as well."""
    both = catalogue(folder)
    (folder / "a" / "model.onnx").write_bytes(b"changed")
    for _ in range(2):
        with pytest.raises(ModelInvalid, match="'a' cannot be loaded; the server's log says why"):
            await both.load("a")
    await both.load("b")

    assert list(both.networks) == ["b"]


async def test_an_unknown_model_is_named(folder: Path) -> None:
    """And so is the way to those there are."""
    with pytest.raises(ModelUnknown, match="'c' is not served here; ListModels"):
        await catalogue(folder).load("c")


def test_a_model_that_is_not_there_is_named(folder: Path) -> None:
    """With those that are."""
    with pytest.raises(ModelInvalid, match=r"has the models \['a', 'b'\], not \['c'\]"):
        catalogue(folder, "a,c")


def test_a_name_cannot_lead_out_of_the_folder(folder: Path) -> None:
    """A path is no name of a model."""
    with pytest.raises(ModelInvalid, match="not"):
        catalogue(folder / "a", "../b")


@pytest.mark.parametrize("name", ["..", ".", "a/../b", "/etc", "a/b", "a\x00b", "*"])
def test_no_name_of_a_model_is_a_path(folder: Path, name: str) -> None:
    """Neither in the settings nor in a request."""
    with pytest.raises(ModelInvalid, match="has the models"):
        catalogue(folder, name)
    with pytest.raises(ModelUnknown):
        catalogue(folder).model(name)


def test_links_in_the_folder_are_the_operators(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A folder or file may be a link, as in mounted volumes; no client can make one."""
    volume = tmp_path_factory.mktemp("volume") / "b"
    (folder / "b").rename(volume)
    (folder / "b").symlink_to(volume)
    (folder / "a" / "model.onnx").rename(volume / "other.onnx")
    (folder / "a" / "model.onnx").symlink_to(volume / "other.onnx")

    assert list(catalogue(folder).models) == ["a", "b"]


async def test_a_link_that_leads_elsewhere_later_is_not_loaded(folder: Path) -> None:
    """What is loaded is what was read at the start, or nothing."""
    both = catalogue(folder)
    (folder / "a" / "model.onnx").unlink()
    (folder / "a" / "model.onnx").symlink_to("/etc/passwd")
    with pytest.raises(ModelInvalid, match="cannot be loaded"):
        await both.load("a")


def test_an_empty_folder_says_what_to_set(tmp_path: Path) -> None:
    """A server without a model is a mistake."""
    with pytest.raises(ModelInvalid, match="set the models-dir"):
        catalogue(tmp_path)


def test_a_broken_model_is_named_with_its_path(folder: Path) -> None:
    """So that it can be found, at the start, whether it would be loaded then or not."""
    (folder / "a" / "model.onnx").write_bytes(b"broken")
    with pytest.raises(ModelInvalid, match=r"a/model\.onnx: not a valid ONNX model"):
        catalogue(folder)
