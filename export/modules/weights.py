"""A module's weights from a file that `torch.save(module.state_dict(), FILE)` wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from export import saved_file
from export.modules.checks import tried

SAVE = "write it with torch.save(module.state_dict(), FILE)"

_MOST = 3
"""The most names of a kind in a message."""


class WeightsInvalid(ValueError):
    """A file has no weights of a module; the message names it, and says what it holds."""


def load(module: nn.Module, path: Path) -> None:
    """
    Load a module's weights from a file, of which nothing but tensors is read.

    Raises:
        WeightsInvalid: the file holds something else, or weights of another module.
        ModuleRefused: the module's own code of loading fails.
        OSError: the file cannot be read.
    """
    try:
        weights = _weights(saved_file.read(path, SAVE), module.state_dict())
    except saved_file.Refused as error:
        raise WeightsInvalid(f"{path} {error}") from error.__cause__
    with tried(f"the weights of {path} cannot be loaded"):
        module.load_state_dict(weights)


def _weights(saved: object, expected: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a file holds, if it is the weights that are expected; raise Refused if not."""
    if not isinstance(saved, Mapping):
        raise saved_file.Refused(f"holds a {type(saved).__name__}, not tensors by name; {SAVE}")
    missing = [name for name in expected if name not in saved]
    if missing and not any(isinstance(value, Tensor) for value in saved.values()):
        raise saved_file.Refused(_nested(saved, expected))
    others = [str(name) for name in saved if name not in expected]
    if missing or others:
        lacks = f"lacks {_some(missing)}" if missing else ""
        has = f"has {_some(others)}, which the module has not" if others else ""
        raise saved_file.Refused(
            f"{' and '.join(filter(None, (lacks, has)))}; make the module that the weights are of, "
            "or save the weights of this one"
        )
    for name, value in saved.items():
        here = expected[name]
        if not isinstance(value, Tensor) or not isinstance(here, Tensor):
            continue  # what a module keeps beside tensors, for its own code to load
        if value.shape != here.shape:
            raise saved_file.Refused(
                f"has {name} of shape {list(value.shape)}, and the module has it of shape "
                f"{list(here.shape)}; make the module of the sizes that the weights have"
            )
        if value.is_floating_point() and value.isnan().any():
            raise saved_file.Refused(
                f"has NaN in {name}; its training diverged, so take the weights of before"
            )
    return saved


def _nested(saved: Mapping[Any, Any], expected: Mapping[str, Any]) -> str:
    """Say that a file holds no tensors at its top, and which of its parts may be the weights."""
    held = _some([repr(key) for key in saved]) or "nothing"
    fitting = {
        key: len(expected.keys() & part.keys())
        for key, part in saved.items()
        if isinstance(part, Mapping) and any(isinstance(each, Tensor) for each in part.values())
    }
    if not fitting:
        return f"holds a dictionary of {held}, not tensors by name; {SAVE}"
    key = max(fitting, key=lambda each: fitting[each])
    return (
        f"holds a dictionary of {held}; the weights seem to be its part {key!r}, so save that "
        f"alone: torch.save(torch.load(FILE)[{key!r}], OTHER_FILE)"
    )


def _some(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = len(names) - _MOST
    return ", ".join(names[:_MOST]) + (f" and {more} more" if more > 0 else "")
