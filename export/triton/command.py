"""The command `triton`: write a model as a model repository of Triton."""

from __future__ import annotations

from export.options import ExistingFolder, Folder, MemorySize, ModelName, check_output
from export.triton.repository import MODEL_FILE, write_repository
from service.spec import is_name


def triton(
    model: ExistingFolder,
    /,
    *,
    into: Folder,
    locations: MemorySize | None = None,
    name: ModelName = None,
    replace: bool = False,
) -> None:
    """
    Write a served model for Triton's ONNX backend, after comparing the two step by step.

    Args:
        model: Folder of the model, such as models/NAME.
        into: Triton's model repository, in which the model's folder is written.
        locations: Memory size of every sequence; the model's own by default.
        name: Name of the model in Triton; the folder's by default.
        replace: Write it also in place of another model of that name.
    """
    file = model / MODEL_FILE
    if not file.exists():
        raise ValueError(f"{model} has no {MODEL_FILE}; name the folder of a model to serve")
    name = name or model.resolve().name
    if not is_name(name) or name.startswith("."):
        raise ValueError(f"{name!r} cannot be a model's name; give one with --name")
    check_output("--into", into)
    print(write_repository(file, into, name, locations, replace=replace))
