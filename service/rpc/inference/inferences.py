"""One request of the protocol on its way to the engine and back, from a call or from a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from service.auth.principal import Principal
from service.engine.work import Chunk
from service.errors import ModelUnknown, ModelVersionUnknown, NtmError, SessionMoved
from service.inference.v2 import inference_pb2 as pb
from service.models.catalogue import Catalogue
from service.models.version import Version
from service.rpc import status
from service.rpc.calls import Calls
from service.rpc.inference import models, replies, requests
from service.rpc.inference.sequences import Sequences, refusal, session_id
from service.rpc.inference.statistics import Statistics
from service.session_ref import SessionRef
from service.spec import MAX_NAME, ModelSpec


class Inference:
    """A request that is under way."""

    def __init__(
        self, asked: requests.Asked, session: str, version: Version, spec: ModelSpec
    ) -> None:
        self.asked = asked
        self.session = session
        """The id of its sequence's session."""
        self.version = version
        self.spec = spec
        self.began_seconds = time.monotonic()


class Inferences:
    """Takes requests and makes answers, and counts both."""

    def __init__(self, calls: Calls) -> None:
        self.sequences = Sequences(calls)
        self.statistics = Statistics()
        self._calls = calls
        self._catalogue: Catalogue = calls.catalogue

    def version(self, model: str, version: str) -> Version:
        """
        A version of a model, by its number or its content hash; else the one for new sequences.

        Raises:
            ModelUnknown, ModelVersionUnknown: it is not here, in the words of the protocol.
        """
        try:
            current = self._catalogue.current(model)
        except ModelUnknown as error:
            raise ModelUnknown(
                f"Request for unknown model: {model[:MAX_NAME]!r} is not found"
            ) from error
        if not version:
            return current
        for found in self._catalogue.versions(model):
            if version in (models.number(found), found.content_hash):
                return found
        raise ModelVersionUnknown(
            f"Request for unknown model: {model!r} version {version[:MAX_NAME]!r} is not found; "
            "leave the version out for the one for new sequences"
        )

    def versions(self, model: str) -> Sequence[Version]:
        """The versions of a model; the one for new sequences is first."""
        return self._catalogue.versions(model)

    def spec(self, version: Version) -> ModelSpec:
        """The spec of a version that is here."""
        return self._catalogue.file(version).spec

    def take(self, request: pb.ModelInferRequest, principal: Principal) -> Inference:
        """
        Decode a request.

        Raises:
            InvalidRequest, ModelUnknown, ModelVersionUnknown: it is wrong; the message says why.
        """
        version = self.version(request.model_name, request.model_version)
        try:
            session = session_id(request.model_name, requests.sequence_of(request), principal)
            if not requests.starts(request):
                ref = SessionRef(session, principal.caller, 0)
                version = self._calls.lifecycle.sessions.version(ref) or version
            spec = self.spec(version)
            return Inference(requests.decode(request, spec), session, version, spec)
        except NtmError:
            self.statistics.failed(version, 0.0)
            raise

    async def made(self, inference: Inference, principal: Principal) -> pb.ModelInferResponse:
        """The answer, once the steps are made. Raises the error of the steps."""
        chunk = self.sequences.at_once(inference.session, inference.asked, principal)
        try:
            try:
                if chunk is not None:
                    await self._calls.made(chunk)
            except SessionMoved:
                chunk = None
            chunk = chunk or await self.in_turn(inference, principal)
        except Exception as error:
            raise self.failed(inference, error) from error
        return self.answer(inference, chunk)

    def in_turn(self, inference: Inference, principal: Principal) -> asyncio.Task[Chunk]:
        """The chunk of a request that others have to wait for, once its steps are made."""
        return self.sequences.in_turn(
            inference.session, inference.asked, inference.version, principal
        )

    def answer(self, inference: Inference, chunk: Chunk) -> pb.ModelInferResponse:
        """The answer for a chunk that is made."""
        version = models.number(inference.version)
        response = replies.encode(inference.asked, chunk, inference.spec, version)
        self._calls.replied([chunk], chunk.outcome.nbytes)
        seconds = time.monotonic() - inference.began_seconds
        self.statistics.answered(inference.version, chunk, seconds)
        return response

    def failed(self, inference: Inference, error: BaseException) -> NtmError:
        """The error that the client is told, for steps that failed."""
        seconds = time.monotonic() - inference.began_seconds
        self.statistics.failed(inference.version, seconds)
        return status.known(refusal(error, inference.asked))
