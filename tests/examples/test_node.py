"""The example in Node.js, as its first lines say it is run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ntm_client import Client
from tests.deploy.tools import NPM, ROOT, passes, run
from tests.support.served import MODELS, served

pytestmark = NPM


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with the packages of its lock file, laid out as in the project."""
    root = tmp_path_factory.mktemp("example")
    shutil.copytree(ROOT / "proto", root / "proto")
    unwanted = shutil.ignore_patterns("node_modules")
    folder = shutil.copytree(
        ROOT / "examples" / "node", root / "examples" / "node", ignore=unwanted
    )
    passes(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)
    return folder


def test_node_example_copies_without_a_wrong_bit(installed: Path, shipped: Client) -> None:
    """A client in another language needs the .proto file and a gRPC library, and nothing else."""
    ended = run(["node", "copy.js", shipped.target], installed)

    assert (ended.stdout, ended.stderr) == ("wrong bits: 0\n", "")


def test_node_example_says_in_one_line_that_no_server_answers(installed: Path) -> None:
    """With its address, and the status of a failure."""
    ended = run(["node", "copy.js", "localhost:1"], installed)

    (sentence,) = ended.stderr.splitlines()
    assert sentence.startswith("createSession failed at localhost:1: No connection established.")
    assert (ended.returncode, ended.stdout) == (1, "")


def test_node_example_keeps_the_servers_limits(installed: Path) -> None:
    """It sends chunks as small as the server says."""
    with served(MODELS, "--max-chunk-steps=10") as client:
        ended = run(["node", "copy.js", client.target], installed)

    assert (ended.stdout, ended.stderr) == ("wrong bits: 0\n", "")
