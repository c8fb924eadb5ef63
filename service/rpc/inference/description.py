"""What gRPC's reflection tells of the service."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import FileDescriptor

from service.inference.v2 import inference_pb2 as pb
from service.rpc.gate import STREAMS
from service.rpc.inference.sequences import SERVICE
from service.rpc.inference.servicer import methods


def pool(files: Iterable[FileDescriptor]) -> descriptor_pool.DescriptorPool:
    """
    A pool with these files and what they need, and with the service under the protocol's names.

    The default pool cannot hold it: the messages have another package there.
    """
    described = descriptor_pool.DescriptorPool()
    seen: set[str] = set()
    for file in files:
        _add(described, file, seen)
    described.Add(_service())
    return described


def _add(described: descriptor_pool.DescriptorPool, file: FileDescriptor, seen: set[str]) -> None:
    if file.name in seen:
        return
    seen.add(file.name)
    for needed in file.dependencies:
        _add(described, needed, seen)
    copy = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(copy)
    described.Add(copy)


@cache  # reading the text takes longer than all else of this pool
def _service() -> descriptor_pb2.FileDescriptorProto:
    package, _, name = SERVICE.partition(".")
    ours = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(ours)
    text = text_format.MessageToString(ours).replace(pb.DESCRIPTOR.package, package)
    file = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
    service = file.service.add(name=name)
    for method, request, response in methods():
        service.method.add(
            name=method,
            input_type=f".{package}.{request.DESCRIPTOR.name}",
            output_type=f".{package}.{response.DESCRIPTOR.name}",
            client_streaming=method in STREAMS,
            server_streaming=method in STREAMS,
        )
    return file
