"""
`python -m tests.stress.balancers.outages envoy`: kill replicas in turn under many clients.

Three replicas with one Valkey, behind a balancer. Every few seconds one of them is killed. It is
started again once the balancer has noticed, all sessions go on and every client has begun another
stream: whatever the balancer leads elsewhere has then been there. Every output is compared with
that of a session that nothing happens to.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench import arguments
from deploy.generate.stack import wait_until
from ntm_client import AsyncClient, Client, Durability
from service.spec import Float32
from tests.stress.balancers.balancing import BALANCERS, Balancer, attempts, balancing, leads_to
from tests.stress.balancers.crowd import CHUNK_STEPS, Member, Resumed
from tests.stress.balancers.replicas import MODEL, Replica, replicas
from tests.support.ports import free_port
from tests.support.valkey import Valkey

MAX_SECONDS = 120.0
"""How long all sessions may take to go on; clients give up, which is a loss, in half of it."""

_COMPARED_AT_ONCE = 16
_SHOWN = 10

Places = dict[str, int]
"""The replica that has each session."""


@dataclass
class Outages:
    """What a run has seen."""

    kills: int = 0
    seconds: float = 0.0
    """From the first kill on."""
    resumed: Resumed = field(default_factory=Resumed)
    survivors: int = 0
    """Sessions of the replicas that were not killed, each at each kill."""
    moved: list[str] = field(default_factory=list)
    """Those of them that went to another replica than where they were, or were led at first."""
    interrupted: int = 0
    """Those of them that stayed, but whose clients had to try something again."""
    sessions: int = 0
    steps: int = 0
    replayed: int = 0
    """Steps that clients made again, since they were in no store."""
    compared: int = 0
    """Outputs: numbers, not vectors."""
    mismatches: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether nothing was that must not be."""
        return not (self.moved or self.mismatches or self.losses)


async def outages(
    balancer: Balancer,
    folder: Path,
    *,
    clients: int,
    kills: int,
    every: float,
    pace: float,
    seed: int,
) -> Outages:
    """Make a run of so many kills, at least `every` seconds apart; `pace` is as for `Member.go`."""
    found = Outages()
    valkey = Valkey(folder)
    try:
        with (
            replicas(folder, valkey.url) as site,
            balancing(balancer, site, folder) as address,
        ):
            members = [Member(address, seed, number, found.resumed) for number in range(clients)]
            chance = random.Random(seed)  # noqa: S311 - no secret
            victims = [chance.randrange(len(site)) for _ in range(kills)]
            await _Run(members, site, address, found).go(victims, every, pace)
    finally:
        valkey.stop()
    with replicas(folder, addresses=(f"127.0.0.1:{free_port()}",)) as (undisturbed,):
        await asyncio.to_thread(_compare, members, undisturbed.address, found)
    return found


class _Run:
    """Kills replicas under the members, and counts."""

    def __init__(
        self, members: Sequence[Member], site: Sequence[Replica], address: str, found: Outages
    ) -> None:
        self._members = members
        self._site = site
        self._address = address
        self._found = found
        self._homes: Places = {}
        """Where each session was led when all replicas were there."""

    async def go(self, victims: Sequence[int], every: float, pace: float) -> None:
        """Let the members go, and kill those replicas, one after the other."""
        over = asyncio.Event()
        await asyncio.gather(*(member.open() for member in self._members))
        self._homes = await self._places()
        going = asyncio.gather(*(member.go(pace, over) for member in self._members))
        start = time.perf_counter()
        try:
            for victim in victims:
                began = time.perf_counter()
                await self._kill(victim)
                await asyncio.to_thread(self._start, victim)
                await asyncio.sleep(max(0.0, began + every - time.perf_counter()))
        finally:
            self._found.seconds = time.perf_counter() - start
            over.set()
            await going
            for member in self._members:
                await member.close()

    async def _kill(self, victim: int) -> None:
        """Kill a replica, wait until all sessions go on, and see which of the others' moved."""
        before = await self._places()
        resumptions = {member: member.session.resumptions for member in self._members}
        now = time.perf_counter()
        self._site[victim].kill()
        for member in self._members:
            if before.get(member.session.id) == victim:
                member.killed_at = now
        self._found.kills += 1
        await _comes_about(lambda: attempts(self._address) == 1, "the balancer has noticed")
        streams = {member: member.stream for member in self._members}
        await _comes_about(
            lambda: all(
                m.loss or (m.killed_at is None and m.answered_on > streams[m])
                for m in self._members
            ),
            "every session goes on, and every client on another stream",
        )
        after = await self._places(without=victim)
        for member in self._members:
            session = member.session.id
            if before.get(session) in (victim, None) or session not in after:
                continue
            self._found.survivors += 1
            if after[session] == before[session]:
                self._found.interrupted += member.session.resumptions > resumptions[member]
            elif after[session] != self._homes[session]:
                self._found.moved.append(
                    f"session {session} went from replica {before[session]} to {after[session]} "
                    f"when {victim} was killed"
                )

    async def _places(self, without: int | None = None) -> Places:
        """Where each session is: a replica that it has left knows an earlier step of it."""
        latest: dict[str, tuple[int, int]] = {}
        for number, replica in enumerate(self._site):
            if number == without:
                continue
            async with AsyncClient(replica.address) as client:
                for info in await client.sessions():
                    latest[info.id] = max(latest.get(info.id, (-1, -1)), (info.next_step, number))
        return {session: number for session, (_, number) in latest.items()}

    def _start(self, victim: int) -> None:
        self._site[victim].start()
        self._site[victim].wait()
        wait_until(lambda: leads_to(self._address, self._site), MAX_SECONDS, "it is led to again")


async def _comes_about(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_until, condition, MAX_SECONDS, what)


def _compare(members: Sequence[Member], address: str, found: Outages) -> None:
    """Make every session again where nothing happens, and count."""
    stepped = [member for member in members if member.outputs]
    with Client(address) as client, ThreadPoolExecutor(_COMPARED_AT_ONCE) as pool:

        def again(member: Member) -> Float32:
            with client.create_session(MODEL, durability=Durability("none")) as session:
                inputs = np.concatenate(member.inputs[: len(member.outputs)])
                outputs: Float32 = session.step(inputs).array
                return outputs

        for member, wanted in zip(stepped, pool.map(again, stepped), strict=True):
            outputs = np.concatenate(member.outputs)
            found.steps += len(outputs)
            found.compared += outputs.size
            if outputs.tobytes() != wanted.tobytes():
                step = int(np.flatnonzero((outputs != wanted).any(axis=1))[0])
                found.mismatches.append(f"session {member.session.id} differs at step {step}")
    found.sessions = len(members)
    found.replayed = sum(member.session.replayed_steps for member in members)
    found.losses += [f"session {m.session.id} {m.loss}" for m in members if m.loss]


def table(found: Outages) -> str:
    """The run's numbers, and a sentence for each thing that must not be."""
    rows = [
        ("kills", f"{found.kills}"),
        ("sessions", f"{found.sessions}"),
        ("steps", f"{found.steps}"),
        ("steps made again", f"{found.replayed}"),
        ("outputs compared", f"{found.compared}"),
        ("mismatches", f"{len(found.mismatches)}"),
        ("losses", f"{len(found.losses)}"),
        ("resumed elsewhere", f"{len(found.resumed.after)}"),
        ("from the kill to the first new reply", _spread(found.resumed.after)),
        ("of that, waiting for an answer", _spread(found.resumed.waits)),
        ("survivors moved", f"{len(found.moved)} of {found.survivors}"),
        ("survivors interrupted", f"{found.interrupted}"),
    ]
    lines = [f"{name:<38}{value}" for name, value in rows]
    for sentences in (found.mismatches, found.losses, found.moved):
        lines += sentences[:_SHOWN]
    return "\n".join(lines)


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    middle, late, maximum = np.percentile(seconds, [50, 99, 100]) * 1000
    return f"p50 {middle:.0f} ms, p99 {late:.0f} ms, max {maximum:.0f} ms"


def _processor_seconds() -> tuple[float, float]:
    """Time that the machine's processors were busy, and in all (proc(5), /proc/stat)."""
    spent = [
        float(field) for field in Path("/proc/stat").read_text("utf-8").split("\n")[0].split()[1:9]
    ]
    return sum(spent) - spent[3] - spent[4], sum(spent)


def main() -> int:
    """Make a run and print its table; 1 if an output was wrong, a session lost or one moved."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.balancers.outages")
    parser.add_argument("balancer", choices=[each.program for each in BALANCERS])
    parser.add_argument(
        "--clients", type=arguments.whole(1, 10_000), default=200, help="each with a session [200]"
    )
    parser.add_argument(
        "--seconds", type=arguments.number(1, 86_400), default=300.0, help="that it lasts [300]"
    )
    parser.add_argument(
        "--every",
        type=arguments.number(0.1, 86_400),
        default=10.0,
        help="seconds between kills [10]",
    )
    parser.add_argument(
        "--pace",
        type=arguments.number(0.001, 3_600),
        default=0.5,
        help="seconds between chunks [0.5]",
    )
    parser.add_argument(
        "--seed",
        type=arguments.whole(0, 2**32 - 1),
        default=1,
        help="of inputs, routes and kills [1]",
    )
    given = parser.parse_args()
    balancer = next(each for each in BALANCERS if each.program == given.balancer)
    logging.getLogger("client").setLevel(logging.ERROR)  # it tells of every interruption
    busy, spent = _processor_seconds()
    with tempfile.TemporaryDirectory() as name:
        found = asyncio.run(
            outages(
                balancer,
                Path(name),
                clients=given.clients,
                kills=int(given.seconds // given.every),
                every=given.every,
                pace=given.pace,
                seed=given.seed,
            )
        )
    busy, spent = (
        now - then for now, then in zip(_processor_seconds(), (busy, spent), strict=True)
    )
    print(
        f"{balancer.program}: {given.clients} clients, half of them synchronous, a chunk of "
        f"{CHUNK_STEPS} steps each {given.pace:g} s, a kill each {given.every:g} s, seed "
        f"{given.seed}; it took {found.seconds:.0f} s, processors busy {busy / spent:.0%}"
    )
    print(table(found))
    return 0 if found.is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
