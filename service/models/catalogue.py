"""The catalogue: the versions of models, and their networks, loaded when needed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from service.errors import ModelInvalid, ModelUnknown, ModelVersionUnknown, one_line
from service.models import runtime
from service.models.folder import MODEL_FILE, Change, ModelFile, ModelFolder, VersionPath
from service.models.loading import load
from service.models.runtime import Network
from service.models.version import Version
from service.settings import Settings
from service.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

RETRY_SECONDS = 10.0
"""The time for which a network that could not be loaded is not tried again."""

_WHERE = (
    "set --models-dir to a folder of models: the folder models of a checkout or of the image, or "
    "what ntm-export writes"
)


class Catalogue:
    """
    Holds every version that can be served here, and the networks that were loaded.

    A version is held while its file is in the folder, while new sessions are opened on it, or while
    a session or a call uses it. Belongs to the event loop.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Read and try the files of the models named in the settings, or of all; load no network.

        A file that cannot be served is logged and counted, and the others are served. The clock
        gives seconds.

        Raises:
            ModelInvalid: a model that the settings name is missing or cannot be served, or there is
                no model that can; the message names the file.
            RuntimeError: the device does not work, or has no CUDA graphs.
        """
        self._settings = settings
        self._metrics = metrics
        self._loading: dict[Version, asyncio.Task[None]] = {}
        self._users: Counter[Version] = Counter()
        self._places: dict[VersionPath, Version] = {}
        self._files: dict[Version, ModelFile] = {}
        self._current: dict[str, Version] = {}
        self._refused: dict[VersionPath, ModelInvalid] = {}
        self._failed: dict[Version, tuple[ModelInvalid, float]] = {}
        """Networks that could not be loaded, and until when they are not tried again."""
        self._clock = clock
        self.provider = runtime.provider(settings.device, cuda_graphs=settings.cuda_graphs == "yes")
        """The onnxruntime execution provider that networks run on."""
        self.named = _named(settings.models)
        """Models that the settings name."""
        self.folder = ModelFolder(
            settings.models_dir,
            self.named,
            settings.max_state_bytes,
            own_name=settings.model_name,
        )
        self.networks: dict[Version, Network] = {}
        """The loaded networks by version."""
        self._read_first()

    @property
    def models(self) -> list[str]:
        """Names of the models that new sessions can be opened on, in order."""
        return sorted(
            model for model, version in self._current.items() if self._failure(version) is None
        )

    def current(self, model: str) -> Version:
        """
        The version for new sessions of that model.

        Raises:
            ModelUnknown: there is no such model. ModelInvalid: its file cannot be served.
        """
        version = self._current.get(model)
        if version is not None:
            return version
        if any(place.is_current and place.model == model for place in self._refused):
            raise ModelInvalid(
                f"the file of model {model!r} cannot be served; the server's log says why"
            )
        raise _unknown_error(model)

    def file(self, version: Version) -> ModelFile:
        """
        The file of a version.

        Raises:
            ModelUnknown: no version of the model is known. ModelVersionUnknown: this version is not
                known.
        """
        file = self._files.get(version)
        if file is not None:
            return file
        known = self.versions(version.model)
        if not known:
            raise _unknown_error(version.model)
        raise ModelVersionUnknown(
            f"model {version.model!r} has no version {version.content_hash[:64]!r} here, but "
            f"{', '.join(other.content_hash for other in known)}; another replica may have it",
            model=version.model,
            content_hash=version.content_hash[:64],
        )

    def is_batched(self, version: Version) -> bool:
        """Whether runs step several sessions, as far as is known before its network is loaded."""
        network = self.networks.get(version)
        return self.file(version).spec.batched if network is None else network.batched

    def versions(self, model: str) -> list[Version]:
        """The versions of a model, the one for new sessions first."""
        known = [version for version in self._files if version.model == model]
        return sorted(known, key=lambda version: (not self.is_current(version), version))

    def of_content(self, content_hash: str) -> list[Version]:
        """The versions of any model that are this file."""
        return sorted(each for each in self._files if each.content_hash == content_hash)

    def is_current(self, version: Version) -> bool:
        """Whether new sessions are opened on it."""
        return self._current.get(version.model) == version

    def is_needed(self, model: str) -> bool:
        """
        Whether a new version is loaded at once: the settings name the model, or its last version is
        loaded.
        """
        version = self._current.get(model)
        return model in self.named or version in self.networks or version in self._loading

    @asynccontextmanager
    async def using(self, version: Version) -> AsyncIterator[None]:
        """
        Load a version, and keep it loaded within the `with` block, until a session uses it.

        Raises:
            ModelUnknown, ModelVersionUnknown: the version is not known here.
            ModelInvalid: its network cannot be loaded.
        """
        self.file(version)
        self._users[version] += 1
        try:
            await self.load(version)
            yield
        finally:
            self._users[version] -= 1

    async def load(self, version: Version) -> None:
        """
        Load a version's network into `networks`. Callers that ask at the same time wait for one
        load. If it fails, callers get its error for `RETRY_SECONDS`, and then it is tried again.

        Raises the errors of `using`.
        """
        file = self.file(version)
        if version in self.networks:
            return
        failure = self._failure(version)
        if failure is not None:
            raise failure
        task = self._loading.get(version)
        if task is None:
            task = asyncio.create_task(self._load(file))
            task.add_done_callback(lambda _: self._loading.pop(version))
            self._loading[version] = task
        # If one caller is cancelled, the loading goes on for the others.
        await asyncio.shield(task)

    def at(self, place: VersionPath) -> Version | None:
        """The version whose file at this path was taken over; None if there is none."""
        return self._places.get(place)

    def hold(self, file: ModelFile) -> None:
        """Hold a version, so that it can be used."""
        self._files.setdefault(file.version, file)

    def take(self, change: Change) -> None:
        """
        Take a change of the folder over. New sessions follow at once.

        A file that cannot be served is logged and counted, and what was there before stays.
        """
        place, found = change
        traces = found.spec.traces if isinstance(found, ModelFile) else ()
        self._metrics.exist(model=[place.model], trace=[each.name for each in traces])
        if isinstance(found, ModelInvalid):
            self._refused[place] = found
            self._metrics.model_reloads.labels(place.model, "failed").inc()
            fields = {"model": place.model, "file": place.shown, "why": found.message}
            log.error("model file not taken over", extra=fields)
            return
        self._refused.pop(place, None)
        if found is None:
            self._places.pop(place, None)
            if place.is_current:
                self._current.pop(place.model, None)
            return
        self.hold(found)
        self._places[place] = found.version
        if place.is_current:
            self._current[place.model] = found.version

    async def tidy(self, has_sessions: Callable[[Version], bool]) -> None:
        """Drop unused versions whose file is gone, and unload old versions that have no session."""
        there = {*self._places.values(), *self._current.values()}
        unloaded = []
        for version in list(self._files):
            if self._users[version] or has_sessions(version):
                continue
            if version not in there:
                del self._files[version]
                self._failed.pop(version, None)
            if version in self.networks and not self.is_current(version):
                unloaded.append(self.networks.pop(version))
                self._metrics.model.remove(*version, unloaded[-1].provider)
                self._metrics.model_batched.remove(*version)
                log.info("model unloaded", extra=version._asdict())
        self._users = +self._users
        if unloaded:
            # On a thread: freeing a network takes long enough to delay steps.
            await asyncio.to_thread(unloaded.clear)

    def _read_first(self) -> None:
        """Take every file over, and check that there is what the settings ask for."""
        folder = self._settings.models_dir
        try:
            changes = self.folder.look()
        except FileNotFoundError as error:
            raise ModelInvalid(f"{folder} does not exist; {_WHERE}") from error
        except NotADirectoryError as error:
            raise ModelInvalid(f"{folder} is not a folder; {_WHERE}") from error
        except OSError as error:
            raise ModelInvalid(one_line(error)) from error
        for change in changes:
            self.take(change)
        refused = {place.model: why for place, why in self._refused.items() if place.is_current}
        for model in self.named:
            if model in refused:
                raise refused[model]
        missing = sorted(set(self.named) - self._current.keys())
        if missing:
            there = ", ".join(self.folder.models()) or "none"
            raise ModelInvalid(
                f"{folder} has no model {', '.join(missing)}; --models takes names of models, and "
                f"--models-dir their folder; it has {there}"
            )
        if refused and not self._current:
            first = min(refused)
            raise ModelInvalid(
                f"no model in {folder} can be served: {refused[first].message}"
                + (f"; the log has {len(refused) - 1} more" if len(refused) > 1 else "")
            )
        if not self._current:
            raise ModelInvalid(f"{folder} has no {MODEL_FILE}, and no folder with one; {_WHERE}")
        name = self._settings.model_name
        if name and not (folder / MODEL_FILE).exists():
            facts = {"model_name": name, "models_dir": str(folder)}
            log.warning("--model-name is ignored: the folder is of models, not of one", extra=facts)

    def _failure(self, version: Version) -> ModelInvalid | None:
        """The error of a load that is not tried again yet."""
        failure, until = self._failed.get(version, (None, 0.0))
        return failure if self._clock() < until else None

    async def _load(self, file: ModelFile) -> None:
        started = time.perf_counter()
        version = file.version
        settings = self._settings
        try:
            network = await asyncio.to_thread(
                load,
                file.content,
                settings.device,
                settings.threads,
                settings.max_burst,
                settings.max_batch,
                cuda_graphs=settings.cuda_graphs == "yes",
            )
        except ModelInvalid as error:
            self._metrics.model_reloads.labels(version.model, "failed").inc()
            log.error("model not loaded", extra={**version._asdict(), "why": error.message})
            failure = ModelInvalid(f"model {version.model!r} cannot be loaded: {error.message}")
            self._failed[version] = failure, self._clock() + RETRY_SECONDS
            raise failure from error
        self._failed.pop(version, None)
        seconds = time.perf_counter() - started
        self.networks[version] = network
        self._metrics.model.labels(*version, network.provider).set(1)
        self._metrics.model_load.labels(version.model).set(seconds)
        self._metrics.model_batched.labels(*version).set(network.batched)
        if not network.batched:
            fields = {**version._asdict(), "why": network.why_alone}
            log.warning("model steps one session a run", extra=fields)
        log.info(
            "model loaded",
            extra={
                **version._asdict(),
                "provider": network.provider,
                "seconds": round(seconds, 3),
            },
        )


def _named(models: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in models.split(",") if name.strip())


def _unknown_error(model: str) -> ModelUnknown:
    return ModelUnknown(
        f"model {model[:128]!r} is not served here; ListModels lists those that are",
        model=model[:128],
    )
