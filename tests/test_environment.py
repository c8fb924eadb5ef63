"""The program decides, not the environment that it is started in."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ntm.addresses import parse
from ntm_client import AsyncClient, Client, Unreachable
from ntm_client.diagnosis import PROXIES, proxy_of
from service import probe
from service.settings import Settings, unknown_variables
from tests.e2e.test_process import ports, started
from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.proxy import proxy
from tests.support.served import MODELS
from tests.test_boundaries import ROOT, SOURCES, imports, is_within, sources

VARIABLES = ("no_proxy", "no_grpc_proxy", "all_proxy", *PROXIES)
"""What decides about proxies, in gRPC and elsewhere; some programs read capitals."""

LOADERS = [
    package
    for package in SOURCES
    if any(is_within(name, ("onnxruntime",)) for path in sources(package) for name in imports(path))
]
"""The packages that load onnxruntime."""

CHANNELS = {
    "bench/envoy.py": 'grpc.enable_http_proxy", 0',
    "bench/messages.py": 'grpc.enable_http_proxy", 0',
    "client/ntm_client/aio.py": "self._connection.options",
    "client/ntm_client/blocking.py": "self._connection.options",
    "service/auth/tls.py": "*NO_PROXY",
    "service/rpc/queue_loop.py": "grpc.enable_http_proxy",
    "service/probe.py": "tls.NO_PROXY",
}
"""Every file that makes channels, and the text that keeps those to this machine from a proxy."""


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> str:
    """Every variable names a proxy that does not run, and none an exception."""
    address = f"http://127.0.0.1:{free_port()}"
    for name in VARIABLES:
        for spelt in (name, name.upper()):
            monkeypatch.delenv(spelt, raising=False)
            if not name.startswith("no_"):
                monkeypatch.setenv(spelt, address)
    return address


@pytest.mark.parametrize("package", LOADERS)
def test_onnxruntime_writes_nothing_into_the_home_folder(package: str, tmp_path: Path) -> None:
    """Whichever package loads it, it neither identifies the machine nor reports to its makers."""
    assert {"service", "export", "bench"} <= set(LOADERS)
    environment = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    code = f"import {package}, onnxruntime"
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=ROOT, env={**environment, "HOME": str(tmp_path)}, check=True)

    assert list(tmp_path.iterdir()) == []


def test_every_channel_has_its_say_about_proxies() -> None:
    """A channel to this machine that forgets it would hang behind somebody's proxy."""
    makers = {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for package in SOURCES
        for path in sources(package)
        if re.search(r"\bgrpc\.(aio\.)?(in)?secure_channel\(", path.read_text())
    }

    assert set(makers) == set(CHANNELS)
    assert {name for name, text in makers.items() if CHANNELS[name] not in text} == set()


def test_pages_of_this_machine_are_opened_without_a_proxy() -> None:
    """`urlopen` asks the environment, an opener with an empty ProxyHandler does not."""
    asking = ("urlopen", "urlretrieve", "HTTPConnection")
    found = {
        path.relative_to(ROOT).as_posix()
        for package in SOURCES
        for path in sources(package)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute | ast.Name)
        and (node.attr if isinstance(node, ast.Attribute) else node.id) in asking
    }

    assert found == set()


def blocking(address: str) -> list[str]:
    with Client(address) as client:
        return [model.name for model in client.models()]


async def asynchronous(address: str) -> list[str]:
    async with AsyncClient(address) as client:
        return [model.name for model in await client.models()]


async def test_no_proxy_is_asked_for_a_server_of_this_machine(
    models_dir: Path, dead: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Clients, the command and the probe reach it, whatever the variables name."""
    hosts = ["127.0.0.1", "localhost", "0.0.0.0"]  # noqa: S104
    command = ["--models-dir", str(models_dir), "--device=cpu", "--metrics-port=0", "--port=0"]
    for host in hosts:
        with started("-m", "service", *command, "--host", host) as process:
            address, _ = ports(process)
            assert blocking(address) == ["ledger"]
            assert await asynchronous(address) == ["ledger"]
            listed = subprocess.run(  # noqa: ASYNC221 - the server is another process
                [sys.executable, "-m", "ntm_lab", "models", "--server", address],
                cwd=ROOT,
                capture_output=True,
                text=True,
            )
            assert (listed.returncode, listed.stderr) == (0, "")
            monkeypatch.setattr(sys, "argv", ["probe", address])
            assert probe.main() == 0


async def test_a_proxy_that_does_not_answer_is_named(dead: str) -> None:
    """For a server elsewhere the variable counts; the error has its name, and not its value."""
    for name in PROXIES:
        with pytest.raises(Unreachable, match=f"the proxy that the variable {name} names") as one:
            blocking("ntm.example:50051")
        with pytest.raises(Unreachable, match=f"the proxy that the variable {name} names"):
            await asynchronous("ntm.example:50051")
        assert one.value.reason == "PROXY_FAILED"
        assert "name the host in no_proxy" in str(one.value)
        del os.environ[name]


@pytest.mark.parametrize("value", ["garbage", "127.0.0.1:9", "https://127.0.0.1:9", "socks5://a:1"])
def test_a_proxy_that_grpc_does_not_take_is_not_blamed(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC connects without a proxy then, and that connection is what fails."""
    for name in (*VARIABLES, "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    address = parse("ntm.example:50051")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert proxy_of(address) == "http_proxy"
    monkeypatch.setenv("https_proxy", value)  # gRPC looks at this one first

    assert proxy_of(address) is None


async def test_a_proxy_that_is_meant_is_used(
    models_dir: Path, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that only the proxy can find is reached."""
    command = ["--models-dir", str(models_dir), "--device=cpu", "--metrics-port=0", "--port=0"]
    with started("-m", "service", *command) as process:
        address, _ = ports(process)
        with proxy(address) as (meant, asked):
            monkeypatch.setenv("grpc_proxy", meant)
            assert blocking("ntm.example:50051") == ["ledger"]
            assert await asynchronous("ntm.example:50051") == ["ledger"]
        assert set(asked) == {"CONNECT ntm.example:50051 HTTP/1.1"}


def demo(*wait: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`make demo`, which is kept from installing anything."""
    path = os.pathsep.join(map(str, (ROOT, *(ROOT / name for name in ("client", "tasks", "lab")))))
    # Without what `make test` tells the makes that it starts.
    environment = {name: text for name, text in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "--old-file=.venv/serve.stamp", "demo", *wait],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=115,
    )


@pytest.mark.slow
def test_the_demo_runs_behind_a_dead_proxy(dead: str) -> None:
    """Server, probe and command are on one machine."""
    ended = demo()
    assert ended.returncode == 0, ended.stderr
    assert "wrong bits: 0 of 160" in ended.stdout


@pytest.mark.slow
def test_the_demo_ends_if_its_server_does_not_answer(tmp_path: Path) -> None:
    """The probe is not let in here, since its certificate is of another authority."""
    certificate, key = Authority().signed("server").written(tmp_path, "server")
    (tmp_path / "clients.pem").write_bytes(Authority("other").certificate)
    ended = demo(
        "WAIT=2",
        NTM_TLS_CERTIFICATE=str(certificate),
        NTM_TLS_KEY=str(key),
        NTM_TLS_CLIENT_CA=str(tmp_path / "clients.pem"),
    )
    assert ended.returncode == 2
    assert ended.stdout.splitlines()[-1] == "the server does not answer within 2 s"


HOSTILE = {
    "no home": {"HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent"},
    "ASCII": {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
    "Latin": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "time zone": {"TZ": "Asia/Kathmandu"},
    "threads": {"OMP_NUM_THREADS": "999", "MKL_NUM_THREADS": "0"},
    "gRPC": {
        "GRPC_VERBOSITY": "error",
        "GRPC_DNS_RESOLVER": "native",
        "GRPC_POLL_STRATEGY": "poll",
    },
    "colours": {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "40"},
    "hash": {"PYTHONHASHSEED": "0", "PYTHONOPTIMIZE": "1"},
}
"""Environments in which a server and `ntm` are started."""


@pytest.mark.slow
@pytest.mark.parametrize("environment", HOSTILE)
def test_a_server_and_a_command_work_in_any_environment(environment: str, tmp_path: Path) -> None:
    """The demo has no wrong bit, and nothing but the picture is written."""
    command = ["--device=cpu", "--port=0", "--metrics-port=0", f"--models-dir={MODELS}"]
    command.append("--models=copy-ntm-lstm")  # the demo needs no other
    variables = {**os.environ, **HOSTILE[environment]}
    picture = tmp_path / "demo.png"
    with subprocess.Popen(
        [sys.executable, "-m", "service", *command],
        cwd=ROOT,
        env=variables,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            address, _ = ports(process)
            ended = subprocess.run(
                [
                    *(sys.executable, "-m", "ntm_lab", "demo", "--length=3", "--png", str(picture)),
                    *("--server", address),
                ],
                cwd=ROOT,
                env=variables,
                capture_output=True,
                timeout=100,
            )
        finally:
            process.kill()
    assert (ended.returncode, b"Traceback" in ended.stderr) == (0, False), ended.stderr
    assert b"wrong bits: 0 of 24" in ended.stdout
    assert list(tmp_path.iterdir()) == [picture]


def test_a_variable_without_a_setting_is_told() -> None:
    """One with a mistake in its name would else be left unread in silence."""
    variables = {"NTM_PROT": "1", "NTM_PORT": "1", "NTM_SERVER": "a", "NTM_TOKEN": "b", "PATH": ""}
    assert unknown_variables(variables) == ["NTM_PROT"]


def test_the_server_logs_a_variable_without_a_setting(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its name; its value may be a password."""
    monkeypatch.setenv("NTM_STORE_PASWORD", "s3cret")
    flags = [f"--models-dir={models_dir}", "--device=cpu", "--port=0", "--metrics-port=0"]
    with started("-m", "service", *flags) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
    assert '"variables": ["NTM_STORE_PASWORD"]' in line
    assert "s3cret" not in line


def test_a_variable_of_kubernetes_is_recognised(capsys: pytest.CaptureFixture[str]) -> None:
    """A service with the name ntm has its pods given NTM_PORT, an address."""
    with pytest.raises(SystemExit):
        Settings.from_command_line([], {"NTM_PORT": "tcp://10.0.0.1:50051"})
    assert "give the pod enableServiceLinks: false" in capsys.readouterr().err
