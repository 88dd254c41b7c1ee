"""The service's own TLS: its certificate, which is read again when its files change.

The files are looked at once a second, and not when somebody connects: that a new one is bad is told when it comes, and
a handshake, for which gRPC asks from a thread of its own, waits for no file. What is handed to gRPC holds for
connections to come. Those that are there keep what they began with, and all that goes over them.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import cast

import grpc

from operation_service.certificate_files import Certificates, Files, judged, moment, read
from operation_service.settings_error import SettingsError
from operation_service.settings_tls import ServerTls

_log = logging.getLogger(__name__)

_EVERY_SECONDS = 1.0
_SOON = timedelta(days=14)
_SOON_OF_A_LIFE = 4
"""What lives for less than eight weeks ends soon in its last quarter. By then it should have been replaced:
cert-manager does so when a third is left."""
_DAY = timedelta(days=1)


class ServerCertificates:
    """The certificate that callers are shown, always the newest good one.

    Args:
        tls: The files.

    Raises:
        SettingsError: No service can serve with them.
    """

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls
        self._files = read(tls)
        self._current = judged(self._files, tls, datetime.now(UTC))
        self._next: deque[grpc.ServerCertificateConfiguration] = deque(maxlen=1)
        self._trouble = ""
        self._told = ""
        self._told_days: int | None = None
        _log.info("certificate of %s: valid until %s", tls.cert, moment(self._current.ends_at))
        self._tell_of_the_end()

    @property
    def ends_at(self) -> float:
        """Until when the certificate is valid, as Unix time."""
        return self._current.ends_at.timestamp()

    def credentials(self) -> grpc.ServerCredentials:
        """Return what gRPC serves with, for one port."""
        # Its types do not know that it takes None for no change.
        fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", self._fetch)
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._current), fetch, require_client_authentication=self._current.client_ca is not None
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what is new. gRPC asks with each new connection, one at a time, from threads of its own."""
        return self._next.pop() if self._next else None

    async def run(self) -> None:
        """Look after the files until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            # A file system that does not answer holds up nothing but this.
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Look once."""
        self._tell_of_the_end()
        try:
            files = read(self._tls)
            if files != self._files:
                self._take(files, judged(files, self._tls, datetime.now(UTC)))
        except SettingsError as error:
            self._tell_of(str(error))
        else:
            self._trouble = self._told = ""

    def _take(self, files: Files, certificates: Certificates) -> None:
        self._files, self._current = files, certificates
        self._next.append(_configuration(certificates))
        self._told_days = None
        _log.info(
            "new certificate of %s, for connections to come: valid until %s",
            *(self._tls.cert, moment(certificates.ends_at)),
        )
        self._tell_of_the_end()

    def _tell_of(self, trouble: str) -> None:
        """Tell of trouble once, and not of what is over a second later: files are replaced one after the other."""
        if trouble == self._trouble and trouble != self._told:
            self._told = trouble
            _log.error("the certificate from before stays in use: %s", trouble)
        self._trouble = trouble

    def _tell_of_the_end(self) -> None:
        """Warn once a day."""
        now, current = datetime.now(UTC), self._current
        left = current.ends_at - now
        days = left // _DAY
        if days != self._told_days and left < min(_SOON, (current.ends_at - current.begins_at) / _SOON_OF_A_LIFE):
            self._told_days = days
            what = "ends soon" if left > timedelta() else "has ended, and callers refuse it"
            _log.warning(
                "the certificate of %s %s: it is valid until %s", self._tls.cert, what, moment(current.ends_at)
            )


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificates.key, certificates.chain)], root_certificates=certificates.client_ca
    )
