"""Reads and writes what is in a google.protobuf.Any, as JSON.

Types are looked for in descriptor sets, and then with whoever else may know them: the service's reflection.
"""

import base64
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from operation_service import descriptor_sets

Ask = Callable[[str], Sequence[bytes]]
"""Returns the files that a type needs, serialized, with all that they import; none: nobody knows it."""


class UnknownTypeError(Exception):
    """A message type that neither a descriptor set nor the service knows."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the type {name or '(none)'} is not known: name a file that has it with --descriptor-set, "
            "or start the service with one"
        )


class WrongRequestError(ValueError):
    """JSON that is no message of the type that it names."""


class RequestText:
    """Turns Any messages into JSON, and back.

    Args:
        paths: Descriptor sets to look into first.
        ask: Who else may know a type.

    Raises:
        DescriptorSetError: A descriptor set cannot be used.
    """

    def __init__(self, paths: Sequence[Path] = (), ask: Ask = lambda _: ()) -> None:
        self._index = descriptor_sets.load(paths)
        self._ask = ask
        self._known: dict[str, DescriptorPool | None] = {}

    def to_json(self, message: AnyMessage) -> dict[str, Any]:
        """Return a message as JSON has it; where its type is not known, its bytes in base64, as grpcurl prints them."""
        try:
            pool = self._pool_with(message.TypeName())
            found: dict[str, Any] = json_format.MessageToDict(message, descriptor_pool=pool)
        except (UnknownTypeError, DecodeError, TypeError, json_format.Error) as error:
            value = base64.b64encode(message.value).decode()
            return {"@type": message.type_url, "@error": str(error), "@value": value}
        return found

    def from_json(self, value: Any) -> AnyMessage:  # noqa: ANN401, whatever somebody has typed
        """Return the message that JSON with an "@type" stands for.

        Raises:
            WrongRequestError: It stands for none.
            UnknownTypeError: Nobody knows the type.
        """
        if not isinstance(value, dict) or not isinstance(value.get("@type"), str):
            raise WrongRequestError('a request is an object with an "@type", "type.googleapis.com/package.Message" say')
        url = value["@type"]
        pool = self._pool_with(url.rpartition("/")[2])
        typed = value | {"@type": url if "/" in url else f"type.googleapis.com/{url}"}
        try:
            return json_format.ParseDict(typed, AnyMessage(), descriptor_pool=pool)
        except json_format.ParseError as error:
            raise WrongRequestError(str(error)) from error
        except KeyError as error:
            # What has a form of its own in JSON, a Duration say, is a "value" beside the type.
            raise WrongRequestError(f'a request of the type {url} has a {error} beside its "@type"') from error

    def _pool_with(self, name: str) -> DescriptorPool:
        if name not in self._known:
            self._known[name] = self._find(name)
        found = self._known[name]
        if found is None:
            raise UnknownTypeError(name)
        return found

    def _find(self, name: str) -> DescriptorPool | None:
        try:
            files = self._index.file_of_symbol(name)
        except KeyError:
            files = list(self._ask(name))
        try:
            pool = _pool(map(FileDescriptorProto.FromString, files))
            pool.FindMessageTypeByName(name)
        except (KeyError, TypeError, ValueError, DecodeError):
            # Whatever somebody's reflection answers.
            return None
        return pool


def _pool(files: Iterable[FileDescriptorProto]) -> DescriptorPool:
    pool, left = DescriptorPool(), {file.name: file for file in files}

    def add(name: str) -> None:
        file = left.pop(name, None)
        if file is not None:
            for imported in file.dependency:
                add(imported)
            pool.Add(file)

    for name in list(left):
        add(name)
    return pool
