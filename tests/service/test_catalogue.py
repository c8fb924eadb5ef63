"""The catalogue: which models are loaded, and what is said of those that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service import catalogue
from service.errors import ModelInvalid
from service.metrics import Metrics
from service.settings import Settings
from tests.tiny_models import ledger


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two models and something else."""
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_bytes(ledger())
    (tmp_path / "notes").mkdir()
    return tmp_path


def load(folder: Path, models: str = "") -> list[str]:
    """Names of the models loaded."""
    settings = Settings(models_dir=folder, models=models, device="cpu", max_batch=8)
    return list(catalogue.load(settings, Metrics(CollectorRegistry())))


def test_all_models_are_served_unless_some_are_chosen(folder: Path) -> None:
    """In order of name, and folders without a model are passed over."""
    assert load(folder) == ["a", "b"]
    assert load(folder, " b ") == ["b"]


def test_a_model_that_is_not_there_is_named(folder: Path) -> None:
    """With those that are."""
    with pytest.raises(ModelInvalid, match=r"has the models \['a', 'b'\], not \['c'\]"):
        load(folder, "a,c")


def test_a_name_cannot_lead_out_of_the_folder(folder: Path) -> None:
    """A path is no name of a model."""
    with pytest.raises(ModelInvalid, match="not"):
        load(folder / "a", "../b")


def test_an_empty_folder_says_what_to_set(tmp_path: Path) -> None:
    """A server without a model is a mistake."""
    with pytest.raises(ModelInvalid, match="set the models-dir"):
        load(tmp_path)


def test_a_broken_model_is_named_with_its_path(folder: Path) -> None:
    """So that it can be found."""
    (folder / "a" / "model.onnx").write_bytes(b"broken")
    with pytest.raises(ModelInvalid, match=r"a/model\.onnx: not a valid ONNX model"):
        load(folder)
