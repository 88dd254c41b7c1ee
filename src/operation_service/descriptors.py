"""Where server reflection looks things up: descriptors as the compiler wrote them, with comments and JSON names.

A descriptor pool, which the stock reflection servicer answers from, keeps neither.
"""

from collections.abc import Iterable, Iterator, Sequence

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)


class DescriptorIndex:
    """Looks files up the way server reflection asks for them. What is not there is a KeyError.

    Args:
        files: Complete (every import is there) and free of conflicts, as descriptor_sets.load makes sure.
    """

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        self._serialized: dict[str, bytes] = {}
        self._imports: dict[str, Sequence[str]] = {}
        self._symbols: dict[str, str] = {}
        self._extensions: dict[str, dict[int, str]] = {}
        for file in files:
            self._serialized[file.name] = file.SerializeToString()
            self._imports[file.name] = tuple(file.dependency)
            self._symbols.update(dict.fromkeys(symbols(file), file.name))
            for extension in _extensions(file):
                numbers = self._extensions.setdefault(extension.extendee.removeprefix("."), {})
                numbers[extension.number] = file.name

    def file(self, name: str) -> list[bytes]:
        """Return the file of this name, then every file that it imports, directly or not."""
        found = [name]
        for each in found:  # grows while it is walked
            found += [imported for imported in self._imports[each] if imported not in found]
        return [self._serialized[each] for each in found]

    def file_of_symbol(self, symbol: str) -> list[bytes]:
        """Return the file that declares this, and its imports.

        Args:
            symbol: The full name of a message, field, oneof, extension, enum, enum value, service or method.
        """
        return self.file(self._symbols[symbol])

    def file_of_extension(self, message: str, number: int) -> list[bytes]:
        """Return the file that extends this message by the field of this number, and its imports."""
        return self.file(self._extensions[message][number])

    def extension_numbers(self, message: str) -> list[int]:
        """Return the numbers of all known extensions of this message, of which there may be none."""
        if message not in self._symbols:
            raise KeyError(message)
        return sorted(self._extensions.get(message, ()))


def symbols(file: FileDescriptorProto) -> Iterator[str]:
    """Yield the full name of everything that a file declares."""
    scope = f"{file.package}." if file.package else ""
    for message in file.message_type:
        yield from _message_symbols(scope, message)
    for enum in file.enum_type:
        yield from _enum_symbols(scope, enum)
    for extension in file.extension:
        yield f"{scope}{extension.name}"
    for service in file.service:
        yield f"{scope}{service.name}"
        for method in service.method:
            yield f"{scope}{service.name}.{method.name}"


def _message_symbols(scope: str, message: DescriptorProto) -> Iterator[str]:
    yield f"{scope}{message.name}"
    scope = f"{scope}{message.name}."
    for field in (*message.field, *message.extension):
        yield f"{scope}{field.name}"
    for oneof in message.oneof_decl:
        yield f"{scope}{oneof.name}"
    for nested in message.nested_type:
        yield from _message_symbols(scope, nested)
    for enum in message.enum_type:
        yield from _enum_symbols(scope, enum)


def _enum_symbols(scope: str, enum: EnumDescriptorProto) -> Iterator[str]:
    yield f"{scope}{enum.name}"
    # An enum's values are its siblings, as in C++; grpcurl 1.8 asks for them as its children.
    for value in enum.value:
        yield f"{scope}{value.name}"
        yield f"{scope}{enum.name}.{value.name}"


def _extensions(container: FileDescriptorProto | DescriptorProto) -> Iterator[FieldDescriptorProto]:
    yield from container.extension
    nested = container.message_type if isinstance(container, FileDescriptorProto) else container.nested_type
    for message in nested:
        yield from _extensions(message)
