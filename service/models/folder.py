"""
Reads the folder of models, and finds changes in it.

    NAME/model.onnx         the version for new sessions
    NAME/versions/*.onnx    others, for sessions and checkpoints that are of them

Names that begin with a dot are ignored, so that a file can be prepared beside its final place.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from service.errors import ModelInvalid
from service.models import graph, runtime
from service.models.version import Version
from service.spec import ModelSpec
from service.watched_files import Stamp, file_stamp

MODEL_FILE = "model.onnx"
OTHERS = "versions"

RETRY_SECONDS = 10.0
"""The time until a file that could not be read is tried again, unless it changes before."""


class VersionPath(NamedTuple):
    """A path at which the file of a version can be."""

    is_current: bool
    """Whether it is the path of the version for new sessions."""
    model: str
    path: Path


@dataclass(frozen=True)
class ModelFile:
    """The file of a version, as it was read."""

    version: Version
    spec: ModelSpec
    content: bytes = field(repr=False)
    """The bytes of the file. They are kept because another file may replace it at any moment."""


class Change(NamedTuple):
    """
    A change at a path: a new file, the error of a file that cannot be served, or None for no file.
    """

    place: VersionPath
    found: ModelFile | ModelInvalid | None


class ModelFolder:
    """
    Reads the files of models, and reads them again when they were replaced. One thread may use it
    at a time.
    """

    def __init__(
        self, folder: Path, named: Iterable[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the named models, or all models if none is named. The clock gives seconds."""
        self._folder = folder
        self._named = frozenset(named)
        self._clock = clock
        self._seen: dict[VersionPath, Stamp] = {}
        self._taken: dict[VersionPath, Stamp] = {}
        self._unreadable: dict[VersionPath, float] = {}
        """When each file that could not be read is tried again."""

    def read(self) -> dict[VersionPath, ModelFile]:
        """
        Read every file for the first time.

        Raises:
            ModelInvalid: there is no model, a named model is missing, or a file breaks the
                contract.
        """
        try:
            places = self._places() if self._folder.exists() else ()
            models = {place.model for place in places if place.is_current}
            missing = sorted(self._named - models)
            if missing or not models:
                raise ModelInvalid(
                    f"{self._folder} has the models {sorted(models)}, not {missing}"
                    if missing
                    else f"{self._folder} has no folder with a {MODEL_FILE}; set the models-dir"
                )
            self._seen = self._stamps()
            self._taken = dict(self._seen)
            return {place: _read(place) for place in self._seen}
        except OSError as error:
            raise ModelInvalid(f"cannot read {error.filename}: {error.strerror}") from error

    def look(self) -> list[Change]:
        """
        The changes since the last call. New files in versions/ come before model.onnx, and removed
        files come last.

        A file counts once two calls found it unchanged. So no file is read while it is written, and
        none is missed while it is replaced. Raises OSError if the folder cannot be read.
        """
        stamps = self._stamps()
        seen, self._seen = self._seen, stamps
        changes = []
        for place, stamp in sorted(stamps.items()):
            if seen.get(place) == stamp and self._is_due(place, stamp):
                change = self._look_at(place, stamp)
                if change is not None:
                    changes.append(change)
        for place in sorted(self._taken.keys() - stamps.keys() - seen.keys()):
            del self._taken[place]
            self._unreadable.pop(place, None)
            changes.append(Change(place, None))
        return changes

    def _is_due(self, place: VersionPath, stamp: Stamp) -> bool:
        if self._taken.get(place) != stamp:
            return True
        return self._clock() >= self._unreadable.get(place, float("inf"))

    def _look_at(self, place: VersionPath, stamp: Stamp) -> Change | None:
        found: ModelFile | ModelInvalid
        self._unreadable.pop(place, None)
        try:
            found = _read(place)
        except ModelInvalid as error:
            found = error
        except OSError as error:
            found = ModelInvalid(f"cannot read {place.path}: {error.strerror}")
            self._unreadable[place] = self._clock() + RETRY_SECONDS
        if file_stamp(place.path) != stamp:
            return None  # it has changed meanwhile: the next look reads it
        self._taken[place] = stamp
        return Change(place, found)

    def _stamps(self) -> dict[VersionPath, Stamp]:
        return {
            place: file_stamp(place.path)
            for place in self._places()
            if place.model in self._named or not self._named
        }

    def _places(self) -> Iterator[VersionPath]:
        """
        The paths of all files. Model names are plain names in the folder, so that no setting leads
        elsewhere.
        """
        # A missing folder is probably a mistake, not the intention to serve nothing.
        for model in sorted(os.listdir(self._folder)):
            if model.startswith("."):
                continue
            folder = self._folder / model
            names = _names(folder)
            if MODEL_FILE in names:
                yield VersionPath(True, model, folder / MODEL_FILE)
            for name in _names(folder / OTHERS) if OTHERS in names else ():
                if name.endswith(".onnx"):
                    yield VersionPath(False, model, folder / OTHERS / name)


def _names(folder: Path) -> list[str]:
    """
    The names in a folder; empty if there is no such folder. Raises OSError if it cannot be read.
    """
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(place: VersionPath) -> ModelFile:
    content = place.path.read_bytes()
    try:
        _, spec = graph.parse(content)
    except ModelInvalid as error:
        raise ModelInvalid(f"{place.path}: {error.message}") from error
    return ModelFile(Version(place.model, runtime.content_hash(content)), spec, content)
