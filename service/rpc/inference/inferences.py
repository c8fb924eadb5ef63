"""One request of the protocol on its way to the engine and back, from a call or from a stream."""

from __future__ import annotations

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
from service.rpc.inference import models, replies
from service.rpc.inference.requests import Asked, Forms, sequence_of
from service.rpc.inference.sequences import Sequences, refusal, session_id
from service.rpc.inference.statistics import Statistics
from service.session_ref import SessionRef
from service.spec import MAX_NAME, ModelSpec


class Inference:
    """A request that is under way."""

    __slots__ = ("asked", "began_seconds", "session")

    def __init__(self, asked: Asked, session: str) -> None:
        """Begin now; `session` is the id of the sequence's session."""
        self.asked = asked
        self.session = session
        self.began_seconds = time.monotonic()


class Inferences:
    """Takes requests and makes answers, and counts both."""

    def __init__(self, calls: Calls) -> None:
        self.sequences = Sequences(calls)
        self.statistics = Statistics()
        self._calls = calls
        self._catalogue: Catalogue = calls.catalogue
        self._forms = Forms(self.spec)

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
        Decode a request, which takes the ids and the values out of it.

        Raises:
            InvalidRequest, ModelUnknown, ModelVersionUnknown: it is wrong; the message says why.
        """
        version = self.version(request.model_name, request.model_version)
        try:
            sequence = sequence_of(request)
            session = session_id(request.model_name, sequence, principal)
            ref = SessionRef(session, principal.caller, 0)
            there = self._calls.lifecycle.sessions.version(ref) or version
            return Inference(self._forms.decode(request, sequence, version, there), session)
        except NtmError:
            self.statistics.failed(version, 0.0)
            raise

    async def made(self, inference: Inference, principal: Principal) -> pb.ModelInferResponse:
        """The answer, once the steps are made. Raises the error of the steps."""
        session, asked, sequences = inference.session, inference.asked, self.sequences
        try:
            chunk = None
            if not asked.form.is_end:
                chunk = sequences.at_once(session, asked, principal)
            try:
                if chunk is not None:
                    await self._calls.made(chunk)
            except SessionMoved:
                chunk = None
            chunk = chunk or await sequences.in_turn(session, asked, principal)
        except Exception as error:
            raise self.failed(inference, error) from error
        response = pb.ModelInferResponse()
        self.answer(inference, chunk, response)
        return response

    def answer(self, inference: Inference, chunk: Chunk, response: pb.ModelInferResponse) -> None:
        """Write the answer for a chunk that is made."""
        asked = inference.asked
        replies.write(asked, chunk, response)
        self._calls.replied([chunk], chunk.outcome.nbytes)
        seconds = time.monotonic() - inference.began_seconds
        self.statistics.answered(asked.form.version, chunk, seconds)

    def failed(self, inference: Inference, error: BaseException) -> NtmError:
        """The error that the client is told, for steps that failed."""
        seconds = time.monotonic() - inference.began_seconds
        self.statistics.failed(inference.asked.form.version, seconds)
        return status.known(refusal(error, inference.asked))
