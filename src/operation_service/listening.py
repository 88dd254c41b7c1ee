"""Where a server listens, and with whom it shares the port."""

import grpc

from operation_service.server_tls import ServerCertificates
from operation_service.settings import Settings, cannot_listen


def port_sharing(settings: Settings) -> tuple[str, int]:
    """Return gRPC's option by which the port is shared with the other workers, if there are any.

    Otherwise a second service would bind the same port without a word, and get half of the calls. With workers it is
    their supervisor that refuses one (port_claim.py).
    """
    return "grpc.so_reuseport", int(settings.workers > 1)


def bind(
    server: grpc.aio.Server, listen: str, flag: str = "--listen", certificates: ServerCertificates | None = None
) -> str:
    """Have a server listen; return HOST:PORT, with the port that it has got.

    Args:
        server: Which.
        listen: HOST:PORT. Port 0: any free one.
        flag: The flag that says so.
        certificates: What it shows to callers. None: it serves without TLS.

    Raises:
        SettingsError: Somebody listens there already, or the host is none of this machine's.
    """
    host, _, _ = listen.rpartition(":")
    try:
        if certificates is None:
            return f"{host}:{server.add_insecure_port(listen)}"
        return f"{host}:{server.add_secure_port(listen, certificates.credentials())}"
    except RuntimeError as error:
        raise cannot_listen(listen, flag) from error
