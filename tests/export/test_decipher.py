"""Networks that run no program: for these decipher has to say so."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper

from export import to_onnx
from export.architectures import build
from export.card import MODEL_NAME
from export.configurations import CONFIGURATIONS
from ntm_lab.decipher.report import Report, decipher
from service.spec import METADATA_KEY
from tests.support.served import MODELS, served

SEQUENCES = 20


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder of networks as they are before their first update."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("copy-ntm-lstm", "repeat-copy-ntm-ff"):
        configuration = CONFIGURATIONS[name]
        network = build(configuration.architecture, configuration.sizes, seed=1)
        # The graph that ships, with other parameters: to export it anew takes seconds.
        model = onnx.load(MODELS / name / MODEL_NAME)
        parameters = network.state_dict()
        for tensor in model.graph.initializer:
            if tensor.name in parameters:
                values = parameters[tensor.name].numpy()
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        (entry,) = (each for each in model.metadata_props if each.key == METADATA_KEY)
        entry.value = to_onnx.spec_of(network, configuration).to_json()
        loaded = to_onnx.load(model, configuration).state_dict()
        assert all(torch.equal(value, loaded[name]) for name, value in parameters.items())
        (folder / name).mkdir()
        (folder / name / MODEL_NAME).write_bytes(model.SerializeToString())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["copy-ntm-lstm", "repeat-copy-ntm-ff"])
def test_an_untrained_network_runs_no_program(untrained: Path, name: str) -> None:
    """Its score is no better than a constant's, and the verdict says that it is too low."""
    with served(untrained) as client:
        report: Report = decipher(client, name, sequences=SEQUENCES)

    assert not report.found
    assert report.program is None
    assert report.explained < 0.1
    assert report.verdict.startswith("no program found: the ")
    assert report.in_range is not None
    assert report.in_range.network_exact == 0
    assert report.mechanism is None
