"""The command `module`: write a module of somebody's own as a model to serve."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from cyclopts import validators as limits

from export.errors import Misused
from export.modules.checks import tried
from export.modules.folder import export_module
from export.options import Folder, ModelName, check_output

WeightsFile = Annotated[Path | None, Parameter(validator=limits.Path(exists=True, dir_okay=False))]


def module(
    source: str,
    /,
    *,
    models: Folder = Path("models"),
    name: ModelName = None,
    weights: WeightsFile = None,
    replace: bool = False,
) -> None:
    """
    Write a PyTorch module of your own as a model to serve, after comparing the two step by step.

    Args:
        source: PACKAGE.MODULE:FUNCTION, found from the current folder too. The function takes
            nothing, and returns the module, an example of x and one of the state; or a dictionary
            of the arguments of export.modules.export_module.
        models: Folder to write the model's folder in.
        name: Name of the model and of its folder; the module's class in lower case by default.
        weights: File of the module's weights, as torch.save(module.state_dict(), FILE) writes it.
        replace: Write it also in place of another network of that name.
    """
    torch.set_num_threads(1)
    arguments = _made(source)
    if name is not None:
        arguments["name"] = name
    if weights is not None:
        _load(arguments.get("module"), weights)
    check_output("--models", models)
    print(export_module(**{**arguments, "models": models, "replace": replace}))


def _made(source: str) -> dict[str, Any]:
    """Import the function and call it; return the arguments of `export_module`."""
    package, colon, attribute = source.partition(":")
    if not (package and colon and attribute):
        raise Misused(f"{source!r} is not PACKAGE.MODULE:FUNCTION, such as my_nets:make")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` has it
    with tried(f"{package} cannot be imported"):
        found = importlib.import_module(package)
    if not callable(function := getattr(found, attribute, None)):
        raise Misused(f"{found.__file__} has no function {attribute!r}")
    with tried(f"{source} fails"):
        made = function()
    if isinstance(made, Mapping):
        arguments = dict(made)
    elif isinstance(made, tuple) and len(made) in (2, 3):
        arguments = dict(zip(("module", "x", "state"), made, strict=False))
    else:
        raise Misused(
            f"{source} returns {type(made).__name__}; it must return (module, x, state), or a "
            "dictionary of the arguments of export.modules.export_module"
        )
    allowed = set(export_module.__annotations__) - {"return", "models", "replace"}
    wrong = [str(key) for key in arguments if key not in allowed]
    missing = [key for key in ("module", "x") if key not in arguments]
    if wrong or missing:
        raise Misused(
            f"{source} returns a dictionary "
            + (f"with {', '.join(wrong)}" if wrong else f"without {', '.join(missing)}")
            + f"; it may have {', '.join(sorted(allowed))}"
        )
    return arguments


def _load(module: Any, path: Path) -> None:
    """Load the weights of a module from a file, of which nothing but tensors is read."""
    # A file can be anything, and PyTorch raises as much; each means that it has no weights for the
    # module.
    try:
        module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise Misused(
            f"{path} has no weights of the module ({reason}); write it with "
            "torch.save(module.state_dict(), FILE)"
        ) from error
