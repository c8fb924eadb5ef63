"""
Texts as spreadsheets, programs and people write them, through the command, and terminals that
cannot show every character.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from ntm_lab.cli import COMMANDS, main
from tests.client.conftest import Running
from tests.client.fake_server import FakeServer
from tests.lab.conftest import NAME

LARGEST = 3.4028235e38


class Text(NamedTuple):
    """The content of a file for a model of three values, and what becomes of it."""

    content: bytes
    steps: list[list[float]] | str
    """The steps; or the sentence that follows the file's name."""
    name: str = "steps.csv"
    options: tuple[str, ...] = ()


UNSURE = "; --header leaves out a first line of names"

TEXTS = {
    # as spreadsheets write it
    "plain": Text(b"0,1,2\n3,4,5\n", [[0, 1, 2], [3, 4, 5]]),
    "no last line end": Text(b"0,1,2\n3,4,5", [[0, 1, 2], [3, 4, 5]]),
    "line ends of Windows": Text(b"0,1,2\r\n3,4,5\r\n", [[0, 1, 2], [3, 4, 5]]),
    "mark of UTF-8": Text(b"\xef\xbb\xbf0,1,2\n", [[0, 1, 2]]),
    "mark of UTF-8 before names": Text(
        b"\xef\xbb\xbfa,b,c\n0,1,2\n", [[0, 1, 2]], "a.csv", ("--header",)
    ),
    "UTF-16": Text("0,1,2\n".encode("utf-16"), ", line 1: it is UTF-16; save it as UTF-8"),
    "UTF-16 of the other order": Text(
        b"\xfe\xff" + "0,1,2\n".encode("utf-16-be"), ", line 1: it is UTF-16; save it as UTF-8"
    ),
    "semicolons": Text(b"0;1.5;2\n", [[0, 1.5, 2]]),
    "tabs": Text(b"0\t1.5\t2\n", [[0, 1.5, 2]], "steps.tsv"),
    "quoted": Text(b'"0","1.5","-2"\n', [[0, 1.5, -2]]),
    "spaces": Text(b" 0 , 1 ,2 \n", [[0, 1, 2]]),
    "blank lines": Text(b"\n0,1,2\n\n  \n3,4,5\n\n", [[0, 1, 2], [3, 4, 5]]),
    "comments": Text(b"# a, b, c\n0,1,2\n", [[0, 1, 2]]),
    "names": Text(b"a,b,c\n0,1,2\n", f", line 1: 'a' is not a number{UNSURE}"),
    "names left out": Text(b"a,b,c\n0,1,2\n", [[0, 1, 2]], "steps.csv", ("--header",)),
    "quoted names": Text(b'"a","b","c"\n0,1,2\n', f", line 1: 'a' is not a number{UNSURE}"),
    "a short line": Text(b"0,1,2\n\n3,4\n", ", line 3: 2 values, but a step has 3"),
    "a long line": Text(b"0,1,2\n3,4,5,6\n", ", line 2: 4 values, but a step has 3"),
    "a missing value": Text(b"0,,2\n", ", line 1: a value is missing"),
    "a comma at the end": Text(b"0,1,2,\n", ", line 1: a value is missing"),
    "only commas": Text(b"0,1,2\n,,\n", ", line 2: a value is missing"),
    "an open quote": Text(b'"0,1,2\n', ", line 1: not CSV: unexpected end of data"),
    "Latin-1": Text("0,1,2\nä,1,2\n".encode("latin-1"), ", line 2: not text in UTF-8: byte 0xe4"),
    # numbers
    "signs and exponents": Text(b"+1,-1.5e-3,.5E2\n", [[1, -0.0015, 50]]),
    "the largest": Text(b"3.4028235e38,-3.4028235e38,1e-45\n", [[LARGEST, -LARGEST, 1e-45]]),
    "an underscore": Text(b"1_0,1,2\n", ", line 1: '1_0' is not a number"),
    "full-width digits": Text(
        "\uff11\uff12,1,2\n".encode(), ", line 1: '\uff11\uff12' is not a number"
    ),
    "another minus": Text("\u22121,1,2\n".encode(), ", line 1: '\u22121' is not a number"),
    "complex": Text(b"1+2j,1,2\n", ", line 1: '1+2j' is not a number"),
    "imaginary": Text(b"2j,1,2\n", ", line 1: '2j' is not a number"),
    "hexadecimal": Text(b"0x10,1,2\n", ", line 1: '0x10' is not a number"),
    "a word": Text(b"True,1,2\n", f", line 1: 'True' is not a number{UNSURE}"),
    "not a number": Text(b"nan,1,2\n", ", line 1: nan is not a finite float32"),
    "infinity": Text(b"1,-inf,2\n", ", line 1: -inf is not a finite float32"),
    "too large": Text(b"1,3.5e38,2\n", ", line 1: 3.5e+38 is not a finite float32"),
    "too large for any": Text(b"1,1e999,2\n", ", line 1: inf is not a finite float32"),
    "decimal commas": Text(
        b"0,5;1;2\n",
        ", line 1: '0,5' has a comma; write decimals with a point, and no thousands' sign",
    ),
    "thousands": Text(
        b'"1,000",1,2\n',
        ", line 1: '1,000' has a comma; write decimals with a point, and no thousands' sign",
    ),
    "percent": Text(b"50%,1,2\n", ", line 1: '50%' is not a number"),
    "spaces between": Text(b"0 1 2\n", ", line 1: '0 1 2' is not a number"),
    # another format than the name's
    "JSON": Text(b"[0, 1, 2]\n", ", line 1: '[0, 1, 2]' is JSON; name the format jsonl"),
    "an array": Text(
        b"\x93NUMPY\x01\x00", ", line 1: it is an array of numpy; name the format npy"
    ),
    "a spreadsheet": Text(
        b"PK\x03\x04\n", ", line 1: it is a spreadsheet or an archive; save it as CSV"
    ),
    "bytes": Text(bytes(range(256)), ", line 1: '\\x00\\x01\\x02\\x03\\x04\\x05\\x06\\x07\\x08'"),
    "nothing": Text(b"", " has no steps"),
    "only names": Text(b"a,b,c\n", " has no steps", "steps.csv", ("--header",)),
    "only blank lines": Text(b"\n\n", " has no steps"),
    # JSON lines
    "json": Text(b"[0, 1, 2]\r\n\n[3, 4.5, 5e0]\n", [[0, 1, 2], [3, 4.5, 5]], "a.jsonl"),
    "json with a mark": Text(b"\xef\xbb\xbf[0, 1, 2]\n", [[0, 1, 2]], "a.jsonl"),
    "json by another name": Text(b"[0, 1, 2]\n", [[0, 1, 2]], "a.NDJSON"),
    "json by an option": Text(b"[0, 1, 2]\n", [[0, 1, 2]], "a.json", ("--format", "jsonl")),
    "json of no name": Text(b"[0, 1, 2]\n", " ends in .json, which names no format", "a.json"),
    "json true": Text(b"[0, true, 2]\n", ", line 1: not an array of numbers: True", "a.jsonl"),
    "json text": Text(b'[0, "1", 2]\n', ", line 1: not an array of numbers: '1'", "a.jsonl"),
    "json null": Text(b"[0, null, 2]\n", ", line 1: not an array of numbers: None", "a.jsonl"),
    "json list": Text(b"[[0, 1, 2]]\n", ", line 1: not an array of numbers: [0, 1, 2]", "a.jsonl"),
    "json object": Text(b'{"a": 1}\n', ", line 1: not an array of numbers", "a.jsonl"),
    "json NaN": Text(b"[0, NaN, 2]\n", ", line 1: nan is not a finite float32", "a.jsonl"),
    "json large": Text(b"[0, 1e39, 2]\n", ", line 1: 1e+39 is not a finite float32", "a.jsonl"),
    "json long": Text(
        b"[0, 1" + b"0" * 400 + b", 2]\n",
        ", line 1: 1000000000000000000000000000000000000000 is",
        "a.jsonl",
    ),
    "json endless": Text(
        b"[0, " + b"9" * 9999 + b", 2]\n",
        ", line 1: not an array of numbers: one has too many digits",
        "a.jsonl",
    ),
    "json deep": Text(
        b"[" * 99999 + b"\n",
        ", line 1: not an array of numbers: its brackets are too deep",
        "a.jsonl",
    ),
    "json cut": Text(b"[0, 1,\n", ", line 1: not JSON: Expecting value", "a.jsonl"),
    "json underscore": Text(b"[1_0, 1, 2]\n", ", line 1: not JSON", "a.jsonl"),
    "json short": Text(b"[0, 1]\n", ", line 1: 2 values, but a step has 3", "a.jsonl"),
    "json names": Text(
        b"[0, 1, 2]\n", "--header is of csv, and the steps are jsonl", "a.jsonl", ("--header",)
    ),
}


@pytest.fixture(autouse=True)
def server_address(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands find the fake server by the environment."""
    monkeypatch.setenv("NTM_SERVER", running.address)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("command", ["stream", "trace"])
def test_a_text_is_read_as_it_is_or_refused(
    command: str, text: Text, tmp_path: Path, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server gets exactly these steps; or a sentence names the file, the line and the value."""
    file = tmp_path / text.name
    file.write_bytes(text.content)
    if command == "trace" and "--format" in text.options:
        pytest.skip("it has no such option")
    status = main([command, "sums", "--input", str(file), *text.options])
    error = capsys.readouterr().err

    if isinstance(text.steps, str):
        assert status == 2
        sentence = error.splitlines()[-1].removeprefix("ntm: ").removeprefix(str(file))
        assert sentence.startswith(text.steps)
        assert "Traceback" not in error
        assert len(fake.sessions) == ("next step" in error)
        return
    assert (status, error) == (0, "")
    sent = np.concatenate([np.frombuffer(chunk.inputs, "<f4") for chunk in fake.chunks])
    assert sent.reshape(-1, 3).tolist() == np.array(text.steps, np.float32).tolist()


def command_line(command: str, session: str, sources: Path) -> list[str]:
    """A command line of each command that prints."""
    recordings = [str(path) for path in sorted(sources.glob("*.npz"))]
    arguments = {
        "demo": ["--model", "copy", "--seed", "1"],
        "trace": ["--open", recordings[0]],
        "stream": ["sums", "--input", str(sources / "steps.csv"), "--keep"],
        "decipher": ["--recordings", *recordings],
        "watch": [session, "--once"],
    }
    return [command, *arguments.get(command, [])]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_prints_on_every_terminal(
    command: str, encoding: str, sources: Path, running: Running
) -> None:
    """Characters that a terminal does not have are replaced, and the command ends as it should."""
    steps = str(sources / "steps.csv")
    assert main(["stream", "sums", "--input", steps, "--keep"]) == 0
    (session,) = running.fake.sessions
    done = subprocess.run(
        [sys.executable, "-m", "ntm_lab", *command_line(command, session, sources)],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    printed, error = (
        text.decode(encoding.partition(":")[0]) for text in (done.stdout, done.stderr)
    )

    assert "Traceback" not in error
    assert done.returncode == 0, error
    assert printed.strip()
    if command in ("trace", "decipher"):
        name = NAME.encode(encoding.partition(":")[0], errors="replace")
        assert name in done.stdout
