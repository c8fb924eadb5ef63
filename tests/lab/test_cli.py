"""The command line against a server that copies and sums."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ntm_lab.cli import COMMANDS, main
from ntm_lab.commands.listing import table
from tests.client.conftest import Running
from tests.client.fake_server import FakeServer, refuse

STEPS = np.arange(12, dtype=np.float32).reshape(4, 3)
SUMS = STEPS.cumsum(0)


@pytest.fixture(autouse=True)
def server_address(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands find the fake server by the environment."""
    monkeypatch.setenv("NTM_SERVER", running.address)


def type_in(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    """Let standard input hold that text."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))


def test_demo_copies(capsys: pytest.CaptureFixture[str], tmp_path: Path, fake: FakeServer) -> None:
    """The demo shows target, answer and heads, draws them, and ends with the wrong bits."""
    png = tmp_path / "copy.png"

    assert main(["demo", "--model", "copy", "--seed", "1", "--png", str(png)]) == 0
    lines = capsys.readouterr().out.splitlines()
    target, answer = lines.index("target"), lines.index("answer")
    assert lines[target + 1 : target + 5] == lines[answer + 1 : answer + 5]
    assert "write weighting (down: locations, across: steps)" in lines
    assert lines[-1] == "wrong bits: 0 of 160"
    assert png.stat().st_size > 10_000
    assert fake.sessions == {}


def test_demo_counts_wrong_bits(capsys: pytest.CaptureFixture[str]) -> None:
    """What does not come back, here for lack of locations, is counted and fails the demo."""
    target = np.random.default_rng(7).integers(0, 2, (20, 8))
    forgotten = int(target[10:].sum())

    assert main(["demo", "--model", "copy", "--locations", "10", "--seed", "7"]) == 1
    assert capsys.readouterr().out.endswith(f"\nwrong bits: {forgotten} of 160\n")


def test_demo_of_another_task(capsys: pytest.CaptureFixture[str], fake: FakeServer) -> None:
    """A model whose widths are not those of the copy task is refused, and its session deleted."""
    assert main(["demo", "--model", "sums"]) == 2
    assert "sums takes 3 values and gives 3: not a model of the copy task" in (
        capsys.readouterr().err
    )
    assert fake.sessions == {}


def test_trace_of_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Any model's heads are drawn for any steps."""
    np.save(tmp_path / "steps.npy", STEPS)
    png = tmp_path / "heads.png"

    command = ["trace", "sums", "--input", str(tmp_path / "steps.npy"), "--png", str(png)]
    assert main([*command, "--locations", "6"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("sums: 4 steps, 6 locations\n")
    assert "     0 │█   │\n     1 │ █  │\n     2 │  █ │\n     3 │   █│\n" in out
    assert out.endswith(f"drawn to {png}\n")


def test_trace_of_a_task(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without a file a random sequence of the model's task is traced; a seed decides it."""
    for seed, name in (("1", "first"), ("1", "again"), ("2", "other")):
        options = ["--size", "5", "--seed", seed, "--save", str(tmp_path / name)]
        assert main(["trace", "copy", *options]) == 0
        out = capsys.readouterr().out
        assert out.startswith("copy: 11 steps, 32 locations\n")
        assert "\n0 of 40 bits wrong\n" in out
    first, again, other = ((tmp_path / name).read_bytes() for name in ("first", "again", "other"))

    assert first == again
    assert first != other


def test_a_trace_is_saved_and_opened(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, fake: FakeServer
) -> None:
    """What was saved is drawn again alike, without a server."""
    file = str(tmp_path / "copy.npz")
    assert main(["trace", "copy", "--size", "5", "--save", file]) == 0
    drawn = capsys.readouterr().out
    fake.routes.clear()

    assert main(["trace", "--open", file]) == 0
    assert drawn == f"{capsys.readouterr().out}\nsaved to {file}\n"
    assert fake.routes == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a model, or a recording with --open"),
        (["sums"], "sums is of the task 'sums', and sequences can be drawn of copy, repeat-copy"),
        (["copy", "--size", "5", "3"], "the size of copy is its length, not 5x3"),
        (["copy", "--input", __file__, "--seed", "3"], "--size and --seed are of a random"),
        (["copy", "--open", __file__], "--open draws a recording as it is"),
        (["--open", "/nowhere/copy.npz"], "No such file"),
        (["--open", __file__], "test_cli.py is no recording"),
    ],
)
def test_trace_of_nothing(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """What cannot be traced is said in one line."""
    assert main(["trace", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_trace_of_an_empty_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """There is nothing to draw, and the error says so."""
    (tmp_path / "none.csv").touch()

    assert main(["trace", "sums", "--input", str(tmp_path / "none.csv")]) == 2
    assert "none.csv has no steps" in capsys.readouterr().err


def test_stream_lines(
    capsysbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    fake: FakeServer,
) -> None:
    """Each line of standard input is a step, and one line of output."""
    type_in(monkeypatch, b"".join(json.dumps(step.tolist()).encode() + b"\n" for step in STEPS))

    assert main(["stream", "sums", "--format", "jsonl"]) == 0
    lines = capsysbinary.readouterr().out.splitlines()
    assert SUMS.tolist() == [json.loads(line) for line in lines]
    assert len(fake.deleted) == 1


def test_stream_to_a_bad_line(
    capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs up to a bad line are written; the error names it."""
    type_in(monkeypatch, b"0,1,2\n3,4\n")

    assert main(["stream", "sums"]) == 2
    out, err = capsysbinary.readouterr()
    assert out == b"0.0,1.0,2.0\n"
    assert b"ntm: standard input, line 2: 2 values, but a step has 3\n" in err


@pytest.mark.parametrize(
    ("skip", "status", "outputs", "said"),
    [
        ("0", 0, b"0.0,1.0,2.0\n3.0,5.0,7.0\n", b""),
        ("1", 0, b"3.0,4.0,5.0\n", b""),
        ("2", 2, b"", b"ntm: standard input has no steps after 2\n"),
        ("3", 2, b"", b"ntm: standard input has no steps after 3\n"),
    ],
)
def test_stream_says_that_a_pipe_ended_before_the_first_step(
    capsysbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    fake: FakeServer,
    skip: str,
    status: int,
    outputs: bytes,
    said: bytes,
) -> None:
    """As of a file; the session that was opened for it is deleted."""
    type_in(monkeypatch, b"0,1,2\n3,4,5\n")

    assert main(["stream", "sums", "--skip", skip]) == status
    assert capsysbinary.readouterr() == (outputs, said)
    assert fake.sessions == {}


def test_stream_of_a_pipe_that_ends_at_once(
    capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No steps have no outputs, which is no mistake."""
    type_in(monkeypatch, b"")

    assert main(["stream", "sums"]) == 0
    assert capsysbinary.readouterr() == (b"", b"")


@pytest.mark.parametrize("name", ["outputs.npy", "outputs.csv", "outputs.jsonl"])
def test_stream_files(tmp_path: Path, name: str, fake: FakeServer) -> None:
    """Files are read and written by their names' formats, many steps in one chunk."""
    np.save(tmp_path / "steps.npy", STEPS)

    source, sink = tmp_path / "steps.npy", tmp_path / name
    assert main(["stream", "sums", "--input", str(source), "--output", str(sink)]) == 0
    assert len(fake.chunks) == 1
    if name.endswith("npy"):
        assert np.array_equal(SUMS, np.load(sink))
    elif name.endswith("csv"):
        assert np.array_equal(SUMS, np.loadtxt(sink, delimiter=","))
    else:
        assert SUMS.tolist() == [json.loads(line) for line in sink.read_text().splitlines()]


@pytest.mark.parametrize("name", ["outputs.npy", "outputs.csv"])
def test_stream_of_wrong_steps_leaves_the_old_file(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake before the first output changes nothing on the disk."""
    sink, source = tmp_path / name, tmp_path / "steps.csv"
    sink.write_bytes(b"of yesterday")
    source.write_text("3,4\n")

    assert main(["stream", "sums", "--input", str(source), "--output", str(sink)]) == 2
    assert sink.read_bytes() == b"of yesterday"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "steps.csv"])
    assert "line 1: 2 values, but a step has 3" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["outputs.npy", "outputs.csv"])
def test_stream_keeps_the_outputs_before_a_mistake(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are in the file, and a session that is kept can be continued."""
    type_in(monkeypatch, b"0,1,2\nnonsense\n")
    sink = tmp_path / name

    assert main(["stream", "sums", "--keep", "--output", str(sink), "--format", "csv"]) == 2
    made = np.load(sink) if name.endswith("npy") else np.loadtxt(sink, delimiter=",", ndmin=2)
    assert made.tolist() == [[0, 1, 2]]
    assert "next step 1; continue with --session " in capsys.readouterr().err


def test_stream_writes_no_array_to_a_terminal(fake: FakeServer) -> None:
    """Its bytes are no text; the sentence says what to do, and no step is made."""
    command = [sys.executable, "-m", "ntm_lab", "stream", "sums", "--output-format", "npy"]
    ours, theirs = os.openpty()
    done = subprocess.run(command, input=b"1,2,3\n", stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    os.close(ours)

    assert done.returncode == 2
    assert done.stderr == (
        b"ntm: npy is no text for a terminal; name a file with --output, or another "
        b"--output-format\n"
    )
    assert fake.routes == []


def test_stream_continues_a_session(
    capsysbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    fake: FakeServer,
) -> None:
    """A session that was kept goes on where it was, and is kept again."""
    type_in(monkeypatch, b"0,1,2\n")
    assert main(["stream", "sums", "--keep"]) == 0
    session_id = capsysbinary.readouterr().err.split()[-1].decode()

    type_in(monkeypatch, b"3,4,5\n")
    assert main(["stream", "--session", session_id]) == 0
    assert capsysbinary.readouterr().out == b"3.0,5.0,7.0\n"
    assert list(fake.sessions) == [session_id]


def test_stream_says_when_steps_are_durable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fake: FakeServer
) -> None:
    """A session is opened with the durability asked for, and listed with its durable step."""
    type_in(monkeypatch, b"0,1,2\n3,4,5\n")
    options = ["--durability", "asynchronous", "--every-steps", "2"]
    assert main(["stream", "sums", "--keep", *options]) == 0
    (session,) = fake.sessions
    type_in(monkeypatch, b"6,7,8\n")
    assert main(["stream", "--session", session]) == 0
    capsys.readouterr()

    assert main(["sessions"]) == 0
    _, row = capsys.readouterr().out.splitlines()
    assert row.split()[2:6] == ["8", "3", "2", "1000"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sums", "--every-steps", "2"], "goes with --durability asynchronous"),
        ([], "name a model, or a session"),
        (["--session", "f" * 32], "no session"),
        (["tetris"], "no model 'tetris'"),
        (["sums", "--input", "/nowhere/steps.csv"], "No such file"),
    ],
)
def test_stream_of_nothing(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """What cannot be done is said in one line."""
    assert main(["stream", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["copy"], "runs sums, not copy; leave out the model"),
        (["--locations", "5"], "locations, not 5; leave out --locations"),
        (["--durability", "synchronous"], "not synchronous, and keeps it; leave out --durability"),
    ],
)
def test_stream_of_a_session_otherwise(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    reason: str,
) -> None:
    """A session continues only with its own model, locations and durability."""
    type_in(monkeypatch, b"")
    main(["stream", "sums", "--keep"])
    session_id = capsys.readouterr().err.split()[-1]

    assert main(["stream", "--session", session_id, *arguments]) == 2
    error = capsys.readouterr().err
    assert f"session {session_id}" in error
    assert reason in error


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    """Models are listed one a line under the names of the columns."""
    assert main(["models"]) == 0
    names, *rows = capsys.readouterr().out.splitlines()
    assert names.split()[:3] == ["model", "task", "architecture"]
    assert [row.split()[0] for row in rows] == ["bare", "copy", "sums"]
    assert "9 -> 8" in rows[1]


def test_names_of_a_server_leave_the_terminal_as_it_is() -> None:
    """A line end, a colour and a character without width are shown by their codes."""
    assert table(["model"], [["a\nb"], ["\x1b[31mred\u200b"], ["modèle-≠"]]).splitlines() == [
        "model",
        "a\\nb",
        "\\x1b[31mred\\u200b",
        "modèle-≠",
    ]


def test_an_error_of_a_server_is_one_line(
    fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does its text change the terminal."""
    fake.failures.append(refuse(13, "INTERNAL", "the fake\nbroke\x1b[2J"))
    assert main(["demo", "--model", "copy"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "ntm: the fake\\nbroke\\x1b[2J"


def test_sessions_expire_by_the_clock_of_the_server(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fake: FakeServer
) -> None:
    """
    Open sessions are listed with where they are. The server says what time is left: by this
    machine's clock the session has expired long ago.
    """
    type_in(monkeypatch, b"1,2,3\n")
    main(["stream", "sums", "--keep"])
    capsys.readouterr()

    assert main(["sessions"]) == 0
    _, row = capsys.readouterr().out.splitlines()
    assert row.split() == [*fake.sessions, "sums", "8", "1", "0", "1000", "30", "s"]


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a server, the error has the address and what to do, without a traceback."""
    assert main(["models", "--server", "127.0.0.1:1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ntm: no server answers at 127.0.0.1:1 ")
    assert "python -m service" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], 'Unknown command "nope". Available commands: demo, trace, stream,'),
        (["watch"], 'Command "watch" parameter SESSION requires an argument.'),
        (["trace", "copy", "--siz", "3"], "Unknown option: --siz. Did you mean --size?"),
        (["trace", "copy", "--size", "0"], "--size. Must be >= 1."),
        (["demo", "--locations", "0"], "--locations. Must be >= 1."),
        (["demo", "--seed", "-1"], "--seed. Must be >= 0."),
        (["trace", "copy", "--seed", "-1"], "--seed. Must be >= 0."),
        (["decipher", "copy", "--seed", "-1"], "--seed. Must be >= 0."),
        (["demo", "--length", "10001"], "--length. Must be <= 10000."),
        (["trace", "copy", "--size", "100000000"], "--size. Must be <= 10000."),
        (["stream", "copy", "--format", "xml"], 'Choose from: "csv", "jsonl", "npy".'),
        (["watch", "x", "--interval", "0"], "--interval. Must be >= 0.01."),
        (["models", "--cert", __file__], "--cert and --key go together; give both"),
        (["decipher"], "name one of: a model, --recordings, --all"),
        (["decipher", "copy", "--all", "models"], "name one of: a model, --recordings, --all"),
    ],
)
def test_a_mistyped_command(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """What is wrong is said in one line, with the option and what it takes."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("ntm: ")
    assert message in error
    assert "See `" not in error or re.search(r"[^.?][.?] See `ntm", error)
    assert len(error.splitlines()) == 1


def test_help_loads_nothing_that_takes_long() -> None:
    """Which commands there are is said without numpy, gRPC or matplotlib."""
    code = "import sys; from ntm_lab.cli import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    modules = set(done.stdout.splitlines()[-1].split())
    assert not {"numpy", "grpc", "google.protobuf", "matplotlib", "ntm_tasks"} & modules


@pytest.mark.parametrize(("given", "kept"), [({}, "1"), ({"OMP_NUM_THREADS": "3"}, "3")])
def test_the_linear_algebra_has_one_thread_unless_told_otherwise(
    given: dict[str, str], kept: str
) -> None:
    """It is set before numpy reads it, which the help does not load."""
    code = (
        "import os; from ntm_lab.cli import main; main(['--help']);"
        "print(os.environ['OMP_NUM_THREADS'])"
    )
    others = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=others | given, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == kept


def test_every_command_is_completed_by_the_shell(tmp_path: Path) -> None:
    """`ntm --install-completion` writes a completion of all commands for the user's shell."""
    done = subprocess.run(
        [sys.executable, "-m", "ntm_lab", "--install-completion", "--shell", "bash"],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())

    assert "bash" in done.stdout
    assert [name for name in COMMANDS if name not in written] == []


def test_help_needs_no_server() -> None:
    """The module runs as a command, and its help names every command."""
    command = [sys.executable, "-m", "ntm_lab", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert all(name in done.stdout for name in ("demo", "stream", "trace", "models", "sessions"))


def test_the_output_may_be_closed_early(running: Running) -> None:
    """If a reader closes the output early, the command prints no traceback."""
    command = [sys.executable, "-m", "ntm_lab", "stream", "sums", "--server", running.address]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, input=b"1,2,3\n" * 9, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)

    assert (done.returncode, done.stderr) == (2, b"")


def test_stream_sets_the_idle_timeout(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new session has it; a session that is continued keeps its own."""
    (tmp_path / "a.csv").write_text("1,1,1\n")
    steps = ["--input", str(tmp_path / "a.csv")]
    assert main(["stream", "sums", *steps, "--keep", "--idle-timeout", "7.5"]) == 0
    (session,) = fake.sessions
    assert fake.sessions[session].description.idle_timeout.ToMilliseconds() == 7500

    again = ["stream", "--session", session, *steps]
    assert main([*again, "--idle-timeout", "7.5"]) == 0
    assert main([*again, "--idle-timeout", "8"]) == 2
    said = "has an idle timeout of 7.5 s, not 8 s, and keeps it; leave out --idle-timeout"
    assert said in capsys.readouterr().err
