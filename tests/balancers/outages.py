"""`python -m tests.balancers.outages`: how long sessions wait whose replica is killed."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from client import Client, Session
from deploy.stack import wait_until
from tests.balancers.balancing import BALANCERS, balancing, leads_to
from tests.balancers.replicas import MODEL, Replica, replicas

SESSIONS = 24
BETWEEN_SECONDS = 0.02
"""Between a session's answer and its next step."""


class Pace:
    """One session that is stepped all the time, and the longest that it has waited."""

    def __init__(self, client: Client, site: Sequence[Replica]) -> None:
        """Open it, and see which replica it belongs to; no other one may be stepped meanwhile."""
        self.session: Session = client.create_session(MODEL)
        before = [replica.count("ntm_steps_total") for replica in site]
        self.session.step(np.zeros((1, self.session.model.input_width), np.float32))
        after = [replica.count("ntm_steps_total") for replica in site]
        self.owner = [now - then for now, then in zip(after, before, strict=True)].index(1)
        self.longest_seconds = 0.0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._go)

    def _go(self) -> None:
        inputs = np.zeros((1, self.session.model.input_width), np.float32)
        while not self.stopped.wait(BETWEEN_SECONDS):
            began = time.perf_counter()
            self.session.step(inputs)
            self.longest_seconds = max(self.longest_seconds, time.perf_counter() - began)


def kill(site: Sequence[Replica], victim: int, paces: Sequence[Pace]) -> list[float]:
    """Kill a replica and start it again; the longest wait of each session meanwhile, in seconds."""
    for pace in paces:
        pace.longest_seconds = 0.0
    site[victim].kill()
    steps = [pace.session.next_step for pace in paces]
    wait_until(
        lambda: all(p.session.next_step > was + 5 for p, was in zip(paces, steps, strict=True)),
        60,
        "every session goes on",
    )
    waits = [pace.longest_seconds for pace in paces]
    site[victim].start()
    site[victim].wait()
    return waits


def main(program: str, rounds: int) -> None:
    """Kill replicas in turn behind that balancer, and print how long sessions waited."""
    balancer = next(each for each in BALANCERS if each.program == program)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            replicas(folder) as site,
            balancing(balancer, site, folder) as address,
            Client(address) as client,
        ):
            paces = [Pace(client, site) for _ in range(SESSIONS)]
            for pace in paces:
                pace.thread.start()
            theirs: list[float] = []
            others: list[float] = []
            for number in range(rounds):
                victim = number % len(site)
                waits = kill(site, victim, paces)
                for pace, wait in zip(paces, waits, strict=True):
                    (theirs if pace.owner == victim else others).append(wait)
                wait_until(lambda: leads_to(address, site), 30, "the balancer has noticed")
            for pace in paces:
                pace.stopped.set()
            for pace in paces:
                pace.thread.join()
            resumed = sum(pace.session.resumptions for pace in paces)
    print(f"{program}: {rounds} kills under {SESSIONS} sessions; clients resumed {resumed} times")
    tell("sessions of the replica killed", theirs)
    tell("all others", others)


def tell(whose: str, waits: Sequence[float]) -> None:
    """Print how long they waited."""
    middle, late, most = np.percentile(waits, [50, 99, 100]) * 1000
    print(f"{whose}: {len(waits)}, p50 {middle:.0f} ms, p99 {late:.0f} ms, most {most:.0f} ms")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
