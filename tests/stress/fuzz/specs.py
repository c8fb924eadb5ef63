"""Specs as a damaged or hostile model file has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import onnx

from service.errors import ModelInvalid
from service.spec import METADATA_KEY, ModelSpec
from tests.stress.fuzz.edits import damaged
from tests.stress.fuzz.json_texts import nested, spoiled
from tests.support.served import MODELS
from tests.support.tiny_models import ledger

PROTOS = [
    onnx.load_model_from_string(model)
    for model in (
        ledger(),
        *(
            (MODELS / name / "model.onnx").read_bytes()
            for name in ("copy-ntm-ff", "copy-lstm", "priority-sort-ntm-ff")
        ),
    )
]
"""Sound models, with initial states of every rule."""

SPECS = [
    entry.value for proto in PROTOS for entry in proto.metadata_props if entry.key == METADATA_KEY
]

texts = damaged(spoiled(SPECS).map(str.encode)) | nested
"""Specs as bytes, which need not even be text."""


@contextmanager
def spec_reader() -> Iterator[Callable[[bytes], None]]:
    """Hand out what reads a spec, which is refused as ModelInvalid or comes back unchanged."""

    def check(text: bytes) -> None:
        with suppress(ModelInvalid):
            spec = ModelSpec.from_json(text.decode(errors="replace"))
            assert ModelSpec.from_json(spec.to_json()) == spec
            assert spec.state_bytes(spec.default_locations) >= 0

    yield check
