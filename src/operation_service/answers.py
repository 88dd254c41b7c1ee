"""The service's answers as JSON, the way grpcurl prints them: protobuf's JSON, with camelCase names."""

from typing import Any

from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import Operation
from operation_service.request_text import RequestText

Json = dict[str, Any]


class Answers:
    """Turns answers into what `json.dumps` takes.

    Args:
        texts: Reads the requests and the details of errors, whose types protobuf itself does not know.
    """

    def __init__(self, texts: RequestText) -> None:
        self.texts = texts

    def operation(self, message: Operation) -> Json:
        """Return an operation."""
        rest = Operation()
        rest.CopyFrom(message)
        rest.ClearField("operation_request")
        found = plain(rest)
        if message.HasField("operation_request"):
            return {"operationRequest": self.any(message.operation_request), **found}
        return found

    def record(self, message: pb.OperationRecord) -> Json:
        """Return an operation with all that is known around it."""
        rest = pb.OperationRecord()
        rest.CopyFrom(message)
        rest.operation.ClearField("operation_request")
        del rest.error.details[:]
        if not message.HasField("error"):
            rest.ClearField("error")
        found = plain(rest)
        found["operation"] = self.operation(message.operation)
        if message.error.details:
            found["error"]["details"] = [self.any(detail) for detail in message.error.details]
        return found

    def event(self, message: pb.WatchOperationsResponse) -> Json:
        """Return one change."""
        rest = pb.WatchOperationsResponse(event=message.event, revision=message.revision)
        found = plain(rest)
        found["operation"] = self.record(message.operation)
        return found

    def any(self, message: AnyMessage) -> Json:
        """Return a message of any type."""
        return self.texts.to_json(message)


def plain(message: Message) -> Json:
    """Return a message without an Any in it."""
    found: Json = json_format.MessageToDict(message)
    return found
