"""`python -m docs.generate`: write every page of docs/reference anew."""

from __future__ import annotations

from docs.generate.pages import FOLDER, PAGES
from ntm_lab.outputs import write_text

FOLDER.mkdir(exist_ok=True)
for name, write in PAGES.items():
    write_text(FOLDER / name, write())
