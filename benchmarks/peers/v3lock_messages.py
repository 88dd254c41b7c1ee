"""The messages of etcd's lock service, which python3-etcd3 does not bring (etcd, v3lockpb/v3lock.proto)."""

from typing import Any

from etcd3.etcdrpc import rpc_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FILE = "v3lock.proto"
_PACKAGE = "v3lockpb"
_TYPES = descriptor_pb2.FieldDescriptorProto
_HEADER = (1, "header", ".etcdserverpb.ResponseHeader")


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name=_FILE, package=_PACKAGE, syntax="proto3", dependency=[rpc_pb2.DESCRIPTOR.name]
    )
    for message, fields in (
        ("LockRequest", ((1, "name", _TYPES.TYPE_BYTES), (2, "lease", _TYPES.TYPE_INT64))),
        ("LockResponse", (_HEADER, (2, "key", _TYPES.TYPE_BYTES))),
        ("UnlockRequest", ((1, "key", _TYPES.TYPE_BYTES),)),
        ("UnlockResponse", (_HEADER,)),
    ):
        described = file.message_type.add(name=message)
        for number, name, kind in fields:
            field = described.field.add(name=name, number=number, label=_TYPES.LABEL_OPTIONAL)
            if isinstance(kind, str):
                field.type, field.type_name = _TYPES.TYPE_MESSAGE, kind
            else:
                field.type = kind
    return file


_POOL = descriptor_pool.Default()
_POOL.Add(_file())


def _message(name: str) -> Any:  # noqa: ANN401, a class that is made here
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


LockRequest, LockResponse = _message("LockRequest"), _message("LockResponse")
UnlockRequest, UnlockResponse = _message("UnlockRequest"), _message("UnlockResponse")
LOCK, UNLOCK = f"/{_PACKAGE}.Lock/Lock", f"/{_PACKAGE}.Lock/Unlock"
