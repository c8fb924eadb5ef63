"""
Measures the paper's claims over many sequences. The paper's authors saw them in pictures of one
sequence each.

A head's location in a step is the location of its largest weight. What a read head reads may serve
the output of the same step or of the next one. So every measure that follows a read head is taken
at both delays, and the better one is reported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ntm_client.errors import InvalidRequest
from ntm_client.values import Float32
from ntm_lab.decipher.measures import (
    DELAYS,
    HeadLocations,
    Hits,
    Measure,
    Places,
    each_head,
    entropy,
    linear_fit,
    mutual_information,
    of_pairs,
    of_reads,
)
from ntm_lab.recordings.recording import READ_WEIGHTING, Recording
from ntm_tasks import TASKS, size_text
from ntm_tasks.tasks.associative_recall import ITEM_VECTORS
from ntm_tasks.tasks.ngrams import CONTEXT_BITS
from ntm_tasks.tasks.priority_sort import SORT_BITS

PRIORITY = SORT_BITS
"""The input channel of priority sort that shows a vector's priority."""

SHUFFLES = 20
"""The number of shuffles that a baseline is the mean of."""

LONG_ENOUGH = 4
"""The least length of a repeat copy for which a return to the start cannot be a single shift."""


def measures(recordings: Sequence[Recording]) -> list[Measure]:
    """
    The measures of the paper's claims for a task.

    All recordings are of one model, and the model's task decides which claims are measured. The
    result is empty for a task that is not the paper's, for a network without heads, and for a
    user's own inputs.
    """
    if any(each.size is None or READ_WEIGHTING not in each.traces for each in recordings):
        return []
    heads = [HeadLocations.of(recording) for recording in recordings]
    return [claim(heads) for claim in _CLAIMS.get(recordings[0].model.task, ())]


def check_sequences(recordings: Sequence[Recording]) -> None:
    """
    Check that the measures can be taken of recordings that come from a file.

    Raises:
        InvalidRequest: one of a paper's task is not a sequence of it, by its size, the widths of
            its steps, or the steps whose output counts.
    """
    for number, recording in enumerate(recordings, 1):
        model, size, mask = recording.model, recording.size, recording.mask
        if size is None or mask is None or model.task not in _CLAIMS:
            continue
        task = TASKS[model.task]
        widths = (model.input_width, model.output_width)
        problem = task.size_problem(size)
        if not problem and widths != (task.input_width, task.output_width):
            problem = f"the widths of its steps are {size_text(widths)}"
        # A size of a billion is not drawn to find that it is not this one's.
        if not problem and max(size) > len(mask):
            problem = f"it has {len(mask)} steps, and its size is {size_text(size)}"
        if not problem:
            expected = task.example(np.random.default_rng(0), size).mask[:, 0]
            if not np.array_equal(mask, expected):
                problem = f"other steps count than in one of size {size_text(size)}"
        if problem:
            raise InvalidRequest(
                f"recording {number} of {model.name} is no sequence of {task.name}: {problem}; "
                "record it again with `ntm trace`"
            )


def copy_places(heads: Sequence[HeadLocations]) -> Measure:
    """Figure 6: vectors are read where they were written."""
    return _read_back(
        heads,
        "read where it was written",
        "Read locations exactly match the write locations (figure 6).",
        "Share of the vectors that a read head, when they were due, read at the location where "
        "a write head was when they were shown.",
        lambda one: np.arange(one.shown),
    )


def repeat_places(heads: Sequence[HeadLocations]) -> Measure:
    """Figure 9: vectors are read where they were written, in every repeat."""
    return _read_back(
        heads,
        "read where it was written, every time",
        "The write locations are read again, once per repeat (figure 9).",
        "Share of the vectors that a read head, each time they were due, read at the location "
        "where a write head was when they were shown.",
        lambda one: np.resize(np.arange(one.shown), len(one.answer) - 1),
    )


def repeat_jumps(heads: Sequence[HeadLocations]) -> Measure:
    """Figure 9: the read head jumps once per repeat."""

    def once(one: HeadLocations, read: int, delay: int) -> Hits:
        rounds: Hits = _jumps(one, read, delay).reshape(-1, one.shown).sum(1) == 1
        return rounds

    return of_reads(
        _long(heads),
        "one jump per repeat",
        "The read head jumps back to the start of the sequence once per repeat (figure 9), "
        'the "NTM equivalent of a goto".',
        f"Share of the repeats after the first, of sequences of {LONG_ENOUGH} vectors and more, in "
        "which a read head made exactly one move of more than one location.",
        once,
    )


def repeat_landings(heads: Sequence[HeadLocations]) -> Measure:
    """Figure 9: the jump leads to the start of the sequence."""
    long = _long(heads)
    places = [(one, int(place)) for one in long for place in _landings(one, read=0, delay=0)]
    vectors = Counter(
        int(vector)
        for one, place in places
        for vector in np.flatnonzero(one.writes[: one.shown, 0] == place)[:1]
    )
    vector, times = max(vectors.items(), key=lambda each: each[1], default=(0, 0))
    return of_pairs(
        long,
        "the jump is to the start",
        "The jump leads to the start of the sequence (figure 9).",
        "Share of those moves, of more than one location, that led to where a write head was when "
        "the first vector was shown.",
        lambda one, read, write, delay: _landings(one, read, delay) == one.writes[0, write],
        note=f"Of {len(places)} by read head 1, {times} led to where write head 1 was for vector "
        f"{vector + 1}.",
    )


def repeat_queue(heads: Sequence[HeadLocations]) -> Measure:
    """Not the paper's: what was read is written again, and read there in the next repeat."""

    def hits(one: HeadLocations, read: int, write: int, delay: int) -> Hits:
        reads = one.answer[:-1] - delay
        written = reads[: -one.shown] + 1  # a controller knows what was read one step later
        found: Hits = one.reads[reads[one.shown :], read] == one.writes[written, write]
        return found

    return of_pairs(
        _long(heads),
        "written again, read there",
        "Nothing of the kind: vectors are written once, and read in every repeat (figure 9). A "
        "network that writes each vector again after it has read it uses its memory as a queue.",
        "Share of the vectors due after the first repeat, of sequences of "
        f"{LONG_ENOUGH} vectors and more, that a read head read at the location where a write head "
        "was one step after the vector was read in the repeat before.",
        hits,
    )


def recall_places(heads: Sequence[HeadLocations]) -> Measure:
    """Figure 12: the answer is read where it was written."""
    return _read_back(
        heads,
        "read where it was written",
        "The item that follows is read where it was written (figure 12).",
        "Share of the answer's vectors that a read head, when they were due, read at the location "
        "where a write head was when they were shown.",
        lambda one: _shown(one, one.due) + np.arange(ITEM_VECTORS),
    )


def recall_lookup(heads: Sequence[HeadLocations]) -> Measure:
    """Figure 12: the queried item is found by content."""
    return of_pairs(
        heads,
        "content look-up",
        "The queried item is looked up by content (figure 12).",
        "Share of the queries in which, at one of the query's vectors, a read head jumped by "
        "content to a location where a write head was when the queried item was shown.",
        lambda one, read, write, _: np.array([len(_lookups(one, read, write)) > 0]),
        delays=(0,),
    )


def recall_shift(heads: Sequence[HeadLocations]) -> Measure:
    """Figure 12: after the look-up the head shifts by one."""
    return of_pairs(
        heads,
        "then one on",
        "After the look-up the head shifts by one, to what was stored next (figure 12).",
        "Share of the queries in which such a jump went on, by its shift, to the location where "
        "the write head was one step later.",
        lambda one, read, write, _: np.array([any(_lookups(one, read, write))]),
        delays=(0,),
    )


def context_information(heads: Sequence[HeadLocations]) -> Measure:
    """Figures 14 and 15: the context decides the location. The unit is bits."""
    contexts = [_contexts(one.recording.inputs[:, 0]) for one in heads]
    _, counts = np.unique(np.concatenate(contexts), return_counts=True)
    generator = np.random.default_rng(0)
    values, baseline = {}, {}
    for name, places in each_head(heads):
        for delay in DELAYS:
            # The context of `delay` steps ago.
            known = np.concatenate([each[: len(each) - delay] for each in contexts])
            place = np.concatenate([each[CONTEXT_BITS - 1 + delay :] for each in places])
            label = f"{name}, context of the step before" if delay else name
            values[label] = mutual_information(known, place)
            shuffled = [
                mutual_information(generator.permutation(known), place) for _ in range(SHUFFLES)
            ]
            baseline[label] = float(np.mean(shuffled))
    return Measure(
        "the context decides the location",
        "The same context of five bits leads to the same location (figures 14 and 15).",
        "Mutual information of the last five bits and the location of a head, of the "
        f"{entropy(counts):.2f} bits that the contexts have; the baseline is that of shuffled "
        "contexts.",
        "bits",
        values,
        baseline,
    )


def read_then_written(heads: Sequence[HeadLocations]) -> Measure:
    """Figures 14 and 15: a count is read, then written at the same location."""
    return of_pairs(
        heads,
        "read, then written",
        "The location read for a context is written in the next step, when the bit that followed "
        "is known (figures 14 and 15).",
        "Share of the steps in which a write head was where a read head was in the step before.",
        lambda one, read, write, _: one.reads[:-1, read] == one.writes[1:, write],
        delays=(0,),
    )


def sorted_places(heads: Sequence[HeadLocations]) -> Measure:
    """Figure 17: the priority decides where a vector is written."""
    priorities = np.concatenate([one.recording.inputs[: one.shown, PRIORITY] for one in heads])
    values = {
        name: linear_fit(
            priorities,
            np.concatenate([each[: one.shown] for each, one in zip(places, heads, strict=True)]),
            heads[0].recording.locations,
        )
        for name, places in each_head(heads)
        if name.startswith("write")
    }
    return Measure(
        "written by priority",
        "The location written is a linear function of the priority (figure 17).",
        "R² of the best straight line from a vector's priority to the location where a write head "
        "was when it was shown, the ring of locations cut where the line fits best.",
        "R²",
        values,
    )


def sorted_reads(heads: Sequence[HeadLocations]) -> Measure:
    """Figure 17: vectors are read in the order of their priorities."""
    return _read_back(
        heads,
        "read in order",
        "Reading goes through the vectors in the order of their priorities (figure 17).",
        "Share of the vectors that a read head, when they were due, read at the location where "
        "a write head was when they were shown.",
        lambda one: np.argsort(-one.recording.inputs[: one.shown, PRIORITY])[: len(one.answer)],
    )


def sorted_erased(heads: Sequence[HeadLocations]) -> Measure:
    """Not the paper's: what was read is written over, so that the next one is the highest left."""

    def hits(one: HeadLocations, read: int, write: int, _: int) -> Hits:
        steps = one.answer[1:]
        found: Hits = one.reads[steps - 1, read] == one.writes[steps, write]
        return found

    return of_pairs(
        heads,
        "read, then written over",
        "Nothing of the kind: the locations are in the order of the priorities, so that reading "
        "goes on from one to the next (figure 17).",
        "Share of the steps after the first vector that is due in which a write head was where a "
        "read head was in the step before.",
        hits,
        delays=(0,),
    )


def _read_back(
    heads: Sequence[HeadLocations],
    name: str,
    paper: str,
    definition: str,
    shown_at: Callable[[HeadLocations], npt.NDArray[np.intp]],
) -> Measure:
    """
    The share of vectors that are read where they were written. `shown_at` gives the step in which
    each was shown, in the order in which they are due.
    """

    def hits(one: HeadLocations, read: int, write: int, delay: int) -> Hits:
        steps = shown_at(one)
        found: Hits = one.reads[one.answer[: len(steps)] - delay, read] == one.writes[steps, write]
        return found

    return of_pairs(heads, name, paper, definition, hits)


_CLAIMS: Mapping[str, tuple[Callable[[Sequence[HeadLocations]], Measure], ...]] = {
    "copy": (copy_places,),
    "repeat-copy": (repeat_places, repeat_jumps, repeat_landings, repeat_queue),
    "associative-recall": (recall_lookup, recall_shift, recall_places),
    "ngrams": (context_information, read_then_written),
    "priority-sort": (sorted_places, sorted_reads, sorted_erased),
}


def _long(heads: Sequence[HeadLocations]) -> list[HeadLocations]:
    return [one for one in heads if one.shown >= LONG_ENOUGH]


def _jumps(one: HeadLocations, read: int, delay: int) -> Hits:
    """
    For each vector after the first repeat, whether the head moved more than one location to it.
    """
    steps = one.answer[one.shown : -1] - delay
    moved = (one.reads[steps, read] - one.reads[steps - 1, read]) % one.recording.locations
    jumps: Hits = np.minimum(moved, one.recording.locations - moved) > 1
    return jumps


def _landings(one: HeadLocations, read: int, delay: int) -> Places:
    """The locations that the moves in `_jumps` led to."""
    steps = one.answer[one.shown : -1] - delay
    landings: Places = one.reads[steps, read][_jumps(one, read, delay)]
    return landings


def _lookups(one: HeadLocations, read: int, write: int) -> list[bool]:
    """
    For each jump to the queried item during the query, whether it went on to what was written next.
    """
    shown = _shown(one, _query(one))
    following = {
        int(one.writes[step, write]): int(one.writes[step + 1, write])
        for step in range(shown, shown + ITEM_VECTORS)
    }
    query = range(one.answer[0] - 1 - ITEM_VECTORS, one.answer[0] - 1)
    moves = [one.instructions[step][read] for step in query]
    return [
        move.location == following[move.target]
        for move in moves
        if move.move == "jump" and move.target in following
    ]


def _shown(one: HeadLocations, item: Float32) -> int:
    """
    The step in which the first vector of an item [3, bits] was shown.

    Raises:
        InvalidRequest: it was not shown before the query.
    """
    inputs = one.recording.inputs[:, : item.shape[1]]
    starts = np.arange(1, one.answer[0] - ITEM_VECTORS, ITEM_VECTORS + 1)
    for start in starts:
        if np.array_equal(inputs[start : start + ITEM_VECTORS], item):
            return int(start)
    raise InvalidRequest(
        "a recording is no sequence of associative recall: what it asks for was not shown; record "
        "it again with `ntm trace`"
    )


def _query(one: HeadLocations) -> Float32:
    start = one.answer[0] - 1 - ITEM_VECTORS
    query: Float32 = one.recording.inputs[start : start + ITEM_VECTORS, : one.due.shape[1]]
    return query


def _contexts(bits: Float32) -> npt.NDArray[np.int64]:
    """
    The last `CONTEXT_BITS` bits up to each step, as a number, from the first step that has enough
    bits on.
    """
    windows = np.lib.stride_tricks.sliding_window_view(bits.astype(np.int64), CONTEXT_BITS)
    return windows @ (1 << np.arange(CONTEXT_BITS)[::-1])
