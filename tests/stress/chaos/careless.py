"""A client on the bare stubs, whose messages come twice and in the wrong order."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import numpy as np

from ntm.v1 import ntm_pb2 as pb
from ntm.v1.ntm_pb2_grpc import NtmServiceStub
from tests.stress.chaos.expected import STEPS, Expected
from tests.stress.chaos.world import TIMEOUT_SECONDS, World

_STEPS_AT_ONCE = 6
_MOST_IN_A_ROW = 400


async def careless(world: World, name: str) -> None:
    """Sessions whose chunks are sent twice, or after the one that follows them."""
    async with grpc.aio.insecure_channel((await world.way()).target) as channel:
        stub = NtmServiceStub(channel)
        while not world.is_over:
            durability = pb.Durability(policy=pb.Durability.POLICY_SYNCHRONOUS)
            expected = world.next()
            try:
                opened = await stub.CreateSession(
                    pb.CreateSessionRequest(model=expected.model, durability=durability),
                    timeout=TIMEOUT_SECONDS,
                )
            except grpc.aio.AioRpcError as error:
                world.tally.errors[f"careless: {error.code().name}"] += 1
                world.tally.sessions -= 1
                await asyncio.sleep(0.05)
                continue
            await _Careless(world, name, stub, expected, opened.session).walk()


class _Careless:
    def __init__(
        self,
        world: World,
        name: str,
        stub: NtmServiceStub,
        expected: Expected,
        session: pb.Session,
    ) -> None:
        self._world = world
        self._name = name
        self._chance = world.chance(f"{name} {expected.number}")
        self._stub = stub
        self._expected = expected
        self._session = session
        self._step = 0

    async def walk(self) -> None:
        """Go on until the session's end, whatever is refused in between."""
        tally, in_a_row = self._world.tally, 0
        while self._step < STEPS and not self._world.is_over:
            before = self._step
            kind = self._chance.choice(["", "duplicated", "reordered"])
            second = self._step + (_STEPS_AT_ONCE if kind == "reordered" else 0)
            chunks = [self._step, second] if kind else [self._step]
            if kind:
                tally.faults[f"message {kind}"] += 1
                chunks.reverse()
            await asyncio.gather(*(self._made(first) for first in chunks if first < STEPS))
            in_a_row = 0 if self._step > before else in_a_row + 1
            if in_a_row > _MOST_IN_A_ROW:
                tally.losses.append(f"session {self._expected.number}, careless: never answered")
                break
            await asyncio.sleep(0.2 if in_a_row else 0)
        else:
            tally.ends["careless, to the end"] += 1

    async def _made(self, first: int) -> None:
        """Send a chunk; what is answered must be right."""
        inputs = self._expected.inputs[first : min(first + _STEPS_AT_ONCE, STEPS)]
        chunk = pb.Chunk(
            session_id=self._session.id,
            first_step=first,
            inputs=inputs.astype("<f4").tobytes(),
            epoch=self._session.epoch,
        )
        tally = self._world.tally
        try:
            response: pb.StepResponse = await self._stub.Step(
                pb.StepRequest(chunk=chunk), timeout=TIMEOUT_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            tally.errors[f"careless: {error.code().name}"] += 1
            return
        reply = response.reply
        width = self._expected.outputs.shape[1]
        outputs = np.frombuffer(reply.outputs, "<f4").reshape(-1, width)
        tally.compare(self._expected, reply.first_step, outputs, self._name)
        self._session.epoch = max(self._session.epoch, reply.epoch)
        self._step = max(self._step, reply.next_step)
