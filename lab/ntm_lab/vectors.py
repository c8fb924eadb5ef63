"""Which models the commands can feed: those that take one vector a step, and give one."""

from __future__ import annotations

from ntm_client import InvalidRequest, Model


def described(model: Model) -> str:
    """What a step of a model takes and gives, such as `9 -> 8` for vectors."""
    if model.input_width:
        return f"{model.input_width} -> {model.output_width}"
    return " -> ".join(", ".join(map(str, each)) for each in (model.inputs, model.outputs))


def check(model: Model) -> None:
    """Raise InvalidRequest for a model whose steps are more than one vector each way."""
    if not model.input_width:
        raise InvalidRequest(
            f"a step of {model.name} is {described(model)}, and this command has one vector of "
            "float32 for each step; step the model by a program with ntm_client"
        )
