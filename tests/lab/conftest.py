"""The fake server that commands talk to, in the place of a real one, and files for them to read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ntm_client import Client
from ntm_lab.decipher.samples import ServedNetwork, Stage, in_range
from ntm_lab.recordings.files import save
from tests.client.conftest import client as client
from tests.client.conftest import fake as fake
from tests.client.conftest import running as running

NAME = "modèle-≠"
"""The recordings' model: not every terminal has the characters of its name."""


@pytest.fixture(scope="module")
def sources(shipped: Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what the commands read: steps, and recordings."""
    folder = tmp_path_factory.mktemp("sources")
    np.savetxt(folder / "steps.csv", np.arange(60).reshape(20, 3), delimiter=",")
    sequences = in_range("copy", 6, 0, Stage.INDUCTION)
    for number, each in enumerate(ServedNetwork(shipped, "copy-ntm-ff").recordings(sequences)):
        named = replace(each, model=replace(each.model, name=NAME))
        save(named, folder / f"{number}.npz")
    return folder
