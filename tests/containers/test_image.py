"""The image does what the Dockerfile says, locked down as in a cluster."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ntm_client import AsyncClient, Client, StreamBroken, Unavailable
from ntm_tasks import TaskSequence
from tests.conftest import Serve
from tests.containers.engine import (
    LOCKED_DOWN,
    Container,
    engine,
    eventually,
    is_healthy,
    running,
)
from tests.support.served import MODELS

ROOT = Path(__file__).parents[2]
ONNXRUNTIME = os.environ.get("ONNXRUNTIME", "")
FOR_CUDA = ONNXRUNTIME.startswith("onnxruntime-gpu")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty file that replaces every shell."""
    path = tmp_path_factory.mktemp("shells") / "empty"
    path.touch(mode=0o644)
    return path


@pytest.fixture(scope="module")
def container(image: str, empty: Path) -> Iterator[Container]:
    """Run one container for the tests that change nothing."""
    with running(image, empty) as container:
        yield container


def test_it_becomes_healthy_without_a_shell(container: Container) -> None:
    """Entry point and health check need no shell, and a cold start takes less than 20 s."""
    eventually(lambda: is_healthy(container.name))
    assert container.seconds_to_serving < 20
    print(f"cold start to SERVING: {container.seconds_to_serving:.2f} s", end=" ")


def test_it_has_no_privileges(container: Container) -> None:
    """The process runs as user 10001, without capabilities and without a way to gain them."""
    code = "import os; print(os.getuid(), os.getgid()); print(open('/proc/1/status').read())"
    identity, _, status = container.python(code).partition("\n")

    assert identity == "10001 10001"
    assert re.findall(r"(CapEff|CapBnd|NoNewPrivs):\s+(\w+)", status) == [
        ("CapEff", "0" * 16),
        ("CapBnd", "0" * 16),
        ("NoNewPrivs", "1"),
    ]


@pytest.mark.parametrize("folder", ["", "app", "opt/venv", "tmp", "home", "var/tmp"])
def test_it_can_write_nowhere(container: Container, folder: str) -> None:
    """No folder of the image can be written to."""
    code = (
        "import tempfile\n"
        f"try: tempfile.TemporaryFile(dir='/{folder}')\n"
        "except OSError: print('refused')"
    )

    assert container.python(code) == "refused"


def test_it_holds_nothing_that_installs_compiles_or_trains(container: Container) -> None:
    """The image has no pip, no compiler, no torch, and only the server of this project."""
    modules = ("torch", "pip", "setuptools", "ensurepip", "ntm_client", "export", "tests")
    commands = ("pip", "pip3", "cc", "gcc", "c++", "ld", "make")
    code = (
        "import glob, importlib.util, json, shutil\n"
        f"found = [name for name in {modules} if importlib.util.find_spec(name)]\n"
        f"found += [name for name in {commands} if shutil.which(name)]\n"
        "found += glob.glob('/usr/lib/python3*/**/pip', recursive=True)\n"
        "found += glob.glob('/usr/local/lib/python3*/**/pip', recursive=True)\n"
        "print(json.dumps(found))"
    )

    assert json.loads(container.python(code)) == []


def test_of_the_models_it_holds_the_networks_alone(container: Container) -> None:
    """The image has the network of each model, and not its card, curves and pictures."""
    code = "import glob, json; print(json.dumps(glob.glob('/app/models/**/*.*', recursive=True)))"
    expected = {f"/app/models/{path.parent.name}/model.onnx" for path in MODELS.glob("*/*.onnx")}

    assert set(json.loads(container.python(code))) == expected


def test_every_module_that_it_loads_has_its_bytecode(container: Container) -> None:
    """Each loaded module has bytecode, because nothing can be written at the start."""
    code = (
        "import sys, pathlib, service.__main__, service.server\n"
        "files = [m.__cached__ for m in sys.modules.values() if getattr(m, '__cached__', None)]\n"
        "files = [f for f in files if f.startswith(('/app', '/opt'))]\n"
        "print([f for f in files if not pathlib.Path(f).exists()] if len(files) > 100 else files)"
    )

    assert container.python(code) == "[]"


async def test_it_answers_as_a_server_outside_does(container: Container, serve: Serve) -> None:
    """A copy of 20 vectors has no wrong bit and the same bits as without a container."""
    async with serve(models_dir=MODELS) as outside:
        answers = []
        for address in (container.address, outside.address):
            async with AsyncClient(address) as client:
                session = await client.create_session("copy-ntm-lstm")
                sequence = TaskSequence.draw("copy", (20,), seed=1)
                answers.append((await session.step(sequence.inputs)).array)

    np.testing.assert_array_equal(sequence.answer(answers[0]), sequence.due)
    np.testing.assert_array_equal(answers[0], answers[1])


def test_its_metrics_count_what_it_does(container: Container) -> None:
    """The metric of steps on the monitoring port grows by the steps that were made."""

    def steps() -> float:
        with urllib.request.urlopen(f"http://{container.monitoring}/metrics", timeout=10) as page:
            text = page.read().decode()
        found = re.search(r'^ntm_steps_total\{model="copy-ntm-ff"\} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    before = steps()
    with Client(container.address) as client, client.create_session("copy-ntm-ff") as session:
        session.step(np.zeros((41, session.model.input_width)))

    assert steps() == before + 41


def test_its_limits_are_those_that_it_was_given(container: Container) -> None:
    """The container has the limits of memory and processes that the command gave."""
    found = json.loads(engine("inspect", container.name))[0]["HostConfig"]

    assert "--memory=1g" in LOCKED_DOWN
    assert found["Memory"] == 1 << 30
    assert found["PidsLimit"] == 256
    assert found["ReadonlyRootfs"] is True


async def test_sigterm_under_an_open_stream_ends_it_cleanly(image: str, empty: Path) -> None:
    """The client's stream breaks with an error for retries, and the exit status is 0."""
    with running(image, empty) as container:
        async with AsyncClient(container.address) as client, client.stream() as stream:
            session = await stream.open("copy-ntm-lstm")
            await session.step(np.zeros((5, session.model.input_width)))
            await asyncio.to_thread(engine, "stop", "--time=20", container.name)
            with pytest.raises((StreamBroken, Unavailable)):
                await session.step(np.zeros((5, session.model.input_width)))
        assert engine("inspect", "-f", "{{.State.ExitCode}}", container.name) == "0"
        assert '"finished_all_work": true' in container.log()


def test_its_labels_say_what_it_is(image: str) -> None:
    """The labels have title, licence, version, commit and base, by the OCI's names."""
    labels = json.loads(engine("image", "inspect", image))[0]["Config"]["Labels"]
    prefix = "org.opencontainers.image."
    found = {k.removeprefix(prefix): v for k, v in labels.items() if k.startswith(prefix)}
    version = re.search(r'__version__ = "(.*)"', (ROOT / "service/__init__.py").read_text())

    assert version is not None
    assert found["version"] == version[1]
    assert found["title"] == "NTM service"
    assert found["licenses"] == "Apache-2.0"
    assert re.fullmatch("[0-9a-f]{40}", found["revision"])
    assert found["base.name"]


@pytest.mark.skipif(not FOR_CUDA, reason="the image is for CPUs")
def test_without_a_gpu_it_says_why_it_runs_on_the_cpu(container: Container) -> None:
    """The log has the reason once, and names the provider."""
    lines = [json.loads(line) for line in container.log().splitlines()]
    (reason,) = {line["reason"] for line in lines if line["message"] == "no CUDA"}
    (provider,) = (line["provider"] for line in lines if line["message"] == "serving")

    assert "there is no NVIDIA driver" in reason
    assert provider == "CPUExecutionProvider"


def test_it_is_small(image: str) -> None:
    """The image adds at most 200 MB to its base, or 500 MB with CUDA kernels."""
    description = json.loads(engine("image", "inspect", image))[0]
    base = description["Config"]["Labels"]["org.opencontainers.image.base.name"]
    size, base_size = description["Size"], int(engine("image", "inspect", "-f", "{{.Size}}", base))
    print(f"image: {size / 1e6:.0f} MB, of which base: {base_size / 1e6:.0f} MB", end=" ")

    libraries = 2.2e9 if "[cuda" in ONNXRUNTIME else 0.0  # CUDA's and cuDNN's
    assert size - base_size < libraries + (500e6 if FOR_CUDA else 200e6)


def test_the_list_of_its_parts_is_complete(container: Container, tmp_path: Path) -> None:
    """`make sbom` finds every Python package that Python in the image finds, and Debian's."""
    file = tmp_path / "sbom.json"
    command = [
        sys.executable,
        "-m",
        "deploy.generate.sbom",
        os.environ["ENGINE"],
        os.environ["IMAGE"],
    ]
    subprocess.run([*command, str(file)], cwd=ROOT, check=True)
    urls = [part["purl"] for part in json.loads(file.read_text())["components"]]
    code = (
        "import importlib.metadata as m, json; "
        "print(json.dumps([(d.name, d.version) for d in m.distributions()]))"
    )
    installed = {
        f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
        for name, version in json.loads(container.python(code))
    }

    assert {url for url in urls if url.startswith("pkg:pypi/")} == installed
    assert len([url for url in urls if url.startswith("pkg:deb/")]) > 50
