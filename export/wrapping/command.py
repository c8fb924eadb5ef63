"""The command `wrap`: write somebody's ONNX file as a model to serve."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts import validators as limits

from export.options import Folder, ModelName, check_output
from export.wrapping import description as descriptions
from export.wrapping import file as files
from export.wrapping.folder import wrap_file
from export.wrapping.proposal import LOOK, proposal
from service.spec import is_name

File = Annotated[Path, Parameter(validator=limits.Path(exists=True, dir_okay=False))]
OptionalFile = Annotated[Path | None, Parameter(validator=limits.Path(exists=True, dir_okay=False))]


def wrap(
    file: File,
    /,
    *,
    spec: OptionalFile = None,
    models: Folder = Path("models"),
    name: ModelName = None,
    replace: bool = False,
) -> None:
    """
    Write somebody's ONNX file as a model to serve, after comparing the two step by step.

    Without --spec, a description of how to step the file is proposed in NAME.toml, for you to
    correct; with it, the model is written.

    Args:
        file: The ONNX file. Weights in other files beside it are taken in.
        spec: The description, as this command proposes it and you corrected it.
        models: Folder to write the model's folder in.
        name: Name of the model and of its folder; the file's name without its ending by default.
        replace: Write it also in place of another network, or another description, of that name.
    """
    name = name or file.stem
    if not is_name(name) or name.startswith("."):
        raise ValueError(f"{name!r} cannot be a model's name; give one with --name")
    read = files.read(file)
    if spec is None:
        _propose(read, name, replace=replace)
        return
    check_output("--models", models)
    described = descriptions.read(spec, read)
    print(wrap_file(read, described, models / name, replace=replace))


def _propose(file: files.OnnxFile, name: str, *, replace: bool) -> None:
    """Write a description, and say what is to be done with it."""
    path = Path(f"{name}.toml")
    command = f"ntm-export wrap {shlex.quote(str(file.path))} --spec {shlex.quote(str(path))}"
    text = proposal(file, command)
    if path.exists() and not replace:
        raise FileExistsError(
            f"{path} is there; give it with --spec, or let it be written anew with --replace"
        )
    path.write_text(text, "utf-8")
    # The first is in the head, which explains the others.
    looks = text.count(LOOK) - 1
    print(f"{path} describes how to step {file.path.name}, as its names and shapes suggest")
    print(f"correct it, above all where it says {LOOK} ({looks} times); then run")
    print(f"    {command}")
