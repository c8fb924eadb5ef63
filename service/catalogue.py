"""The catalogue: which model folders there are, loaded and warmed up."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from service.errors import ModelInvalid
from service.metrics import Metrics
from service.runtime import BATCH_MULTIPLE, Network
from service.settings import Settings
from service.slab import Slab

log = logging.getLogger(__name__)

MODEL_FILE = "model.onnx"


def load(settings: Settings, metrics: Metrics) -> Mapping[str, Network]:
    """
    Load the chosen models, or all, and run each once at every batch size.

    Raises:
        ModelInvalid: a model is missing or breaks the contract; the message names its file.
        RuntimeError: the device does not work.
    """
    networks = {}
    for name in _chosen(settings):
        started = time.perf_counter()
        path = settings.models_dir / name / MODEL_FILE
        try:
            network = Network(path.read_bytes(), settings.device, settings.threads)
            _warm_up(network, settings.max_batch)
        except OSError as error:
            raise ModelInvalid(f"cannot read {path}: {error.strerror}") from error
        except ModelInvalid as error:
            raise ModelInvalid(f"{path}: {error.message}") from error
        seconds = time.perf_counter() - started
        metrics.model.labels(name, network.content_hash, network.provider).set(1)
        metrics.model_load.labels(name).set(seconds)
        log.info(
            "model loaded",
            extra={"model": name, "provider": network.provider, "seconds": round(seconds, 3)},
        )
        networks[name] = network
    return networks


def _chosen(settings: Settings) -> list[str]:
    """Names of the models to serve: plain folder names, so that no setting leads elsewhere."""
    found = _model_names(settings.models_dir)
    chosen = [name.strip() for name in settings.models.split(",") if name.strip()] or found
    missing = sorted(set(chosen) - set(found))
    if missing or not chosen:
        raise ModelInvalid(
            f"{settings.models_dir} has the models {found}, not {missing}"
            if missing
            else f"{settings.models_dir} has no folder with a {MODEL_FILE}; set the models-dir"
        )
    return chosen


def _model_names(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob(f"*/{MODEL_FILE}"))


def _warm_up(network: Network, max_batch: int) -> None:
    """Run every batch size once, so that no client pays for onnxruntime's first run of a shape."""
    slab = Slab(network, network.spec.default_locations)
    slot = slab.acquire()
    for rows in range(BATCH_MULTIPLE, max_batch + BATCH_MULTIPLE, BATCH_MULTIPLE):
        bound = slab.bind(rows, frozenset())
        bound.slots[:] = slot
        bound.run()
