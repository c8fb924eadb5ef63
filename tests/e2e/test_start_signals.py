"""Signals that come while a server starts, at every statement and while it waits for something."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.test_process import ROOT, flags, started
from tests.support.signalled_starts import NOT_REACHED, statements
from tests.support.tiny_models import ledger

SIGNALS = [signal.SIGTERM, signal.SIGINT]

BLOCKED = """
import importlib, os, sys, threading, time
WHERE = sys.argv.pop(1)

def wait(*_, **__):
    print("waiting", WHERE, file=sys.stderr, flush=True)
    while True:
        threading.Event().wait(0.1)  # a signal that came just before a wait is heard after it

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == WHERE:
            wait()

module, _, attribute = WHERE.partition(":")
if attribute:
    owner = importlib.import_module(module)
    *path, name = attribute.split(".")
    for each in path:
        owner = getattr(owner, each)
    setattr(owner, name, wait)
else:
    sys.meta_path.insert(0, Finder())
from service.__main__ import main
sys.exit(main())
"""
"""A server that waits for ever where it imports a module, or calls a function."""

WAITS = [
    "service.settings",
    "grpc",
    "onnxruntime",
    "service.server",
    "service.auth.tokens:Tokens",
    "service.telemetry.monitoring:_Server",
    "service.stores.directory:_synchronise",
    "service.models.runtime:provider",
    "service.models.folder:os.listdir",
    "service.models.folder:try_out",
    "service.models.catalogue:load",
    "service.server:Spans",
    "service.server:_check_free",
    "service.server:Server._open_ports",
]
"""What a start can wait for: imports, files, a store, models, ports."""

AS_FIRST_PROCESS = [
    *("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child")
]


def can_be_first() -> bool:
    """Whether a process can be the first of a container of its own here."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*AS_FIRST_PROCESS, "true"], capture_output=True).returncode == 0


@pytest.fixture
def arguments(models_dir: Path, tmp_path: Path) -> list[str]:
    """Flags of a server that does all that a start can have to do."""
    (tmp_path / "tokens").touch()
    return [
        *flags(models_dir),
        "--models=ledger",
        f"--tokens-file={tmp_path / 'tokens'}",
        f"--store=directory:{tmp_path / 'store'}",
    ]


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read lines of standard error until one has the text."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if text in line:
            return
    raise AssertionError(f"the server ended with {process.wait()}: {''.join(seen)}")


def check_ended(process: subprocess.Popen[str], name: str) -> None:
    """The process ends with status 0 and one sentence."""
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors.splitlines()[-1] == f"{name} came before the server served"
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_signal_at_any_statement_of_the_start_ends_the_server(arguments: Sequence[str]) -> None:
    """Before clients can reach it at once, and after that drained; always with status 0."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.support.signalled_starts", *arguments],
        cwd=ROOT,
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(ended.stdout)
    places = [(file, line) for file, line, _, _ in found]
    before = "SIGTERM came before the server served"
    last_lines = {tuple(place): errors.splitlines()[-1:] for *place, _, errors in found}
    drained = {place for place, (line,) in last_lines.items() if '"message": "stopped"' in line}

    assert places == list(statements())
    assert NOT_REACHED not in {status for _, _, status, _ in found}
    assert {status for _, _, status, _ in found} == {0}
    assert all(last_lines[place] == [before] for place in places if place not in drained)
    assert len(drained) > 5
    assert not any("Traceback" in errors for *_, errors in found)


@pytest.mark.parametrize("where", WAITS)
def test_a_signal_ends_a_start_that_waits(arguments: Sequence[str], where: str) -> None:
    """Whatever it waits for, in an import, in a call of this thread or on another thread."""
    with started("-c", BLOCKED, where, *arguments) as process:
        wait_for(process, f"waiting {where}")
        process.send_signal(signal.SIGTERM)
        check_ended(process, "SIGTERM")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_models_load_ends_the_server(tmp_path: Path, number: signal.Signals) -> None:
    """The models that are still to be loaded are not waited for."""
    for model in range(30):
        (tmp_path / f"{model:02}").mkdir()
        (tmp_path / f"{model:02}" / "model.onnx").write_bytes(ledger())
    names = ",".join(f"{model:02}" for model in range(30))
    with started("-m", "service", *flags(tmp_path), f"--models={names}") as process:
        wait_for(process, '"message": "model loaded"')
        process.send_signal(number)
        check_ended(process, number.name)


@pytest.mark.skipif(not can_be_first(), reason="unshare (util-linux) makes no process namespace")
@pytest.mark.parametrize("where", ["onnxruntime", "service.models.catalogue:load", ""])
def test_a_signal_ends_the_first_process_of_a_container(
    arguments: Sequence[str], where: str
) -> None:
    """Which the system gives only those signals that it handles; it drains once it serves."""
    command = ["-c", BLOCKED, where] if where else ["-m", "service"]
    with started(*command, *arguments, before=AS_FIRST_PROCESS) as process:
        wait_for(process, f"waiting {where}" if where else '"message": "serving"')
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        (first,) = map(int, children.split())
        os.kill(first, signal.SIGTERM)
        if where:
            check_ended(process, "SIGTERM")
        else:
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0
            assert '"message": "stopped", "finished_all_work": true' in errors
