"""The examples of networks of others: fetched, wrapped and served as their pages say."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export import card
from ntm_client import InvalidRequest
from tests.deploy.tools import ROOT
from tests.support.ports import free_port
from tests.support.served import served

pytestmark = [pytest.mark.pypi, pytest.mark.slow, pytest.mark.timeout(300)]

VOICE, FILTER = (ROOT / "examples" / name for name in ("voice_activity", "voice_filter"))
ONNX = "package/silero_vad/data/silero_vad.onnx"

PROGRAMS = {
    "pip": [sys.executable, "-m", "pip"],
    "python": [sys.executable],
    "ntm-export": [sys.executable, "-m", "export"],
}


ENVIRONMENT = os.environ | {
    "MPLBACKEND": "agg",
    "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("", "client", "tasks")),
}
"""Commands in other folders find this checkout's packages."""


def blocks(page: Path, kind: str = "") -> list[list[str]]:
    """The lines of each block of a page that has no language, or this one."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [text.splitlines() for named, text in found if named == kind]


def run(folder: Path, command: str, *more: str) -> str:
    """Run a command of a page in its folder; return what it prints."""
    program, *arguments = shlex.split(command)
    started = [*PROGRAMS.get(program, [program]), *arguments, *more]
    ended = subprocess.run(
        started,
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def fetched(folder: Path, commands: list[str]) -> None:
    """Run commands that fetch a package, or skip where its registry cannot be reached."""
    for command in commands:
        try:
            run(folder, command)
        except AssertionError as error:
            if re.search("No matching distribution|ENOTFOUND|ECONN|Max retries", str(error)):
                pytest.skip(f"the registry cannot be reached: {command}")
            raise


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the folder of voice activity, with the package, the model and the recording."""
    folder = shutil.copytree(VOICE, tmp_path_factory.mktemp("voice") / "voice_activity")
    (*fetching, wrapping), (recording, _) = blocks(VOICE / "README.md")[:2]
    fetched(folder, fetching)
    out = run(folder, wrapping)
    assert "states by 0.0e+00; the same bits" in out
    run(folder, recording)
    return folder


def differences(out: str) -> float:
    """What the listening program says of the package's own loop."""
    (found,) = re.findall("largest difference from the package's own loop: (.*)", out)
    return float(found)


def test_a_recording_gets_the_probabilities_of_the_packages_own_loop(voice: Path) -> None:
    """One caller, and 64 in one batch, get them to the bit; the first call is drawn."""
    one, many, _ = blocks(VOICE / "README.md")[2]
    with served(voice / "models") as client:
        drawn = run(voice, one, "--server", client.target)
        out = run(voice, many, "--server", client.target)

    assert "1 callers, 316 steps each" in drawn
    assert re.search("(?:3|4)[0-9] % speech", drawn)
    assert "64 callers, 316 steps each" in out
    assert (differences(drawn), differences(out)) == (0, 0)
    assert (voice / "voice_activity.png").read_bytes()[1:4] == b"PNG"


def test_live_streams_go_on_where_their_server_is_started_again(
    voice: Path, tmp_path: Path
) -> None:
    """The server ends in the middle, with a store; callers notice nothing but the time."""
    *_, live = blocks(VOICE / "README.md")[2]
    port, store = free_port(), tmp_path / "store"
    flags = [f"--port={port}", f"--store=directory:{store}", "--store-sync=no"]
    command = [*shlex.split(live.replace("64", "16")), "--server", f"localhost:{port}"]
    with served(voice / "models", *flags) as client:
        listening = subprocess.Popen(
            [sys.executable, *command[1:]],
            cwd=voice,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while sum(session.next_step for session in client.sessions()) < 16 * 50:
            assert listening.poll() is None
    with served(voice / "models", *flags):
        out, said = listening.communicate()

    assert listening.returncode == 0
    assert said.count("was interrupted at step") == 16  # the client's warning
    assert differences(out) == 0


def test_the_page_goes_from_a_file_to_steps(voice: Path, tmp_path: Path) -> None:
    """The command proposes a description; the corrected one of the page makes the model."""
    page = ROOT / "docs" / "your-onnx-file.md"
    _, (*_, proposing), (wrapping, _), (printed,) = blocks(page)
    shutil.copytree(voice / "package", tmp_path / "package")
    assert "silero_vad.toml describes how to step" in run(tmp_path, proposing)
    proposed = (tmp_path / "silero_vad.toml").read_text()
    assert proposed.count("LOOK:") == 3  # the head's, the step's length and the rate

    (described,) = blocks(page, "toml")
    (tmp_path / "silero_vad.toml").write_text("\n".join(described))
    run(tmp_path, wrapping)
    program = "\n".join(blocks(page, "python")[0])
    with served(tmp_path / "models") as client:
        (tmp_path / "program.py").write_text(program.replace("localhost:50051", client.target))
        assert run(tmp_path, "python program.py") == f"{printed}\n"


def test_a_core_carries_callers(voice: Path) -> None:
    """The measurement runs, and says so of both sides."""
    ((measured,),) = blocks(VOICE / "README.md")[3:4]
    out = run(voice, measured, "--rounds", "1", "--callers", "4")

    carried = [int(number) for number in re.findall("([0-9]+) callers a core", out)]
    assert len(carried) == 2
    assert min(carried) > 0


def test_a_session_of_the_voice_filter_has_its_speaker(tmp_path: Path) -> None:
    """The vector is given once; batch mates would change the results, so each is stepped alone."""
    folder = shutil.copytree(FILTER, tmp_path / "voice_filter")
    *fetching, wrapping, _ = blocks(FILTER / "README.md")[0]
    fetched(folder, fetching)
    assert "each session is stepped alone" in run(folder, wrapping)
    assert card.read(folder / "models" / "voicefilter-lite")["batched"] is False

    ((program,), (printed,)) = (
        ["\n".join(lines) for lines in blocks(FILTER / "README.md", kind)[at:]]
        for kind, at in (("python", 0), ("", 1))
    )
    with served(folder / "models") as client:
        (folder / "program.py").write_text(program.replace("localhost:50051", client.target))
        assert run(folder, "python program.py") == f"{printed}\n"
        with pytest.raises(InvalidRequest, match="speaker"):
            client.create_session("voicefilter-lite")


@pytest.mark.npm
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_the_older_network_keeps_both_its_states(tmp_path: Path) -> None:
    """Two states apart, with the batch on their second axis, and rows that share a run."""
    folder = shutil.copytree(VOICE, tmp_path / "voice_activity")
    *fetching, wrapping = blocks(VOICE / "README.md")[-1]
    fetched(folder, fetching)
    assert "the same bits" in run(folder, wrapping)
    described = card.read(folder / "models" / "silero_vad_legacy")

    assert described["batched"] is True
    with served(folder / "models") as client:
        (model,) = client.models()
        assert [(each.name, each.shape) for each in model.state] == [("h", (2, 64)), ("c", (2, 64))]
        with client.create_session(model.name) as session:
            found = session.step(np.zeros((3, 512))).array
    assert np.all((found >= 0) & (found < 0.5))
