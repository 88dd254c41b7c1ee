"""What a supervisor and its workers tell each other: lines, on the worker's standard input and output."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from operation_service.settings import Settings

WRONG_SETTINGS = 2
"""The exit code of a worker that cannot run with what it was told."""
READY = b"ready"
_WRONG = b"wrong "


def order(settings: Settings, etcd_endpoints: tuple[str, ...]) -> bytes:
    """Return the line that tells a worker what to do.

    Args:
        settings: The supervisor's own, with the ports that all share.
        etcd_endpoints: The etcd that all share; an embedded one is the supervisor's to run.
    """
    told = replace(settings, etcd_endpoints=etcd_endpoints, etcd_binary=None, data_dir=None)
    return msgspec.json.encode(told, enc_hook=_encoded) + b"\n"


def settings_of(line: bytes) -> Settings:
    """Return what `order` was told."""
    return msgspec.json.decode(line, type=Settings, dec_hook=_decoded)


def _encoded(path: Any) -> str:  # noqa: ANN401, msgspec's own
    """A file name may be any bytes, JSON may not."""
    return os.fsencode(path).hex()


def _decoded(_type: type, name: str) -> Path:
    return Path(os.fsdecode(bytes.fromhex(name)))


def wrong(why: str) -> bytes:
    """Return the line that says why a worker cannot start.

    Args:
        why: One line, more of them become one.
    """
    return _WRONG + " ".join(why.split()).encode(errors="replace")


def wrong_in(line: bytes) -> str | None:
    """Return what `wrong` was told. None: the line says something else."""
    return line.removeprefix(_WRONG).decode(errors="replace") if line.startswith(_WRONG) else None
