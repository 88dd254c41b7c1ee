"""Certificates: the service's own, and those towards etcd."""

from dataclasses import dataclass
from pathlib import Path

from operation_service.settings_error import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """What the service shows to its callers, and what it wants to see of them.

    Attributes:
        cert: The file with the certificate, and those between it and its CA.
        key: The file with the certificate's private key.
        client_ca: The file with the CAs of which callers need a certificate. None: they need none.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None

    @classmethod
    def of(cls, cert: Path | None, key: Path | None, client_ca: Path | None) -> "ServerTls | None":
        """Return what the flags say. None: no TLS.

        Raises:
            SettingsError: One of them is missing.
        """
        if cert is None and key is None and client_ca is None:
            return None
        if cert is None or key is None:
            raise SettingsError("TLS needs --tls-cert and --tls-key, both of them")
        return cls(cert=cert, key=key, client_ca=client_ca)

    @property
    def files(self) -> dict[str, Path]:
        """The files that there are, by their flags."""
        files = {"--tls-cert": self.cert, "--tls-key": self.key}
        return files if self.client_ca is None else files | {"--tls-client-ca": self.client_ca}


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdAccess:
    """How the service shows etcd who it is.

    Attributes:
        ca: The file with the CAs of etcd's certificates. None: this machine's.
        cert: The file with the service's certificate towards etcd. None: it has none.
        key: The file with that certificate's private key.
        user: The user of etcd that the service is. None: etcd has no users, or takes the certificate's name for one.
        password_file: The file that has that user's password in its first line.

    Raises:
        SettingsError: They do not go together.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    user: str | None = None
    password_file: Path | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise SettingsError("a certificate towards etcd needs --etcd-cert and --etcd-key, both of them")
        if (self.user is None) != (self.password_file is None):
            raise SettingsError("a user of etcd needs --etcd-user and --etcd-password-file, both of them")

    @property
    def tls_files(self) -> dict[str, Path]:
        """The files for TLS that there are, by their flags."""
        files = (("--etcd-ca", self.ca), ("--etcd-cert", self.cert), ("--etcd-key", self.key))
        return {flag: file for flag, file in files if file is not None}
