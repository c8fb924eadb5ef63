"""What is said of a machine on which CUDA cannot be used, and that nothing is said where it can."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from service.models import cuda
from service.models.cuda import REQUIREMENTS, CudaSupport, Requirement

CUDA_13 = REQUIREMENTS[13]
WORKS = CudaSupport(driver=13000, status=0, capabilities=((7, 5),), missing=())


class FakeDriver:
    """libcuda.so.1 of a machine with some GPUs, all of one compute capability."""

    def __init__(self, version: int, gpus: int, status: int = 0) -> None:
        """The version as the driver gives it; the status is what cuInit returns."""
        self.version = version
        self.gpus = gpus
        self.status = status

    def cuInit(self, flags: int) -> int:  # noqa: N802 # the driver's name
        """Start."""
        assert flags == 0
        return self.status

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802 # likewise
        """The newest CUDA that the driver runs; works before cuInit."""
        version.contents.value = self.version
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802 # likewise
        """How many GPUs there are."""
        assert self.status == 0, "not without cuInit"
        count.contents.value = self.gpus
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802 # likewise
        """The handle of a GPU."""
        device.contents.value = 40 + index
        return 0

    def cuDeviceGetAttribute(  # noqa: N802 # likewise
        self, value: Any, attribute: int, device: ctypes.c_int
    ) -> int:
        """Compute capability 8.<index of the GPU>."""
        value.contents.value = {75: 8, 76: device.value - 40}[attribute]
        return 0


def loader(**libraries: object) -> cuda.Load:
    """Loads the driver, by the name `driver`, and everything else but what is None."""

    def load(name: str) -> object:
        key = "driver" if name == "libcuda.so.1" else name.split(".")[0]
        if libraries.get(key, name) is None:
            raise OSError(f"{name}: cannot open shared object file")
        return libraries.get(key, name)

    return load


def test_a_machine_is_looked_at_through_its_driver() -> None:
    """Version and GPUs are the driver's word."""
    machine = cuda.look(CUDA_13, loader(driver=FakeDriver(13010, gpus=2)))

    assert machine == CudaSupport(13010, 0, ((8, 0), (8, 1)), ())


def test_a_driver_that_does_not_start_is_asked_nothing_more() -> None:
    """Its error is kept: 100 is for no GPU, 803 for a driver that misfits its kernel module."""
    machine = cuda.look(CUDA_13, loader(driver=FakeDriver(13000, gpus=1, status=803)))

    assert machine == CudaSupport(13000, 803, (), ())


def test_missing_libraries_are_all_found() -> None:
    """With the driver missing too, since a container may lack everything at once."""
    machine = cuda.look(CUDA_13, loader(driver=None, libcublas=None, libcurand=None))

    assert machine == CudaSupport(None, 0, (), ("libcublas.so.13", "libcurand.so.10"))


@pytest.mark.parametrize("machine", [WORKS, replace(WORKS, driver=14000, capabilities=((12, 0),))])
def test_nothing_is_said_of_a_machine_where_cuda_works(machine: CudaSupport) -> None:
    """At the least versions, and above."""
    assert cuda.fault(machine, CUDA_13) is None


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (
            replace(WORKS, driver=None, capabilities=()),
            "there is no NVIDIA driver (libcuda.so.1); CUDA 13 needs 580 or later",
        ),
        (
            replace(WORKS, driver=12090),
            "the NVIDIA driver is too old: it can run CUDA 12.9, and CUDA 13 needs 580 or later",
        ),
        (
            replace(WORKS, status=100, capabilities=()),
            "the NVIDIA driver gives no GPU (cuInit returned 100)",
        ),
        (
            replace(WORKS, capabilities=((7, 0), (9, 0))),
            "the GPU is too old: its compute capability is 7.0, and CUDA 13 needs 7.5 or later",
        ),
        (
            replace(WORKS, missing=("libcublas.so.13", "libcurand.so.10")),
            "libraries are missing: libcublas.so.13, libcurand.so.10 "
            "(onnxruntime-gpu[cuda,cudnn] brings them)",
        ),
    ],
    ids=["no driver", "old driver", "no GPU", "old GPU", "no libraries"],
)
def test_a_fault_names_what_is_missing_or_too_old(machine: CudaSupport, words: str) -> None:
    """In words that an operator can act on."""
    assert cuda.fault(machine, CUDA_13) == words


def test_faults_are_told_together() -> None:
    """All faults of a machine are reported together."""
    machine = CudaSupport(None, 0, (), ("libcudart.so.13",))
    reason = cuda.fault(machine, CUDA_13)

    assert reason is not None
    assert "no NVIDIA driver" in reason
    assert "; libraries are missing: libcudart.so.13" in reason


@pytest.mark.parametrize(
    ("release", "version", "driver", "last"),
    [
        ("1.26.0", "12.8", "525", "libcudnn.so.9"),
        ("1.27.0", "13.0", "580", "libcudnn.so.9"),
        ("1.28.0", "13.0", "580", "libcurand.so.10"),
        ("1.31.1", "13.0", "580", "libcurand.so.10"),
        ("2.0.0", "12.9", "525", "libcurand.so.10"),
    ],
)
def test_what_is_needed_depends_on_the_release_and_its_cuda(
    release: str, version: str, driver: str, last: str
) -> None:
    """CUDA decides on the driver; the release on whether cuDNN must be there to load at all."""
    needs = cuda.requirement(release, version)

    assert isinstance(needs, Requirement)
    assert needs.cuda == int(version.split(".")[0])
    assert needs.driver == driver
    assert needs.libraries[-1] == last


def test_a_cuda_that_nobody_knows_yet_is_left_to_onnxruntime() -> None:
    """A newer onnxruntime may work; its own loading says so."""
    assert cuda.requirement("1.99.0", "14.0") is None


@pytest.mark.skipif(
    not getattr(onnxruntime, "cuda_version", None), reason="this onnxruntime has no CUDA"
)
def test_the_installed_release_is_known() -> None:
    """An onnxruntime for a new CUDA needs a line in the table."""
    assert cuda.requirement(onnxruntime.__version__, onnxruntime.cuda_version) is not None


def test_a_provider_that_does_not_load_is_the_last_thing_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own error is told where the machine seems to have everything."""
    monkeypatch.setattr(cuda, "look", lambda _: WORKS)
    reason = cuda.why_not("1.31.1", "13.0", tmp_path)

    assert reason is not None
    assert reason.startswith("onnxruntime's provider does not load: ")
    assert "libonnxruntime_providers_shared.so" in reason
