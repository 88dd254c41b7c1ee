"""The service's own TLS: its certificate, which is read again when its files change.

The files are looked at once a second, and not when somebody connects: that a new one is bad is told when it comes, and
a handshake, for which gRPC asks from a thread of its own, waits for no file. What is handed to gRPC holds for
connections to come. Those that are there keep what they began with, and all that goes over them.

Each second gRPC is handed what is in use anew, whether it has changed or not: with it come new keys for TLS sessions.
A caller that goes on with an earlier session is not asked for its certificate again, and gRPC would let it do so for
up to two days, though that has expired meanwhile.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import cast

import grpc

from operation_service.certificate_files import Certificates, judged, moment
from operation_service.kept_files import EVERY_SECONDS, KeptFiles
from operation_service.settings_tls import ServerTls

_log = logging.getLogger(__name__)

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
        self._kept = KeptFiles(tls.files, lambda found: judged(found, tls, datetime.now(UTC)))
        self._current = self._kept.meaning
        self._next: deque[grpc.ServerCertificateConfiguration] = deque(maxlen=1)
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
        """Return what gRPC has not been given yet. It asks with each new connection, in threads of its own, in turn."""
        return self._next.pop() if self._next else None

    async def run(self) -> None:
        """Look after the files until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        await self._kept.look()
        before, self._current = self._current, self._kept.meaning
        self._next.append(_configuration(self._current))
        if self._current.chain != before.chain:
            self._told_days = None
            _log.info(
                "new certificate of %s, for connections to come: valid until %s",
                *(self._tls.cert, moment(self._current.ends_at)),
            )
        self._tell_of_the_end()

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
