"""Files that settings name: a server that cannot read one says which setting, and which file."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from service.settings import Settings
from tests.support.certificates import Authority
from tests.support.served import ROOT

TOGETHER = {
    "tls_certificate": ["tls_key"],
    "tls_key": ["tls_certificate"],
    "tls_client_ca": ["tls_certificate", "tls_key"],
    "jwt_keys": ["jwt_issuer", "jwt_audience"],
    "store_password_file": ["store"],
}
"""What a setting needs beside it."""

FILES = [
    setting.name
    for setting in fields(Settings)
    if " file of " in f" {setting.metadata['help']}" or "_file" in setting.name
]
"""The settings that name a file, by what their help says."""


def beside(setting: str, folder: Path) -> dict[str, str]:
    """The settings that it needs, with right values."""
    certificate, key = Authority().signed("localhost").written(folder, "right")
    values = {
        "tls_certificate": str(certificate),
        "tls_key": str(key),
        "jwt_issuer": "issuer",
        "jwt_audience": "audience",
        "store": "redis://somebody@localhost:1",
    }
    return {name: values[name] for name in TOGETHER.get(setting, [])}


def test_the_files_are_found() -> None:
    """An option added later is among them."""
    assert {"tls_certificate", "tls_client_ca", "tokens_file", "jwt_keys"} <= set(FILES)
    assert {name for name in TOGETHER if name in FILES} == set(TOGETHER)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["missing", "a folder", "bytes"])
@pytest.mark.parametrize("setting", FILES)
def test_a_file_that_cannot_be_read_is_named(setting: str, wrong: str, tmp_path: Path) -> None:
    """The start fails with one sentence that begins with the flag, and tells the file."""
    paths = {name: tmp_path / name for name in ("missing", "a folder", "bytes")}
    paths["a folder"].mkdir()
    paths["bytes"].write_bytes(b"\xff\xfe\x00" * 100)
    values = {setting: str(paths[wrong]), **beside(setting, tmp_path)}
    flags = ["--" + name.replace("_", "-") + "=" + value for name, value in values.items()]
    ports = ["--port=0", "--metrics-port=0", "--device=cpu"]
    ended = subprocess.run(
        [sys.executable, "-m", "service", *ports, *flags],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )

    assert ended.returncode == 1
    (sentence,) = ended.stderr.splitlines()
    assert sentence.startswith("cannot serve: --")
    assert "--" + setting.replace("_", "-") in sentence.split(":")[1]
    assert str(paths[wrong]) in sentence
