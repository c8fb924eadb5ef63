"""
List the packages of an image as CycloneDX: `python -m deploy.generate.sbom ENGINE IMAGE FILE`.

The list has Python itself, the Python packages with their licences and dependencies (by
cyclonedx-py), and the packages of Debian or of another distribution with dpkg.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from bench import arguments
from ntm_lab import outputs

ROOT = Path(__file__).parents[2]

ENVIRONMENT = "opt/venv"
"""Where the Dockerfile installs the Python packages."""

PACKAGES = "var/lib/dpkg/status"
"""The database of Debian's packages."""


def main() -> None:
    """Copy the descriptions of packages out of the image, and write the list."""
    parser = argparse.ArgumentParser(prog="python -m deploy.generate.sbom", description=__doc__)
    parser.add_argument("engine", help="docker, podman or buildah")
    parser.add_argument("image", help="name of the image")
    parser.add_argument("path", type=arguments.json, help="file to write, as JSON")
    chosen = parser.parse_args()
    engine, image, path = chosen.engine, chosen.image, chosen.path
    with tempfile.TemporaryDirectory() as folder:
        copy(engine, image, Path(folder))
        text = JsonV1Dot6(describe(Path(folder))).output_as_string(indent=2)
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if fault is not None:
        raise RuntimeError(f"the list breaks the schema of CycloneDX: {fault}")
    outputs.write_text(path, text)
    print(f"{path}: {len(json.loads(text)['components'])} components of {image}")


def copy(engine: str, image: str, folder: Path) -> None:
    """Copy the files that describe packages from an image into a folder, at the same paths."""
    container = subprocess.check_output([engine, "create", image], encoding="utf-8").strip()
    try:
        for path in (ENVIRONMENT, PACKAGES, "usr/lib/os-release"):
            with subprocess.Popen(
                [engine, "cp", f"{container}:/{path}", "-"], stdout=subprocess.PIPE
            ) as copying:
                _extract(copying, (folder / path).parent)
    finally:
        subprocess.run([engine, "rm", container], check=True, capture_output=True)


def describe(folder: Path) -> Bom:
    """Return the packages that the files in a folder describe; `copy` puts them there."""
    # First, because listing the packages changes the file.
    (version,) = re.findall(
        r"^version = (\S+)", (folder / ENVIRONMENT / "pyvenv.cfg").read_text("utf-8"), re.MULTILINE
    )
    # A decorator adds the method, which mypy does not see.
    bom: Bom = Bom.from_json(  # type: ignore[attr-defined]
        json.loads(_python_packages(folder / ENVIRONMENT))
    )
    bom.components.update(_system_packages(folder))
    url = PackageURL("generic", name="python", version=version)
    bom.components.add(_component(ComponentType.PLATFORM, url))
    needed = {needed.ref for dependency in bom.dependencies for needed in dependency.dependencies}
    assert bom.metadata.component is not None
    bom.register_dependency(
        bom.metadata.component, [part for part in bom.components if part.bom_ref not in needed]
    )
    return bom


def _extract(copying: subprocess.Popen[bytes], folder: Path) -> None:
    """Extract the descriptions of packages from the tar that an engine writes."""
    assert copying.stdout is not None
    with tarfile.open(fileobj=copying.stdout, mode="r|") as archive:
        for member in archive:
            wanted = ".dist-info/" in member.name or "site-packages" not in member.name
            if member.isfile() and wanted:
                archive.extract(member, folder, filter="data")


def _python_packages(environment: Path) -> str:
    """Return the CycloneDX JSON of the packages that were copied out of an environment."""
    # cyclonedx-py asks an interpreter for its packages. The image's interpreter may not run here,
    # so another one answers, in an environment with only the descriptions of the image's packages.
    (packages,) = environment.glob("lib/python*/site-packages")
    python = environment / "bin" / "python"
    venv.create(environment, symlinks=True)
    major, minor, _ = platform.python_version_tuple()
    here = environment / "lib" / f"python{major}.{minor}" / "site-packages"
    if here != packages:
        here.rmdir()
        here.symlink_to(packages)
    # It warns that the root component has no dependencies; `describe` adds them.
    command = ["-W", "ignore::UserWarning", "-m", "cyclonedx_py", "environment", "--no-validate"]
    command += ["--sv=1.6", "--output-reproducible", "--mc-type=application"]
    command += [f"--pyproject={ROOT / 'pyproject.toml'}", str(python)]
    return subprocess.check_output([sys.executable, *command], encoding="utf-8")


def _system_packages(folder: Path) -> Iterator[Component]:
    """Return the installed packages of the distribution."""
    release = (folder / "usr/lib/os-release").read_text("utf-8")
    (distribution,) = re.findall(r'^ID="?(\w+)"?$', release, re.MULTILINE)
    for paragraph in (folder / PACKAGES).read_text("utf-8").strip().split("\n\n"):
        fields = HeaderParser().parsestr(paragraph)
        if fields["Status"] == "install ok installed":
            architecture = {"arch": fields["Architecture"]}
            yield _component(
                ComponentType.LIBRARY,
                PackageURL("deb", distribution, fields["Package"], fields["Version"], architecture),
            )


def _component(kind: ComponentType, url: PackageURL) -> Component:
    return Component(type=kind, name=url.name, version=url.version, purl=url, bom_ref=str(url))


if __name__ == "__main__":
    main()
