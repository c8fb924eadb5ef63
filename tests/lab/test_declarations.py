"""Every option of every command of `ntm` has limits, which are checked before the work begins."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, get_args

import pytest
from cyclopts import Parameter
from cyclopts.argument import Argument
from cyclopts.validators import Number

from ntm_lab.cli import COMMANDS, app, main
from ntm_lab.commands.options import FILES, INPUTS, OUTPUTS, Writable, groups
from tests.client.conftest import Running
from tests.client.fake_server import FakeServer
from tests.support.unprivileged import unprivileged


class Option(NamedTuple):
    """An option of a command, as it is declared."""

    command: str
    argument: Argument

    @property
    def name(self) -> str:
        """As it is typed."""
        return self.argument.name

    @property
    def checks(self) -> tuple[object, ...]:
        """What checks its value, or each of its values."""
        inner = (kind for kind in self.kinds if isinstance(kind, Parameter))
        return tuple(
            check
            for parameter in (self.argument.parameter, *inner)
            if isinstance(parameter.validator, tuple)
            for check in parameter.validator
        )

    @property
    def kinds(self) -> set[object]:
        """The types that its value can have."""

        def parts(hint: object) -> Iterator[object]:
            yield hint
            for part in get_args(hint):
                yield from parts(part)

        return set(parts(self.argument.hint))

    def typed(self, value: str) -> list[str]:
        """A command line with this option, right apart from it."""
        if not self.name.startswith("--"):
            return [self.command, value]
        positional = {"trace": ["copy"], "stream": ["sums"], "decipher": ["copy"], "watch": ["x"]}
        given = positional.get(self.command, [])
        if self.name in ("--open", "--recordings", "--all"):
            given = []
        return [self.command, *given, f"{self.name}={value}"]


def options(positional: bool = False) -> list[Option]:
    """All that have a value; with those that are typed without a name if asked for."""
    return [
        Option(command, argument)
        for command in COMMANDS
        for argument in app[command].assemble_argument_collection()
        if (positional or argument.name.startswith("--")) and argument.hint is not bool
    ]


def called(option: Option) -> str:
    """The option's name for pytest."""
    return f"{option.command}{option.name}"


NUMBERS = [option for option in options() if {int, float} & option.kinds]
PATHS = [option for option in options() if Path in option.kinds]
READ = [option for option in PATHS if INPUTS in groups(option.argument.parameter)]
WRITTEN = [option for option in PATHS if OUTPUTS in groups(option.argument.parameter)]
TEXTS = [option for option in options(positional=True) if str in option.kinds]
CHOICES = [option for option in options() if any(type(kind) is str for kind in option.kinds)]


@pytest.fixture(autouse=True)
def server_address(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands find the fake server by the environment."""
    monkeypatch.setenv("NTM_SERVER", running.address)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder that every user may enter, as pytest's own may not."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


class Refused:
    """Runs commands that are refused."""

    def __init__(self, capsys: pytest.CaptureFixture[str], fake: FakeServer) -> None:
        """`fake` is the server that must not be asked."""
        self._capsys = capsys
        self._fake = fake

    def __call__(self, option: Option, value: str) -> str:
        """The one sentence on standard error, which names the option; the status is 2."""
        assert main(option.typed(value)) == 2, value
        printed = self._capsys.readouterr()
        assert self._fake.routes == []
        assert printed.out == ""
        (sentence,) = printed.err.splitlines()
        assert sentence.startswith("ntm: ")
        assert option.name in sentence
        return sentence


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], fake: FakeServer) -> Refused:
    """Runs commands that are refused."""
    return Refused(capsys, fake)


@pytest.mark.parametrize("option", NUMBERS, ids=called)
def test_every_number_has_limits(option: Option, refused: Refused) -> None:
    """What is below, above, or no number in decimal digits is refused, and named."""
    (limits,) = (each for each in option.checks if isinstance(each, Number))
    assert limits.gte is not None, "no minimum"
    assert limits.lte is not None, "no maximum"
    below, above = float(limits.gte) - 1, float(limits.lte) * 2
    if float not in option.kinds:
        below, above = int(limits.gte) - 1, int(limits.lte) + 1
    for value, limit in ((below, f"Must be >= {limits.gte}"), (above, f"Must be <= {limits.lte}")):
        sentence = refused(option, str(value))
        assert str(value) in sentence
        assert limit in sentence
    for text in ("x", "nan", "inf", "1_0", "0x10", "\uff11\uff12", "1,5", "1j", "True"):
        assert text in refused(option, text)
    refused(option, "9" * 5000)


@pytest.mark.parametrize("option", CHOICES, ids=called)
def test_every_choice_is_one_of_a_few(option: Option, refused: Refused) -> None:
    """Another word is refused, and the right ones are named."""
    sentence = refused(option, "bicycle")
    assert '"bicycle"' in sentence
    assert all(f'"{kind}"' in sentence for kind in option.kinds if type(kind) is str)


@pytest.mark.parametrize("option", TEXTS, ids=called)
def test_every_text_is_refused_if_it_is_empty(option: Option, refused: Refused) -> None:
    """The sentence names the option, as it is typed, instead of the client's argument."""
    assert 'Invalid value "" for ' in refused(option, "")


def test_an_empty_address_in_the_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence names the variable."""
    monkeypatch.setenv("NTM_SERVER", "")
    assert main(["models"]) == 2
    assert "NTM_SERVER" in capsys.readouterr().err


def test_every_path_is_declared_as_read_or_written() -> None:
    """An option added later is checked as well, or this fails."""
    assert [called(option) for option in PATHS if (option in READ) == (option in WRITTEN)] == []
    written = {called(option) for option in WRITTEN}
    assert {"stream--output", "trace--png", "decipher--html", "decipher--all"} <= written


@pytest.mark.parametrize("option", READ, ids=called)
def test_every_file_that_is_read_is_there(option: Option, refused: Refused, tmp_path: Path) -> None:
    """A missing file, a folder and one that may not be read are refused, and named."""
    missing, folder, secret = tmp_path / "missing", tmp_path / "folder", tmp_path / "secret"
    folder.mkdir()
    secret.write_text("1,2,3\n", encoding="utf-8")
    secret.chmod(0)

    assert f"No such file: {missing}" in refused(option, str(missing))
    error = refused(option, str(folder))
    assert f"{folder} is a folder; name a file" in error
    assert f'Invalid value "{folder}" for' in error
    assert "File name too long" in refused(option, "x" * 5000)
    with unprivileged():
        assert f"{secret} may not be read" in refused(option, str(secret))


@pytest.mark.parametrize("option", WRITTEN, ids=called)
def test_every_file_that_is_written_is_checked_first(
    option: Option, refused: Refused, tmp_path: Path
) -> None:
    """Where it could not be written, no server is asked, nothing is drawn and nothing is made."""
    (checked,) = (each for each in option.checks if isinstance(each, Writable))
    ending = "" if checked.folder else (checked.suffixes or (".csv",))[0]
    nowhere = tmp_path / "no" / f"x{ending}"
    plain = tmp_path / "plain"
    plain.touch()
    assert f"There is no folder {nowhere if checked.folder else nowhere.parent}" in refused(
        option, str(nowhere)
    )
    beyond = plain / f"x{ending}"
    assert "There is no folder" in refused(option, str(beyond))
    if not checked.folder:
        folder = tmp_path / f"folder{ending}"
        folder.mkdir()
        assert "It is a folder; name a file" in refused(option, str(folder))
    if checked.suffixes:
        other = tmp_path / "x.other"
        assert f"Its name must end in {checked.suffixes[0]}" in refused(option, str(other))
    assert "File name too long" in refused(option, "x" * 5000 + ending)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with unprivileged():
        path = closed if checked.folder else closed / f"x{ending}"
        assert f"The folder {closed} may not be written" in refused(option, str(path))
    names = {"plain", "closed", *([] if checked.folder else [f"folder{ending}"])}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_no_command_writes_over_its_input_or_its_own_output(
    refused: Refused, tmp_path: Path
) -> None:
    """Two options with one file are refused, by whatever names, if one of them writes it."""
    file, link = tmp_path / "steps", tmp_path / "link"
    file.write_text("1,2,3\n", encoding="utf-8")
    link.symlink_to(file)
    pairs = 0
    for option in WRITTEN:
        if FILES not in groups(option.argument.parameter):
            continue
        for other in (*READ, *WRITTEN):
            is_own = other.command == option.command and other.name != option.name
            if is_own and FILES in groups(other.argument.parameter):
                twice = Option(option.command, option.argument)
                sentence = _refused_with(twice, other, str(file), str(link), refused)
                assert f"{other.name}" in sentence
                assert f"are the same file, {file}" in sentence or f"file, {link}" in sentence
                pairs += 1
    assert pairs > 50
    assert file.read_text(encoding="utf-8") == "1,2,3\n"


@pytest.mark.parametrize(
    "option", [each for each in WRITTEN if FILES in groups(each.argument.parameter)], ids=called
)
def test_no_command_writes_over_its_standard_input(
    option: Option, refused: Refused, tmp_path: Path
) -> None:
    """The file is seen by whatever name, and stays as it is."""
    file, link = tmp_path / "steps", tmp_path / "link"
    file.write_text("1,2,3\n", encoding="utf-8")
    link.symlink_to(file)
    before = os.dup(0)
    with file.open("rb") as steps:
        os.dup2(steps.fileno(), 0)
    try:
        sentence = refused(option, str(link))
    finally:
        os.dup2(before, 0)
        os.close(before)
    assert f"{option.name} and standard input are the same file, {link}." in sentence
    assert file.read_text(encoding="utf-8") == "1,2,3\n"


def _refused_with(option: Option, other: Option, first: str, second: str, refused: Refused) -> str:
    class Both(Option):
        def typed(self, value: str) -> list[str]:
            return [*Option(option.command, other.argument).typed(second), f"{self.name}={value}"]

    return refused(Both(option.command, option.argument), first)


def test_standard_input_and_output_are_no_files(capsys: pytest.CaptureFixture[str]) -> None:
    """The sign for both is not one file that is read and written."""
    assert main(["stream", "tetris", "--input", "-", "--output", "-"]) == 2
    assert "no model 'tetris'" in capsys.readouterr().err
    assert sys.stdout.writable()
