"""Ctrl-C while `ntm` starts."""

from __future__ import annotations

import subprocess
import sys

import pytest

INTERRUPTED = """
import runpy, signal, sys
WHERE = sys.argv.pop(1)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == WHERE:
            print("interrupted", flush=True)
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder())
runpy.run_module("ntm_lab", run_name="__main__", alter_sys=True)
"""
"""A command to which Ctrl-C comes when it begins to import a module."""


@pytest.mark.parametrize(
    "module",
    ["ntm_lab.cli", "cyclopts", "ntm_lab.commands.listing", "numpy", "grpc", "ntm_client.blocking"],
)
def test_an_interrupt_while_the_command_is_imported_ends_it(module: str) -> None:
    """Silently, with the status of an interrupt, from the first import on."""
    command = [sys.executable, "-c", INTERRUPTED, module, "models", "--server", "localhost:1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (130, "interrupted\n", "")
