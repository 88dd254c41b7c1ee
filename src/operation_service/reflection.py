"""Server reflection: what grpcurl and its like need to call the service without its protos.

The stock servicer of grpcio-reflection answers from a descriptor pool, without comments and JSON names, and speaks
v1alpha only. This one answers from a DescriptorIndex and speaks v1 too: the same messages under another name.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha.reflection import SERVICE_NAME
from grpc_reflection.v1alpha.reflection_pb2 import (
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)

from operation_service.admission import FullError, Gate
from operation_service.compression import DecompressionError, decompressed
from operation_service.delivery import CallerGoneError, Delivery, NotReadError
from operation_service.descriptors import DescriptorIndex
from operation_service.errors import InvalidRequestError, Violation
from operation_service.status import to_status

# Not listed: its descriptor comes with no Python package, and a listed service has to be describable.
_V1_SERVICE_NAME = "grpc.reflection.v1.ServerReflection"

Context = grpc.aio.ServicerContext[Any, Any]

_MAX_BYTES = 32 * 1024
"""Of a question: it comes back with its answer."""
_QUESTION_SECONDS = 60.0
"""A conversation in which nothing is asked for so long is over."""
_ANSWER_SECONDS = 30.0


def add_reflection(
    server: grpc.aio.Server, index: DescriptorIndex, services: Sequence[str], delivery: Delivery, gate: Gate
) -> None:
    """Register server reflection with a server that has not been started.

    Args:
        server: Where to register it.
        index: What to answer from.
        services: The full names of the services to list; reflection itself comes in addition.
        delivery: Writes.
        gate: Says how many conversations there may be at once.

    Raises:
        KeyError: The index does not know one of the services.
    """
    listed = sorted({*services, SERVICE_NAME})
    for service in listed:
        index.file_of_symbol(service)

    async def converse(_requests: object, context: Context) -> None:
        try:
            with gate.place(), contextlib.suppress(NotReadError, CallerGoneError):
                while (serialized := await _next(context)) is not None:
                    # Parsed here: what fails in a request_deserializer ends in a traceback, and the call in UNKNOWN.
                    if (request := _parsed(serialized)) is None:
                        wrong = InvalidRequestError([Violation("", "not a ServerReflectionRequest")])
                        await delivery.abort(context, to_status(wrong), _ANSWER_SECONDS)
                        return
                    await delivery.write(context, answer(index, listed, request), _ANSWER_SECONDS)
        except FullError as full:
            await delivery.refuse(context, full.status)

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(converse)
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
            for name in (SERVICE_NAME, _V1_SERVICE_NAME)
        ]
    )


async def _next(context: Context) -> bytes | None:
    """Wait for the next question; None: there are no more."""
    try:
        async with asyncio.timeout(_QUESTION_SECONDS):
            question: Any = await context.read()
    except TimeoutError:
        return None
    return None if question is grpc.aio.EOF else cast("bytes", question)


def _parsed(serialized: bytes) -> ServerReflectionRequest | None:
    try:
        serialized = decompressed(serialized)
        return ServerReflectionRequest.FromString(serialized) if len(serialized) <= _MAX_BYTES else None
    except (DecodeError, DecompressionError):
        return None


def answer(
    index: DescriptorIndex, services: Sequence[str], request: ServerReflectionRequest
) -> ServerReflectionResponse:
    """Return the answer to one request. What is unknown or unclear is answered with an error_response."""
    response = ServerReflectionResponse(valid_host=request.host, original_request=request)
    kind = request.WhichOneof("message_request")
    try:
        match kind:
            case "list_services":
                response.list_services_response.service.extend(ServiceResponse(name=name) for name in services)
            case "file_by_filename":
                found = index.file(request.file_by_filename)
                response.file_descriptor_response.file_descriptor_proto.extend(found)
            case "file_containing_symbol":
                found = index.file_of_symbol(request.file_containing_symbol)
                response.file_descriptor_response.file_descriptor_proto.extend(found)
            case "file_containing_extension":
                extension = request.file_containing_extension
                found = index.file_of_extension(extension.containing_type, extension.extension_number)
                response.file_descriptor_response.file_descriptor_proto.extend(found)
            case "all_extension_numbers_of_type":
                message = request.all_extension_numbers_of_type
                response.all_extension_numbers_response.extension_number.extend(index.extension_numbers(message))
                response.all_extension_numbers_response.base_type_name = message
            case _:
                _refuse(response, grpc.StatusCode.INVALID_ARGUMENT, "message_request: nothing is asked for")
    except KeyError as unknown:
        _refuse(response, grpc.StatusCode.NOT_FOUND, f"{kind}: {unknown} is not known here")
    return response


def _refuse(response: ServerReflectionResponse, code: grpc.StatusCode, message: str) -> None:
    response.error_response.error_code = code.value[0]
    response.error_response.error_message = message
