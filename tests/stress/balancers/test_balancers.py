"""Behind each balancer, sessions stay with their replica, and outlive it bit for bit."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from deploy.generate.stack import wait_until
from ntm_client import Client, Session
from ntm_tasks import TaskSequence
from service.spec import Float32
from tests.stress.balancers.balancing import BALANCERS, Balancer, balancing, checked, leads_to
from tests.stress.balancers.replicas import MODEL, Replica, replicas

SESSIONS = 24
LENGTH = 20
"""Vectors to copy: twice as many steps, and one."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Site:
    """A balancer before its replicas."""

    balancer: Balancer
    address: str
    replicas: Sequence[Replica]
    folder: Path


@pytest.fixture(scope="module", params=BALANCERS, ids=lambda balancer: balancer.program)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A balancer and three replicas that share a store; all serve at the start of each test."""
    balancer: Balancer = request.param
    if balancer.path is None:
        pytest.skip(f"{balancer.program} is not installed: {balancer.install}")
    folder = tmp_path_factory.mktemp(balancer.program)
    with replicas(folder) as started, balancing(balancer, started, folder) as address:
        yield Site(balancer, address, started, folder)


@pytest.fixture
def sessions(site: Site) -> Iterator[list[Session]]:
    """Sessions that were opened through the balancer, and are deleted at the end."""
    with Client(site.address) as client:
        opened = [client.create_session(MODEL) for _ in range(SESSIONS)]
        yield opened
        for session in opened:
            session.delete()


def owner(site: Site, session_id: str) -> int:
    """Which replica makes the next step of a session that a new connection asks for."""
    before = [replica.count("ntm_steps_total") for replica in site.replicas]
    with Client(site.address) as client:
        client.session(session_id).step(np.zeros((1, 9), np.float32))
    after = [replica.count("ntm_steps_total") for replica in site.replicas]
    made = [now - then for now, then in zip(after, before, strict=True)]
    assert sorted(made) == [0, 0, 1]
    return made.index(1)


def owners(site: Site, sessions: Sequence[Session]) -> list[int]:
    """The owner of each session; sets all of them back."""
    found = [owner(site, session.id) for session in sessions]
    for session in sessions:
        session.reset()
    return found


def expected(site: Site, sequences: Sequence[TaskSequence]) -> list[Float32]:
    """What each sequence gives in a session that nothing happens to, beside the balancer."""
    with Client(site.replicas[0].address) as client, client.create_session(MODEL) as session:
        outputs = []
        for sequence in sequences:
            outputs.append(session.step(sequence.inputs).array)
            session.reset()
        return outputs


def test_the_balancer_accepts_its_configuration(site: Site) -> None:
    """Without a warning of nginx or HAProxy, as its own check has it."""
    said = checked(site.balancer, site.replicas, site.folder)

    assert said.returncode == 0, said.stdout + said.stderr
    assert "warn" not in (said.stdout + said.stderr).lower()


def test_sessions_stay_with_their_replica(site: Site, sessions: list[Session]) -> None:
    """Whichever connection asks, and every replica has some."""
    first = owners(site, sessions)

    assert owners(site, sessions) == first
    assert set(first) == {0, 1, 2}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_sessions_outlive_their_replica(
    site: Site, sessions: list[Session], number: signal.Signals
) -> None:
    """Ended in the middle of steps: no output differs by a bit, and other sessions stay."""
    before = owners(site, sessions)
    sequences = [TaskSequence.draw("copy", (LENGTH,), seed) for seed in range(SESSIONS)]
    wanted = expected(site, sequences)
    firsts = [s.step(q.inputs[:LENGTH]).outputs for s, q in zip(sessions, sequences, strict=True)]

    def go_on(session: Session, sequence: TaskSequence) -> Float32:
        steps = [session.step(inputs[None]).array for inputs in sequence.inputs[LENGTH:]]
        return np.concatenate(steps)

    made = site.replicas[0].count("ntm_steps_total")
    with ThreadPoolExecutor(SESSIONS) as pool:
        going = [pool.submit(go_on, s, q) for s, q in zip(sessions, sequences, strict=True)]
        wait_until(lambda: site.replicas[0].count("ntm_steps_total") > made, 20, "they go on")
        assert not all(task.done() for task in going)
        site.replicas[0].kill(number)
        rests = [task.result() for task in going]

    for first, rest, want in zip(firsts, rests, wanted, strict=True):
        assert np.concatenate([first, rest]).tobytes() == want.tobytes()
    moved = survivors(site, sessions, before)
    site.replicas[0].start()
    site.replicas[0].wait()
    assert moved == []
    wait_until(lambda: leads_to(site.address, site.replicas), 30, "the balancer has noticed")
    assert owners(site, sessions) == before


def survivors(site: Site, sessions: Sequence[Session], before: Sequence[int]) -> list[str]:
    """The sessions of other replicas than the first, which is dead, that have moved."""
    moved = []
    for session, was in zip(sessions, before, strict=True):
        if was == 0:
            continue
        others = [replica for replica in site.replicas[1:] if replica is not site.replicas[was]]
        count = others[0].count("ntm_steps_total")
        session.step(np.zeros((1, 9), np.float32))
        if others[0].count("ntm_steps_total") != count:
            moved.append(session.id)
    return moved
