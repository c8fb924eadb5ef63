"""The catalogue: which models there are, and their networks, loaded when first needed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service import graph, runtime
from service.errors import ModelInvalid, ModelUnknown
from service.metrics import Metrics
from service.runtime import Network
from service.settings import Settings
from service.slab import Slab
from service.spec import ModelSpec

log = logging.getLogger(__name__)

MODEL_FILE = "model.onnx"


@dataclass(frozen=True)
class Model:
    """A model that is served, whether its network is loaded yet or not."""

    name: str
    path: Path
    spec: ModelSpec
    content_hash: str
    """SHA-256 of the ONNX file, in hexadecimal, as it was when the server started."""


class Catalogue:
    """
    Knows every model from the start, and holds the networks that were loaded.

    Belongs to the event loop, but for `networks`, which others may read.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """
        Read the specs of the models named in the settings, or of all; load nothing.

        Raises:
            ModelInvalid: a model is missing or breaks the contract; the message names its file.
            RuntimeError: the device does not work.
        """
        self._settings = settings
        self._metrics = metrics
        self._loading: dict[str, asyncio.Task[None]] = {}
        self.provider = runtime.provider(settings.device)
        """The onnxruntime execution provider that networks run on."""
        self.named = _named(settings.models)
        """Models that the settings name."""
        self.models: Mapping[str, Model] = {
            name: _read(settings.models_dir, name) for name in _chosen(settings, self.named)
        }
        """Every model by name."""
        self.networks: dict[str, Network] = {}
        """Those loaded, by name; none is ever taken out."""

    def model(self, name: str) -> Model:
        """The model of that name. Raises ModelUnknown."""
        model = self.models.get(name)
        if model is None:
            raise ModelUnknown(
                f"model {name[:128]!r} is not served here; ListModels tells which are",
                model=name[:128],
            )
        return model

    async def load(self, name: str) -> None:
        """
        Have the network of that model in `networks`; whoever asks while it loads waits with others.

        Raises:
            ModelUnknown: there is no such model.
            ModelInvalid: its network cannot be loaded.
        """
        model = self.model(name)
        if name in self.networks:
            return
        task = self._loading.get(name)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(self._load, model))
            task.add_done_callback(lambda _: self._loading.pop(name))
            self._loading[name] = task
        # One who stops waiting must not stop the loading that others wait for.
        await asyncio.shield(task)

    def _load(self, model: Model) -> None:
        """Load a network and run it once at every batch size."""
        started = time.perf_counter()
        try:
            network = Network(
                model.path.read_bytes(),
                self._settings.device,
                self._settings.threads,
                self._settings.max_burst,
            )
            if network.content_hash != model.content_hash:
                raise ModelInvalid(f"{model.path} has changed since the server started")
            _warm_up(network, self._settings.max_batch)
        except (ModelInvalid, OSError) as error:
            log.error("model not loaded", extra={"model": model.name}, exc_info=True)
            raise ModelInvalid(
                f"model {model.name!r} cannot be loaded; the server's log says why"
            ) from error
        seconds = time.perf_counter() - started
        self.networks[model.name] = network
        self._metrics.model.labels(model.name, network.content_hash, network.provider).set(1)
        self._metrics.model_load.labels(model.name).set(seconds)
        log.info(
            "model loaded",
            extra={"model": model.name, "provider": network.provider, "seconds": round(seconds, 3)},
        )


def _named(models: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in models.split(",") if name.strip())


def _chosen(settings: Settings, named: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the models to serve: plain folder names, so that no setting leads elsewhere."""
    found = tuple(sorted(path.parent.name for path in settings.models_dir.glob(f"*/{MODEL_FILE}")))
    missing = sorted(set(named) - set(found))
    if missing or not found:
        raise ModelInvalid(
            f"{settings.models_dir} has the models {list(found)}, not {missing}"
            if missing
            else f"{settings.models_dir} has no folder with a {MODEL_FILE}; set the models-dir"
        )
    return named or found


def _read(folder: Path, name: str) -> Model:
    path = folder / name / MODEL_FILE
    try:
        content = path.read_bytes()
        _, spec = graph.parse(content)
    except OSError as error:
        raise ModelInvalid(f"cannot read {path}: {error.strerror}") from error
    except ModelInvalid as error:
        raise ModelInvalid(f"{path}: {error.message}") from error
    return Model(name, path, spec, runtime.content_hash(content))


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
