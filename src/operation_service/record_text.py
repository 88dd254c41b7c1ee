"""One operation, told to a person: a fact a line, then the request and the log."""

from collections.abc import Iterator

from google.rpc.code_pb2 import Code

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.answers import Answers
from operation_service.rows import duration, log_line, moment, state_name
from operation_service.tables import print_facts, write
from operation_service.terminal_text import as_json, shown


def print_record(record: pb.OperationRecord, answers: Answers) -> None:
    """Print an operation on standard output.

    Args:
        record: The operation.
        answers: Reads its request.
    """
    operation = record.operation
    print_facts(facts(record))
    if operation.HasField("operation_request"):
        write(f"request\n{_indented(as_json(answers.any(operation.operation_request), indent=2))}")
    if operation.logs:
        write("log\n" + "".join(f"  {log_line(log)}\n" for log in operation.logs))


def facts(record: pb.OperationRecord) -> Iterator[tuple[str, str]]:
    """Yield what there is to tell of an operation in a word or two."""
    operation = record.operation
    yield "project", shown(record.project)
    yield "name", shown(record.name)
    yield "state", state_name(record.state)
    if record.holder:
        yield "holder", shown(record.holder)
    if record.HasField("locked_since"):
        yield "held since", moment(record.locked_since)
    if operation.HasField("locked_until"):
        yield "held until", moment(operation.locked_until)
    if record.HasField("remaining"):
        yield "remaining", duration(record.remaining.ToTimedelta().total_seconds())
    if operation.is_disabled_cancel:
        yield "cancelling", "disabled"
    yield "token", shown(operation.proposing_peer_token)
    yield "fencing token", str(record.fencing_token)
    yield "revision", str(record.revision)
    if record.HasField("error"):
        yield "error", f"{code_name(record.error.code)}: {shown(record.error.message)}"


def code_name(code: int) -> str:
    """Return the name of a google.rpc.Code; the number of one that nobody knows."""
    return Code.Name(code) if code in Code.values() else str(code)


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())
