"""The catalogue: the versions of models, and their networks, loaded when needed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from service.errors import ModelInvalid, ModelUnknown, ModelVersionUnknown
from service.models import runtime
from service.models.folder import ModelFile, ModelFolder, VersionPath
from service.models.runtime import Network
from service.models.slab import Slab
from service.models.version import Version
from service.settings import Settings
from service.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class Catalogue:
    """
    Holds every version that can be served here, and the networks that were loaded.

    A version is held while its file is in the folder, while new sessions are opened on it, or while
    a session or a call uses it. Belongs to the event loop.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """
        Read the files of the models named in the settings, or of all; load nothing.

        Raises:
            ModelInvalid: a model is missing or breaks the contract; the message names its file.
            RuntimeError: the device does not work.
        """
        self._settings = settings
        self._metrics = metrics
        self._loading: dict[Version, asyncio.Task[None]] = {}
        self._users: Counter[Version] = Counter()
        self._places: dict[VersionPath, Version] = {}
        self._files: dict[Version, ModelFile] = {}
        self._current: dict[str, Version] = {}
        self.provider = runtime.provider(settings.device)
        """The onnxruntime execution provider that networks run on."""
        self.named = _named(settings.models)
        """Models that the settings name."""
        self.folder = ModelFolder(settings.models_dir, self.named)
        self.networks: dict[Version, Network] = {}
        """The loaded networks by version."""
        for place, file in self.folder.read().items():
            self.put(place, file)

    @property
    def models(self) -> list[str]:
        """Names of the models that new sessions can be opened on, in order."""
        return sorted(self._current)

    def current(self, model: str) -> Version:
        """The version for new sessions of that model. Raises ModelUnknown."""
        version = self._current.get(model)
        if version is None:
            raise _unknown_error(model)
        return version

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

    def versions(self, model: str) -> list[Version]:
        """The versions of a model, the one for new sessions first."""
        known = [version for version in self._files if version.model == model]
        return sorted(known, key=lambda version: (not self.is_current(version), version))

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
        load.

        Raises the errors of `using`.
        """
        file = self.file(version)
        if version in self.networks:
            return
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

    def put(self, place: VersionPath, file: ModelFile) -> None:
        """Note that this path has this file. New sessions follow at once."""
        self.hold(file)
        self._metrics.exist(model=[place.model], trace=[each.name for each in file.spec.traces])
        self._places[place] = file.version
        if place.is_current:
            self._current[place.model] = file.version

    def remove(self, place: VersionPath) -> None:
        """Note that this path has no file any more."""
        self._places.pop(place, None)
        if place.is_current:
            self._current.pop(place.model, None)

    async def tidy(self, has_sessions: Callable[[Version], bool]) -> None:
        """Drop unused versions whose file is gone, and unload old versions that have no session."""
        there = {*self._places.values(), *self._current.values()}
        unloaded = []
        for version in list(self._files):
            if self._users[version] or has_sessions(version):
                continue
            if version not in there:
                del self._files[version]
            if version in self.networks and not self.is_current(version):
                unloaded.append(self.networks.pop(version))
                self._metrics.model.remove(*version, unloaded[-1].provider)
                log.info("model unloaded", extra=version._asdict())
        self._users = +self._users
        if unloaded:
            # On a thread: freeing a network takes long enough to delay steps.
            await asyncio.to_thread(unloaded.clear)

    async def _load(self, file: ModelFile) -> None:
        started = time.perf_counter()
        version = file.version
        try:
            network = await asyncio.to_thread(self._warm_network, file.content)
        except (ModelInvalid, OSError) as error:
            log.error("model not loaded", extra=version._asdict(), exc_info=True)
            raise ModelInvalid(
                f"model {version.model!r} cannot be loaded; the server's log says why"
            ) from error
        seconds = time.perf_counter() - started
        self.networks[version] = network
        self._metrics.model.labels(*version, network.provider).set(1)
        self._metrics.model_load.labels(version.model).set(seconds)
        log.info(
            "model loaded",
            extra={
                **version._asdict(),
                "provider": network.provider,
                "seconds": round(seconds, 3),
            },
        )

    def _warm_network(self, content: bytes) -> Network:
        """Load a network and run it once at every batch size; on a thread of its own."""
        settings = self._settings
        network = Network(content, settings.device, settings.threads, settings.max_burst)
        _warm_up(network, settings.max_batch)
        return network


def _named(models: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in models.split(",") if name.strip())


def _unknown_error(model: str) -> ModelUnknown:
    return ModelUnknown(
        f"model {model[:128]!r} is not served here; ListModels lists those that are",
        model=model[:128],
    )


def _warm_up(network: Network, max_batch: int) -> None:
    """Run every batch size once, so that no client pays for onnxruntime's first run of a shape."""
    slab = Slab(network, network.spec.default_locations)
    slot = slab.acquire()
    multiple = network.batch_multiple
    for rows in range(multiple, max_batch + multiple, multiple):
        for ticks in network.bursts:
            bound = slab.bind(rows, frozenset(), ticks)
            bound.slots[:] = slot
            bound.run()
