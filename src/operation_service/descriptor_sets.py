"""The descriptor sets that reflection serves: the service's own, and those that its operator adds."""

from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from operation_service.descriptors import DescriptorIndex, symbols

_OWN = "the service itself"
_POOL_PREFIX = "Couldn't build proto file into descriptor pool: "


class DescriptorSetError(ValueError):
    """A descriptor set that cannot be served: one line that names the file and what is wrong with it."""

    def __init__(self, source: str, problem: str) -> None:
        # The names in a damaged file may be anything.
        super().__init__("".join(char if char.isprintable() else "\ufffd" for char in f"{source}: {problem}"))


def load(paths: Sequence[Path]) -> DescriptorIndex:
    """Return what reflection serves: the service's own descriptors, and those of more descriptor sets.

    Args:
        paths: Files as `protoc --include_imports --descriptor_set_out` or `buf build` write them. What the service
            or another of the sets has already need not be in them.

    Raises:
        DescriptorSetError: A file cannot be read, is no descriptor set, lacks an import, or contradicts another.
    """
    known: dict[str, FileDescriptorProto] = {}
    sources: dict[str, str] = {}
    for source, file in [*_own_files(), *((str(path), file) for path in paths for file in _read(path))]:
        other = known.get(file.name)
        if other is not None and _meaning(other) != _meaning(file):
            raise DescriptorSetError(source, f"{file.name} is not the same as that of {sources[file.name]}")
        if other is None or not other.HasField("source_code_info"):
            known[file.name] = file
            sources.setdefault(file.name, source)
    _check(known, sources)
    return DescriptorIndex(known.values())


def _own_files() -> Iterator[tuple[str, FileDescriptorProto]]:
    packaged = FileDescriptorSet.FromString(files("operation_service").joinpath("descriptors.binpb").read_bytes())
    for file in packaged.file:
        yield _OWN, file
    for module in (health_pb2, reflection_pb2):
        yield _OWN, FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)


def _read(path: Path) -> list[FileDescriptorProto]:
    try:
        found = FileDescriptorSet.FromString(path.read_bytes())
    except OSError as error:
        raise DescriptorSetError(str(path), error.strerror or "cannot be read") from error
    except DecodeError as error:
        raise DescriptorSetError(str(path), "not a descriptor set (a serialized FileDescriptorSet)") from error
    # Protobuf takes many a file for a message with nothing in it but unknown fields.
    if not found.file or not all(file.name for file in found.file):
        raise DescriptorSetError(str(path), "not a descriptor set, or one without files")
    return list(found.file)


def _meaning(file: FileDescriptorProto) -> FileDescriptorProto:
    """Return the file without comments and file options, which compilers of different age fill in differently.

    Of the options, only the features say how messages are read and written; the others are for code generators.
    """
    meaning = FileDescriptorProto()
    meaning.CopyFrom(file)
    meaning.ClearField("source_code_info")
    meaning.ClearField("options")
    if file.options.HasField("features"):
        meaning.options.features.CopyFrom(file.options.features)
    return meaning


def _check(known: dict[str, FileDescriptorProto], sources: dict[str, str]) -> None:
    owners: dict[str, str] = {}
    for name, file in known.items():
        for imported in file.dependency:
            if imported not in known:
                raise DescriptorSetError(
                    sources[name], f"{name} imports {imported}, which is missing (protoc: --include_imports)"
                )
        for symbol in symbols(file):
            owner = owners.setdefault(symbol, name)
            if owner != name:
                raise DescriptorSetError(
                    sources[name], f"{name} defines {symbol}, as {owner} of {sources[owner]} does already"
                )
    try:
        order = list(TopologicalSorter({name: file.dependency for name, file in known.items()}).static_order())
    except CycleError as error:
        circle = error.args[1]
        raise DescriptorSetError(sources[circle[0]], f"a circle of imports: {circle}") from error
    # The pool knows everything else that makes a descriptor one that no client could use.
    pool = DescriptorPool()
    for name in order:
        try:
            pool.Add(known[name])
        except (TypeError, ValueError) as error:
            problem = str(error).removeprefix(_POOL_PREFIX)
            raise DescriptorSetError(sources[name], f"{name}: {problem}") from error
