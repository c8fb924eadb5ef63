"""The environment of Triton and its load generator, installed below build/ at first use."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from bench.row import ROOT, BenchmarkUnavailable

FOLDER = ROOT / "build" / "triton"
"""The folder of everything that this benchmark writes."""

TRITON = "nvidia-pytriton==0.7.0"
"""The wheel with Triton 2.51 and its Python backend."""

PERF_ANALYZER = "perf-analyzer==2.60.0"
GLIBC = (2, 38)
"""The oldest glibc that perf_analyzer runs on."""

NEWER_SUITE = "trixie"
NEWER_PACKAGES = ("libc6", "libgcc-s1", "libssl3t64", "libstdc++6", "libzstd1", "zlib1g")
"""For a Debian with an older glibc: the libraries of perf_analyzer, and their suite."""


@dataclass(frozen=True)
class Environment:
    """The paths of what is installed."""

    folder: Path

    @property
    def python(self) -> Path:
        """The interpreter with tritonclient and onnxruntime."""
        return self.folder / "venv" / "bin" / "python"

    @property
    def packages(self) -> Path:
        """The folder of its packages."""
        return Path(sysconfig.get_path("purelib", vars={"base": str(self.folder / "venv")}))

    @property
    def triton(self) -> Path:
        """Triton's own folder, with bin and backends."""
        return self.packages / "pytriton" / "tritonserver"

    @property
    def perf_analyzer(self) -> list[str]:
        """The command of perf_analyzer, with a newer glibc if one is needed."""
        binary = str(self.folder / "wheel" / "perf_analyzer" / "bin" / "perf_analyzer")
        libraries = self._newer / "usr" / "lib" / "x86_64-linux-gnu"
        if not libraries.exists():
            return [binary]
        return [str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries), binary]

    @property
    def _newer(self) -> Path:
        return self.folder / NEWER_SUITE


def ready() -> Environment:
    """
    Return the environment. Install it at the first call, and again when its contents change.

    Raises:
        Unavailable: the environment cannot be installed on this machine.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise BenchmarkUnavailable("Triton's wheel is for Linux on x86-64 only")
    environment = Environment(FOLDER)
    wanted = f"{sys.version}\n{TRITON}\n{_runtime()}\n{PERF_ANALYZER}\n"
    stamp = FOLDER / "installed"
    if not stamp.exists() or stamp.read_text("utf-8") != wanted:
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        _install(environment)
        stamp.write_text(wanted, encoding="utf-8")
    return environment


def _install(environment: Environment) -> None:
    folder = environment.folder
    _run("making an environment", [sys.executable, "-m", "venv", str(folder / "venv")])
    pip = [str(environment.python), "-m", "pip", "--disable-pip-version-check", "install"]
    # Triton's wheel requires an older numpy than constraints.txt has.
    _run("installing Triton", [*pip, TRITON, _runtime(), "numpy"])
    _install_stub(environment.triton)
    target = ["--target", str(folder / "wheel"), "--platform", "manylinux_2_38_x86_64"]
    _run(
        "installing perf_analyzer",
        [*pip, "--no-deps", "--only-binary", ":all:", *target, PERF_ANALYZER],
    )
    if _glibc() < GLIBC:
        _install_newer_libraries(folder / "apt", folder / NEWER_SUITE)
    _run("starting perf_analyzer", [*environment.perf_analyzer, "--version"])


def _runtime() -> str:
    """Return the requirement of our server's onnxruntime, in its build for the CPU."""
    return f"onnxruntime=={onnxruntime.__version__}"


def _install_stub(triton: Path) -> None:
    """Move the program that runs Python models, for this version of Python, into its place."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = triton / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        raise BenchmarkUnavailable(f"Triton's wheel has no Python backend for Python {version}")
    shutil.copy(stub, triton / "backends" / "python")


def _glibc() -> tuple[int, ...]:
    name, version = platform.libc_ver()
    if name != "glibc":
        raise BenchmarkUnavailable("perf_analyzer needs glibc; this system has another C library")
    return tuple(int(part) for part in version.split("."))


def _install_newer_libraries(apt: Path, target: Path) -> None:
    """Unpack libraries of a newer Debian into the environment, from the same mirror."""
    suite = _debian_suite()
    if not suite or not shutil.which("apt-get"):
        wanted = ".".join(str(part) for part in GLIBC)
        raise BenchmarkUnavailable(
            f"perf_analyzer needs glibc {wanted}, or Debian's apt to download it"
        )
    for folder in ("state/lists/partial", "cache/archives/partial", "packages"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()
    source = apt / "sources.list"
    state = {"Dir::State": apt / "state", "Dir::State::Status": apt / "status"}
    printed = _apt(state, apt, "update", "--print-uris")
    source.write_text(f"deb {mirror(printed, suite)} {NEWER_SUITE} main\n", encoding="utf-8")
    own = state | {
        "Dir::Cache": apt / "cache",
        "Dir::Etc::SourceList": source,
        "Dir::Etc::SourceParts": "-",
        "APT::Sandbox::User": "",  # which could not write to our folder
    }
    _apt(own, apt, "update")
    _apt(own, apt / "packages", "download", *NEWER_PACKAGES)
    for package in sorted((apt / "packages").glob("*.deb")):
        _run(f"unpacking {package.name}", ["dpkg", "-x", str(package), str(target)])
    shutil.rmtree(apt)


def _debian_suite() -> str | None:
    """Return the codename of this Debian; None on other systems."""
    try:
        system = platform.freedesktop_os_release()
    except OSError:
        return None
    return system.get("VERSION_CODENAME") if system.get("ID") == "debian" else None


def mirror(printed: str, suite: str) -> str:
    """Return the mirror of a suite in the output of `apt-get update --print-uris`."""
    found = re.search(rf"^'(.+)/dists/{re.escape(suite)}/InRelease'", printed, re.MULTILINE)
    if not found:
        raise BenchmarkUnavailable(
            f"apt has no source for {suite} from which to download {NEWER_SUITE}"
        )
    return found[1]


def _apt(settings: Mapping[str, object], folder: Path, *command: str) -> str:
    flags = [flag for key, value in settings.items() for flag in ("-o", f"{key}={value}")]
    return _run("apt-get " + command[0], ["apt-get", "-q", *flags, *command], folder)


def _run(what: str, command: Sequence[str], folder: Path = ROOT) -> str:
    """Run a command and return its output. Raises Unavailable if it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise BenchmarkUnavailable(f"{what} failed: {lines[-1] if lines else done.returncode}")
    return done.stdout
