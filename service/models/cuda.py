"""Finds out why CUDA cannot be used here, by asking the driver, the GPU and the libraries."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # as cuDeviceGetAttribute numbers them

Load = Callable[[str], Any]
"""Loads a shared library by name, or raises OSError; `ctypes.CDLL` does."""


@dataclass(frozen=True)
class Requirement:
    """What a machine needs for an onnxruntime that was built for one CUDA release."""

    cuda: int
    """Major version."""
    driver: str
    """The least NVIDIA driver on Linux."""
    capability: tuple[int, int]
    """The least compute capability of a GPU."""
    libraries: tuple[str, ...]


# Drivers: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html.
# Capabilities: the oldest GPUs that the compilers of CUDA 12 and 13 can make code for.
# Libraries: those that libonnxruntime_providers_cuda.so is linked with.
REQUIREMENTS = {
    12: Requirement(
        cuda=12,
        driver="525",
        capability=(5, 0),
        libraries=("libcudart.so.12", "libcublasLt.so.12", "libcublas.so.12", "libcurand.so.10"),
    ),
    13: Requirement(
        cuda=13,
        driver="580",
        capability=(7, 5),
        libraries=("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10"),
    ),
}
"""By the major version of CUDA that onnxruntime-gpu is built for: on PyPI 13 since 1.27."""

_LINKED_UNTIL_1_27 = {
    12: ("libcufft.so.11", "libcudnn.so.9"),
    13: ("libcufft.so.12", "libcudnn.so.9"),
}
"""
Libraries that onnxruntime 1.28 and later load only for operators that need them.

https://github.com/microsoft/onnxruntime/pull/29252 and 29808.
"""


@dataclass(frozen=True)
class CudaSupport:
    """The parts of CUDA that were found on a machine."""

    driver: int | None
    """The newest CUDA that the driver can run, as 1000 * major + 10 * minor; None without one."""
    status: int
    """The result of the driver's cuInit; 0 if it succeeded."""
    capabilities: tuple[tuple[int, int], ...]
    """The compute capability of each GPU that this process may see."""
    missing: tuple[str, ...]
    """The required libraries that do not load."""


def why_not(onnxruntime: str, cuda: str, providers: Path) -> str | None:
    """
    The reason why CUDA cannot be used here; None if it can.

    Args:
        onnxruntime: its version.
        cuda: the version of CUDA that it was built for.
        providers: the folder with its provider libraries.
    """
    needs = requirement(onnxruntime, cuda)
    reason = needs and fault(look(needs), needs)
    return reason or _provider_fault(providers)


def requirement(onnxruntime: str, cuda: str) -> Requirement | None:
    """
    The requirements of an onnxruntime of this version that was built for this CUDA; None if
    unknown.
    """
    major = int(cuda.split(".")[0])
    needs = REQUIREMENTS.get(major)
    if needs and tuple(int(part) for part in onnxruntime.split(".")[:2]) < (1, 28):
        return replace(needs, libraries=(*needs.libraries, *_LINKED_UNTIL_1_27[major]))
    return needs


def look(needs: Requirement, load: Load = ctypes.CDLL) -> CudaSupport:
    """Find the parts of CUDA: ask the driver, and try to load each library."""
    missing = tuple(name for name in needs.libraries if not _loads(name, load))
    try:
        driver = load("libcuda.so.1")
    except OSError:
        return CudaSupport(None, 0, (), missing)
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    driver.cuDriverGetVersion(ctypes.pointer(version))
    status = driver.cuInit(0)
    if status == 0:
        driver.cuDeviceGetCount(ctypes.pointer(count))
    capabilities = tuple(_capability(driver, index) for index in range(count.value))
    return CudaSupport(version.value, status, capabilities, missing)


def fault(machine: CudaSupport, needs: Requirement) -> str | None:
    """A sentence with every reason why a machine cannot use CUDA; None if there is none."""
    faults = []
    if machine.driver is None:
        faults.append(
            f"there is no NVIDIA driver (libcuda.so.1); CUDA {needs.cuda} needs {needs.driver} "
            "or later"
        )
    elif machine.driver < needs.cuda * 1000:
        faults.append(
            f"the NVIDIA driver is too old: it can run CUDA {machine.driver // 1000}."
            f"{machine.driver % 1000 // 10}, and CUDA {needs.cuda} needs {needs.driver} or later"
        )
    elif not machine.capabilities:
        faults.append(f"the NVIDIA driver gives no GPU (cuInit returned {machine.status})")
    elif machine.capabilities[0] < needs.capability:
        faults.append(
            f"the GPU is too old: its compute capability is {_dotted(machine.capabilities[0])}, "
            f"and CUDA {needs.cuda} needs {_dotted(needs.capability)} or later"
        )
    if machine.missing:
        faults.append(
            f"libraries are missing: {', '.join(machine.missing)} "
            "(onnxruntime-gpu[cuda,cudnn] brings them)"
        )
    return "; ".join(faults) or None


def _loads(name: str, load: Load) -> bool:
    try:
        load(name)
    except OSError:
        return False
    return True


def _capability(driver: Any, index: int) -> tuple[int, int]:
    device, major, minor = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    driver.cuDeviceGet(ctypes.pointer(device), index)
    driver.cuDeviceGetAttribute(ctypes.pointer(major), _CAPABILITY_MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.pointer(minor), _CAPABILITY_MINOR, device)
    return major.value, minor.value


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _provider_fault(folder: Path) -> str | None:
    """Any other reason why onnxruntime's own libraries do not load."""
    try:
        for name in ("shared", "cuda"):
            ctypes.CDLL(str(folder / f"libonnxruntime_providers_{name}.so"), ctypes.RTLD_GLOBAL)
    except OSError as error:
        return f"onnxruntime's provider does not load: {error}"
    return None
