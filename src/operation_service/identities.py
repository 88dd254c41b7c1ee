"""Who calls: the subject that a certificate or a token stands for. Pure.

A subject is written `certificate:NAME` or `token:SUB`, in the policy, as a lock's holder and in the log alike: so no
token can pose as a certificate, nor the other way round, and neither looks like a network address.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

CERTIFICATE = "certificate:"
TOKEN = "token:"  # noqa: S105, the kind of a subject
KINDS = (CERTIFICATE, TOKEN)

MAX_NAME_BYTES = 255
"""Of a subject, without its kind: it comes back in the trailers of refusals, which have to stay below 8 KiB."""


class Identity(Struct, frozen=True, gc=False):
    """Who calls.

    Attributes:
        subject: `certificate:NAME` or `token:SUB`. Empty: nobody asked.
        expires_at: Until when that holds, in seconds since 1970 by this machine's clock. 0: as long as the connection.
        key: Which key vouches for it, if it is a token.
    """

    subject: str
    expires_at: float = 0.0
    key: bytes = b""


NOBODY = Identity("")
"""Who calls where nobody asks."""


class BadNameError(Exception):
    """A certificate, or a token, names nobody that a policy could name. Says why."""


def checked_name(name: str, what: str) -> str:
    """Return a name, if a policy can name it.

    Args:
        name: The name.
        what: Where it stands, for what is said of it.

    Raises:
        BadNameError: It cannot.
    """
    if not name:
        raise BadNameError(f"{what} is empty")
    if len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        raise BadNameError(f"{what} has more than {MAX_NAME_BYTES} bytes")
    if not name.isprintable():
        raise BadNameError(f"{what} has characters that are not printable")
    return name


_COMMON_NAME = "x509_common_name"
_NAMES = (
    ("peer_uri", "the first URI of the certificate"),
    ("peer_dns", "the first DNS name of the certificate"),
    (_COMMON_NAME, "the common name (CN) of the certificate"),
)
"""gRPC's properties of a connection that tell a certificate's names, the one that counts most first."""


def certificate_subject(auth_context: Mapping[str, Iterable[bytes]]) -> str | None:
    """Return the subject of a connection's certificate; None if it has shown none.

    Its first URI, such as a SPIFFE ID; without one its first DNS name; without these its common name. Never the next
    one because the first cannot be used: then a certificate would have two names.

    Args:
        auth_context: What gRPC knows of the connection.

    Raises:
        BadNameError: The certificate names nobody that a policy could name.
    """
    if "x509_pem_cert" not in auth_context:
        return None
    for name, what in _NAMES:
        for value in auth_context.get(name, ()):
            if not value and name == _COMMON_NAME:
                # So gRPC says it of a certificate that has none.
                break
            try:
                return CERTIFICATE + checked_name(value.decode(), what)
            except UnicodeDecodeError as error:
                raise BadNameError(f"{what} is not UTF-8") from error
    raise BadNameError("the certificate has neither a URI, nor a DNS name, nor a common name (CN)")
