"""The commands of `ntm` at a server whose limits are small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ntm_client import Client
from ntm_lab.cli import COMMANDS, main
from tests.support.served import MODELS, served

pytestmark = pytest.mark.slow

ARGUMENTS = {
    "demo": "--length 120 --locations 256",
    "trace": "copy-ntm-lstm --seed 1 --size 120 --locations 256",
    "stream": "copy-ntm-lstm --input {folder}/in.npy --output {folder}/out.npy",
    "decipher": "ngrams-ntm-ff --sequences 5",
    "watch": "{session} --once",
    "models": "",
    "sessions": "",
}


@pytest.fixture(scope="module")
def small() -> Iterator[Client]:
    """A client of a server that takes ten steps at once, and the smallest messages."""
    with served(MODELS, "--max-chunk-steps=10", "--max-message-bytes=65536") as client:
        yield client


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_keep_the_servers_limits(small: Client, command: str, tmp_path: Path) -> None:
    """Every command works, however little the server takes at once."""
    np.save(tmp_path / "in.npy", np.zeros((600, 9), np.float32))
    with small.create_session("copy-ntm-lstm", 256) as session:
        arguments = ARGUMENTS[command].format(folder=tmp_path, session=session.id).split()
        assert main([command, *arguments, "--server", small.target]) in (0, None)
    if command == "stream":
        assert np.load(tmp_path / "out.npy").shape == (600, 8)
