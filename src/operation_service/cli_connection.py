"""How a command connects: the flags for TLS and for a bearer token, and what is made of them."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from operation_service.client import Tls
    from operation_service.client.connection import Target

_FILE = click.Path(path_type=Path)
_TLS_FLAGS: dict[str, dict[str, Any]] = {
    "tls": {"help": "Use TLS, and trust this machine's CAs.", "is_flag": True},
    "ca": {"help": "Use TLS, and trust these CAs, as PEM.", "metavar": "FILE", "type": _FILE},
    "cert": {"help": "Your certificate towards the service, as PEM.", "metavar": "FILE", "type": _FILE},
    "key": {"help": "That certificate's private key, as PEM.", "metavar": "FILE", "type": _FILE},
    "server_name": {"help": "The name in the service's certificate, if it is not that of the address."},
}
_TOKEN_FLAGS: dict[str, dict[str, Any]] = {
    "token_file": {
        "help": "A file with the bearer token by which the service knows who you are. It is read for each call.",
        "metavar": "FILE",
        "type": _FILE,
    },
    "plaintext_token": {"help": "Send that token also to other machines without TLS.", "is_flag": True},
}
TLS_NAMES = tuple(_TLS_FLAGS)
CONNECTION_NAMES = (*_TLS_FLAGS, *_TOKEN_FLAGS)


@dataclass(frozen=True, slots=True)
class Connection:
    """How to connect.

    Attributes:
        is_tls: Whether by TLS; so it is with any of the next four, too.
        ca: The file with the CAs of the service's certificate. None: this machine's.
        cert: The file with the caller's own certificate.
        key: The file with its private key.
        server_name: The name that the service's certificate is for. None: that of the address.
        token_file: The file with the bearer token. None: there is none.
        is_plaintext_token: Whether that may be sent without TLS to other machines.

    Raises:
        click.UsageError: They do not go together.
    """

    is_tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None
    token_file: Path | None = None
    is_plaintext_token: bool = False

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise click.UsageError("--cert and --key go together: give both, or neither")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Connection":
        """Return what flags say.

        Args:
            given: Their values, by the names that click has for them. Without one it was not given.

        Raises:
            click.UsageError: They do not go together.
        """
        return cls(
            is_tls=bool(given.get("tls")),
            **{name: given.get(name) or None for name in ("ca", "cert", "key", "server_name", "token_file")},
            is_plaintext_token=bool(given.get("plaintext_token")),
        )

    def tls(self) -> "Tls | None":
        """Return what the client has to know. None: no TLS."""
        from operation_service.client import Tls  # noqa: PLC0415, gRPC takes a while to import

        if not (self.is_tls or self.ca or self.cert or self.server_name):
            return None
        return Tls(ca=self.ca, cert=self.cert, key=self.key, server_name=self.server_name)

    def client_arguments(self, address: str) -> dict[str, Any]:
        """Return what a Client or a Target is made with.

        Args:
            address: Where the service listens.

        Raises:
            click.UsageError: A file cannot be used, or the token must not be sent there.
        """
        from operation_service.client import TokenFile  # noqa: PLC0415, as above
        from operation_service.client.bearer import stays_here  # noqa: PLC0415
        from operation_service.client.tls import TlsFiles  # noqa: PLC0415

        tls = self.tls()
        if self.token_file and tls is None and not self.is_plaintext_token and not stays_here(address):
            raise click.UsageError(
                f"--token-file: the token would be sent to {address} without TLS, where others could read it: give "
                "--tls or --ca, or say --plaintext-token"
            )
        try:
            token = TokenFile(self.token_file) if self.token_file else None
            if tls is not None:
                TlsFiles(tls)
        except ValueError as error:
            raise click.UsageError(self._named(str(error))) from error
        return {"tls": tls, "bearer_token": token, "allow_plaintext_token": self.is_plaintext_token}

    def target(self, address: str) -> "Target":
        """Return what opens a channel. Raises as `client_arguments` does."""
        from operation_service.client.connection import Target  # noqa: PLC0415, as above

        return Target(address, **self.client_arguments(address))

    def _named(self, trouble: str) -> str:
        """Say which flag a file is of."""
        for name in ("ca", "cert", "key", "token_file"):
            if trouble.startswith(f"{getattr(self, name)}:"):
                return f"--{name.replace('_', '-')} {trouble}"
        return trouble


def connection_options(
    option: Callable[..., Callable[[Any], Any]], *, has_token: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what gives a command these flags.

    Args:
        option: Makes one that is a variable too.
        has_token: Whether those for a token are among them.
    """
    flags = _TLS_FLAGS | (_TOKEN_FLAGS if has_token else {})

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, how in reversed(flags.items()):
            more = {key: value for key, value in how.items() if key != "help"}
            command = option(f"--{name.replace('_', '-')}", how["help"], **more)(command)
        return command

    return add


def completing(params: Mapping[str, Any]) -> Connection:
    """Return what is said to a Tab key: by flags that stand before it, or by variables, which click does not look at.

    Args:
        params: What flags were parsed.
    """
    given: dict[str, Any] = {}
    for name, how in (_TLS_FLAGS | _TOKEN_FLAGS).items():
        said = os.environ.get(f"OPERATION_SERVICE_{name.upper()}")
        kind = click.BOOL if how.get("is_flag") else how.get("type", click.STRING)
        given[name] = params.get(name) or (kind.convert(said, None, None) if said else None)
    return Connection.of(given)
