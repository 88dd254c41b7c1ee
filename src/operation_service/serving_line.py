"""The line that tells that a service serves, and where: people and scripts look for it."""

from collections.abc import Sequence

from operation_service.settings import Settings


def serving_line(settings: Settings, etcd_endpoints: Sequence[str]) -> str:
    """Return it.

    Args:
        settings: The service's, with the ports that it has got.
        etcd_endpoints: URLs of the etcd that holds its state.
    """
    more = []
    if settings.tls is not None:
        more.append("mutual TLS" if settings.tls.client_ca is not None else "TLS")
    if settings.access.policy is not None:
        more.append("policy")
    if settings.access.jwks is not None:
        more.append("tokens")
    if settings.health_listen is not None:
        more.append(f"health on {settings.health_listen}")
    if settings.workers > 1:
        more.append(f"{settings.workers} workers")
    return f"serving on {settings.listen}, etcd at {', '.join(etcd_endpoints)}" + (f" ({', '.join(more)})" * bool(more))
