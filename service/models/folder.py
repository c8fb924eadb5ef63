"""
Reads the folder of models, and finds changes in it.

    NAME/model.onnx         the version for new sessions
    NAME/versions/*.onnx    others, for sessions and checkpoints that are of them

The folder can also hold the files of one model itself, as platforms mount a single model.
Names that begin with a dot are ignored, so that a file can be prepared beside its final place.
Files of other names that `is_name` refuses are not served.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from service.errors import ModelInvalid
from service.models import runtime
from service.models.loading import MAX_STATE_BYTES, try_out
from service.models.version import Version
from service.spec import MAX_NAME, ModelSpec, is_name, printable
from service.watched_files import Stamp, file_stamp

MODEL_FILE = "model.onnx"
OTHERS = "versions"

RETRY_SECONDS = 10.0
"""The time until a file that could not be read is tried again, unless it changes before."""

_MAX_BYTES = 2**31 - 1
"""The most that a protobuf message, and so an ONNX file, can have."""


class VersionPath(NamedTuple):
    """A path at which the file of a version can be."""

    is_current: bool
    """Whether it is the path of the version for new sessions."""
    model: str
    """The folder's name; quoted and escaped if no model can have it, so that all can show it."""
    path: Path
    wrong_name: str = ""
    """The name of the folder or of the file, if it is one that they cannot have."""

    @property
    def shown(self) -> str:
        """The path, for logs and errors."""
        return printable(str(self.path))


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


class _Unreadable(NamedTuple):
    """A file that could not be read."""

    why: str
    retry_seconds: float
    """When it is tried again."""


class ModelFolder:
    """
    Reads the files of models, and reads them again when they were replaced. Each file stands for
    itself: one that cannot be served keeps no other from being found. One thread may use it at a
    time.
    """

    def __init__(
        self,
        folder: Path,
        named: Iterable[str],
        max_state_bytes: int = MAX_STATE_BYTES,
        clock: Callable[[], float] = time.monotonic,
        own_name: str = "",
    ) -> None:
        """
        Look for the named models, or for all models if none is named; other folders are not read.

        Args:
            folder: the folder of models.
            named: names of models.
            max_state_bytes: the most that the state of a session may take.
            clock: gives seconds.
            own_name: name of the model whose files lie in the folder itself; empty for the
                folder's.
        """
        self._folder = folder
        self._own_name = own_name or folder.absolute().name
        self._named = frozenset(named)
        self._max_state_bytes = max_state_bytes
        self._clock = clock
        self._seen: dict[VersionPath, Stamp] | None = None
        self._taken: dict[VersionPath, Stamp] = {}
        self._unreadable: dict[VersionPath, _Unreadable] = {}

    def look(self) -> list[Change]:
        """
        The changes since the last call; first every file. New files in versions/ come before
        model.onnx, and removed files come last.

        After the first call a file counts once two calls found it unchanged. So no file is read
        while it is written, and none is missed while it is replaced. A file that cannot be served
        is told once, until it changes. Raises OSError if the folder itself cannot be read.
        """
        stamps = {place: file_stamp(place.path) for place in self._places()}
        seen, self._seen = stamps if self._seen is None else self._seen, stamps
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

    def models(self) -> list[str]:
        """The names of all models with a file for new sessions, also of those not looked for."""
        if not self._folder.exists():
            return []
        return sorted(
            model
            for model, folder in self._folders()
            if is_name(model) and MODEL_FILE in (_names(folder) or ())
        )

    def _folders(self) -> Iterator[tuple[str, Path]]:
        """The folders that may be models', each with its name."""
        # A missing folder is probably a mistake, not the intention to serve nothing.
        names = sorted(os.listdir(self._folder))
        if MODEL_FILE in names:
            yield self._own_name, self._folder
        for name in names:
            if not name.startswith(".") and not (name == self._own_name and MODEL_FILE in names):
                yield name, self._folder / name

    def _is_due(self, place: VersionPath, stamp: Stamp) -> bool:
        if self._taken.get(place) != stamp:
            return True
        unreadable = self._unreadable.get(place)
        return unreadable is not None and self._clock() >= unreadable.retry_seconds

    def _look_at(self, place: VersionPath, stamp: Stamp) -> Change | None:
        found: ModelFile | ModelInvalid
        before = self._unreadable.pop(place, None)
        try:
            found = read(place, self._max_state_bytes)
        except ModelInvalid as error:
            found = error
        except OSError as error:
            found = ModelInvalid(f"cannot read {place.shown}: {error.strerror}")
            retry_seconds = self._clock() + RETRY_SECONDS
            self._unreadable[place] = _Unreadable(found.message, retry_seconds)
        if file_stamp(place.path) != stamp:
            return None  # it has changed meanwhile: the next look reads it
        is_same = self._taken.get(place) == stamp
        self._taken[place] = stamp
        if is_same and isinstance(found, ModelInvalid) and before and found.message == before.why:
            return None  # told already
        return Change(place, found)

    def _places(self) -> Iterator[VersionPath]:
        """
        The paths of all files. Model names are plain names in the folder, so that no setting leads
        elsewhere.
        """
        for model, folder in self._folders():
            if self._named and model not in self._named:
                continue
            wrong = "" if is_name(model) else model
            model = repr(model) if wrong else model
            names = _names(folder)
            current = VersionPath(True, model, folder / MODEL_FILE, wrong)
            if names is None:
                yield from self._held(folder) or [current]
                continue
            if MODEL_FILE in names:
                yield current
            others = _names(folder / OTHERS) if OTHERS in names else []
            if others is None:
                yield from self._held(folder / OTHERS) or [
                    VersionPath(False, model, folder / OTHERS, wrong)
                ]
                continue
            for name in others:
                if name.endswith(".onnx"):
                    wrong_name = wrong or ("" if is_name(name) else name)
                    yield VersionPath(False, model, folder / OTHERS / name, wrong_name)

    def _held(self, folder: Path) -> list[VersionPath]:
        """
        The files of a folder when it was read last. If it can no longer be read, none of them
        counts as removed, and reading them says what is wrong.
        """
        return [place for place in self._taken if place.path.is_relative_to(folder)]


def _names(folder: Path) -> list[str] | None:
    """The names in a folder; empty if there is no such folder, None if it cannot be read."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        return None


def read(place: VersionPath, max_state_bytes: int = MAX_STATE_BYTES) -> ModelFile:
    """
    Read a model's file as the server does, at its start and later, and make some steps with it.

    Raises:
        ModelInvalid: it cannot be served; the message has its path and the reason.
        OSError: it cannot be read.
    """
    status = place.path.stat()
    try:
        if place.wrong_name:
            raise ModelInvalid(
                f"the name {place.wrong_name!r} is not allowed; rename it to at most {MAX_NAME} "
                "printable characters, in UTF-8"
            )
        # Opening a pipe would wait for ever.
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise ModelInvalid("it is not a file; put the file of the model there")
        if status.st_size > _MAX_BYTES:
            raise ModelInvalid(
                f"it has {status.st_size} bytes; an ONNX file has at most {_MAX_BYTES}"
            )
        content = place.path.read_bytes()
        spec = try_out(content, max_state_bytes)
    except ModelInvalid as error:
        raise ModelInvalid(f"{place.shown}: {error.message}") from error
    return ModelFile(Version(place.model, runtime.content_hash(content)), spec, content)
