"""
Hook of mkdocs: which files are on the site.

Pages keep their paths in the repository (README.md, docs/client.md), so that a link holds in both.
Other files that a page links to, such as configurations and pictures, are copied to the site.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]

LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
"""A link's target within the repository, without its anchor."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Keep the files of the theme, every page, and the files that pages link to."""
    of_docs = Path(config.docs_dir).resolve()
    kept = [
        file
        for file in files
        if file.abs_src_path is None or not Path(file.abs_src_path).is_relative_to(of_docs)
    ]
    pages = [ROOT / name for name in _in_nav(config.nav)]
    pages += sorted(of_docs.rglob("*.md"))
    wanted = {of_docs / "site.css"}
    for page in pages:
        wanted |= {page, *linked(page)}
    for path in sorted(wanted):
        name = path.relative_to(ROOT).as_posix()
        kept.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return Files(kept)


def linked(page: Path) -> set[Path]:
    """The files of the repository that a page links to, folders left out."""
    folder = PurePosixPath(page.relative_to(ROOT).parent.as_posix())
    targets = {
        ROOT / normpath(folder / link) for link in LINK.findall(page.read_text(encoding="utf-8"))
    }
    return {target for target in targets if target.is_file()}


def _in_nav(nav: object) -> list[str]:
    """The files of a navigation, at any depth."""
    if isinstance(nav, str):
        return [nav]
    if isinstance(nav, dict):
        return [name for below in nav.values() for name in _in_nav(below)]
    assert isinstance(nav, list)
    return [name for below in nav for name in _in_nav(below)]
