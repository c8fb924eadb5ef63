"""Addresses in each form, end to end: ports, log line, probe, monitoring and client agree."""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from ntm_client import Client
from service import probe, server
from service.settings import SettingInvalid, Settings
from tests.e2e.test_process import ROOT, flags, ports, started
from tests.support.ports import free_port


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def _link_local() -> str:
    """
    An IPv6 address that means something on one link alone, with its zone; empty without one.

    The link is the oldest, by its index: those of containers come later, and go while tests run.
    """
    table = Path("/proc/net/if_inet6")
    rows = [line.split() for line in table.read_text().splitlines()] if table.exists() else []
    found = [(int(row[1], 16), row[0], row[5]) for row in rows if row[0].startswith("fe80")]
    if not found:
        return ""
    _, digits, link = min(found)
    return f"{ipaddress.IPv6Address(int(digits, 16))}%{link}"


IPV6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 address ::1")
ZONED = _link_local()
LINK = pytest.mark.skipif(not ZONED, reason="this machine has no link-local IPv6 address")

HOSTS = [
    pytest.param("127.0.0.1", "127.0.0.1:{}", "127.0.0.1:{}"),
    pytest.param("0.0.0.0", "0.0.0.0:{}", "127.0.0.1:{}"),  # noqa: S104
    pytest.param("localhost", "localhost:{}", "localhost:{}"),
    pytest.param("::1", "[::1]:{}", "[::1]:{}", marks=IPV6),
    pytest.param("[::1]", "[::1]:{}", "[::1]:{}", marks=IPV6),
    pytest.param("::", "[::]:{}", "[::1]:{}", marks=IPV6),
    pytest.param("[::]", "[::]:{}", "[::1]:{}", marks=IPV6),
    pytest.param(ZONED, f"[{ZONED}]:{{}}", f"[{ZONED}]:{{}}", marks=LINK, id="zone"),
    pytest.param(f"[{ZONED}]", f"[{ZONED}]:{{}}", f"[{ZONED}]:{{}}", marks=LINK, id="[zone]"),
]
"""What --host and --metrics-host say, what the log says, and whom the probe asks; {} is a port."""


@pytest.fixture
def asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> pytest.CaptureFixture[str]:
    """The probe's output, where it is called without an argument."""
    monkeypatch.setattr(sys, "argv", ["probe"])
    return capsys


@pytest.mark.parametrize(("host", "logged", "probed"), HOSTS)
def test_every_part_understands_the_same_address(
    models_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: pytest.CaptureFixture[str],
    host: str,
    logged: str,
    probed: str,
) -> None:
    """Client, probe and scraper reach the server at the address that its log line names."""
    hosts = (f"--host={host}", f"--metrics-host={host}")
    with started("-m", "service", *flags(models_dir), *hosts) as process:
        address, monitoring = ports(process)
        port = address.rpartition(":")[2]
        assert address == logged.format(port)
        assert monitoring == logged.format(monitoring.rpartition(":")[2])
        with Client(address) as client:
            assert [model.name for model in client.models()] == ["ledger"]
        monkeypatch.setenv("NTM_HOST", host)
        monkeypatch.setenv("NTM_PORT", port)
        assert probe.main() == 0
        assert asked.readouterr().out == f"{probed.format(port)}: SERVING\n"
        with urllib.request.urlopen(f"http://{monitoring}/readyz", timeout=10) as response:
            assert response.read() == b"ready\n"


@pytest.mark.parametrize("form", ["unix:{}", "unix://{}", "unix-abstract:{}"])
def test_a_server_listens_on_a_unix_domain_socket(
    models_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: pytest.CaptureFixture[str],
    form: str,
) -> None:
    """The log line names no port; the socket of a running server is taken, of a dead one free."""
    path = tmp_path / "ntm.sock"
    logged = form.replace("unix://", "unix:").format(path)
    host = form.format(path)
    command = ["-m", "service", *flags(models_dir), f"--host={host}", "--port=50051"]
    with started(*command) as process:
        assert ports(process)[0] == logged
        with Client(logged) as client:
            assert [model.name for model in client.models()] == ["ledger"]
        monkeypatch.setenv("NTM_HOST", host)
        assert probe.main() == 0
        assert asked.readouterr().out == f"{logged}: SERVING\n"
        assert ended(*command) == f"cannot serve: cannot listen on {logged}: Address already in use"
        assert probe.main() == 0
        process.kill()
    with started(*command) as process:
        assert ports(process)[0] == logged


def test_a_server_listens_on_more_addresses(models_dir: Path, tmp_path: Path) -> None:
    """Clients reach it at each; the log line names them, and the socket's file ends with it."""
    path, port = tmp_path / "ntm.sock", free_port()
    listen = f"--listen=unix://{path}, 127.0.0.1:{port}"
    with started("-m", "service", *flags(models_dir), listen) as process:
        assert process.stderr is not None
        serving = next(json.loads(line) for line in process.stderr if '"serving"' in line)
        assert serving["also"] == [f"unix:{path}", f"127.0.0.1:{port}"]
        sessions = []
        for address in (serving["address"], *serving["also"]):
            with Client(address) as client, client.create_session("ledger") as session:
                sessions.append(session.id)
                assert session.step([[1, 2]]).array.tolist() == [[1, 2]]
        assert len(set(sessions)) == 3
        process.terminate()
        assert process.wait(60) == 0
    assert not path.exists()


def test_one_taken_address_of_many_is_told_before_any_opens(
    models_dir: Path, tmp_path: Path
) -> None:
    """The sentence names that one, and no socket's file is left."""
    path, port = tmp_path / "ntm.sock", free_port()
    listen = f"--listen=unix:{path},127.0.0.1:{port}"
    with socket.create_server(("127.0.0.1", port)):
        said = ended("-m", "service", *flags(models_dir), listen)
    assert said == f"cannot serve: cannot listen on 127.0.0.1:{port}: Address already in use"
    assert not path.exists()


@pytest.mark.parametrize(
    ("listen", "problem"),
    [
        ("unix:", "is 'unix:': 'unix:' is no address: it names no socket; write unix:PATH"),
        (
            "[::1]:50052,",
            "is '[::1]:50052,': '' is no address: it is empty",
        ),
        (
            "localhost:0",
            "is 'localhost:0': 'localhost:0' is no address: its port is '0'; a port is a number "
            "from 1 to 65535",
        ),
        ("0.0.0.0", "has '0.0.0.0:50051', where the server listens already"),  # noqa: S104
        ("unix:/a,unix:///a", "has 'unix:/a', where the server listens already"),
        ("127.0.0.1:9464", "has '127.0.0.1:9464', the monitoring port; see --metrics-port"),
    ],
)
def test_an_address_to_listen_on_that_cannot_be_is_refused(listen: str, problem: str) -> None:
    """When it is read, with what to write instead."""
    with pytest.raises(SettingInvalid) as raised:
        Settings(listen=listen)
    assert str(raised.value) == f"--listen {problem}"


def test_an_address_without_a_port_gets_the_first_ones() -> None:
    """And one of a Unix domain socket needs none."""
    settings = Settings(port=50100, listen="[::1], unix:/a, 127.0.0.2:1")
    assert list(map(str, settings.addresses)) == [
        "127.0.0.1:50100",
        "[::1]:50100",
        "unix:/a",
        "127.0.0.2:1",
    ]


def test_each_address_decides_whether_others_can_reach_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Warnings about tokens and encryption come if other machines can reach one of many."""
    server._warn_if_open(Settings(listen="unix:/a,[::1]:1"))
    assert caplog.messages == []
    server._warn_if_open(Settings(listen="unix:/a,0.0.0.0:1"))
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "calls and tokens are not encrypted",
        "callers are not authenticated",
    ]


def ended(*arguments: str) -> str:
    """What a server that does not start says last, without the flags to look at."""
    command = [sys.executable, *arguments]
    end = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert end.returncode != 0
    assert "Traceback" not in end.stderr
    return end.stderr.splitlines()[-1].partition("; see --")[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", pytest.param("::1", marks=IPV6)])
@pytest.mark.parametrize("kind", ["", "metrics-"])
def test_a_taken_port_is_told_with_its_number(models_dir: Path, host: str, kind: str) -> None:
    """Also where another program has only one of the addresses of a name."""
    port = free_port()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with socket.create_server((host, port), family=family):
        said = ended(
            "-m",
            "service",
            *flags(models_dir),
            f"--{kind}host={host}",
            f"--{kind}port={port}",
        )
    assert said == f"cannot serve: cannot listen on {shown}: Address already in use"


@pytest.mark.parametrize("kind", ["", "metrics-"])
@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("ntm.invalid", "Name or service not known"),
        ("192.0.2.1", "Cannot assign requested address"),
    ],
)
def test_an_address_of_another_machine_is_told(
    models_dir: Path, kind: str, host: str, why: str
) -> None:
    """The system's own words follow the address."""
    said = ended("-m", "service", *flags(models_dir), f"--{kind}host={host}", f"--{kind}port=5005")
    assert said == f"cannot serve: cannot listen on {host}:5005: {why}"


@pytest.mark.parametrize("name", ["host", "metrics_host"])
@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("", "is empty; use 0.0.0.0 for every interface"),
        (" ", "is ' ': it holds a blank or a control character"),
        ("127.0.0.1 ", "is '127.0.0.1 ': it holds a blank or a control character"),
        ("http://127.0.0.1", "is 'http://127.0.0.1': it is a URL; write '127.0.0.1'"),
        ("127.0.0.1:80", "is '127.0.0.1:80': the port '80' goes into the setting of the port"),
        ("[::1]:80", "is '[::1]:80': the port '80' goes into the setting of the port"),
        ("[::1", "is '[::1': write an IPv6 address as [ADDRESS]:PORT"),
        ("::g", "is '::g': write HOST:PORT, and an IPv6 address as [ADDRESS]:PORT"),
        ("1.2.3", "is '1.2.3': '1.2.3' is no IPv4 address"),
        ("ntm/x", "is 'ntm/x': 'ntm/x' is no name of a host"),
        ("unix:", "is 'unix:': it names no socket; write unix:PATH"),
    ],
)
def test_a_host_that_is_none_is_refused(name: str, host: str, problem: str) -> None:
    """By both settings, when they are read, with what to write instead."""
    with pytest.raises(SettingInvalid) as raised:
        Settings(**{name: host})  # type: ignore[arg-type]
    assert str(raised.value) == f"--{name.replace('_', '-')} {problem}"


def test_the_monitoring_port_is_no_unix_domain_socket() -> None:
    """Prometheus could not scrape it."""
    with pytest.raises(SettingInvalid, match="the monitoring port needs an IP address"):
        Settings(metrics_host="unix:/run/ntm.sock")


@pytest.mark.parametrize(
    ("variables", "arguments", "said"),
    [
        ({"NTM_PORT": "0"}, [], "NTM_HOST and NTM_PORT: '127.0.0.1:0' is no address: its port is"),
        ({"NTM_PORT": "tcp://10.0.0.1:1"}, [], "NTM_HOST and NTM_PORT: '127.0.0.1:tcp://10.0.0.1"),
        ({"NTM_HOST": "[::1"}, [], "NTM_HOST and NTM_PORT: '[::1' is no address: write an IPv6"),
        ({}, ["http://localhost:1"], "'http://localhost:1' is no address: it is a URL; write"),
        ({}, ["localhost:99999"], "'localhost:99999' is no address: its port is '99999'; a port"),
    ],
)
def test_the_probe_refuses_what_is_no_address(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    arguments: list[str],
    said: str,
) -> None:
    """It names the variables if the address is theirs."""
    monkeypatch.setattr(sys, "argv", ["probe", *arguments])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert probe.main() == 1
    assert capsys.readouterr().err.startswith(said)


def test_the_log_line_is_all_that_a_script_needs(models_dir: Path) -> None:
    """The address in it works as it is for `ntm`, whatever the host was."""
    with started("-m", "service", *flags(models_dir), "--host=0.0.0.0") as process:
        address, _ = ports(process)
        command = [sys.executable, "-m", "ntm_lab", "models", "--server", address]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert (listed.returncode, listed.stderr) == (0, "")
        assert "ledger" in listed.stdout
