"""The port that the workers of one supervisor share, and nobody else gets.

A port that is bound with SO_REUSEPORT may be bound again by anybody of the same user who says so too: two services
would get half of the calls each, without a word. So it is claimed in an order that leaves no moment to slip in:

1. Bind and listen without SO_REUSEPORT. Listening is what the kernel lets only one do, whoever else has bound: with
   another service on the port, be it alone or with workers, or with a claim like this one at the same moment, it fails.
2. Turn SO_REUSEPORT on, on that socket. Still nobody gets in who does not ask for sharing, and no service does before
   it has passed the first step itself, which it cannot as long as anything is bound here.
3. Bind a second socket with SO_REUSEPORT, and close the first. The second one never listens: the kernel gives
   connections only to sockets that do, so it takes none from the workers. It is there so that the port stays claimed
   while no worker has it: before the first one, and when all have died at once.

SO_REUSEADDR is needed to bind while connections of a predecessor linger (TIME_WAIT). It is off again on the one that
stays: with it, another one that has it could bind beside a socket that does not listen.

Who connects between the first step and the close is cut off, as whoever comes before a service serves.
"""

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Iterator

from operation_service.settings import cannot_listen

_ATTEMPTS = 5
"""How often another free port is tried, when a host has several addresses and one of them has it in use."""
_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
"""The machine has no such address. gRPC serves on the others, if a name has others."""

Address = tuple[socket.AddressFamily, str, int]
"""Family, host, and the scope of an IPv6 address."""


@contextlib.contextmanager
def claimed(listen: str, flag: str = "--listen") -> Iterator[str]:
    """Claim a port for as long as the block runs; the value is HOST:PORT, with the port that it has got.

    Args:
        listen: HOST:PORT. Port 0: any free one.
        flag: The flag that says so.

    Raises:
        SettingsError: Somebody listens there already, or the host is none of this machine's.
    """
    host, _, port = listen.rpartition(":")
    with contextlib.ExitStack() as stack:
        try:
            held = _claim(host.strip("[]"), int(port))
        except OSError as error:
            raise cannot_listen(listen, flag) from error
        stack.enter_context(held)
        yield f"{host}:{held.port}"


class _Held(contextlib.ExitStack):
    """Sockets that are bound to one port, and do not listen."""

    port = 0

    def add(self, address: Address, port: int) -> None:
        """Claim a port, or any with 0, on one address more.

        Raises:
            OSError: It cannot be had.
        """
        family, host, scope = address
        with _bound(address, port, is_shared=False) as alone:
            alone.listen(1)
            self.port = alone.getsockname()[1]
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            stays = self.enter_context(_bound((family, host, scope), self.port, is_shared=True))
            stays.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def _claim(host: str, port: int) -> _Held:
    addresses = _addresses(host, port)
    for attempt in range(1, _ATTEMPTS + 1):
        held = _Held()
        try:
            return _claim_all(held, addresses, port, is_any=_is_wildcard(host))
        except OSError:
            held.close()
            if port or attempt == _ATTEMPTS:
                raise
    raise AssertionError


def _claim_all(held: _Held, addresses: list[Address], port: int, *, is_any: bool) -> _Held:
    why_not: OSError | None = None
    for address in addresses:
        try:
            held.add(address, port or held.port)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            why_not = error
        else:
            if is_any:
                break
    if not held.port:
        raise why_not or OSError(errno.EADDRNOTAVAIL, "the host has no address")
    return held


def _addresses(host: str, port: int) -> list[Address]:
    if _is_wildcard(host):
        # gRPC takes either for all addresses of both families, where there are both.
        return [(socket.AF_INET6, "::", 0), (socket.AF_INET, "0.0.0.0", 0)]  # noqa: S104, who listens there asked for it
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses: list[Address] = []
    for family, _, _, _, sockaddr in found:
        scope = sockaddr[3] if len(sockaddr) > 2 else 0  # noqa: PLR2004, IPv6 has four
        addresses.append((family, str(sockaddr[0]), int(scope)))
    return list(dict.fromkeys(addresses))


def _is_wildcard(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_unspecified
    return False


def _bound(address: Address, port: int, *, is_shared: bool) -> socket.socket:
    family, host, scope = address
    bound = socket.socket(family)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(is_shared))
        if family == socket.AF_INET6:
            # The wildcard stands for both families.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            bound.bind((host, port, 0, scope))
        else:
            bound.bind((host, port))
    except BaseException:
        bound.close()
        raise
    return bound
