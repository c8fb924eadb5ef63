"""
Write pictures of two dashboards: `python -m deploy.generate.pictures`, started by `make pictures`.

Two servers with one store are put under load, and a Prometheus scrapes them. Grafana's own
components draw the panels from its data in a headless Chromium. No Grafana server takes part.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import tempfile
import time
import urllib.parse
from pathlib import Path

from PIL import Image

from bench.arguments import number
from deploy.generate.load import MAX_SECONDS, load
from deploy.generate.stack import ROOT, prometheus, replicas
from ntm_lab.outputs import replacing

DASHBOARDS = ("overview", "sessions")

PAGE = ROOT / "deploy" / "grafana" / "pictures"
BUNDLE = ROOT / "build" / "pictures"

MODELS = (
    "associative-recall-ntm-ff",
    "copy-lstm",
    "copy-ntm-lstm",
    "ngrams-ntm-lstm",
    "repeat-copy-ntm-lstm",
)

MARGIN_SECONDS = 20
"""The start of the load, left out because rates need earlier samples."""


def bundle() -> None:
    """Bundle the page and Grafana's components into one script and one style sheet."""
    BUNDLE.mkdir(parents=True, exist_ok=True)
    shutil.copy(PAGE / "page.html", BUNDLE)
    esbuild = PAGE / "node_modules" / ".bin" / "esbuild"
    subprocess.run(
        [
            esbuild,
            "page.jsx",
            "--bundle",
            "--minify",
            "--jsx=automatic",
            "--log-level=error",
            '--define:process.env.NODE_ENV="production"',
            *(f"--loader:.{kind}=dataurl" for kind in ("png", "svg", "ttf", "woff", "woff2")),
            f"--outdir={BUNDLE}",
        ],
        cwd=PAGE,
        check=True,
    )


def draw(name: str, url: str, start: float, end: float, folder: Path) -> Image.Image:
    """
    Draw the panels of a dashboard from `start` to `end`, in seconds since the epoch.

    Raises:
        RuntimeError: a panel has no data.
    """
    board = json.loads(
        (ROOT / "deploy" / "grafana" / "dashboards" / f"{name}.json").read_text("utf-8")
    )
    places = [panel["gridPos"] for panel in board["panels"]]
    height = 30 * max(place["y"] + place["h"] for place in places) + 16
    values = {"dashboard": name, "prometheus": url, "from": int(start), "to": int(end)}
    picture = folder / f"{name}.png"
    ended = subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",  # root has no sandbox, and the only page is ours
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
            f"--user-data-dir={folder / 'chromium'}",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            "--virtual-time-budget=20000",  # milliseconds
            f"--window-size=1416,{height}",
            f"--screenshot={picture}",
            f"{(BUNDLE / 'page.html').as_uri()}?{urllib.parse.urlencode(values)}",
        ],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    complaints = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    if complaints:
        raise RuntimeError("\n".join(complaints))
    return Image.open(picture)


def main() -> None:
    """Write the pictures into docs/."""
    parser = argparse.ArgumentParser(prog="python -m deploy.generate.pictures", description=__doc__)
    parser.add_argument(
        "--seconds",
        type=number(1, MAX_SECONDS),
        default=300.0,
        help="duration of the load (default: %(default)s)",
    )
    seconds: float = parser.parse_args().seconds
    bundle()
    flags = (
        "--device=cpu",
        "--max-sessions=80",
        "--max-awake-sessions=50",
        "--max-state-bytes=2000000",
        f"--models={','.join(MODELS)}",
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            replicas(folder, *flags) as served,
            prometheus(folder, [each.monitoring for each in served]) as watching,
        ):
            start = time.time()
            asyncio.run(load([each.address for each in served], seconds, MODELS))
            for dashboard in DASHBOARDS:
                picture = draw(
                    dashboard, watching.url, start + MARGIN_SECONDS, start + seconds, folder
                )
                with replacing(ROOT / "docs" / f"dashboard-{dashboard}.png") as file:
                    picture.convert("RGB").quantize(128).save(file, "PNG", optimize=True)


if __name__ == "__main__":
    main()
