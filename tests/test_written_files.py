"""Files for users are written by `ntm_lab.outputs`, whole or not at all."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.test_encodings import ROOT, SOURCES

FOLDERS = ("lab/", "client/", "tasks/", "bench/", "deploy/", "docs/")
"""The server has stores, which write records of their own, and the trainer checkpoints."""

OF_A_RUN = {
    "bench/control_mechanisms.py": 1,
    "bench/envoy.py": 1,
    "bench/serving.py": 1,
    "bench/triton.py": 2,
    "bench/triton_environment.py": 2,
    "deploy/generate/stack.py": 2,
    "lab/ntm_lab/recordings/files.py": 1,
}
"""
How many files each writes for programs that it starts, in a folder that goes, or in memory.
"""

WRITING = ("write_text", "write_bytes", "save", "savefig", "tofile")

OUTPUTS = "lab/ntm_lab/outputs.py"


def writing(source: str) -> Iterator[ast.Call]:
    """The calls that write a file that they name."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        match call:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="outputs" | "files" | "page" | "store"))
            ):
                pass
            case ast.Call(func=ast.Attribute(attr="save", value=ast.Name(id="figure"))):
                pass  # a module of ours
            case ast.Call(args=[ast.Name(id="file"), *_]):
                pass  # a file that is open already
            case ast.Call(func=ast.Attribute(attr=name)) if name in WRITING:
                yield call
            case ast.Call(func=ast.Attribute(attr="open") | ast.Name(id="open")):
                modes = [each.value for each in call.args if isinstance(each, ast.Constant)]
                if any(str(mode) in ("w", "wb", "a", "ab", "x", "xb") for mode in modes):
                    yield call


def test_every_file_is_written_whole() -> None:
    """No program writes to its user's file directly, where an error would leave half of it."""
    found: dict[str, int] = {}
    for path in SOURCES:
        name = str(path.relative_to(ROOT))
        if name.startswith(FOLDERS) and name != OUTPUTS:
            calls = list(writing(path.read_text(encoding="utf-8")))
            if calls:
                found[name] = len(calls)
    assert found == OF_A_RUN


def test_the_search_finds_what_writes() -> None:
    """Reading, open files and our own functions are no finds."""
    source = """
path.write_text("a")
path.write_bytes(b"a")
figure.savefig(path)
open(path, "w")
path.open("ab")
numpy.save(path, array)
outputs.write_text(path, "a")
figure.savefig(file)
path.open("rb")
path.open()
stream.open("waves")
files.save(recording, path)
"""
    assert len(list(writing(source))) == 6
