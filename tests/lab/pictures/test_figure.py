"""Pictures of recordings as PNG and SVG files."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.image import imread

from ntm_lab.pictures.figure import draw, save
from ntm_lab.recordings.recording import Recording
from ntm_tasks import TASKS
from tests.support.recorded import recording

RECALL = TASKS["associative-recall"].marks((20,))
MADE = {
    "one head": recording(),
    "three heads": recording(heads=3),
    "no heads": recording(heads=0),
    "two steps": recording(steps=2, locations=1),
    "long": recording(steps=2401, locations=1024),
    "large values": replace(recording(), outputs=1234.5 * recording().outputs),
    "many marks": replace(recording(steps=88), marks=RECALL),
    "two channels": replace(
        recording(heads=0), target=None, mask=None, outputs=recording().outputs[:, :1]
    ),
}


def labels(axis: Axes) -> list[str]:
    """Everything that is written in and around an axis, besides its ticks."""
    titles = [axis.get_title(loc) for loc in ("left", "right")]
    marks = [text.get_text() for text in axis.texts]
    return [text for text in (*titles, axis.get_xlabel(), axis.get_ylabel(), *marks) if text]


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_no_label_covers_another(made: Recording) -> None:
    """Whatever is drawn, every text stands for itself, and inside the picture."""
    figure = draw(made)
    figure.draw_without_rendering()
    texts = [
        text
        for axis in figure.axes
        for text in (
            *(axis.title, axis._left_title, axis._right_title),  # type: ignore[attr-defined]
            *(axis.xaxis.label, axis.yaxis.label, *axis.texts),
            *(tick.label1 for tick in axis.xaxis.get_major_ticks()),
            *(tick.label1 for tick in axis.yaxis.get_major_ticks()),
            *(tick.label2 for tick in axis.yaxis.get_major_ticks()),
        )
        if text.get_text() and text.get_visible()
    ]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]

    assert len(boxes) > 10
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1, text
        assert box.y1 <= figure.bbox.y1, text
    for (one, box), (other, another) in combinations(boxes, 2):
        assert not box.overlaps(another), (one, other)


@pytest.mark.parametrize("layout", ["png", "svg"])
def test_equal_recordings_give_equal_files(tmp_path: Path, layout: str) -> None:
    """Nothing of the moment is in a picture."""
    for name in ("first", "second"):
        save(recording(), tmp_path / name, layout)

    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_long_sequence_is_no_large_file(tmp_path: Path) -> None:
    """A picture holds no more than can be seen, however many steps and locations there were."""
    save(MADE["long"], tmp_path / "long.svg", "svg")

    assert (tmp_path / "long.svg").stat().st_size < 500_000


def test_a_png_is_drawn(tmp_path: Path) -> None:
    """The file is an image with dark and light places."""
    save(recording(), tmp_path / "heads.png", "png")
    image = imread(tmp_path / "heads.png")

    assert image.shape[1] == 1664
    assert image[..., 0].min() < 0.2
    assert image[..., 0].max() == 1


def test_an_svg_has_its_texts_as_text(tmp_path: Path) -> None:
    """It is XML with a title, and can be searched for what it shows."""
    save(recording(heads=2), tmp_path / "heads.svg", "svg")
    root = ET.parse(tmp_path / "heads.svg").getroot()  # noqa: S314 - our own file
    texts = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}

    assert root.findtext("{http://www.w3.org/2000/svg}title") == "copy-ntm: 12 steps, 16 locations"
    assert {"delimiter", "head 2", "read weightings", "memory after the last step"} <= texts


def test_steps_with_a_name_are_marked() -> None:
    """Every panel over time has the line where the step begins; the uppermost have its name."""
    axes = [axis for axis in draw(recording()).axes if axis.lines]

    assert len(axes) == 8
    for axis in axes:
        assert [np.asarray(line.get_xdata()).tolist() for line in axis.lines] == [[4.5, 4.5]]
    assert [labels(axis)[-1] for axis in axes].count("delimiter") == 2


def test_repeated_names_are_written_once() -> None:
    """Of twenty items the first has its label; the query and the delimiter have theirs."""
    axes = [axis for axis in draw(MADE["many marks"]).axes if axis.texts]

    assert [[text.get_text() for text in axis.texts] for axis in axes] == [
        ["item", "query", "delimiter"]
    ] * 2
    assert all(len(axis.lines) == 22 for axis in axes)


def test_heads_stand_at_the_memory() -> None:
    """Write heads above it and read heads below, at the locations that have most of them."""
    figure = draw(recording(steps=4))
    figure.draw_without_rendering()
    before, after = (axis for axis in figure.axes if axis.get_title("left").startswith("memory"))

    for axis, place in ((before, 1), (after, 4)):
        write, read = axis.collections
        assert np.asarray(write.get_offsets())[:, 0].tolist() == [place]
        assert np.asarray(read.get_offsets())[:, 0].tolist() == [place]
        _, above = write.get_offset_transform().transform(write.get_offsets())[0]
        _, below = read.get_offset_transform().transform(read.get_offsets())[0]
        labels = [tick.label1.get_window_extent() for tick in axis.xaxis.get_major_ticks()]
        half = read.get_sizes()[0] ** 0.5 / 72 * figure.dpi / 2  # type: ignore[attr-defined]
        assert above > axis.bbox.y1
        assert below < axis.bbox.y0
        assert all(label.y1 < below - half for label in labels)


def test_no_weight_is_lost_in_a_long_sequence() -> None:
    """Where several steps and locations share a dot, the head is as dark as if it were alone."""
    long = MADE["long"]
    (axis,) = (a for a in draw(long).axes if a.get_title("left") == "write weightings")
    drawn = np.asarray(axis.images[0].get_array())

    assert drawn.shape == (342, 481)
    assert (drawn.max(0) == 1).all()
    assert axis.get_xlim() == (-0.5, 2400.5)
