"""A server whose models are mounted: read-only, behind links, one of them or many."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.served import MODELS, served

COPIED = ("copy-lstm", "copy-ntm-ff")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A folder of models that nobody may write in, reached by a link, as volumes are mounted."""
    volume = tmp_path / "volumes" / "2026"
    for name in COPIED:
        shutil.copytree(MODELS / name, volume / name)
    (volume / "lost+found").mkdir()
    paths = [volume, *volume.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    (tmp_path / "mnt").mkdir()
    (tmp_path / "mnt" / "models").symlink_to(volume)
    yield tmp_path / "mnt" / "models"
    for path in paths:
        path.chmod(0o755)


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """The sizes and times of everything in a folder."""
    found = [folder, *folder.rglob("*")]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def test_many_models_are_served_from_a_folder_that_cannot_be_written(mounted: Path) -> None:
    """Each folder is a model, other folders are none, and nothing is written."""
    before = state_of(mounted)
    with served(mounted) as client:
        assert sorted(model.name for model in client.models()) == sorted(COPIED)
        for name in COPIED:
            with client.create_session(name) as session:
                outputs = session.step(np.zeros((3, 9))).array
                assert outputs.shape == (3, 8)
    assert state_of(mounted) == before


def test_one_model_is_served_from_a_folder_of_its_name(mounted: Path) -> None:
    """As where the storage of one model is mounted at /mnt/models/NAME."""
    alone = mounted.parent / "one"
    alone.mkdir()
    (alone / "copy-lstm").symlink_to(mounted / "copy-lstm")
    with served(alone, "--models=copy-lstm") as client:
        assert [model.name for model in client.models()] == ["copy-lstm"]
        with client.create_session("copy-lstm") as session:
            assert session.step(np.zeros((1, 9))).array.shape == (1, 8)


@pytest.mark.parametrize("named", [True, False])
def test_one_model_is_served_from_its_files_alone(mounted: Path, named: bool) -> None:
    """As KServe lays one model; its name is that of a setting, or else of the folder."""
    (mounted.parent / "alone").symlink_to(mounted / "copy-lstm")
    with served(mounted.parent / "alone", *(["--model-name=copy"] * named)) as client:
        (model,) = client.models()
        assert model.name == ("copy" if named else "alone")
        with client.create_session(model.name) as session:
            assert session.step(np.zeros((1, 9))).array.shape == (1, 8)
