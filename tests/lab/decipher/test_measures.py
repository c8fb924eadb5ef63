"""The paper's claims as numbers: on heads whose places are known, and on the models that ship."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from ntm_client import Client
from ntm_client.errors import InvalidRequest
from ntm_client.values import Float32
from ntm_lab.decipher.claims import check_sequences, measures
from ntm_lab.decipher.measures import Measure, linear_fit, mutual_information
from ntm_lab.decipher.samples import ServedNetwork, Stage, in_range
from ntm_lab.recordings.recording import Recording
from ntm_tasks import TaskSequence
from tests.support.recorded import recording

LOCATIONS = 32


def weighting(*heads: npt.ArrayLike) -> Float32:
    """Heads that are at these locations, step by step: [T, heads, N]."""
    one_hot: Float32 = np.eye(LOCATIONS, dtype=np.float32)[np.array(heads).T % LOCATIONS]
    return one_hot


def posed(task: str, size: tuple[int, ...], reads: Float32, writes: Float32) -> Recording:
    """A recording of a sequence of a task in which the heads were there."""
    sequence = TaskSequence.draw(task, size, seed=3)
    assert len(reads) == len(writes) == len(sequence.inputs)
    return Recording(
        replace(recording().model, task=task),
        LOCATIONS,
        sequence.inputs,
        sequence.target,
        {"read_weighting": reads, "write_weighting": writes},
        size=size,
        target=sequence.target,
        mask=sequence.mask,
    )


def named(found: Sequence[Measure], name: str) -> Measure:
    """The measure of that name."""
    return next(measure for measure in found if measure.name == name)


def test_copy_is_read_where_it_was_written() -> None:
    """At either delay; a read head beside it, and one that stays, do not match."""
    writes = weighting([5, 6, 7, 0, 0, 0, 0])
    in_time = posed("copy", (3,), weighting([0, 0, 0, 0, 5, 6, 7], [0, 0, 0, 0, 6, 7, 8]), writes)
    before = posed("copy", (3,), weighting([0, 0, 0, 5, 6, 7, 9], [5, 5, 5, 5, 5, 5, 5]), writes)

    (one,), (other,) = measures([in_time]), measures([before])
    assert dict(one.values) == {
        "read head 1, write head 1": 1.0,
        "read head 2 (a step before the output), write head 1": pytest.approx(2 / 3),
    }
    assert one.best == ("read head 1, write head 1", 1.0)
    assert other.best == ("read head 1 (a step before the output), write head 1", 1.0)
    assert other.values["read head 2, write head 1"] == pytest.approx(1 / 3)
    # Half of the sequences at each delay: the better one has no more than half of them.
    assert max(measures([in_time, before])[0].values.values()) == pytest.approx(0.5, abs=0.2)


def repeated(starts: Sequence[int], writes: Sequence[int]) -> Recording:
    """Four vectors three times, with a read head that starts each repeat at these locations."""
    answer = [start + step for start in starts for step in range(4)]
    return posed(
        "repeat-copy", (4, 3), weighting([0] * 5 + answer + [0]), weighting([*writes, *[9] * 14])
    )


def test_repeat_copy_jumps_once_per_repeat_to_its_start() -> None:
    """As in the paper; the first repeat is not counted, for nothing has to jump back."""
    found = measures([repeated([2, 2, 2], [2, 3, 4, 5])])

    assert [measure.best[1] for measure in found] == [1.0, 1.0, 1.0, 0.0]
    assert named(found, "the jump is to the start").note == (
        "Of 2 by read head 1, 2 led to where write head 1 was for vector 1."
    )


def test_repeat_copy_that_jumps_elsewhere_or_not() -> None:
    """A jump to the second vector is a jump, not one to the start; going on is none."""
    elsewhere = measures([repeated([2, 3, 3], [2, 3, 4, 5])])
    onwards = measures([repeated([2, 6, 10], [2, 3, 4, 5])])

    assert named(elsewhere, "one jump per repeat").best[1] == 1.0
    assert named(elsewhere, "the jump is to the start").best[1] == 0.0
    assert named(elsewhere, "the jump is to the start").note.endswith("was for vector 2.")
    # A step earlier it had been at three of the four, in two repeats of three.
    assert named(elsewhere, "read where it was written, every time").best[1] == 0.5
    assert named(onwards, "one jump per repeat").best[1] == 0.0


def test_repeat_copy_that_writes_each_vector_again() -> None:
    """A queue is told from a loop, and from a head that writes on but not what is read there."""

    def writing_on(from_place: int) -> Recording:
        reads = weighting([*[0] * 5, *range(2, 14), 0])
        writes = weighting([2, 3, 4, 5, 0, 0, *range(from_place, from_place + 12)])
        return posed("repeat-copy", (4, 3), reads, writes)

    queue, beside = (measures([writing_on(place)]) for place in (6, 7))
    assert named(queue, "written again, read there").best[1] == 1.0
    assert named(queue, "one jump per repeat").best[1] == 0.0
    assert named(beside, "written again, read there").best[1] == 0.0


def test_sorted_by_priority_or_by_time() -> None:
    """R² is 1 for a write head that goes by priority, and says little of one that goes by time."""
    sequence = TaskSequence.draw("priority-sort", (20,), seed=3)
    by_priority = np.rint(5 - 9 * sequence.inputs[:20, 8]).astype(int)
    order = np.argsort(-sequence.inputs[:20, 8])[:16]
    after = [0, *by_priority[order]][:16]
    writes = weighting([*by_priority, *[0] * 17], range(37), [*[1] * 21, *after])
    reads = weighting([*[0] * 21, *by_priority[order]])
    found = measures([posed("priority-sort", (20,), reads, writes)])

    written = named(found, "written by priority")
    # The places are whole numbers, and go round the ring of locations.
    assert 0.99 < written.values["write head 1"] < 1
    assert written.values["write head 2"] < 0.5
    assert named(found, "read in order").best == ("read head 1, write head 1", 1.0)
    assert named(found, "read, then written over").best == ("read head 1, write head 3", 1.0)


def test_ngrams_by_context() -> None:
    """A head that goes where the last five bits say knows them all, at that step or the next."""
    sequence = TaskSequence.draw("ngrams", (400, 5), seed=3)
    bits = sequence.inputs[:, 0].astype(int)
    context = [int("".join(map(str, bits[max(0, t - 4) : t + 1])), 2) for t in range(400)]
    luck = np.random.default_rng(0).integers(0, LOCATIONS, 400)
    reads, writes = weighting(context, luck), weighting([0, *context[:-1]])
    found = measures([posed("ngrams", (400, 5), reads, writes)])

    places = named(found, "the context decides the location")
    entropy = mutual_information(context[4:], context[4:])
    assert places.values["read head 1"] == pytest.approx(entropy)
    assert places.values["write head 1, context of the step before"] > 0.99 * entropy
    assert places.baseline is not None
    random, chance = places.values["read head 2"], places.baseline["read head 2"]
    assert random == pytest.approx(chance, rel=0.15)
    assert places.values["read head 1"] > 2 * places.baseline["read head 1"]
    assert f"{entropy:.2f} bits" in places.definition
    assert named(found, "read, then written").values["read head 1, write head 1"] == 1.0


def test_no_claim_is_about_other_sequences() -> None:
    """There are no measures for a user's own inputs or for a network without heads."""
    own = replace(recording(), size=None, target=None, mask=None)

    assert measures([own]) == measures([recording(heads=0)]) == []


def test_mutual_information() -> None:
    """Of two bits the mutual information is 2 if one sequence decides the other, else 0 or 1."""
    numbers = np.arange(64)

    assert mutual_information(numbers % 4, 7 - numbers % 4) == pytest.approx(2)
    assert mutual_information(numbers % 4, numbers // 4 % 4) == pytest.approx(0, abs=1e-12)
    assert mutual_information(numbers % 4, numbers % 2) == pytest.approx(1)


def test_a_line_on_a_ring() -> None:
    """It may cross the end of the memory; what does not move has none."""
    x = np.linspace(-1, 1, 15)

    assert linear_fit(x, np.arange(25, 40) % LOCATIONS, LOCATIONS) == pytest.approx(1)
    assert linear_fit(x, -np.arange(15) % LOCATIONS, LOCATIONS) == pytest.approx(1)
    assert linear_fit(x, np.full(15, 3), LOCATIONS) == 0
    noise = np.random.default_rng(0).integers(0, LOCATIONS, 400)
    assert linear_fit(np.linspace(-1, 1, 400), noise, LOCATIONS) < 0.05


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("copy-ntm-ff", [(1, 1)]),
        ("repeat-copy-ntm-ff", [(0.7, 0.99), (1, 1), (0, 0), (0, 0.3)]),
        ("repeat-copy-ntm-lstm", [(0, 0.3), (0, 0), (0, 0), (1, 1)]),
        ("associative-recall-ntm-lstm", [(1, 1), (1, 1), (1, 1)]),
        ("associative-recall-ntm-ff", [(0.9, 1), (0.9, 1), (1, 1)]),
        ("ngrams-ntm-lstm", [(3, 4), (0, 0.1)]),
        ("priority-sort-ntm-lstm", [(0.2, 0.4), (0.95, 1), (0.95, 1)]),
    ],
)
def test_models_that_ship(shipped: Client, model: str, expected: list[tuple[float, float]]) -> None:
    """Each claim's best head is within these bounds; several heads each have a number."""
    network = ServedNetwork(shipped, model)
    sequences = in_range(network.model.task, 12, 0, Stage.INDUCTION)
    found = measures(network.recordings(sequences))

    values = [measure.best[1] for measure in found]
    assert len(values) == len(expected)
    for value, (low, high) in zip(values, expected, strict=True):
        assert low <= value <= high


@pytest.mark.parametrize("task", ["copy", "repeat-copy", "associative-recall", "priority-sort"])
def test_what_is_no_sequence_of_its_task_is_refused(shipped: Client, task: str) -> None:
    """By the steps that count, the size or the widths; the message says by which."""
    network = ServedNetwork(shipped, f"{task}-ntm-lstm")
    good = network.recordings(in_range(task, 2, 0, Stage.INDUCTION))
    check_sequences(good)
    one = good[0]
    assert one.mask is not None
    assert one.size is not None
    wider = replace(one.model, output_width=99)
    faults = {
        "other steps count": replace(one, mask=np.ones_like(one.mask)),
        "must be at least": replace(one, size=tuple(-1 for _ in one.size)),
        "steps, and its size is": replace(one, size=tuple(10**9 for _ in one.size)),
        "the widths of its steps are [0-9]+x99": replace(one, model=wider),
    }
    for problem, fault in faults.items():
        with pytest.raises(
            InvalidRequest, match=f"recording 3 of .* is no sequence of {task}: .*{problem}"
        ):
            check_sequences([*good, fault])


def test_a_query_for_what_was_not_shown_is_refused(shipped: Client) -> None:
    """The steps may count as they should while the sequence is none of recall."""
    network = ServedNetwork(shipped, "associative-recall-ntm-lstm")
    made = network.recordings(in_range("associative-recall", 2, 0, Stage.INDUCTION))

    with pytest.raises(InvalidRequest, match="no sequence of associative recall"):
        measures([replace(made[0], inputs=made[0].inputs[::-1]), made[1]])
