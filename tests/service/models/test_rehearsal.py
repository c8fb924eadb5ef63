"""The rehearsal of a model: what a server would find wrong with it, found before it is served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from service.errors import ModelInvalid
from service.models.rehearsal import rehearse
from service.spec import Float32
from tests.support.tiny_models import RUN_FAILS, ledger, not_loadable

INPUTS = np.arange(26, dtype=np.float32).reshape(13, 2)


def rehearsed(folder: Path, model: bytes, inputs: Float32 = INPUTS) -> dict[int, Float32]:
    """Rehearse a model of this content."""
    (folder / "ledger").mkdir()
    (folder / "ledger" / "model.onnx").write_bytes(model)
    return rehearse(folder, "ledger", inputs)


def test_a_model_answers_at_its_own_memory_size_and_at_another(tmp_path: Path) -> None:
    """Of 13 steps, those made one by one and those made in bursts have the outputs of a session."""
    found = rehearsed(tmp_path, ledger())

    assert list(found) == [8, 9]
    for outputs in found.values():
        np.testing.assert_array_equal(outputs, INPUTS.cumsum(axis=0))


def test_a_graph_with_a_fixed_memory_is_refused_if_the_spec_leaves_it_open(tmp_path: Path) -> None:
    """The spec says N where the graph has eight locations, as in an export of a learned memory."""
    model = onnx.load_from_string(ledger())
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == "N":
                axis.dim_value = 8

    with pytest.raises(
        ModelInvalid, match=r"ledger/model.onnx: 'memory' has shape \['any', 2, 8\] in the graph"
    ):
        rehearsed(tmp_path, model.SerializeToString())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (b"not a model", "not a valid ONNX model"),
        (not_loadable(), "onnxruntime cannot load the model"),
    ],
)
def test_what_a_server_cannot_load_is_refused(model: bytes, message: str, tmp_path: Path) -> None:
    """The message is the one of the server's log, not the one for its clients."""
    with pytest.raises(ModelInvalid, match=message):
        rehearsed(tmp_path, model)


def test_a_step_that_fails_is_refused(tmp_path: Path) -> None:
    """A graph that loads and does not run is found by its steps."""
    inputs = INPUTS.copy()
    inputs[9, 0] = RUN_FAILS

    with pytest.raises(ModelInvalid, match="the network cannot be run: "):
        rehearsed(tmp_path, ledger(), inputs)
