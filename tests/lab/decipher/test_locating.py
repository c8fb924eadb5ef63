"""Where the places are that rules name, as far as each head can know."""

from __future__ import annotations

import numpy as np

from ntm_lab.decipher.dataflow import Dataflow
from ntm_lab.decipher.episode import Episode
from ntm_lab.decipher.locating import locate
from ntm_lab.decipher.program import Place
from ntm_lab.decipher.rules import UNKNOWN
from tests.lab.decipher.programs import COPY, recorded, sequence


def test_the_read_head_alone_knows_at_once_where_a_phase_begins() -> None:
    """The write head makes that location by its move, and can go there one step later."""
    episode = Episode.of(recorded(COPY, sequence(COPY, np.random.default_rng(1))), COPY.phases)
    flow = Dataflow(0, 0, COPY.delay, tuple(one.store for one in COPY.body), (False, True))
    written = episode.positions("write", 0)[1:]
    first = [moment.offset for moment in episode.moments].index(0, 1)
    starts = {0: int(written[0]), first: int(written[first])}
    assert len(set(starts.values())) == 2

    for phase, (step, start) in enumerate(starts.items()):
        place = [Place("begin", phase)]
        reading = [row[0] for row in locate(episode, flow, place, "read")]
        writing = [row[0] for row in locate(episode, flow, place, "write")]
        later = len(reading) - step
        assert reading == [UNKNOWN] * step + [start] * later
        assert writing == [UNKNOWN] * (step + 1) + [start] * (later - 1)
