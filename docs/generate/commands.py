"""The page of the command lines: what each command prints for --help."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from docs.generate.markdown import head

INTRODUCTION = """
What each command prints for `--help`. [The command line](../command-line.md) shows the commands of
`ntm` in use, and [Models and training](../models.md) those of `ntm-export`. The flags of
`ntm-service`, which is `python -m service`, are on the page of [Settings](settings.md).
"""

PROGRAMS = {
    "ntm": ("ntm_lab", ["demo", "trace", "decipher", "stream", "watch", "models", "sessions"]),
    "ntm-export": (
        "export",
        [
            *("train", "sweep", "export", "evaluate", "report"),
            *("module", "wrap", "import pytorch-ntm"),
        ],
    ),
    "python -m service.tokens": ("service.tokens", []),
}
"""The module of each program, and its commands."""

WIDTH = 100

HELPS = """
import contextlib, io, json, runpy, sys
texts, module, commands = [], sys.argv[1], json.loads(sys.argv[2])
for arguments in commands:
    sys.argv[1:] = arguments
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    texts.append(text.getvalue())
print(json.dumps(texts))
"""
"""Prints a module's answers to several command lines, in one process since torch loads slowly."""


def page() -> str:
    """The help of each program, and of each of its commands."""
    parts = [head("Command lines", "what the programs say of themselves"), INTRODUCTION]
    for program, (module, commands) in PROGRAMS.items():
        titles = [f"## {program}", *(f"### {program} {command}" for command in commands)]
        texts = _helps(module, [[], *(command.split() for command in commands)])
        for title, text in zip(titles, texts, strict=True):
            lines = "\n".join(line.rstrip() for line in text.strip().split("\n"))
            parts.append(f"\n{title}\n\n```text\n{lines}\n```\n")
    return "".join(parts)


def _helps(module: str, commands: list[list[str]]) -> list[str]:
    """What a program prints for --help, without colours, on lines of a fixed width."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("NTM_", "FORCE_"))
    }
    environment |= {"COLUMNS": str(WIDTH), "TERMINAL_WIDTH": str(WIDTH), "NO_COLOR": "1"}
    environment |= {"TERM": "dumb", "PYTHONIOENCODING": "utf-8"}
    wanted = json.dumps([[*command, "--help"] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", HELPS, module, wanted],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    texts: list[str] = json.loads(done.stdout)
    return texts
