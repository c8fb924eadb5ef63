"""The RPCs of inference.GRPCInferenceService."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import Message

from service import __version__
from service.auth.authentication import Context
from service.auth.principal import PRINCIPAL, READ, STEP
from service.errors import InvalidRequest, NtmError
from service.inference.v2 import inference_pb2 as pb
from service.rpc.bidirectional import OpenStreams
from service.rpc.calls import Calls
from service.rpc.gate import STREAMS, needs, scopes
from service.rpc.inference import models
from service.rpc.inference.inferences import Inferences
from service.rpc.inference.sequences import SERVICE
from service.rpc.inference.stream import Stream
from service.settings import Settings

NAME = "ntm-service"

EXTENSIONS = (
    "sequence",
    "sequence(string_id)",
    "model_configuration",
    "model_repository",
    "statistics",
)
"""What Triton adds to the protocol, as far as it is here. Loading and shared memory are not."""


class InferenceServicer:
    """
    Serves sequences of Triton's clients as sessions.

    `needs` names the scope of each RPC, as in `NtmServicer`. Others are UNIMPLEMENTED.
    """

    def __init__(self, calls: Calls, settings: Settings, is_ready: Callable[[], bool]) -> None:
        self._calls = calls
        self._inferences = Inferences(calls)
        self._models = calls.catalogue
        self._settings = settings
        self._is_ready = is_ready
        self.streams = OpenStreams(calls.metrics)

    def described(self, model: str) -> dict[str, object] | None:
        """The metadata of a model, or of the server for no name, as HTTP tells it."""
        if not model:
            return {"name": NAME, "version": __version__, "extensions": list(EXTENSIONS)}
        try:
            version = self._inferences.version(model, "")
            told = models.metadata(
                model, self._inferences.spec(version), self._inferences.versions(model)
            )
        except NtmError:
            return None
        return {
            "name": model,
            "versions": list(told.versions),
            "platform": told.platform,
            "inputs": [_tensor(each) for each in told.inputs],
            "outputs": [_tensor(each) for each in told.outputs],
        }

    @needs(READ)
    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: Context
    ) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    @needs(READ)
    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._is_ready())

    @needs(READ)
    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: Context
    ) -> pb.ModelReadyResponse:
        try:
            self._inferences.version(request.name, request.version)
        except NtmError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self._is_ready())

    @needs(READ)
    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name=NAME, version=__version__, extensions=EXTENSIONS)

    @needs(READ)
    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        version = self._inferences.version(request.name, request.version)
        versions = [version] if request.version else self._inferences.versions(request.name)
        return models.metadata(request.name, self._inferences.spec(version), versions)

    @needs(READ)
    async def ModelConfig(
        self, request: pb.ModelConfigRequest, context: Context
    ) -> pb.ModelConfigResponse:
        spec = self._inferences.spec(self._inferences.version(request.name, request.version))
        settings = self._settings
        return pb.ModelConfigResponse(
            config=models.config(
                request.name, spec, settings.max_sessions, settings.default_idle_timeout_seconds
            )
        )

    @needs(READ)
    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        names = [request.name] if request.name else self._models.models
        versions = [self._inferences.version(name, request.version) for name in names]
        return pb.ModelStatisticsResponse(
            model_stats=[self._inferences.statistics.message(version) for version in versions]
        )

    @needs(READ)
    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        if request.repository_name:
            raise InvalidRequest(
                f"there is no repository {request.repository_name!r}; leave the name out"
            )
        response = pb.RepositoryIndexResponse()
        for name in self._models.models:
            for version in self._inferences.versions(name):
                response.models.add(name=name, version=models.number(version), state="READY")
        return response

    @needs(STEP)
    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: Context
    ) -> pb.ModelInferResponse:
        principal = PRINCIPAL.get()
        return await self._inferences.made(self._inferences.take(request, principal), principal)

    @needs(STEP)
    async def ModelStreamInfer(self, request_iterator: object, context: Any) -> None:
        stream = Stream(self._calls, self._inferences, context, PRINCIPAL.get(), self._settings)
        await self.streams.serve(stream)


def _tensor(told: pb.ModelMetadataResponse.TensorMetadata) -> dict[str, object]:
    return {"name": told.name, "datatype": told.datatype, "shape": list(told.shape)}


def methods() -> Iterator[tuple[str, type[Message], type[Message]]]:
    """Name, request and response of each RPC."""
    for name in scopes(InferenceServicer):
        asked = name.replace("Stream", "")  # both ways to infer take the same request
        yield name, getattr(pb, f"{asked}Request"), getattr(pb, f"{name}Response")


def handlers(servicer: InferenceServicer) -> grpc.GenericRpcHandler:
    """
    The servicer as gRPC takes it. No code is generated for it, since our messages are in a package
    of our own.
    """
    by_name = {}
    for name, request, response in methods():
        kind = (
            grpc.stream_stream_rpc_method_handler
            if name in STREAMS
            else grpc.unary_unary_rpc_method_handler
        )
        by_name[name] = kind(
            getattr(servicer, name),
            request_deserializer=request.FromString,
            response_serializer=response.SerializeToString,
        )
    return grpc.method_handlers_generic_handler(SERVICE, by_name)
