"""The metrics of all workers as one text: each is asked when somebody asks, and its lines name it.

A worker that is dead, or hangs, is left out, and told of as one that is not up; the others do not wait for it for long.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

_SECONDS = 2.0
_MAX_BYTES = 4 * 1024 * 1024
_UP = "operation_service_worker_up"


async def gathered(sockets: Mapping[str, Path]) -> bytes:
    """Return the metrics of all workers.

    Args:
        sockets: Where each tells its own, by its name.
    """
    texts = await asyncio.gather(*(_asked(path) for path in sockets.values()))
    up = [f"# HELP {_UP} 1 if a worker tells its metrics, else 0.\n# TYPE {_UP} gauge\n".encode()]
    up += [
        b'%s{worker="%s"} %d\n' % (_UP.encode(), name.encode(), bool(text))
        for name, text in zip(sockets, texts, strict=True)
    ]
    return merged(texts) + b"".join(up)


async def _asked(path: Path) -> bytes:
    """Ask a worker; empty: it does not answer."""
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path, limit=_MAX_BYTES)
            try:
                writer.write(b"GET /metrics HTTP/1.1\r\nHost: worker\r\n\r\n")
                return (await reader.read(-1)).partition(b"\r\n\r\n")[2]
            finally:
                writer.transport.abort()
    except (TimeoutError, OSError):
        return b""


def merged(texts: "list[bytes]") -> bytes:
    """Return some texts as one, in which what has one name stands together, as the format wants it."""
    families: dict[bytes, list[bytes]] = {}
    for text in texts:
        name, is_new = b"", False
        for line in text.splitlines(keepends=True):
            if line.startswith(b"# HELP "):
                name = line.split(b" ", 3)[2]
                is_new = name not in families
                families.setdefault(name, [])
            if is_new or not line.startswith(b"# "):
                families[name].append(line)
    return b"".join(line for lines in families.values() for line in lines)
