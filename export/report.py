"""The report, which compares all models with the paper and with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from export import card, curve, figures
from export.architectures import ARCHITECTURES, PAPER
from export.configurations import CONFIGURATIONS
from ntm_tasks import TASKS, Size, size_text

REPORT_NAME = "REPORT.md"
PICTURES = "report"

NTMS = tuple(name for name in PAPER if ARCHITECTURES[name].has_memory)
"""The paper's networks with a memory."""

Card = Mapping[str, Any]


class PaperRow(NamedTuple):
    """A row of the comparison with the paper."""

    task: str
    title: str
    size: Size
    field: str
    """A field of a result: bits_per_sequence, wrong_bits, exact_match_rate or excess_bits."""
    paper: str
    """The value in the paper and its place. ~ marks a value read off a figure."""
    goals: tuple[float, float] | None = None
    """
    The greatest value that is good enough, of the feedforward and of the LSTM controller; for a
    rate, the least.
    """


BITS, WRONG, EXACT, EXCESS, BEFORE_ENDS = (
    "bits_per_sequence", "wrong_bits", "exact_match_rate", "excess_bits", "wrong_before_ends",
)  # fmt: skip

MEASURES = (
    PaperRow(
        "copy", "wrong bits in 1,000 sequences, length 20", (20,), WRONG, "~0 (fig. 4)", (0, 0)
    ),
    PaperRow(
        "copy",
        "wrong bits in 1,000 sequences, length 120",
        (120,),
        WRONG,
        "a few, and one vector twice (fig. 4); LSTM fails beyond 20 (fig. 5)",
        (0, 0),
    ),
    PaperRow("copy", "exact, length 1,000, N = 1,024", (1000,), EXACT, "not tried", (1, 1)),
    PaperRow("copy", "bits, length 20", (20,), BITS, "~0; LSTM ~2 (fig. 3)"),
    PaperRow("copy", "bits, length 120", (120,), BITS, "not given"),
    PaperRow(
        "repeat-copy",
        "bits, 10 vectors 10 times",
        (10, 10),
        BITS,
        "~0, all three (fig. 7)",
        (0.1, 0.05),
    ),
    PaperRow(
        "repeat-copy",
        "bits, 20 vectors 10 times",
        (20, 10),
        BITS,
        "almost perfect (fig. 8)",
        (50, 5),
    ),
    PaperRow(
        "repeat-copy", "bits, 10 vectors 20 times", (10, 20), BITS, "cannot count past 11 (fig. 8)"
    ),
    PaperRow(
        "repeat-copy",
        "wrong bits in 1,000 sequences before ends, 10 vectors 20 times",
        (10, 20),
        BEFORE_ENDS,
        "goes on repeating (fig. 8)",
        (20_000, 20_000),
    ),
    PaperRow("associative-recall", "bits, 2 items", (2,), BITS, "~0; LSTM 1-2 (fig. 10)"),
    PaperRow("associative-recall", "bits, 4 items", (4,), BITS, "~0; LSTM 1-2 (fig. 10)"),
    PaperRow(
        "associative-recall", "bits, 6 items", (6,), BITS, "~0; LSTM 1-2 (fig. 10)", (0.1, 0.1)
    ),
    PaperRow("associative-recall", "bits, 12 items", (12,), BITS, "~0; LSTM ~35 (fig. 11)"),
    PaperRow("associative-recall", "bits, 15 items", (15,), BITS, "FF below 1 (fig. 11)"),
    PaperRow(
        "associative-recall",
        "bits, 20 items",
        (20,),
        BITS,
        "FF ~7, NTM with LSTM ~8 (fig. 11)",
        (0.05, 0.05),
    ),
    PaperRow(
        "ngrams",
        "bits above the optimum, 200 bits",
        (200, 5),
        EXCESS,
        "~1-2; LSTM ~5-6 (fig. 13)",
        (0.4, 0.25),
    ),
    PaperRow("priority-sort", "bits, 20 items", (20,), BITS, "~10-20; LSTM ~50 (fig. 18)", (10, 2)),
    PaperRow("priority-sort", "bits, 10 items", (10,), BITS, "not tried"),
    PaperRow("priority-sort", "bits, 25 items", (25,), BITS, "not tried"),
)

OUT_OF_RANGE: Mapping[str, Size] = {
    "copy": (120,), "repeat-copy": (20, 10), "associative-recall": (20,), "priority-sort": (25,),
}  # fmt: skip
"""The size beyond training at which networks are compared."""

COMPARED_BY = {"ngrams": EXCESS}
"""The field of a result for the comparison, where it is not bits per sequence."""


def write(models: Path) -> Path:
    """
    Write REPORT.md and its pictures into the folder of all models; return the report's path.

    The paper's models are compared with the paper; the report names those that have no folder.
    Models of other tasks, and under other names, have a section of their own.
    """
    paths = sorted(models.glob(f"[!.]*/{card.CARD_NAME}"))
    read = {path.parent.name: card.read(path.parent) for path in paths}
    # A network from elsewhere may have results, but has no seeds and no curve.
    trained: dict[str, Card] = {
        name: each for name, each in read.items() if card.is_of_training(each)
    }
    cards = {name: trained[name] for name in _names() if name in trained}
    others: dict[str, Card] = {
        name: each
        for name, each in read.items()
        if name not in cards and (name in trained or card.results_on(each))
    }
    if not cards and not others:
        raise ValueError(
            f"{models} has no model with a card; name with --models a folder that has, such as the "
            "folder models of a checkout, or export a model first"
        )
    pictures = models / PICTURES
    if cards:
        pictures.mkdir(exist_ok=True)
    parts = [
        "# Report\n\nWritten by `python -m export report` from the cards and training curves in "
        "this folder. Every number was measured on onnxruntime with sequences that were not used "
        "in training. *Bits* are the cross-entropy of a whole sequence, the paper's measure. "
        "*Wrong bits* are outputs on the wrong side of 0.5. The paper is Graves, Wayne, Danihelka "
        "2014 (arXiv 1410.5401); its values marked ~ are read off its figures.",
    ]
    if cards:
        parts += [
            "## Against the paper\n\n" + _against_the_paper(cards),
            "## NTMs against their opponents\n\n" + _against_opponents(cards),
        ]
        if memories := _against_other_memories(cards):
            parts.append("## NTMs and other memories\n\n" + memories)
    if others:
        parts.append("## Other models\n\n" + _others(others))
    parts.append("## Seeds\n\n" + _seeds(cards | trained))
    drawn = {text: f"{PICTURES}/{name}" for name, text in _draw(models, cards, pictures).items()}
    curves = [name for name in others if name in trained]
    drawn |= {f"Training curve of {name}": f"{name}/{card.PICTURE_NAME}" for name in curves}
    pictured = "\n\n".join(f"{text}\n\n![{text}]({file})" for text, file in drawn.items())
    parts.append("## Pictures\n\n" + pictured)
    path = models / REPORT_NAME
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def _names() -> list[str]:
    """Return the names of all models that can be trained, task by task."""
    names = (f"{task}-{arch}" for task in TASKS for arch in ARCHITECTURES)
    return [name for name in names if name in CONFIGURATIONS]


def _architectures() -> list[str]:
    """Return the architectures that have a row for one of the paper's tasks."""
    rows = {row.task for row in MEASURES}
    trained = {each.architecture for each in CONFIGURATIONS.values() if each.task in rows}
    return [name for name in ARCHITECTURES if name in trained]


def result_of(entry: Card, size: Size) -> Card | None:
    """Return the result of a seed at a size, or None."""
    for result in entry["results"]:
        if tuple(result["size"]) == size:
            found: Card = result
            return found
    return None


def _value(cards: Mapping[str, Card], name: str, size: Size, field: str) -> float | None:
    """Return a field of the shipped network of a model, or None if there is no model."""
    result = result_of(card.shipped(dict(cards[name])), size) if name in cards else None
    return None if result is None else result.get(field)


def _against_the_paper(cards: Mapping[str, Card]) -> str:
    rows = []
    for each in MEASURES:
        values = {
            arch: _value(cards, f"{each.task}-{arch}", each.size, each.field)
            for arch in _architectures()
        }
        rows.append(
            [
                each.task,
                each.title,
                *(_number(value, each.field) for value in values.values()),
                each.paper,
                _goal(each),
                _met(each, [values[arch] for arch in NTMS]),
            ]
        )
    titles = [ARCHITECTURES[arch].title for arch in _architectures()]
    heads = ["task", "measure", *titles, "the paper's", "goals of the NTMs", "met"]
    missing = [name for name in _names() if name not in cards]
    note = f"\n\nMissing models: {', '.join(missing)}." if missing else ""
    return _table(heads, rows) + note


def _goal(measure: PaperRow) -> str:
    if measure.goals is None:
        return ""
    if measure.field == EXACT:
        return "; ".join(f">= {goal:.0%}" for goal in dict.fromkeys(measure.goals))
    return "; ".join(f"<= {goal:,g}" if goal else "0" for goal in dict.fromkeys(measure.goals))


def _met(measure: PaperRow, values: Sequence[float | None]) -> str:
    """Say of the NTMs, the feedforward one first, whether they meet their goals."""
    if measure.goals is None:
        return ""
    said = []
    for value, goal in zip(values, measure.goals, strict=True):
        if value is None:
            said.append("-")
        else:
            met = value >= goal if measure.field == EXACT else value <= goal
            said.append("yes" if met else "**no**")
    return "; ".join(said)


def _number(value: float | None, field: str) -> str:
    if value is None:
        return "-"
    if field == EXACT:
        return f"{value:.1%}"
    if field in (WRONG, BEFORE_ENDS):
        return f"{value:,}"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _opponents() -> list[str]:
    """Return the architectures without a memory: the paper's LSTM first."""
    return [name for name in _architectures() if not ARCHITECTURES[name].has_memory]


def _against_opponents(cards: Mapping[str, Card]) -> str:
    """Compare the best NTM with networks without a memory, by results and by what they cost."""
    opponents = _opponents()
    rows, comparisons = [], []
    for task in dict.fromkeys(row.task for row in MEASURES):
        field = COMPARED_BY.get(task, BITS)
        for where, size in _compared_at(task):
            ntms = [_value(cards, f"{task}-{arch}", size, field) for arch in NTMS]
            values = {"NTM": min((value for value in ntms if value is not None), default=None)}
            for arch in opponents:
                values[ARCHITECTURES[arch].title] = _value(cards, f"{task}-{arch}", size, field)
            known = {title: value for title, value in values.items() if value is not None}
            best = min(known, key=known.__getitem__) if "NTM" in known and len(known) > 1 else "-"
            comparisons.append(best)
            cells = [_number(value, field) for value in values.values()]
            rows.append([task, f"{where}, {size_text(size)}", *cells, best])
    titles = [ARCHITECTURES[arch].title for arch in opponents]
    return (
        "Bits per sequence; for N-grams, bits above the optimal predictor. All networks of a task "
        "were trained on sequences of the same distribution.\n\n"
        + _table(["task", "size", "best NTM", *titles, "best"], rows)
        + "\n\nThe best NTM needs fewer bits than every opponent that was trained in "
        f"{comparisons.count('NTM')} of {len(comparisons) - comparisons.count('-')} comparisons. "
        "This is what each network had:\n\n" + _costs(cards, [*NTMS, *opponents])
    )


def _compared_at(task: str) -> list[tuple[str, Size]]:
    """Return the sizes at which networks are compared, and where each is."""
    beyond = OUT_OF_RANGE.get(task)
    return [("in range", TASKS[task].largest), *([("beyond", beyond)] if beyond else [])]


def _costs(cards: Mapping[str, Card], architectures: Sequence[str]) -> str:
    """Show parameters, sequences and time of the shipped networks, and their bits at each size."""
    rows = []
    for task in dict.fromkeys(row.task for row in MEASURES):
        field = COMPARED_BY.get(task, BITS)
        for arch in architectures:
            name = f"{task}-{arch}"
            start = [task, ARCHITECTURES[arch].title]
            if name not in cards:
                if name in CONFIGURATIONS:
                    rows.append([*start, "no model", *[""] * 5])
                continue
            seed, sizes = card.shipped(dict(cards[name])), dict(_compared_at(task))
            rows.append(
                [
                    *start,
                    f"{cards[name]['parameters']:,}",
                    f"{seed['sequences']:,}",
                    f"{seed['sequences'] / seed['seconds']:,.0f}" if seed["seconds"] else "",
                    f"{seed['seconds'] / 3600:.2f}",
                    *(
                        _number(_value(cards, name, sizes[where], field), field)
                        if where in sizes
                        else ""
                        for where in ("in range", "beyond")
                    ),
                ]
            )
    heads = ["task", "network", "parameters", "sequences", "per second", "hours"]
    return (
        _table([*heads, "in range", "beyond"], rows) + "\n\nHours are those of one core, of the "
        "training of the network that ships. Not all had a core alone, nor the same machine. NTMs "
        "and LSTMs are trained by a backward pass written by hand, the others by autograd."
    )


def _against_other_memories(cards: Mapping[str, Card]) -> str:
    """Compare all networks with a memory, of the tasks that one beside the NTMs has learned."""
    memories = [name for name, each in ARCHITECTURES.items() if each.has_memory]
    rows = []
    for task in dict.fromkeys(row.task for row in MEASURES):
        found = [arch for arch in memories if f"{task}-{arch}" in cards]
        if set(found) <= set(NTMS):
            continue
        sizes = [TASKS[task].largest, OUT_OF_RANGE.get(task)]
        for arch in found:
            name = f"{task}-{arch}"
            seed = card.shipped(dict(cards[name]))
            first = seed["first_point_without_wrong_bits_at_sequences"]
            rows.append(
                [
                    task,
                    ARCHITECTURES[arch].title,
                    *(
                        f"{size_text(size)}: {_number(_value(cards, name, size, BITS), BITS)}"
                        if size
                        else ""
                        for size in sizes
                    ),
                    "-" if first is None else f"{first:,}",
                    f"{seed['sequences']:,}",
                    f"{seed['seconds'] / 60:,.0f}",
                ]
            )
    if not rows:
        return ""
    heads = ["task", "network", "in range", "beyond"]
    heads += ["sequences until a point without wrong bits", "sequences", "minutes"]
    return (
        "Bits per sequence of the networks that ship, by size. NTMs are trained by a backward pass "
        "written by hand, others by autograd, and not all on the same machine.\n\n"
        + _table(heads, rows)
    )


def _others(cards: Mapping[str, Card]) -> str:
    """Show the results of models that the paper says nothing of."""
    rows = [
        [
            name,
            each["task"],
            size_text(tuple(result["size"])),
            str(result["locations"]),
            f"{result['sequences']:,}",
            *(_number(result[field], field) for field in (BITS, WRONG, EXACT)),
        ]
        for name, each in cards.items()
        for result in card.results_on(dict(each)).values()
    ]
    heads = ["model", "task", "size", "N", "sequences", "bits", "wrong bits", "exact"]
    return "The paper has no measures of these.\n\n" + _table(heads, rows)


def _in_range(described: Card) -> Size:
    """Return the size by which the seeds of a model are compared."""
    results = card.shipped(dict(described))["results"]
    if described["task"] in {row.task for row in MEASURES}:
        return TASKS[described["task"]].largest
    return tuple(results[0]["size"]) if results else ()


def _seeds(cards: Mapping[str, Card]) -> str:
    """Show how far the seeds of a model differ, and what they cost."""
    rows = []
    for name, each in cards.items():
        seeds = each["seeds"]
        field = COMPARED_BY.get(each["task"], BITS)
        beyond = OUT_OF_RANGE.get(each["task"])
        seconds = sum(seed["seconds"] for seed in seeds)
        first = [seed["first_point_without_wrong_bits_at_sequences"] for seed in seeds]
        solved = sorted(count for count in first if count is not None)
        rows.append(
            [
                name,
                str(len(seeds)),
                _spread(seeds, _in_range(each), field),
                _spread(seeds, beyond, field) if beyond else "",
                f"{len(solved)} of {len(seeds)}" + (f", {median(solved):,.0f}" if solved else ""),
                _range([seed["sequences"] for seed in seeds]),
                f"{sum(seed['sequences'] for seed in seeds) / seconds:,.0f}" if seconds else "",
                f"{seconds / 3600:.2f}",
                str(sum(seed["restarts_after_values_not_finite"] for seed in seeds)),
                str(sum(seed["relapses"] for seed in seeds)),
                str(each["configuration"]["table"]),
            ]
        )
    hours = sum(seed["seconds"] for each in cards.values() for seed in each["seeds"]) / 3600
    count = sum(len(each["seeds"]) for each in cards.values())
    restarts, relapses = (
        sum(seed[name] for each in cards.values() for seed in each["seeds"])
        for name in ("restarts_after_values_not_finite", "relapses")
    )
    heads = [
        "model",
        "seeds",
        "bits in range: median / worst",
        "beyond: median / worst",
        "seeds with a point of training without wrong bits, sequences until then (median)",
        "sequences each",
        "per second",
        "hours",
        "restarts",
        "relapses",
        "settings",
    ]
    trainings = "1 training" if count == 1 else f"{count} trainings"
    return (
        f"{trainings} took {hours:.1f} hours of one core. {restarts} times a loss or "
        f"gradient was not finite (restarts) and {relapses} times a network lost its task "
        "(relapses). The training then went back to its last checkpoint and continued at half the "
        "learning rate.\n\n" + _table(heads, rows)
    )


def _range(counts: Sequence[int]) -> str:
    """One count if all are equal, as they are unless a training was not finished."""
    least, most = min(counts), max(counts)
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"


def _spread(seeds: Sequence[Card], size: Size, field: str) -> str:
    values = [result[field] for seed in seeds if (result := result_of(seed, size))]
    if not values:
        return "-"
    return f"{_number(median(values), field)} / {_number(max(values), field)}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _draw(models: Path, cards: Mapping[str, Card], folder: Path) -> dict[str, str]:
    """Draw every picture that has models; return the title of each file."""
    drawn = {}
    for task in dict.fromkeys(row.task for row in MEASURES):
        found = {arch: f"{task}-{arch}" for arch in ARCHITECTURES if f"{task}-{arch}" in cards}
        if not found:
            continue
        curves = {
            arch: (
                cards[name]["shipped_seed"],
                curve.read_csv(models / name / card.CURVE_NAME),
            )
            for arch, name in found.items()
        }
        optimum = _optimum(cards[next(iter(found.values()))])
        figures.learning(folder / f"learning-{task}.png", task, curves, optimum)
        drawn[f"learning-{task}.png"] = f"Learning curves, {task}"
        examples = figures.EXAMPLES.get(task)
        if examples:
            networks = {arch: models / name / card.MODEL_NAME for arch, name in found.items()}
            figures.examples(folder / f"examples-{task}.png", task, networks, examples)
            drawn[f"examples-{task}.png"] = f"One sequence of each size, {task}"
    recall = {
        arch: _bits_by_items(card.shipped(dict(cards[name])))
        for arch in ARCHITECTURES
        if (name := f"associative-recall-{arch}") in cards
    }
    if recall:
        figures.by_items(folder / "items.png", recall)
        drawn["items.png"] = "Associative recall by number of items"
    return drawn


def _optimum(described: Card) -> float | None:
    """Return the optimal predictor's cost for the first trial of a card, or None."""
    result = card.shipped(dict(described))["results"][0]
    if EXCESS not in result:
        return None
    return float(result[BITS] - result[EXCESS])


def _bits_by_items(entry: Card) -> list[tuple[int, float]]:
    return [(result["size"][0], result[BITS]) for result in entry["results"]]
