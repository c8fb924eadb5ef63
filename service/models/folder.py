"""
The folder of models, and what changes in it.

    NAME/model.onnx         the version for new sessions
    NAME/versions/*.onnx    others, for sessions and checkpoints that are of them

Names that begin with a dot are passed over, so that a file can be made ready beside its place.
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
"""How long a file that could not be read is left alone, unless it changes before."""


class VersionPath(NamedTuple):
    """Where a version's file can be."""

    is_current: bool
    """Whether it is where the version for new sessions is."""
    model: str
    path: Path


@dataclass(frozen=True)
class ModelFile:
    """A version as its file has it."""

    version: Version
    spec: ModelSpec
    content: bytes = field(repr=False)
    """Kept, since another file may take its place at any moment."""


class Change(NamedTuple):
    """What a place has now: a file, one that cannot be served and why, or none any more."""

    place: VersionPath
    found: ModelFile | ModelInvalid | None


class ModelFolder:
    """Reads the files of models, and again when they were replaced. One thread at a time."""

    def __init__(
        self, folder: Path, named: Iterable[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Look at the models named, or at all if none is; the clock gives seconds."""
        self._folder = folder
        self._named = frozenset(named)
        self._clock = clock
        self._seen: dict[VersionPath, Stamp] = {}
        self._taken: dict[VersionPath, Stamp] = {}
        self._unreadable: dict[VersionPath, float] = {}
        """When each is tried again."""

    def read(self) -> dict[VersionPath, ModelFile]:
        """
        Read every file for the first time.

        Raises:
            ModelInvalid: there is none, a model named has none, or one breaks the contract.
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
        What has changed since the last call: other files before model.onnx, and files gone last.

        A file counts once two looks found it the same, so that none is read while it is written,
        and none is missed while it is replaced. Raises OSError where the folder cannot be read.
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
        """Plain names in the folder, so that no setting leads elsewhere."""
        # A folder that is missing is more likely a mistake than a wish to serve nothing.
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
    """What is in a folder; nothing if it is none. Raises OSError if it cannot be read."""
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
