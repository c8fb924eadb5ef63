"""What commands of `ntm` write: whole or not at all, and kept when the work is interrupted."""

from __future__ import annotations

import os
import pty
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ntm_client.values import Float32
from ntm_lab import outputs
from ntm_lab.cli import main
from ntm_lab.commands import stream
from ntm_lab.commands.sequences import NpyWriter
from ntm_lab.outputs import OutputInvalid
from tests.client.conftest import Running
from tests.client.fake_server import FakeServer, refuse
from tests.lab.test_declarations import WRITTEN, Option, called

FILES = [option for option in WRITTEN if option.name != "--all"]

LIMITED = """
import resource, sys
from ntm_lab.cli import main
import matplotlib.font_manager
resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
sys.exit(main(sys.argv[1:]))
"""
"""Runs a command that can write no file of more than 64 bytes, as on a disk that is full."""


@pytest.fixture(autouse=True)
def server_address(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands find the fake server by the environment."""
    monkeypatch.setenv("NTM_SERVER", running.address)


def working(option: Option, sources: Path, file: Path) -> list[str]:
    """A command line that writes the option's file."""
    recordings = [str(path) for path in sorted(sources.glob("*.npz"))]
    arguments = {
        "demo": ["--model", "copy", "--seed", "1"],
        "trace": ["--open", recordings[0]],
        "stream": ["sums", "--input", str(sources / "steps.csv")],
        "decipher": ["--recordings", *recordings],
    }[option.command]
    return [option.command, *arguments, option.name, str(file)]


@pytest.mark.parametrize("option", FILES, ids=called)
def test_an_output_takes_the_place_of_the_old_file(
    option: Option, tmp_path: Path, sources: Path
) -> None:
    """The new file has the old one's permissions; a link stays a link; nothing else is left."""
    folder = tmp_path / "folder"
    folder.mkdir()
    old, link = folder / "old", folder / "link"
    old.write_text("of yesterday", encoding="utf-8")
    old.chmod(0o640)
    link.symlink_to(old)

    assert main(working(option, sources, link)) == 0
    assert link.is_symlink()
    assert old.stat().st_size > 64
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert sorted(path.name for path in folder.iterdir()) == ["link", "old"]


@pytest.mark.slow
@pytest.mark.parametrize("option", FILES, ids=called)
def test_an_output_that_cannot_be_written_leaves_the_old_file(
    option: Option, tmp_path: Path, sources: Path
) -> None:
    """On a full disk the command ends with a sentence, and the old file is there still."""
    folder = tmp_path / "folder"
    folder.mkdir()
    old = folder / "old"
    old.write_text("of yesterday", encoding="utf-8")

    # Of lines it would keep those that were written.
    whole = ["--output-format", "npy"] if option.command == "stream" else []
    command = [sys.executable, "-c", LIMITED, *working(option, sources, old), *whole]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ntm: ")
    assert last == f"ntm: {old}: File too large"
    assert "Traceback" not in done.stderr
    assert old.read_text(encoding="utf-8") == "of yesterday"
    assert [path.name for path in folder.iterdir()] == ["old"]


@pytest.mark.parametrize("command", [["models"], ["demo", "--model", "copy"], ["--help"]])
def test_a_full_standard_output_is_said(command: list[str]) -> None:
    """In one sentence, also where what is printed is written only at the end."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ntm_lab", *command],
            stdout=full,
            stderr=subprocess.PIPE,
            env={key: each for key, each in os.environ.items() if key != "PYTHONUNBUFFERED"},
        )
    assert done.returncode == 2
    assert done.stderr == b"ntm: standard output: No space left on device\n"


@pytest.mark.parametrize("option", FILES, ids=called)
def test_an_output_may_be_a_pipe(option: Option, tmp_path: Path, sources: Path) -> None:
    """What is no regular file is written directly."""
    file = tmp_path / "file"
    assert main(working(option, sources, file)) == 0
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    copy = tmp_path / "copy"
    with copy.open("wb") as out, subprocess.Popen(["cat", str(pipe)], stdout=out) as reader:
        assert main(working(option, sources, pipe)) == 0
        reader.wait()
    assert copy.read_bytes() == file.read_bytes()
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_is_not_replaced() -> None:
    """A shell may have a file open by the name of a device."""
    outputs.check(Path("/dev/null"))
    outputs.write_text(Path("/dev/null"), "nothing")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert not outputs.is_same(Path("/dev/null"), Path("/dev/null"))


def test_files_of_two_names_are_the_same(tmp_path: Path) -> None:
    """Hard and symbolic links, and ways around, are seen, also before the file is there."""
    file, other = tmp_path / "file", tmp_path / "other"
    around = tmp_path / ".." / tmp_path.name / "file"
    assert outputs.is_same(file, around)
    assert not outputs.is_same(file, other)
    file.touch()
    other.hardlink_to(file)
    assert outputs.is_same(other, around)


def test_a_file_that_may_not_be_written_is_not_replaced(tmp_path: Path) -> None:
    """A folder and a missing folder are refused too."""
    with pytest.raises(OutputInvalid, match="it is a folder"):
        outputs.check(tmp_path)
    with pytest.raises(OutputInvalid, match="there is no folder"):
        outputs.check(tmp_path / "no" / "file")


STEPS = [b"0,1,2\n", b"3,4,5\n", b"6,7,8\n", b"9,10,11\n"]
OUTPUTS = [b"0.0,1.0,2.0\n", b"3.0,5.0,7.0\n", b"9.0,12.0,15.0\n", b"18.0,22.0,26.0\n"]


@contextmanager
def streaming(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`ntm stream sums` with these arguments, in a process, with pipes."""
    command = [sys.executable, "-m", "ntm_lab", "stream", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def typed(process: subprocess.Popen[bytes], line: bytes) -> None:
    """Give the process a line."""
    assert process.stdin is not None
    process.stdin.write(line)


def told(process: subprocess.Popen[bytes]) -> bytes:
    """Wait for its end; what it has printed on standard error."""
    _, error = process.communicate()
    return error


def interrupted(process: subprocess.Popen[bytes]) -> None:
    """Interrupt it while steps are on their way, which it says that it waits for."""
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"ending once the steps on their way are")


@pytest.mark.parametrize("keep", [[], ["--keep"]])
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_an_interrupted_stream_keeps_what_was_made(
    tmp_path: Path, fake: FakeServer, number: int, status: int, keep: list[str]
) -> None:
    """Its outputs are in the file, its session lives on, and the rest of the input continues it."""
    file, steps = tmp_path / "outputs.csv", tmp_path / "steps.csv"
    steps.write_bytes(b"".join(STEPS))
    with streaming("sums", "--output", str(file), *keep) as process:
        for line in STEPS[:3]:
            typed(process, line)
            fake.asked.get(timeout=60)
        process.send_signal(number)
        error = told(process).decode()
    (session,) = fake.sessions

    assert process.returncode == status
    assert file.read_bytes() == b"".join(OUTPUTS[:3])
    continued = f"continue with --session {session} --skip 3, and another --output than {file}"
    assert f"next step 3; {continued}\n" in error
    assert "Traceback" not in error
    rest = tmp_path / "rest.csv"
    options = ["--session", session, "--skip", "3", "--input", str(steps), "--output", str(rest)]
    assert main(["stream", *options]) == 0
    assert rest.read_bytes() == OUTPUTS[3]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "outputs.csv",
        "rest.csv",
        "steps.csv",
    ]


@pytest.mark.parametrize("options", [["--session", "f" * 32], ["sums", "--skip", "1"]])
def test_a_stream_that_continues_replaces_no_outputs(
    tmp_path: Path, fake: FakeServer, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Earlier outputs cannot be made again; they stay, and no step is made."""
    file, steps = tmp_path / "outputs.csv", tmp_path / "steps.csv"
    file.write_bytes(OUTPUTS[0])
    steps.write_bytes(b"".join(STEPS))

    assert main(["stream", *options, "--input", str(steps), "--output", str(file)]) == 2
    assert capsys.readouterr().err == (
        f"ntm: {file} may have the outputs of earlier steps, which cannot be made again; name "
        "another file with --output\n"
    )
    assert file.read_bytes() == OUTPUTS[0]
    assert fake.routes == []


def test_steps_on_their_way_are_waited_for(tmp_path: Path, fake: FakeServer) -> None:
    """The server makes them, so their outputs are written; a second signal ends at once."""
    file = tmp_path / "outputs.csv"
    fake.released.clear()
    with streaming("sums", "--output", str(file)) as process:
        typed(process, STEPS[0])
        fake.asked.get(timeout=60)
        interrupted(process)
        fake.released.set()
        error = told(process).decode()

    assert process.returncode == 130
    assert file.read_bytes() == OUTPUTS[0]
    assert f"next step 1; continue with --session {next(iter(fake.sessions))} --skip 1" in error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", ["demo", "trace"])
def test_an_interrupted_command_leaves_no_session_and_no_file(
    tmp_path: Path, fake: FakeServer, command: str, number: int
) -> None:
    """What would be drawn is not there yet, so the old file stays; nobody needs the session."""
    png = tmp_path / "heads.png"
    png.write_bytes(b"of yesterday")
    model = ["--model", "copy"] if command == "demo" else ["copy"]
    fake.released.clear()
    with subprocess.Popen(
        [sys.executable, "-m", "ntm_lab", command, *model, "--png", str(png)],
        stderr=subprocess.PIPE,
    ) as process:
        fake.asked.get(timeout=60)
        process.send_signal(number)
        _, error = process.communicate()
    fake.released.set()

    assert process.returncode == 128 + number
    assert error == b""
    assert fake.sessions == {}
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"of yesterday"]


def test_a_second_signal_ends_at_once(tmp_path: Path, fake: FakeServer) -> None:
    """Where the server does not answer, nothing is waited for."""
    file = tmp_path / "outputs.csv"
    file.write_bytes(b"of yesterday")
    fake.released.clear()
    with streaming("sums", "--output", str(file)) as process:
        typed(process, STEPS[0])
        fake.asked.get(timeout=60)
        interrupted(process)
        process.send_signal(signal.SIGINT)
        told(process)
    fake.released.set()

    assert process.returncode == 130
    assert file.read_bytes() == b"of yesterday"


def test_steps_that_were_not_answered_are_told(fake: FakeServer) -> None:
    """After a second signal nobody knows yet whether the server makes them."""
    with streaming("sums", "--keep") as process:
        typed(process, STEPS[0])
        assert process.stdout is not None
        assert process.stdout.readline() == OUTPUTS[0]
        fake.asked.get(timeout=60)
        fake.released.clear()
        typed(process, STEPS[1])
        fake.asked.get(timeout=60)
        interrupted(process)
        process.send_signal(signal.SIGINT)
        error = told(process).decode()
    fake.released.set()

    assert process.returncode == 130
    (session,) = fake.sessions
    assert error == (
        "next step 1 or later: the server may have made steps that it has not answered, whose "
        f"outputs are lost; `ntm sessions` shows the next step. Continue with --session {session} "
        "--skip 1, where --skip is larger by each step after 1\n"
    )


def test_a_stream_keeps_what_was_made_before_an_error_of_the_server(
    tmp_path: Path, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The session is left open, and told."""
    steps, file = tmp_path / "steps.npy", tmp_path / "outputs.npy"
    inputs = np.ones((600, 3), np.float32)
    np.save(steps, inputs)
    fake.failures += [None, refuse(13, "INTERNAL", "the fake broke")]

    assert main(["stream", "sums", "--input", str(steps), "--output", str(file)]) == 2
    error = capsys.readouterr().err
    (session,) = fake.sessions
    assert f"next step 256; continue with --session {session} --skip 256" in error
    assert np.array_equal(np.load(file), inputs[:256].cumsum(0))


def test_a_stream_that_made_nothing_leaves_no_session(
    tmp_path: Path, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing to continue."""
    steps = tmp_path / "steps.csv"
    steps.write_text("1,2,3\n", encoding="utf-8")
    fake.failures.append(refuse(13, "INTERNAL", "the fake broke"))

    assert main(["stream", "sums", "--input", str(steps)]) == 2
    assert capsys.readouterr().err == "ntm: the fake broke\n"
    assert fake.sessions == {}


def test_a_stream_to_a_closed_pipe_leaves_no_session(fake: FakeServer) -> None:
    """Whoever closed it wants no more steps."""
    with streaming("sums") as process:
        assert process.stdout is not None
        typed(process, STEPS[0])
        assert process.stdout.readline() == OUTPUTS[0]
        process.stdout.close()
        typed(process, STEPS[1])
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.wait()

    assert process.returncode == 2
    assert fake.sessions == {}


def test_a_stream_of_no_steps_leaves_the_old_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fake: FakeServer
) -> None:
    """An empty file, or one whose steps are all left out, is a mistake."""
    steps, file = tmp_path / "steps.csv", tmp_path / "outputs.csv"
    file.write_bytes(b"of yesterday")
    steps.write_text("# 1,2,3\n", encoding="utf-8")

    command = ["stream", "sums", "--input", str(steps)]
    assert main([*command, "--output", str(file)]) == 2
    assert capsys.readouterr().err == f"ntm: {steps} has no steps\n"
    assert file.read_bytes() == b"of yesterday"
    steps.write_text("1,2,3\n", encoding="utf-8")
    assert main([*command, "--output", str(tmp_path / "new.csv"), "--skip", "1"]) == 2
    assert capsys.readouterr().err == f"ntm: {steps} has no steps after 1\n"
    assert not (tmp_path / "new.csv").exists()
    assert fake.sessions == {}


def test_lines_of_a_slow_pipe_are_answered_one_by_one(fake: FakeServer) -> None:
    """Nothing waits for the next line, and each line is a message of its own."""
    with streaming("sums") as process:
        assert process.stdout is not None
        for line, outputs in zip(STEPS, OUTPUTS, strict=True):
            typed(process, line)
            assert process.stdout.readline() == outputs
        assert told(process) == b""
    assert process.returncode == 0
    assert len(fake.chunks) == 4


def test_the_server_has_the_next_steps_while_outputs_are_written(
    tmp_path: Path, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first outputs are written when the second call is on its way."""

    class Waiting(NpyWriter):
        def write(self, steps: Float32) -> None:
            if not self.steps:
                for _ in range(2):
                    fake.asked.get(timeout=60)
            super().write(steps)

    monkeypatch.setattr(stream, "writer", lambda file, _: Waiting(file))
    steps, file = tmp_path / "steps.npy", tmp_path / "outputs.npy"
    inputs = np.ones((600, 3), np.float32)
    np.save(steps, inputs)

    assert main(["stream", "sums", "--input", str(steps), "--output", str(file)]) == 0
    assert np.array_equal(np.load(file), inputs.cumsum(0))


AGAIN = (
    "lost: their steps were made, and the session cannot make them again; if you need them, begin "
    "again in a new session, without --session and --skip\n"
)


@pytest.mark.parametrize("layout", ["csv", "jsonl"])
@pytest.mark.parametrize("printed", [False, True])
def test_a_disk_that_fills_up_keeps_the_whole_lines_and_the_number_of_the_lost_is_told(
    tmp_path: Path, fake: FakeServer, layout: str, printed: bool
) -> None:
    """The session is ahead of the outputs, and what is told continues it without the lost."""
    steps, file, whole = tmp_path / "steps.npy", tmp_path / "outputs", tmp_path / "whole"
    np.save(steps, np.ones((600, 3), np.float32))
    options = ["stream", "sums", "--input", str(steps), "--output-format", layout]
    assert main([*options, "--output", str(whole)]) == 0
    room = 6000 if layout == "csv" else 8001
    expected = whole.read_bytes()[:room].rpartition(b"\n")[0] + b"\n"
    assert len(expected) < room
    kept = expected.count(b"\n")
    command = [sys.executable, "-c", LIMITED.replace("64", str(room)), *options]
    with file.open("wb") as out:
        done = subprocess.run(
            command if printed else [*command, "--output", str(file)],
            stdout=out,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
    (session,) = fake.sessions
    made = len(fake.sessions[session].inputs)

    assert done.returncode == 2
    assert file.read_bytes() == expected
    assert made in (512, 600)
    assert 256 < kept < made
    other = "" if printed else f", and another --output than {file}"
    assert done.stderr == (
        f"the first {kept} outputs are kept, the last {made - kept} are {AGAIN}"
        f"next step {made}; continue without the lost outputs with --session {session} "
        f"--skip {made}{other}\n"
        f"ntm: {'standard output' if printed else file}: File too large\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs", "steps.npy", "whole"]


def test_an_array_that_finds_no_place_is_told_as_lost(tmp_path: Path, fake: FakeServer) -> None:
    """Of an array no part is kept, so the old file stays, and no session to continue."""
    steps, file = tmp_path / "steps.npy", tmp_path / "outputs.npy"
    np.save(steps, np.ones((600, 3), np.float32))
    file.write_bytes(b"of yesterday")
    options = ["stream", "sums", "--input", str(steps), "--output", str(file)]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED.replace("64", "6000"), *options],
        capture_output=True,
        encoding="utf-8",
    )

    assert done.returncode == 2
    assert done.stderr == (f"no outputs are kept, 600 are {AGAIN}ntm: {file}: File too large\n")
    assert file.read_bytes() == b"of yesterday"
    assert fake.sessions == {}


@pytest.mark.parametrize("printed", [False, True])
@pytest.mark.parametrize("layout", ["csv", "jsonl", "npy"])
def test_a_full_device_is_told_with_the_number_of_the_lost(
    tmp_path: Path, fake: FakeServer, layout: str, printed: bool
) -> None:
    """Nothing is kept there, and no session to continue."""
    steps = tmp_path / "steps.csv"
    steps.write_bytes(b"".join(STEPS))
    command = [sys.executable, "-m", "ntm_lab", "stream", "sums", "--input", str(steps)]
    command += ["--output-format", layout]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command if printed else [*command, "--output", "/dev/full"],
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    assert done.returncode == 2
    place = "standard output" if printed else "/dev/full"
    assert done.stderr == (
        f"no outputs are kept, 4 are {AGAIN}ntm: {place}: No space left on device\n"
    )
    assert fake.sessions == {}


def test_an_interrupt_does_not_wait_for_a_pipe_that_stays_open(
    tmp_path: Path, fake: FakeServer
) -> None:
    """A thread may be in a read of it, and the command ends."""
    fifo = tmp_path / "steps"
    os.mkfifo(fifo)
    with (
        streaming("sums", "--input", str(fifo), "--format", "csv") as process,
        fifo.open("wb", buffering=0) as pipe,
    ):
        pipe.write(STEPS[0])
        assert process.stdout is not None
        assert process.stdout.readline() == OUTPUTS[0]
        process.send_signal(signal.SIGINT)
        error = told(process)
    assert process.returncode == 130
    assert b"next step 1; continue with --session " in error


@pytest.mark.parametrize("seen", [False, True])
def test_a_terminal_shows_how_many_steps_are_made(
    tmp_path: Path, running: Running, seen: bool
) -> None:
    """But not where the outputs go to the same terminal."""
    steps = tmp_path / "steps.csv"
    steps.write_bytes(b"# steps\n" + b"".join(STEPS))
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "ntm_lab", "stream", "sums", "--input", str(steps)]
    with (tmp_path / "outputs.csv").open("wb") as file:
        out = end if seen else file
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        with subprocess.Popen(command, stdout=out, stderr=end, env=environment) as process:
            os.close(end)
            shown = b""
            try:
                while part := os.read(terminal, 4096):
                    shown += part
            except OSError:  # the other side is closed
                pass
    os.close(terminal)

    assert process.returncode == 0
    if seen:
        assert shown.replace(b"\r", b"") == b"".join(OUTPUTS)
    else:
        assert re.search(rb"4/4.*steps", re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", shown))
