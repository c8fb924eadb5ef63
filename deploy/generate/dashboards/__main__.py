"""Write the dashboards as JSON: `python -m deploy.generate.dashboards`."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.generate.dashboards.model import model
from deploy.generate.dashboards.overview import overview
from deploy.generate.dashboards.replica import replica
from deploy.generate.dashboards.sessions import sessions
from ntm_lab.outputs import write_text

FOLDER = Path(__file__).parents[2] / "grafana" / "dashboards"

DASHBOARDS = {
    "overview": overview,
    "sessions": sessions,
    "model": model,
    "replica": replica,
}


def texts() -> dict[str, str]:
    """Return the JSON of each dashboard by file name."""
    encoder = JSONEncoder(sort_keys=True, indent=1)
    return {f"{name}.json": encoder.encode(make()) + "\n" for name, make in DASHBOARDS.items()}


if __name__ == "__main__":
    for name, text in texts().items():
        write_text(FOLDER / name, text)
