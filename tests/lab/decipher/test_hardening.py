"""Hard heads: what the served network does when every head is put on one location."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from ntm_client import Client
from ntm_client.values import Float32
from ntm_lab.decipher.hardening import WAYS, By, hard_outputs, harden
from ntm_lab.decipher.samples import ServedNetwork, Stage, in_range, of_size
from service.spec import METADATA_KEY, ModelSpec
from tests.support.served import MODELS


def computed(file: Path, inputs: Float32, by: By) -> Float32:
    """What the network of a file puts out with hard heads, location by location, without us."""
    run = ort.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    spec = ModelSpec.from_json(run.get_modelmeta().custom_metadata_map[METADATA_KEY])
    names = [each.name for each in run.get_outputs()]
    n = spec.default_locations
    state = {each.name: each.initial_value(n)[None] for each in spec.state}
    outputs = []
    for x in inputs:
        fed = {each.input: state[each.name] for each in spec.state}
        found = dict(zip(names, run.run(names, {spec.input: x[None], **fed}), strict=True))
        memory, places = state["memory"][0], []
        for head in range(spec.read_heads + spec.write_heads):
            place = int(found["weighting_next"][0, head].argmax())
            if by == "choices":
                key = found["key"][0, head]
                start = int(state["weighting"][0, head].argmax())
                if found["gate"][0, head, 0] > 0.5:
                    squares = [float(column @ column) + 1e-6 for column in memory.T]
                    likeness = [key @ memory[:, i] / squares[i] ** 0.5 for i in range(n)]
                    start = int(np.argmax(likeness))
                place = (start + int(found["shift"][0, head].argmax()) - 1) % n
            places.append(place)
        outputs.append(found[spec.output][0])
        state = {each.name: found[each.output] for each in spec.state}
        state["weighting"] = np.zeros_like(state["weighting"])
        written = memory.copy()
        for head, place in enumerate(places):
            state["weighting"][0, head, place] = 1
            if head < spec.read_heads:
                state["read_vector"][0, head] = memory[:, place]
            else:
                written[:, place] *= 1 - found["erase_vector"][0, head - spec.read_heads]
        for head, place in enumerate(places[spec.read_heads :]):
            written[:, place] += found["add_vector"][0, head]
        state["memory"] = written[None]
    return np.stack(outputs)


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("model", ["repeat-copy-ntm-lstm", "priority-sort-ntm-lstm"])
def test_the_served_network_does_what_the_equations_say(
    shipped: Client, model: str, by: By
) -> None:
    """Hard outputs follow the equations, in both ways and with several heads on one location."""
    task = shipped.model(model).task
    size = (3, 3) if task == "repeat-copy" else (10,)
    (sequence,) = of_size(task, size, 1, seed=2)
    found = hard_outputs(ServedNetwork(shipped, model), sequence.inputs, by)
    soft = ServedNetwork(shipped, model).outputs([sequence.inputs])[0]

    expected = computed(MODELS / model / "model.onnx", sequence.inputs, by)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    # The first step has felt nothing yet, and a later one has.
    assert found[0].tobytes() == soft[0].tobytes()
    assert not np.allclose(found, soft, atol=1e-4)


@pytest.mark.parametrize("by", WAYS)
def test_copy_needs_no_soft_heads(shipped: Client, by: By) -> None:
    """Hard heads change no bit of copy."""
    sequences = in_range("copy", 6, 0, Stage.CHANGES)
    found = harden(ServedNetwork(shipped, "copy-ntm-lstm"), sequences, by)

    assert (found.by, found.sequences, found.changed) == (by, 6, 0)
    assert found.bits == sum(8 * sequence.size[0] for sequence in sequences)
    assert (found.soft_wrong, found.hard_wrong) == (0, 0)


def test_recall_needs_soft_heads(shipped: Client) -> None:
    """Where the soft heads are right, each bit that hard heads change is a wrong one."""
    sequences = in_range("associative-recall", 6, 0, Stage.CHANGES)
    found = harden(ServedNetwork(shipped, "associative-recall-ntm-lstm"), sequences, "weighting")

    assert (found.bits, found.soft_wrong) == (6 * 18, 0)
    assert found.hard_wrong == found.changed > 10
