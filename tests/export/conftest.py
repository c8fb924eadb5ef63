"""Tiny configurations and their exported models, each made once."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import onnx
import pytest
import torch
from torch.onnx._internal import _lazy_import

from export import to_onnx
from export.architectures import ARCHITECTURES, build
from export.configuration import Configuration, Trial
from export.network import Network


def tiny(architecture: str, **fields: int) -> Configuration:
    """A configuration that trains and exports in seconds."""
    has_memory = ARCHITECTURES[architecture].has_memory
    return Configuration(
        "copy",
        architecture,
        controller_size=12,
        layers=2,
        read_heads=2 if has_memory else 1,
        write_heads=1 if architecture == "dnc" else 1 + has_memory,
        locations=(24 * has_memory,),
        default_locations=24 * has_memory,
        memory_width=6 if has_memory else 20,
        batch=4,
        updates=fields.get("updates", 4),
        report_every=fields.get("report_every", 2),
        validation=(Trial((3,), 16 * has_memory, 2),),
        evaluation=(Trial((3,), 16 * has_memory, 4),),
    )


@dataclass(frozen=True)
class Exported:
    """A network and the model made from it."""

    configuration: Configuration
    network: Network
    model: onnx.ModelProto

    @property
    def content(self) -> bytes:
        """The model as its file holds it."""
        return self.model.SerializeToString()


@pytest.fixture(scope="session", autouse=True)
def operators_read_once() -> Iterator[None]:
    """
    PyTorch reads the sources of all its ONNX operators anew for each conversion, which takes longer
    than many a conversion here. They do not change while tests run.
    """
    known: Any = vars(_lazy_import)["onnxscript_apis"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(known, "get_torchlib_ops", functools.cache(known.get_torchlib_ops))
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors here are tiny: a second thread of PyTorch only waits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", params=ARCHITECTURES)
def exported(request: pytest.FixtureRequest) -> Exported:
    """One model of each architecture, with several heads."""
    configuration = tiny(request.param)
    network = build(configuration.architecture, configuration.sizes, seed=5)
    spec = to_onnx.spec_of(network, configuration)
    return Exported(configuration, network, to_onnx.convert(network, spec))
