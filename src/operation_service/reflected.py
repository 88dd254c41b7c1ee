"""Asks a service's reflection for message types, as grpcurl does."""

import contextlib
from collections.abc import Iterator, Sequence

import grpc
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

_METHOD = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
_OPTIONS = (("grpc.enable_http_proxy", 0),)


class Reflected:
    """The types that a service knows. Where it does not answer, it knows none: they are a help, and nothing more.

    Args:
        address: HOST:PORT of the service.
        timeout_seconds: For each answer, in seconds.
    """

    def __init__(self, address: str, timeout_seconds: float) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds

    def __call__(self, symbol: str) -> Sequence[bytes]:
        """Return the file that declares a type and all that it imports, serialized; none: the type is not known."""
        with contextlib.suppress(grpc.RpcError), grpc.insecure_channel(self._address, options=_OPTIONS) as channel:
            ask = channel.stream_stream(
                _METHOD,
                request_serializer=ServerReflectionRequest.SerializeToString,
                response_deserializer=ServerReflectionResponse.FromString,
            )
            requests = iter([ServerReflectionRequest(file_containing_symbol=symbol)])
            answers: Iterator[ServerReflectionResponse] = ask(requests, timeout=self._timeout_seconds)
            for answer in answers:
                return list(answer.file_descriptor_response.file_descriptor_proto)
        return ()
