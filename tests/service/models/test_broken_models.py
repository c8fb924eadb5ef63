"""Each way to break a model, in a catalogue that is read at the start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from prometheus_client import CollectorRegistry

from service.errors import ModelInvalid
from service.models.catalogue import Catalogue
from service.models.loading import try_out
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.support.broken_models import Broken, broken
from tests.support.rich_models import of_the_second_axis
from tests.support.tiny_models import LEDGER, doubling, ledger

BROKEN = broken()


@pytest.fixture(params=BROKEN)
def case(request: pytest.FixtureRequest) -> Broken:
    """Each way to break a model."""
    return BROKEN[request.param]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the ledger in two versions."""
    others = tmp_path / "models" / "ledger" / "versions"
    others.mkdir(parents=True)
    (others.parent / "model.onnx").write_bytes(ledger())
    (others / "good.onnx").write_bytes(doubling())
    return tmp_path / "models"


def catalogue(folder: Path, models: str) -> tuple[Catalogue, CollectorRegistry]:
    """The catalogue of a folder, and its metrics."""
    registry = CollectorRegistry()
    settings = Settings(models_dir=folder, models=models, device="cpu")
    return Catalogue(settings, Metrics(registry)), registry


@pytest.mark.parametrize("models", ["broken,ledger", "ledger,broken"])
def test_a_broken_model_stops_the_start_if_the_settings_name_it(
    folder: Path, case: Broken, models: str
) -> None:
    """The error is one sentence with the file."""
    case.make(folder / "broken")
    with pytest.raises(ModelInvalid, match=case.why) as raised:
        catalogue(folder, models)

    assert str(folder / "broken" / "model.onnx") in raised.value.message
    assert "\n" not in raised.value.message


def test_a_broken_model_that_is_not_named_is_not_read(folder: Path, case: Broken) -> None:
    """Nothing is logged or counted of it."""
    case.make(folder / "broken")
    found, registry = catalogue(folder, "ledger")

    assert found.models == ["ledger"]
    failed = {"model": "broken", "outcome": "failed"}
    assert registry.get_sample_value("ntm_model_reloads_total", failed) is None


def test_what_onnxruntime_says_is_in_the_error_alone(capfd: pytest.CaptureFixture[str]) -> None:
    """On its own it would write coloured lines to the terminal, also of what is only tried."""
    with pytest.raises(ModelInvalid, match="while running Squeeze node"):
        try_out(of_the_second_axis())

    assert capfd.readouterr() == ("", "")


def test_a_graph_may_fix_the_locations_if_its_spec_does() -> None:
    """So it is for a memory that starts as learned; its traces are as wide as the memory."""
    proto = onnx.load_model_from_string(
        ledger(metadata=replace(LEDGER, fixed_locations=True).to_json())
    )
    for value in [*proto.graph.input, *proto.graph.output]:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == "N":
                axis.dim_value = LEDGER.default_locations

    assert try_out(proto.SerializeToString()).trace("read_weighting") == LEDGER.traces[0]


def test_a_broken_version_keeps_no_other_from_being_served(folder: Path, case: Broken) -> None:
    """It does not stop the start either, if the settings name its model."""
    case.make(folder / "broken")
    made, bad = folder / "broken" / "model.onnx", folder / "ledger" / "versions" / "bad.onnx"
    if (folder / "broken").is_symlink():
        bad.symlink_to(bad.name)
    else:
        made.rename(bad)
    found, registry = catalogue(folder, "ledger")

    assert len(found.versions("ledger")) == 2
    failed = {"model": "ledger", "outcome": "failed"}
    assert registry.get_sample_value("ntm_model_reloads_total", failed) == 1
