"""The documents say what the code says, are as short as promised, and their links hold."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from posixpath import normpath

import pytest

from docs.generate.pages import FOLDER, PAGES
from ntm_client import Client

ROOT = Path(__file__).parent.parent

DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *ROOT.glob("*.md"),
        *ROOT.glob("*/README.md"),
        *ROOT.glob("docs/**/*.md"),
        ROOT / "models" / "REPORT.md",
    )
)

LONGEST = {"README.md": 120, "ARCHITECTURE.md": 200}
"""Lines that a document may have."""

PROGRAM = re.compile(r"```python\n(.*?)```\n\n```\n(.*?)```", re.DOTALL)
"""A program in Python, and what it prints below it."""

# Argparse lays help out as its Python does.
VERSIONED = {"command-line.md": (3, 11)}


@pytest.mark.parametrize("name", PAGES)
def test_reference_page_is_fresh(name: str) -> None:
    """A change of the code comes with its reference page: `make reference` would change nothing."""
    if name in VERSIONED and sys.version_info[:2] != VERSIONED[name]:
        pytest.skip(f"the page is written with Python {VERSIONED[name]}")

    assert (FOLDER / name).read_text() == PAGES[name]()


def test_no_other_reference_page() -> None:
    """Beside the generated pages lies none that nothing writes."""
    assert {path.name for path in FOLDER.iterdir()} == set(PAGES)


@pytest.mark.parametrize("name", LONGEST)
def test_document_is_no_longer_than_promised(name: str) -> None:
    """README is read in two screens, ARCHITECTURE in one sitting."""
    assert len((ROOT / name).read_text().splitlines()) <= LONGEST[name]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    """A relative link names a file or folder that exists, and a heading that is in it."""
    broken = []
    for link in links((ROOT / name).read_text()):
        path, _, anchor = link.partition("#")
        target = ROOT / (normpath(Path(name).parent / path) if path else name)
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


def test_readme_program_prints_what_readme_says(shipped: Client) -> None:
    """The program in README, run as it stands against the models that ship."""
    found = PROGRAM.search((ROOT / "README.md").read_text())
    assert found is not None
    program = found[1].replace("localhost:50051", shipped.target)
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert run.stdout == found[2]


def test_models_table_is_the_reports() -> None:
    """What it says of a measure is what the report says, for every task."""
    reported = {tuple(row[:9]) for row in rows("Against the paper", "models/REPORT.md")}
    shown = [tuple(row) for row in rows("How good they are", "docs/models.md")]

    assert [row for row in shown if row not in reported] == []
    assert {row[0] for row in shown} == {row[0] for row in reported}


def test_changelog_has_the_next_version_on_top() -> None:
    """Changes are noted as they are made."""
    first = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first[1] == "Unreleased"


def test_tests_that_show_security_exist() -> None:
    """Every test that docs/security.md names."""
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "security.md").read_text()))
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    existing = set(re.findall(r"def (test_\w+)\(", tests))

    assert len(named) > 10
    assert named - existing == set()


def prose(text: str) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def links(text: str) -> list[str]:
    """The targets of a document's relative links, pictures included."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(text))
    return [link for link in found if "://" not in link and not link.startswith("mailto:")]


def anchors(document: Path) -> set[str]:
    """What the headings of a document are linked by."""
    headings = re.findall(r"^#+ (.*)$", prose(document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(heading: str, file: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    section = re.split(rf"\n#+ {heading}\n", (ROOT / file).read_text())[1]
    table = re.findall(r"^\|(.*)\|$", section.split("\n#")[0], re.MULTILINE)
    return [[cell.strip().strip("`") for cell in row.split("|")] for row in table[2:]]
