"""One target under libFuzzer: `python -m tests.stress.fuzz.guided NAME SECONDS SEED`."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["service"]):
    from tests.stress.fuzz.targets import TARGETS

from hypothesis import HealthCheck, given, settings

from tests.stress.fuzz.findings import Findings

_MOST_MEGABYTES = 3072
_MOST_SECONDS_EACH = 60
_LONGEST = 8192
_FIRST = 64


def main(name: str, seconds: str, seed: str) -> None:
    """Send values to a target until the time is over. libFuzzer ends the process."""
    findings = Findings()
    target = TARGETS[name]
    corpus = _begun(Path("build/fuzz") / name, int(seed))
    with target.harness() as check:
        send: Any = settings(deadline=None, suppress_health_check=list(HealthCheck))(
            given(target.strategy)(check)
        )

        def one(data: bytes) -> None:
            try:
                send.hypothesis.fuzz_one_input(data)
            except Exception as error:
                findings.tell(error)

        flags = [
            f"-max_total_time={seconds}",
            f"-seed={seed}",
            f"-rss_limit_mb={_MOST_MEGABYTES}",
            f"-timeout={_MOST_SECONDS_EACH}",
            f"-max_len={_LONGEST}",
            "-len_control=0",
            "-print_final_stats=1",
            f"-artifact_prefix=build/fuzz/{name}-",
        ]
        atheris.Setup(["fuzz", *flags, str(corpus)], one)
        atheris.Fuzz()


def _begun(corpus: Path, seed: int) -> Path:
    """
    A corpus that has something in it.

    What libFuzzer mutates are the choices that the strategy makes among real messages and
    alterations of them; any long enough bytes are choices.
    """
    corpus.mkdir(parents=True, exist_ok=True)
    choices = random.Random(seed)  # noqa: S311 - no secrets
    for number in range(_FIRST):
        size = choices.randrange(64, _LONGEST)
        (corpus / f"first-{number}").write_bytes(choices.randbytes(size))
    return corpus


if __name__ == "__main__":
    main(*sys.argv[1:])
