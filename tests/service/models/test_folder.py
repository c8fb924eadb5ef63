"""What changes in a folder of models, look by look."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from service.errors import ModelInvalid
from service.models import folder as model_folder
from service.models.folder import Change, ModelFile, ModelFolder, VersionPath
from service.models.runtime import content_hash
from tests.conftest import Clock
from tests.support.tiny_models import doubling, ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The ledger's file."""
    (tmp_path / "ledger").mkdir()
    found = tmp_path / "ledger" / "model.onnx"
    found.write_bytes(ledger())
    return found


@pytest.fixture
def folder(path: Path, clock: Clock) -> ModelFolder:
    """The folder with the ledger, which was looked at once."""
    found = ModelFolder(path.parent.parent, (), clock=clock)
    (change,) = found.look()
    assert change.place == VersionPath(True, "ledger", path)
    return found


def told(changes: list[Change]) -> list[tuple[str, str]]:
    """File names, and the content hash, "invalid" or "gone"."""
    return [
        (
            change.place.path.name,
            change.found.version.content_hash
            if isinstance(change.found, ModelFile)
            else "invalid"
            if change.found
            else "gone",
        )
        for change in changes
    ]


def test_a_replaced_file_is_told_once(folder: ModelFolder, path: Path) -> None:
    """A replaced file is reported once, after two looks found it the same."""
    path.write_bytes(doubling())
    looks = [told(folder.look()) for _ in range(4)]

    assert looks == [[], [("model.onnx", content_hash(doubling()))], [], []]


def test_a_file_is_not_read_while_it_is_written(folder: ModelFolder, path: Path) -> None:
    """As long as it changes between two looks, it is no failure and no version."""
    for size in (10, 500, 1000):
        path.write_bytes(doubling()[:size])
        assert folder.look() == []
    path.write_bytes(doubling())
    assert folder.look() == []
    assert told(folder.look()) == [("model.onnx", content_hash(doubling()))]


def test_a_file_that_changes_while_it_is_read_is_read_again(
    folder: ModelFolder, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changes while it is read is not reported, and is read again."""
    path.write_bytes(doubling()[:500])
    folder.look()
    whole = Path.read_bytes

    def slowly(self: Path) -> bytes:
        content = whole(self)
        path.write_bytes(doubling())
        return content

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", slowly)
        assert folder.look() == []
    folder.look()
    assert told(folder.look()) == [("model.onnx", content_hash(doubling()))]


def test_a_file_that_is_missing_for_one_look_was_not_removed(
    folder: ModelFolder, path: Path
) -> None:
    """A file that is missing for a single look is not reported as removed."""
    path.unlink()
    assert folder.look() == []
    path.write_bytes(doubling())
    looks = [told(folder.look()) for _ in range(2)]
    assert looks == [[], [("model.onnx", content_hash(doubling()))]]
    path.unlink()
    assert [told(folder.look()) for _ in range(3)] == [[], [("model.onnx", "gone")], []]


def test_other_versions_are_told_before_the_new_one(folder: ModelFolder, path: Path) -> None:
    """New files in versions/ are reported before a new model.onnx."""
    others = path.parent / "versions"
    others.mkdir()
    path.rename(others / "z.onnx")
    path.write_bytes(doubling())
    folder.look()

    assert told(folder.look()) == [
        ("z.onnx", content_hash(ledger())),
        ("model.onnx", content_hash(doubling())),
    ]


def test_a_file_that_breaks_the_contract_is_told_once(folder: ModelFolder, path: Path) -> None:
    """With its path; it is not looked into again until it changes."""
    path.write_bytes(b"broken")
    folder.look()
    (change,) = folder.look()
    assert isinstance(change.found, ModelInvalid)
    assert change.found.message.startswith(f"{path}: not a valid ONNX model")
    assert folder.look() == []


def test_a_file_that_cannot_be_read_is_tried_again_later(
    folder: ModelFolder, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A file that cannot be read is told once and tried again later, even if it has not changed; what
    is found then is told if it is something else.
    """
    path.write_bytes(doubling())
    whole, errors = Path.read_bytes, [errno.EACCES, errno.EACCES, errno.EIO]

    def refuse(self: Path) -> bytes:
        if errors:
            raise OSError(errors[0], os.strerror(errors.pop(0)), str(self))
        return whole(self)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    folder.look()
    (change,) = folder.look()
    assert isinstance(change.found, ModelInvalid)
    assert change.found.message == f"cannot read {path}: Permission denied"
    assert folder.look() == []
    found = []
    for _ in range(4):
        clock.seconds += model_folder.RETRY_SECONDS
        found.append(told(folder.look()))
        assert folder.look() == []

    invalid, good = ("model.onnx", "invalid"), ("model.onnx", content_hash(doubling()))
    assert found == [[], [invalid], [good], []]


def test_only_models_that_are_named_are_looked_at(path: Path) -> None:
    """Only named models are read; others may be broken."""
    other = path.parent.parent / "other" / "model.onnx"
    other.parent.mkdir()
    other.write_bytes(b"broken")
    folder = ModelFolder(path.parent.parent, ("ledger",))
    assert [change.place.model for change in folder.look()] == ["ledger"]
    os.utime(other)
    assert folder.look() == folder.look() == []


def test_a_folder_that_is_missing_is_an_error(folder: ModelFolder, path: Path) -> None:
    """A missing folder raises an error, and no file is reported as removed."""
    path.parent.parent.rename(path.parent.parent.with_name("away"))
    with pytest.raises(FileNotFoundError):
        folder.look()
