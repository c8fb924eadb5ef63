"""The command `module`: write a module of somebody's own as a model to serve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from cyclopts import validators as limits
from torch import nn

from export.modules.checks import tried
from export.modules.folder import export_module
from export.modules.weights import load
from export.options import Folder, ModelName, check_output
from ntm_tasks.places import find_function

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
        source: MODULE:FUNCTION, such as my_package.nets:make; the module may also lie in the
            current folder. The function takes nothing, and returns the module, an example of x and
            one of the state; or a dictionary of the arguments of export.modules.export_module.
        models: Folder to write the model's folder in.
        name: Name of the model and of its folder; the module's class in lower case by default.
        weights: File of the module's weights, as torch.save(module.state_dict(), FILE) writes it.
        replace: Write it also in place of another network of that name.
    """
    torch.set_num_threads(1)
    arguments = _made(source)
    if name is not None:
        arguments["name"] = name
    if weights is not None and isinstance(arguments["module"], nn.Module):
        load(arguments["module"], weights)
    check_output("--models", models)
    print(export_module(**{**arguments, "models": models, "replace": replace}))


def _made(source: str) -> dict[str, Any]:
    """Import the function and call it; return the arguments of `export_module`."""
    function = find_function(source, "my_nets:make")
    with tried(f"{source} fails"):
        made = function()
    if isinstance(made, Mapping):
        arguments = dict(made)
    elif isinstance(made, tuple) and len(made) in (2, 3):
        arguments = dict(zip(("module", "x", "state"), made, strict=False))
    else:
        raise ValueError(
            f"{source} returns {type(made).__name__}; it must return (module, x, state), or a "
            "dictionary of the arguments of export.modules.export_module"
        )
    allowed = set(export_module.__annotations__) - {"return", "models", "replace"}
    wrong = [str(key) for key in arguments if key not in allowed]
    missing = [key for key in ("module", "x") if key not in arguments]
    if wrong or missing:
        raise ValueError(
            f"{source} returns a dictionary "
            + (f"with {', '.join(wrong)}" if wrong else f"without {', '.join(missing)}")
            + f"; it may have {', '.join(sorted(allowed))}"
        )
    return arguments
