"""Walks: clients that take sessions through their steps, and compare every output."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import timedelta

from ntm_client import Durability
from ntm_client.errors import (
    InvalidRequest,
    NotResumable,
    NtmClientError,
    SessionGone,
    StepIndexMismatch,
)
from tests.stress.chaos.expected import STEPS, Expected
from tests.stress.chaos.world import Kept, OnStream, Opener, Threaded, Unary, Walked, World

MAX_STEPS = 12
"""In one chunk."""

_MOST_LOOKS = 20


async def opened(
    world: World, opener: Opener, chance: random.Random, idle_timeout: timedelta | None = None
) -> tuple[Expected, Walked] | None:
    """A new session of whichever durability; None if the run is over before one opens."""
    durability = chance.choice([Durability("synchronous"), Durability("asynchronous", 16)])
    return await opened_as(world, opener, durability, idle_timeout)


async def opened_as(
    world: World, opener: Opener, durability: Durability, idle_timeout: timedelta | None = None
) -> tuple[Expected, Walked] | None:
    """A new session of that durability; None if the run is over before one opens."""
    expected = world.next()
    while not world.is_over:
        try:
            return expected, await opener.open(expected.model, idle_timeout, durability)
        except NtmClientError as error:  # a lost answer may have opened one: never tried again
            if type(error) is InvalidRequest:
                raise  # no fault of the world's makes a request invalid
            world.tally.errors[f"open: {type(error).__name__}"] += 1
            await asyncio.sleep(0.05)
    world.tally.sessions -= 1
    return None


async def stepped(
    world: World, expected: Expected, session: Walked, steps: int, where: str
) -> None:
    """Make steps and compare."""
    first, resumptions = session.next_step, session.resumptions
    replayed, started = session.replayed_steps, time.monotonic()
    result = await session.step(expected.inputs[first : first + steps])
    world.tally.compare(expected, first, result.array, where)
    if session.resumptions > resumptions:
        world.tally.resume_seconds.append(time.monotonic() - started)
    world.tally.replayed_steps += session.replayed_steps - replayed


async def walk(world: World, opener: Opener, name: str) -> None:
    """One session after another, until the run is over."""
    chance = world.chance(name)
    while found := await opened(world, opener, chance):
        expected, session = found
        last = STEPS if chance.random() < 0.8 else chance.randrange(1, STEPS)
        try:
            while session.next_step < last and not world.is_over:
                steps = min(chance.randint(1, MAX_STEPS), last - session.next_step)
                await stepped(world, expected, session, steps, name)
                await asyncio.sleep(chance.choice([0, 0, 0.01, 0.1]))
                if chance.random() < 0.15:
                    await set_back(world, expected, session, chance, name)
            await ended(world, opener, expected, session, chance)
        except (NtmClientError, AssertionError) as error:
            lost(world, expected, session, error, name)


async def set_back(
    world: World, expected: Expected, session: Walked, chance: random.Random, where: str
) -> None:
    """Have the session go back, or go on as a fork, and make steps again with the same outputs."""
    kind = chance.choice(["reset", "restored", "forked"])
    world.tally.operations[kind] += 1
    if kind == "reset":
        await session.reset()
    elif kind == "restored":
        at, taken = session.next_step, await session.checkpoint()
        await stepped(world, expected, session, min(MAX_STEPS, STEPS - at) or 1, where)
        await session.restore(taken)
        if session.next_step != at:
            raise AssertionError(f"restored to step {session.next_step}, and not {at}")
    else:
        fork = await session.fork()
        if fork.next_step != session.next_step:
            raise AssertionError(f"forked at step {fork.next_step}, and not {session.next_step}")
        steps = min(MAX_STEPS, STEPS - fork.next_step)
        if steps:
            await stepped(world, expected, fork, steps, f"{where}, fork")
        await fork.delete()


async def undurable(world: World, name: str) -> None:
    """Sessions without durability: what is lost is told plainly, and nothing wrong is."""
    chance = world.chance(name)
    async with world.asynchronous((await world.way()).target) as client:
        while found := await opened_as(world, Unary(client), Durability("none")):
            expected, session = found
            try:
                while session.next_step < STEPS and not world.is_over:
                    steps = min(chance.randint(1, MAX_STEPS), STEPS - session.next_step)
                    await stepped(world, expected, session, steps, name)
                    await asyncio.sleep(chance.choice([0, 0.05]))
                await session.delete()
                world.tally.ends["undurable, deleted"] += 1
            except (NotResumable, SessionGone, StepIndexMismatch) as error:
                world.tally.ends[f"undurable, told {type(error).__name__}"] += 1
            except NtmClientError as error:
                lost(world, expected, session, error, name)


async def ended(
    world: World, opener: Opener, expected: Expected, session: Walked, chance: random.Random
) -> None:
    """Keep the session for the audit, or delete it and see that it is gone."""
    if session.next_step < STEPS or chance.random() < 0.2:
        keep(world, expected, session)
        return
    await session.delete()
    world.tally.ends["deleted"] += 1
    if chance.random() < 0.5:
        try:
            found = await opener.find(session.id)
        except SessionGone:
            return
        world.tally.undeleted.append(
            f"session {expected.number} was found at step {found.next_step} after its deletion"
        )


def keep(world: World, expected: Expected, session: Walked) -> None:
    """Leave a session open, for the audit to find."""
    world.kept.append(
        Kept(expected, session.id, session.durability, session.next_step, session.durable_step)
    )
    world.tally.ends["kept"] += 1


def lost(world: World, expected: Expected, session: Walked, error: Exception, where: str) -> None:
    """Tell of a session that could not go on."""
    world.tally.ends["lost"] += 1
    world.tally.losses.append(
        f"session {expected.number} ({session.durability.policy}, {where}) at step "
        f"{session.next_step}, durable {session.durable_step}: {type(error).__name__}: {error}"
    )


async def unary(world: World, name: str) -> None:
    """A walk by the calls of an asynchronous client."""
    async with world.asynchronous((await world.way()).target) as client:
        await walk(world, Unary(client), name)


async def threaded(world: World, name: str) -> None:
    """A walk by a client that blocks."""
    with world.blocking((await world.way()).target) as client:
        await walk(world, Threaded(client), name)


async def streamed(world: World, name: str) -> None:
    """Three walks on one stream."""
    client = world.asynchronous((await world.way()).target)
    async with client, client.stream() as stream:
        opener = OnStream(stream)
        await asyncio.gather(*(walk(world, opener, f"{name}.{number}") for number in range(3)))


async def handed_over(world: World, name: str) -> None:
    """Two clients on ways of their own claim a session in turns."""
    chance = world.chance(name)
    clients = [world.asynchronous((await world.way()).target) for _ in range(2)]
    while found := await opened(world, Unary(clients[0]), chance):
        expected, session = found
        durable = turn = 0
        try:
            while session.next_step < STEPS and not world.is_over:
                for _ in range(chance.randint(1, 3)):
                    durable = await stepped_on(world, expected, session, chance, durable, name)
                turn += 1
                opener = Unary(clients[turn % 2])
                session = await taken_over(world, opener, expected, session.id, durable)
            await settled(world, expected, session, chance, durable, name)
        except (NtmClientError, AssertionError) as error:
            lost(world, expected, session, error, name)
    for client in clients:
        await client.close()


async def taken_over(
    world: World, opener: Opener, expected: Expected, session_id: str, durable: int
) -> Walked:
    """A session as another client finds it."""
    found = await opener.find(session_id)
    if found.next_step < durable:
        world.tally.stale.append(
            f"session {expected.number} was shown at step {found.next_step}, durable {durable}"
        )
    return found


async def settled(
    world: World,
    expected: Expected,
    session: Walked,
    chance: random.Random,
    durable: int,
    where: str,
) -> None:
    """Keep a session that was taken over, once a step has shown where it is."""
    await stepped_on(world, expected, session, chance, durable, where)
    keep(world, expected, session)


async def stepped_on(
    world: World,
    expected: Expected,
    session: Walked,
    chance: random.Random,
    durable: int,
    where: str,
) -> int:
    """
    Make steps of a session that another client has stepped; what is durable then.

    This client may know the session's step from a replica that did not know of its takeover, and
    has no inputs from before; it then does what `NotResumable` says.
    """
    for _ in range(_MOST_LOOKS):
        steps = min(chance.randint(1, MAX_STEPS), STEPS - session.next_step)
        try:
            if steps:
                await stepped(world, expected, session, steps, where)
            return max(durable, session.durable_step)
        except (NotResumable, StepIndexMismatch) as error:
            if error.expected < durable:
                raise
            world.tally.set_right += 1
            await session.describe()
    raise AssertionError(f"its step was not to be learned, durable {durable}")


async def cancelled(
    world: World, expected: Expected, session: Walked, chance: random.Random
) -> None:
    """Begin many steps, and give them up in the middle."""
    world.tally.faults["call cancelled"] += 1
    steps = asyncio.create_task(session.step(expected.inputs[session.next_step :]))
    await asyncio.wait({steps}, timeout=chance.choice([0, 0.001, 0.005, 0.02]))
    steps.cancel()
    await asyncio.gather(steps, return_exceptions=True)


async def expiring(world: World, name: str) -> None:
    """Sessions that expire, each followed by one that gets its slot."""
    chance = world.chance(name)
    client = world.asynchronous((await world.way()).target)
    while found := await opened(world, Unary(client), chance, timedelta(seconds=1.5)):
        expected, session = found
        try:
            for _ in range(chance.randint(1, 5)):
                await stepped(world, expected, session, chance.randint(1, MAX_STEPS), name)
            if chance.random() < 0.5:
                await cancelled(world, expected, session, chance)
            await asyncio.sleep(2.5)
            await client.session(session.id)
        except SessionGone:
            world.tally.ends["expired"] += 1
        except NtmClientError as error:
            lost(world, expected, session, error, name)
        else:
            world.tally.ends["expired late"] += 1
    await client.close()
