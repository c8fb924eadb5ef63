"""The page beside a model that was written for Triton: what it is, and what it lacks."""

from __future__ import annotations

from export.triton.configuration import IDLE_SECONDS, MAX_SEQUENCES
from export.triton.graph import Port, TritonModel


def page(name: str, model: TritonModel) -> str:
    """Return the text of `README.md`, for a model of this name."""
    spec = model.spec
    opset = next(each.version for each in model.proto.opset_import if not each.domain)
    memory = f", with {model.locations} memory locations" if spec.has_memory else ""
    state = "\n".join(
        f"| {each.name} | `{each.input.name}` | `{each.output}` | {_shape(each.input)} | "
        f"`{each.file}` |"
        for each in model.state
    )
    return f"""\
# {name} for Triton

A step of the network `{spec.architecture}`, trained on `{spec.task}`{memory}, as a model of
Triton's backend `onnxruntime`. `ntm-export triton` wrote this folder. It is in a model repository:

```
tritonserver --model-repository=REPOSITORY    # the folder that holds {name}/
```

The graph has opset {opset} and IR {model.proto.ir_version}; Triton's onnxruntime must read both.

## Calls

A request is one step of one sequence. It takes {_list(model, model.inputs)} and gives
{_list(model, model.outputs)}. The first request of a sequence has `sequence_start`, and the last
one `sequence_end`. All have the sequence's id.

{_example(name, model)}
## State

Triton carries these tensors from a step to the next. A sequence starts with the values of the files
in `initial_state/`, which are little-endian.

| state | read as | written as | type and shape | file |
| --- | --- | --- | --- | --- |
{state}

Triton pairs what is read and what is written by their places in two lists, each sorted by name.
Here the orders agree. If you change names, keep it so; Triton does not warn.

## What is lost

{_losses(model)}"""


def _losses(model: TritonModel) -> str:
    locations = (
        f"""\
- **Another memory size.** Every sequence has {model.locations} locations. Another size is another
  model: `ntm-export triton --locations N --name OTHER`.
"""
        if model.spec.has_memory and not model.spec.fixed_locations
        else ""
    )
    alone = (
        """\
- **The same bits in any company.** Triton steps sequences together, and a row of a batch may differ
  in its last bits from the same row alone.
"""
        if model.batched
        else """\
- **Steps of several sequences in one run.** The graph has one row, so Triton makes one step after
  another.
"""
    )
    traces = (
        """\
- **Traces.** The outputs that show what the heads do are left out, since Triton would compute them
  in every step.
"""
        if model.spec.traces
        else ""
    )
    return f"""\
The server that this model comes from keeps a session; Triton keeps a sequence, in one process.

- **Sequences that survive.** The state is in the memory of one Triton. It is gone when the process
  ends, when the model is loaded again, and after {IDLE_SECONDS} seconds without a step
  (`max_sequence_idle_microseconds`). No other replica can go on with it, so every request of a
  sequence has to reach the same Triton.
- **Forks and checkpoints.** Nothing reads, saves, copies or restores a sequence's state.
- **Retries.** Requests have no step index: a request that is sent again makes a second step.
- **Chunks.** A request is one step. Many steps need as many requests.
- **A refusal when it is full.** Beyond {MAX_SEQUENCES} sequences at once, the first step of another
  waits until one ends.
{locations}{traces}{alone}"""


def _example(name: str, model: TritonModel) -> str:
    lead = [1] if model.batched else []
    lines = []
    for index, port in enumerate(model.inputs):
        shape = [*lead, *port.dims]
        lines += [
            f'inputs.append(triton.InferInput({port.name!r}, {shape}, "{_wire(port)}"))',
            f"inputs[{index}].set_data_from_numpy(np.zeros({tuple(shape)}, np.{_numpy(port)}))",
        ]
    setting = "\n    ".join(lines)
    return f"""\
```python
import numpy as np
import tritonclient.grpc as triton

client = triton.InferenceServerClient("localhost:8001")
for step in range(20):
    inputs = []
    {setting}
    result = client.infer(
        {name!r},
        inputs,
        sequence_id=7,
        sequence_start=step == 0,
        sequence_end=step == 19,
    )
    print(result.as_numpy({model.outputs[0].name!r}))
```
"""


def _list(model: TritonModel, ports: tuple[Port, ...]) -> str:
    lead = (1,) if model.batched else ()
    return ", ".join(f"`{port.name}` ({port.type} {[*lead, *port.dims]})" for port in ports)


def _shape(port: Port) -> str:
    return f"{port.type} {[*port.dims]}"


def _wire(port: Port) -> str:
    """The type's name in Triton's protocol."""
    return {"float32": "FP32", "float16": "FP16"}.get(port.type, port.type.upper())


def _numpy(port: Port) -> str:
    return "bool_" if port.type == "bool" else port.type
