"""`python -m docs.generate`: write every page of docs/reference anew."""

from __future__ import annotations

from docs.generate.pages import FOLDER, PAGES

FOLDER.mkdir(exist_ok=True)
for name, write in PAGES.items():
    (FOLDER / name).write_text(write(), encoding="utf-8")
