"""Asks a service's reflection for message types, as grpcurl does."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import grpc
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from operation_service.client.connection import Target
from operation_service.client.errors import OperationServiceError

_METHOD = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


class Reflected:
    """The types that a service knows. Where it does not answer, it knows none: they are a help, and nothing more.

    Args:
        target: Makes what connects to the service, when it is needed.
        timeout_seconds: For each answer, in seconds.
    """

    def __init__(self, target: Callable[[], Target], timeout_seconds: float) -> None:
        self._target = target
        self._timeout_seconds = timeout_seconds

    def __call__(self, symbol: str) -> Sequence[bytes]:
        """Return the file that declares a type and all that it imports, serialized; none: the type is not known."""
        target = self._target()
        with contextlib.suppress(grpc.RpcError, OperationServiceError), target.open(grpc) as channel:
            ask = channel.stream_stream(
                _METHOD,
                request_serializer=ServerReflectionRequest.SerializeToString,
                response_deserializer=ServerReflectionResponse.FromString,
            )
            requests = iter([ServerReflectionRequest(file_containing_symbol=symbol)])
            answers: Iterator[ServerReflectionResponse] = ask(
                requests, timeout=self._timeout_seconds, metadata=target.metadata()
            )
            for answer in answers:
                return list(answer.file_descriptor_response.file_descriptor_proto)
        return ()
