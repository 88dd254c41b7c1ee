"""What the service is told when it starts: checked here, frozen afterwards."""

import contextlib
import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from operation_service.settings_access import CallerAccess
from operation_service.settings_error import SettingsError
from operation_service.settings_tls import EtcdAccess, ServerTls

__all__ = ["Settings", "SettingsError", "cannot_listen", "default_data_dir", "is_loopback", "parse_endpoints"]

_MAX_PORT = 65_535
_MAX_SECONDS = 10 * 365 * 86_400
"""Ten years; etcd's own limit for a lease is far beyond, and what is meant as a day should not be one."""
_MAX_COUNT = 100_000
"""Far beyond what one process serves; what is meant as a limit should be one."""
_MAX_WORKERS = 64
"""One for each core is enough, and they share one etcd."""
_PORT = re.compile(r"[0-9]{1,5}")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}")
_PREFIX = re.compile(r"[!-~]{1,200}")


def cannot_listen(listen: str, flag: str = "--listen") -> SettingsError:
    """Return the error that says so."""
    return SettingsError(
        f"{flag}: cannot listen on {listen}: the port is in use, or the host is none of this machine's"
    )


def default_data_dir() -> Path:
    """Return where the embedded etcd keeps its data: under the user's state directory.

    Raises:
        SettingsError: The user has none.
    """
    state = os.environ.get("XDG_STATE_HOME")
    if state and Path(state).is_absolute():
        return Path(state) / "operation-service"
    try:
        return Path.home() / ".local" / "state" / "operation-service"
    except RuntimeError as error:
        raise SettingsError("--data-dir: this user has no home directory to keep data in, name another one") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """CONTRACT section 6, the flags of `operation-service serve`.

    Attributes:
        listen: HOST:PORT, [HOST]:PORT for IPv6. Port 0: any free one.
        tls: The service's certificate. None: it serves without TLS.
        is_insecure: Whether that may be so also where others than this machine can reach it.
        health_listen: HOST:PORT, where the health alone is told besides, without TLS. None: nowhere.
        access: Who may call.
        etcd_endpoints: URLs. Empty: an embedded etcd of the service's own.
        etcd_access: How etcd knows the service.
        etcd_binary: The embedded etcd's program. None: one is looked for.
        data_dir: The embedded etcd's.
        key_prefix: What all keys in etcd begin with.
        descriptor_sets: Files with the message types that reflection serves besides its own.
        max_lock_seconds: The greatest lock_for_seconds.
        retention_seconds: How long what is over is kept.
        max_calls_in_flight: How many calls are taken on at once, watches apart.
        max_watches: How many watches are.
        workers: How many processes serve on the port. What may be at once is counted by each for itself.
        metrics_listen: HOST:PORT, where metrics are served over HTTP. None: nowhere.
        log_format: Lines for people, or JSON.
        audit: Whether each change is told in a log line.

    Raises:
        SettingsError: One of them is wrong.
    """

    listen: str = "127.0.0.1:50051"
    tls: ServerTls | None = None
    is_insecure: bool = False
    health_listen: str | None = None
    access: CallerAccess = field(default_factory=CallerAccess)
    etcd_endpoints: tuple[str, ...] = ()
    etcd_access: EtcdAccess = field(default_factory=EtcdAccess)
    etcd_binary: Path | None = None
    data_dir: Path | None = None
    key_prefix: str = "/n0stack/operation/"
    descriptor_sets: tuple[Path, ...] = ()
    max_lock_seconds: int = 86_400
    retention_seconds: int = 604_800
    max_calls_in_flight: int = 512
    max_watches: int = 2_000
    workers: int = 1
    metrics_listen: str | None = None
    log_format: Literal["text", "json"] = "text"
    audit: bool = True

    def __post_init__(self) -> None:
        _check_listen("--listen", self.listen)
        if self.tls is None and not self.is_insecure and not is_loopback(self.listen):
            raise SettingsError(
                f"--listen {self.listen} can be reached by others than this machine: give --tls-cert and --tls-key, "
                "or say --insecure to serve without TLS there"
            )
        if self.access.policy and not self.access.jwks and not (self.tls and self.tls.client_ca):
            raise SettingsError("--policy needs to know who calls: give --tls-client-ca or --jwt-jwks too")
        for flag, listen in (("--health-listen", self.health_listen), ("--metrics-listen", self.metrics_listen)):
            if listen is not None:
                _check_listen(flag, listen)
        self._check_etcd()
        self._check_numbers()

    def _check_etcd(self) -> None:
        for endpoint in self.etcd_endpoints:
            _check_endpoint(endpoint)
        if self.etcd_endpoints and (self.etcd_binary or self.data_dir):
            raise SettingsError(
                "--etcd-binary and --data-dir are the embedded etcd's: leave them out, or --etcd-endpoints"
            )
        if not self.etcd_endpoints and self.etcd_access != EtcdAccess():
            raise SettingsError("--etcd-ca, --etcd-cert and --etcd-user are for an etcd of --etcd-endpoints: name it")
        if self.etcd_access.tls_files and not all(each.startswith("https://") for each in self.etcd_endpoints):
            raise SettingsError("--etcd-ca and --etcd-cert need --etcd-endpoints with https://, all of them")
        if not _PREFIX.fullmatch(self.key_prefix) or not self.key_prefix.endswith("/"):
            raise SettingsError("--key-prefix must be 1 to 200 printable ASCII characters and end with a slash")

    def _check_numbers(self) -> None:
        for flag, seconds in (
            ("--max-lock-seconds", self.max_lock_seconds),
            ("--retention-seconds", self.retention_seconds),
        ):
            if not 1 <= seconds <= _MAX_SECONDS:
                raise SettingsError(f"{flag} must be 1 to {_MAX_SECONDS}")
        for flag, count in (
            ("--max-calls-in-flight", self.max_calls_in_flight),
            ("--max-watches", self.max_watches),
        ):
            if not 1 <= count <= _MAX_COUNT:
                raise SettingsError(f"{flag} must be 1 to {_MAX_COUNT}")
        if not 1 <= self.workers <= _MAX_WORKERS:
            raise SettingsError(f"--workers must be 1 to {_MAX_WORKERS}")


def parse_endpoints(text: str) -> tuple[str, ...]:
    """Split what --etcd-endpoints says."""
    return tuple(part.strip().rstrip("/") for part in text.split(",")) if text else ()


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT can be reached from this machine alone."""
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _check_listen(flag: str, listen: str) -> None:
    if not _is_address(listen, lowest_port=0):
        raise SettingsError(f"{flag} must be HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051, not {listen!r}")


def _check_endpoint(endpoint: str) -> None:
    scheme, separator, address = endpoint.partition("://")
    if scheme not in {"http", "https"} or not separator or not _is_address(address, lowest_port=1):
        raise SettingsError(
            f"--etcd-endpoints must be URLs such as http://127.0.0.1:2379, joined by commas, not {endpoint!r}"
        )


def _is_address(text: str, *, lowest_port: int) -> bool:
    """Whether that is HOST:PORT, or [HOST]:PORT for IPv6."""
    host, colon, port = text.rpartition(":")
    if not colon or not _PORT.fullmatch(port) or not lowest_port <= int(port) <= _MAX_PORT:
        return False
    if host.startswith("[") and host.endswith("]"):
        with contextlib.suppress(ValueError):
            return bool(ipaddress.IPv6Address(host[1:-1]))
        return False
    return _HOST.fullmatch(host) is not None
