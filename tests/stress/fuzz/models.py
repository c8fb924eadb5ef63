"""Model files altered and damaged, read as a server reads them at start and at a first session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from service.errors import ModelInvalid
from service.models import graph
from service.models.catalogue import Catalogue
from service.models.folder import MODEL_FILE
from service.settings import Settings
from service.spec import METADATA_KEY
from service.telemetry.metrics import Metrics
from tests.stress.fuzz.alterations import altered
from tests.stress.fuzz.edits import damaged
from tests.stress.fuzz.json_texts import spoiled
from tests.stress.fuzz.specs import PROTOS, SPECS

_NAMES = ("x", "y", "memory", "c_memory", "weighting", "b_total", "N", "B", "axis1", "Gather", "")

_blobs = st.sampled_from(SPECS).map(str.encode) | st.binary(max_size=40)


@st.composite
def _models(draw: Any) -> bytes:
    """A model with a few alterations, of its graph and of its spec."""
    proto = draw(altered(st.sampled_from(PROTOS), _NAMES, _blobs))
    for entry in proto.metadata_props:
        if entry.key == METADATA_KEY and draw(st.integers(0, 3)) == 0:
            entry.value = draw(spoiled(SPECS))
    serialized: bytes = proto.SerializeToString()
    return serialized


class ModelFile(bytes):
    """The bytes of a model file, told by their number: nobody wants to read them all."""

    def __repr__(self) -> str:
        return f"<model file of {len(self)} bytes>"


models = damaged(_models()).map(ModelFile)
"""Model files."""


@contextmanager
def parser() -> Iterator[Callable[[bytes], None]]:
    """Hand out what parses a model: it is refused as ModelInvalid, or has what its spec names."""

    def check(model: bytes) -> None:
        with suppress(ModelInvalid):
            proto, spec = graph.parse(model)
            assert spec.output in {value.name for value in proto.graph.output}

    yield check


@contextmanager
def loader() -> Iterator[Callable[[bytes], None]]:
    """Hand out what loads a model from a folder and warms it up, or refuses it as ModelInvalid."""
    with TemporaryDirectory() as folder, asyncio.Runner() as runner:
        path = Path(folder) / "fuzzed" / MODEL_FILE
        path.parent.mkdir()
        settings = Settings(models_dir=Path(folder), device="cpu", max_batch=8, max_burst=1)

        def check(model: bytes) -> None:
            path.write_bytes(model)
            with suppress(ModelInvalid):
                catalogue = Catalogue(settings, Metrics(CollectorRegistry()))
                version = catalogue.current("fuzzed")
                runner.run(catalogue.load(version))
                assert list(catalogue.networks) == [version]

        yield check
