"""Every option and every setting of every command refuses what it cannot be, in one sentence."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import pytest
from cyclopts import Parameter
from cyclopts import validators as limits

from export import __main__ as command_line
from export import card, training
from export import report as report_file
from export import sweep as sweeping
from export.configuration import SETTINGS, Configuration
from export.configurations import CONFIGURATIONS
from export.options import Folder
from export.training import Run

ROOT = Path(__file__).parents[2]
MODEL = str(ROOT / "models" / "copy-ntm-ff")

POSITIONALS = {
    "train": ["copy"],
    "sweep": [],
    "export": [MODEL],
    "evaluate": [MODEL],
    "report": [],
    "module": ["tests.export.own_modules:make"],
    "wrap": [f"{MODEL}/model.onnx"],
    "triton": [MODEL],
}
"""What each command needs besides its options."""

NEEDED = {"wrap": {"spec": f"{MODEL}/card.json"}, "triton": {"into": "out"}}
"""The options that a command needs, besides the one that is tried."""

TEXTS = {
    ("train", "task"): ["tetris", "", "copy ", "../copy", "nowhere:TASK", "a/b:TASK", "none.npz"],
    ("export", "task"): ["tetris", "", "nowhere:TASK", "none.npz"],
    ("evaluate", "task"): ["tetris", "", "nowhere:TASK", "none.npz"],
    ("train", "architecture"): ["gnu", "", "../lstm", "nowhere:NET", "a/b:NET"],
    ("export", "architecture"): ["gnu", "", "nowhere:NET"],
    ("train", "set"): ["batch", "colour=red", "task=ngrams", "batch=1=1", ""],
    ("train", "device"): ["gpu", "cuda:1", "auto", ""],
    ("sweep", "names"): ["tetris-lstm", "copy", ""],
    ("sweep", "set"): ["batch", "colour=red", "task=ngrams", "batch=1=1", ""],
    ("sweep", "device"): ["gpu", "cuda:1", "auto", ""],
    ("export", "name"): ["", "a/b", "..", ".hidden", "report", "-x", "ä", "a b", "a" * 101],
    ("module", "source"): ["", "my_nets", ":make"],
    ("module", "name"): ["", "a/b", "..", ".hidden", "-x"],
    ("wrap", "name"): ["", "a/b", "..", ".hidden", "-x"],
    ("triton", "name"): ["", "a/b", "..", ".hidden", "-x"],
    ("evaluate", "sizes"): ["0", "x", "20x", "-5", "1e3", "20x20", "1_0", "99999", "9" * 20, ""],
    ("evaluate", "server"): ["", "http://localhost:1", "localhost:99999"],
}
"""Wrong values of options that are texts. A new one needs a line here."""


def needed(command: str, tried: str) -> list[str]:
    """What a command needs besides the option that is tried."""
    options = NEEDED.get(command, {}).items()
    given = [f"--{name}={value}" for name, value in options if name != tried]
    return [*POSITIONALS[command], *given]


class Option(NamedTuple):
    """An option or a positional argument of a command, as it is declared."""

    command: str
    name: str
    is_positional: bool
    annotation: Any


def options() -> Iterator[Option]:
    """Every option of every command."""
    for command in command_line.SUMMARIES:
        place = command_line.PLACES.get(command, f"export.commands.{command}")
        function = getattr(import_module(place), command)
        hints = get_type_hints(function, include_extras=True)
        for name, parameter in inspect.signature(function).parameters.items():
            is_positional = parameter.kind is not inspect.Parameter.KEYWORD_ONLY
            yield Option(command, name, is_positional, hints[name])


def parts(annotation: Any) -> Iterator[Any]:
    """A type, and all that it is made of."""
    yield annotation
    for part in get_args(annotation) if get_origin(annotation) else ():
        yield from parts(part)
    for part in getattr(annotation, "__metadata__", ()):
        yield from parts(part)


def bounds(option: Option) -> limits.Number | None:
    """The limits of an option that is a number or several."""
    for part in parts(option.annotation):
        if isinstance(part, Parameter):
            validators: Any = part.validator
            for validator in validators:
                if isinstance(validator, limits.Number):
                    return validator
    return None


OPTIONS = list(options())


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: " ".join(option[:2]))
def test_every_option_is_refused_what_it_cannot_be(
    option: Option, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """A number beyond its limits or none, a folder that is a file, a text that names nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    kinds = set(parts(option.annotation))
    if bool in kinds:
        return
    if int in kinds:
        bound = bounds(option)
        assert bound is not None, "declare a minimum and a maximum"
        assert bound.gte is not None
        assert bound.lte is not None
        wrong = [str(bound.gte - 1), str(bound.lte + 1)]
        wrong += ["x", "nan", "inf", "1.5", "1_0", "0x5", "1e3", "", " 1", "9" * 40]
    elif Path in kinds:
        wrong = ["", "file"]
        if option.command in ("evaluate", "report") or option.is_positional:
            wrong.append("nowhere")
    else:
        wrong = TEXTS[option.command, option.name]
    for value in wrong:
        arguments = [option.command, *needed(option.command, option.name)]
        if option.is_positional:
            arguments[1:2] = [value]
        else:
            arguments += [f"--{option.name}={value}"]
        if option.name == "server":
            arguments += ["--sizes", "2", "--sequences", "1"]
        status = command_line.main(arguments)
        said = capsys.readouterr()
        assert status == command_line.FAILED, (arguments, said.err)
        assert said.err.startswith("ntm-export: "), arguments
        assert len(said.err.splitlines()) == 1, said.err
        assert value.partition("=")[0][:40].strip() in said.err, (arguments, said.err)
        assert "is not a whole number" not in said.err or not value.isdecimal(), said.err
        assert [path.name for path in tmp_path.iterdir()] == ["file"], arguments


OUTPUTS = [option for option in OPTIONS if option.annotation == Folder] + [
    option for option in OPTIONS if option[:2] == ("report", "models")
]
"""The options that name a folder to write in."""


@pytest.mark.parametrize("is_given", [True, False], ids=["given", "by default"])
@pytest.mark.parametrize("option", OUTPUTS, ids=lambda option: " ".join(option[:2]))
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    option: Option,
    is_given: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: Any,
) -> None:
    """The sentence names the option. Nobody may make a folder in a file, or one in /proc."""
    monkeypatch.chdir(tmp_path)
    for module, work in (
        (training, "train"),
        (sweeping, "sweep"),
        (card, "write_model"),
        (report_file, "write"),
    ):
        monkeypatch.setattr(module, work, lambda *_, **__: pytest.fail("the work began"))
    monkeypatch.setattr(Run, "load", lambda _: Run.new(CONFIGURATIONS["copy-lstm"], 1))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_text("")
    arguments = [option.command, *needed(option.command, option.name)]
    if option.command == "export":
        arguments[1:] = [str(tmp_path / "run")]
    if option[:2] == ("triton", "into") and not is_given:
        return  # it has no default
    if is_given:
        (tmp_path / "file").write_text("")
        values = ["file/x", "/proc/x"] if option.annotation == Folder else ["/proc"]
    else:
        (tmp_path / option.name).symlink_to("/proc" if Path("/proc").exists() else "/dev")
        values = [""]
    for value in values:
        status = command_line.main([*arguments, *([f"--{option.name}={value}"] if value else [])])
        said = capsys.readouterr()
        assert (status, said.out) == (command_line.FAILED, ""), said
        assert (value or option.name) in said.err
        assert "cannot be written" in said.err
        assert f"name another folder with --{option.name}" in said.err
        assert len(said.err.splitlines()) == 1


def wrong_settings() -> Iterator[tuple[str, str]]:
    """Every setting with texts that it cannot be."""
    for setting in fields(Configuration):
        if setting.name not in SETTINGS:
            continue
        yield from ((setting.name, text) for text in ("", "x", "nan", "inf", "-inf", "1_0", " 1"))
        if setting.metadata.get("minimum") is not None:
            yield setting.name, str(setting.metadata["minimum"] - 1)
            yield setting.name, str(setting.metadata["maximum"] + 1)
            yield setting.name, "9" * 30


@pytest.mark.parametrize(("name", "text"), list(wrong_settings()))
def test_every_setting_is_refused_what_it_cannot_be(
    name: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`train --set` says in one line which setting is wrong, and trains nothing."""
    arguments = ["train", "copy", "--set", f"{name}={text}", "--runs", str(tmp_path / "runs")]
    status = command_line.main(arguments)

    said = capsys.readouterr().err
    assert status == command_line.FAILED
    assert said.startswith("ntm-export: ")
    assert f"{name} is " in said
    assert "must be a number" not in said
    assert "must be a whole number" not in said or not text.isdecimal()
    assert "must" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def dependencies() -> list[str]:
    """The import names of all that the trainer depends on."""
    declared = tomllib.loads((ROOT / "export" / "pyproject.toml").read_text())
    names = [
        text.partition(">")[0].replace("-", "_") for text in declared["project"]["dependencies"]
    ]
    return ["service" if name == "ntm_service" else name for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("name", dependencies())
def test_a_missing_dependency_is_named_with_the_way_to_install_it(name: str) -> None:
    """A command that lacks one of its packages ends with one sentence."""
    code = (
        f"import sys; sys.modules[{name!r}] = None\n"
        "from export.__main__ import main; sys.exit(main(['evaluate', 'tetris']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == command_line.FAILED
    assert done.stderr.startswith(f"ntm-export: {name}")
    assert "pip install ./client ./tasks . ./export" in done.stderr
    assert len(done.stderr.splitlines()) == 1
