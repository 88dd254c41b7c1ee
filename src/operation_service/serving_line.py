"""The line that tells that a service serves, and where: people and scripts look for it."""

from collections.abc import Sequence

from operation_service.settings import Settings


def serving_line(settings: Settings, address: str, etcd_endpoints: Sequence[str], health_address: str | None) -> str:
    """Return it.

    Args:
        settings: The service's.
        address: HOST:PORT, with the port that it has got.
        etcd_endpoints: URLs of the etcd that holds its state.
        health_address: The same where the health alone is told. None: nowhere.
    """
    more = []
    if settings.tls is not None:
        more.append("mutual TLS" if settings.tls.client_ca is not None else "TLS")
    if health_address is not None:
        more.append(f"health on {health_address}")
    if settings.workers > 1:
        more.append(f"{settings.workers} workers")
    return f"serving on {address}, etcd at {', '.join(etcd_endpoints)}" + (f" ({', '.join(more)})" if more else "")
