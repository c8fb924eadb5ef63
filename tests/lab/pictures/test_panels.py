"""What a picture of a recording shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ntm_client.values import Float32
from ntm_lab.pictures.panels import Panel, columns, memories
from ntm_lab.recordings.recording import Recording
from tests.support.recorded import WIDTH, recording


def titles(panels: list[Panel]) -> list[str]:
    """The titles from top to bottom."""
    return [panel.title for panel in panels]


def answering(outputs: Float32) -> Recording:
    """A recording of two steps to copy one vector, and one that counts, with those outputs."""
    made = recording(heads=0, steps=3)
    target = np.zeros((3, 8), np.float32)
    target[2, :4] = 1
    return replace(made, outputs=outputs, target=target)


def test_panels_are_those_of_figure_6() -> None:
    """What is written stands left, what is read right, in the order of the paper."""
    left, right = columns(recording())

    assert titles(left) == ["inputs", "add vectors", "erase vectors", "write weightings"]
    assert [title.split(",")[0] for title in titles(right)] == [
        "outputs",
        "targets",
        "read vectors",
        "read weightings",
    ]


def test_what_a_dnc_knows_of_its_memory_is_drawn() -> None:
    """Allocation and usage stand by location, with the gates of writing; modes beside reading."""
    made = recording(steps=4)
    weighting = made.traces["read_weighting"]
    gates = dict.fromkeys(("allocation_gate", "write_gate", "free_gate"), weighting[:, :, :1])
    known = {"usage": weighting, "allocation": weighting, "read_mode": weighting[:, :, :3]}
    left, right = columns(replace(made, traces={**made.traces, **known, **gates}))

    assert titles(left)[3:] == [
        "write weightings",
        "allocations",
        "usages",
        "allocation gates",
        "write gates",
    ]
    assert titles(right)[3:] == ["read weightings", "read modes", "free gates"]
    for panel in left[3:6]:
        assert panel.row_names is not None
        assert panel.row_names.tolist() == [15, 0, 1, 2, 3, 4]
    assert right[4].images[0].shape == (4, 3)
    ntm = {**made.traces, "write_gate": weighting[:, :, :1]}
    assert titles(columns(replace(made, traces=ntm))[0])[3:] == ["write weightings"]


def test_each_head_has_an_image() -> None:
    """Heads stand below each other in the panel of their kind, each with its own values."""
    made = recording(heads=3)
    left, right = columns(made)

    assert [len(panel.images) for panel in left] == [1, 3, 3, 3]
    assert [len(panel.images) for panel in right] == [1, 1, 1, 1]
    for head in range(3):
        np.testing.assert_array_equal(left[1].images[head], made.traces["add_vector"][:, head])


def test_weightings_show_the_locations_in_use() -> None:
    """Both panels of weightings have the same rows, named by location."""
    left, right = columns(recording(steps=4))

    for panel in (left[-1], right[-1]):
        assert panel.row_names is not None
        assert panel.row_names.tolist() == [15, 0, 1, 2, 3, 4]
        assert panel.images[0].shape == (4, 6)
        assert panel.images[0][2].tolist() == [0, 0, 0, 1, 0, 0]


def test_a_network_without_heads_has_inputs_outputs_and_targets() -> None:
    """There is no panel without content, and no memory."""
    left, right = columns(recording(heads=0))

    assert titles(left) == ["inputs"]
    assert [title.split(",")[0] for title in titles(right)] == ["outputs", "targets"]
    assert memories(recording(heads=0)) is None


def test_wrong_bits_are_counted_where_they_count() -> None:
    """What is before the answer is pale, and wrong nowhere."""
    outputs = np.full((3, 8), 0.9, np.float32)
    _, (panel, _) = columns(answering(outputs))

    assert panel.title == "outputs, 4 of 8 bits wrong"
    assert panel.pale_steps == 2
    assert panel.wrong is not None
    assert panel.wrong.tolist() == [[False] * 8, [False] * 8, [False] * 4 + [True] * 4]


def test_guesses_stand_above_the_best_possible() -> None:
    """Where a bit can only be guessed it is not right or wrong."""
    made = recording(heads=0)
    _, right = columns(replace(made, optimum=made.outputs))

    assert titles(right) == ["outputs", "best possible outputs", "targets"]
    assert right[0].wrong is None


def test_inputs_of_ones_own_have_no_target() -> None:
    """Outputs are shown as they are, all of them."""
    _, right = columns(replace(recording(), target=None, mask=None, size=None))

    assert titles(right) == ["outputs", "read vectors", "read weightings"]
    assert right[0].pale_steps == 0


def test_the_memory_before_and_after() -> None:
    """Locations in use are columns, on one scale, with where the heads were then."""
    made = recording(steps=4)
    both = memories(made)
    assert both is not None
    before, after = both
    assert made.after is not None

    assert before.column_names is not None
    assert before.column_names.tolist() == [15, 0, 1, 2, 3, 4]
    np.testing.assert_array_equal(after.images[0], made.after.memory[before.column_names])
    assert after.images[0].shape == (6, WIDTH)
    assert (before.low, before.high) == (after.low, after.high)
    assert before.heads["write"].tolist() == [[0, 1, 0, 0, 0, 0]]
    assert after.heads["read"].tolist() == [[0, 0, 0, 0, 1, 0]]


def test_colours_end_at_usual_values() -> None:
    """One large value among many does not take the colours of the others; zero stays white."""
    inputs = np.linspace(0, 3, 900, dtype=np.float32).reshape(100, 9)
    made = replace(recording(heads=0, steps=100), inputs=inputs)
    (panel,), _ = columns(made)
    assert panel.low == 0
    assert 2.9 < panel.high < 3

    lower = inputs.copy()
    lower[-1, -1] = -50
    (panel,), _ = columns(replace(made, inputs=lower))
    assert panel.low == -panel.high
    assert 2.9 < panel.high < 3

    (panel,), _ = columns(replace(made, inputs=(inputs / 100).astype(np.float32)))
    assert (panel.low, panel.high) == (0, 1)
