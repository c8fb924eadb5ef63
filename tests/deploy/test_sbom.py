"""The list of packages of an image is complete and valid CycloneDX."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip(
    "cyclonedx_py", reason="cyclonedx-bom is not installed; `make test` installs it"
)

from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from deploy.generate import sbom

STATUS = """\
Package: libssl3
Status: install ok installed
Architecture: amd64
Version: 3.0.17-1~deb12u3
Description: Secure Sockets Layer toolkit
 of several lines

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0
"""


def lay_out(folder: Path, python: str) -> None:
    """Write the files of a small image: two Python packages, and Debian's list of packages."""
    environment = folder / sbom.ENVIRONMENT
    for name, more in {
        "alpha": "License-Expression: MIT\nRequires-Dist: beta\n",
        "beta": "",
    }.items():
        info = environment / f"lib/python{python}/site-packages/{name}-1.5.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.5\n{more}")
    (environment / "pyvenv.cfg").write_text(f"home = /usr/local/bin\nversion = {python}.9\n")
    (folder / sbom.PACKAGES).parent.mkdir(parents=True)
    (folder / sbom.PACKAGES).write_text(STATUS)
    (folder / "usr/lib").mkdir(parents=True)
    (folder / "usr/lib/os-release").write_text('PRETTY_NAME="Debian"\nVERSION_ID="12"\nID=debian\n')


@pytest.mark.parametrize("python", ["3.11", "3.99"])
def test_it_lists_packages_of_python_and_of_the_distribution(tmp_path: Path, python: str) -> None:
    """Each package is listed with its version and its package URL."""
    lay_out(tmp_path, python)
    bom = sbom.describe(tmp_path)

    assert {str(component.purl) for component in bom.components} == {
        "pkg:pypi/alpha@1.5",
        "pkg:pypi/beta@1.5",
        "pkg:deb/debian/libssl3@3.0.17-1~deb12u3?arch=amd64",
        f"pkg:generic/python@{python}.9",
    }
    assert bom.metadata.component is not None
    assert bom.metadata.component.name == "ntm-service"


def test_it_has_licences_and_dependencies_and_breaks_no_schema(tmp_path: Path) -> None:
    """Licences and dependencies are those that cyclonedx-py finds."""
    lay_out(tmp_path, "3.11")
    bom = sbom.describe(tmp_path)
    alpha = next(component for component in bom.components if component.name == "alpha")
    needed = {d.ref.value: [n.ref.value for n in d.dependencies] for d in bom.dependencies}
    text = JsonV1Dot6(bom).output_as_string()

    assert [licence.id for licence in alpha.licenses] == ["MIT"]
    assert needed["alpha==1.5"] == ["beta==1.5"]
    assert bom.metadata.component is not None
    assert "beta==1.5" not in needed[str(bom.metadata.component.bom_ref)]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
