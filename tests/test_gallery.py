"""The gallery has a picture of each NTM that ships, drawn from the very weights that ship."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.support.served import MODELS, ROOT

GALLERY = ROOT / "docs" / "gallery"
DRAWN = sorted(path.parent for path in MODELS.glob("*-ntm-*/model.onnx"))


@pytest.mark.parametrize("folder", DRAWN, ids=lambda folder: folder.name)
def test_a_picture_is_of_the_network_that_ships(folder: Path) -> None:
    """`make gallery` draws it, and the page shows it."""
    card = json.loads((folder / "card.json").read_text())
    with Image.open(GALLERY / f"{folder.name}.png") as picture:
        assert picture.info["Source"] == f"{folder.name}, content hash {card['content_hash']}"
    assert f"(gallery/{folder.name}.png)" in (ROOT / "docs" / "gallery.md").read_text()


def test_no_other_picture_is_kept() -> None:
    """Each picture is of a network that ships."""
    assert sorted(path.stem for path in GALLERY.iterdir()) == [folder.name for folder in DRAWN]
