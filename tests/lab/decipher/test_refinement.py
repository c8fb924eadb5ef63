"""Programs are made simpler where that changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ntm_lab.decipher.dataflow import find_dataflows
from ntm_lab.decipher.episode import Episode
from ntm_lab.decipher.program import Condition, Rule
from ntm_lab.decipher.refinement import pruned
from ntm_lab.decipher.watched import WatchedHead
from tests.lab.decipher.programs import BACK, ON, REPEAT, recorded, sequence


def test_rules_with_one_move_stand_together_where_their_order_does_not_matter() -> None:
    """A rule passes one that cannot hold where it does, and none that it would forestall."""
    answering = REPEAT.body[1]
    (step_0, at_end, _) = answering.read
    odd = Rule((Condition("length", 3, phase=0), Condition("step", 1)), BACK.move)
    apart = replace(answering, read=(step_0, odd, at_end, ON))
    program = replace(REPEAT, body=(REPEAT.body[0], apart))
    random = np.random.default_rng(1)
    recordings = [recorded(program, sequence(program, random)) for _ in range(48)]
    episodes = [Episode.of(recording, program.phases) for recording in recordings]
    flow = find_dataflows(episodes, program.phases)[0]
    heads = [WatchedHead(episodes, flow, kind) for kind in ("write", "read")]

    read = pruned(program, episodes, heads).body[1].read

    assert read == (odd, step_0, at_end, ON)
