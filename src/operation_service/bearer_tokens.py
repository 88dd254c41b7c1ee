"""JSON Web Tokens (RFC 7519) that callers show: who is meant, if all is as it has to be (RFC 8725).

Nothing of a token is ever told or logged but what it lacks; and of those that were found good only the digest is kept.
"""

import hashlib
import math
import time
from typing import Any

import jwt

from operation_service.errors import BearerTokenExpiredError, BearerTokenInvalidError
from operation_service.identities import TOKEN, BadNameError, Identity, checked_name
from operation_service.jwks import Key, Keys

LEEWAY_SECONDS = 10.0
"""How far the clocks of whoever issues tokens and of this machine may differ."""
_KEPT = 10_000
"""Tokens that were found good: about 300 bytes each."""
_NEEDED = ("exp", "iss", "aud", "sub")
_UNREADABLE = "it is no JSON Web Token that can be read"
_BAD_HEADER = "its header wants something understood that is not (crit), or kid is no text"
_WRONG: dict[type[Exception], str] = {
    jwt.ImmatureSignatureError: "it is not valid yet (nbf, iat)",
    jwt.InvalidIssuerError: "iss is not who has to issue it (--jwt-issuer)",
    jwt.InvalidAudienceError: "aud has not whom it has to be meant for (--jwt-audience)",
    jwt.exceptions.InvalidSubjectError: "sub is no text",
    jwt.InvalidSignatureError: "its signature is not that of its key",
}


class BearerTokens:
    """Checks tokens.

    Args:
        keys: Those that vouch for them.
        issuer: What `iss` has to be.
        audience: What has to be among `aud`.
    """

    def __init__(self, keys: Keys, issuer: str, audience: str) -> None:
        self._keys = keys
        self._digests = frozenset(key.digest for key in keys.values())
        self._issuer = issuer
        self._audience = audience
        self._good: dict[bytes, Identity] = {}

    def identity(self, token: str) -> Identity:
        """Return whom a token stands for.

        Raises:
            BearerTokenExpiredError: Nobody any more.
            BearerTokenInvalidError: Nobody.
        """
        # A lone surrogate cannot come over the wire; should it all the same, it is no token.
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        known = self._good.get(digest)
        if known is not None:
            if known.expires_at <= time.time():
                del self._good[digest]
                raise BearerTokenExpiredError
            return known
        identity = self._checked(token)
        if len(self._good) >= _KEPT:
            # The oldest; it is checked anew when it comes again.
            del self._good[next(iter(self._good))]
        self._good[digest] = identity
        return identity

    def vouch_for(self, identity: Identity) -> bool:
        """Whether the key that has vouched for somebody is still among the keys."""
        return identity.key in self._digests

    def _checked(self, token: str) -> Identity:
        key, algorithm = self._key(token)
        try:
            claims = jwt.decode(
                token,
                key.public,
                algorithms=[algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={"require": list(_NEEDED)},
            )
            expires_at = float(claims["exp"]) + LEEWAY_SECONDS
            if not math.isfinite(expires_at):
                raise BearerTokenInvalidError("exp is no time")
            name = checked_name(claims["sub"], "sub")
        except jwt.ExpiredSignatureError:
            raise BearerTokenExpiredError from None
        except jwt.MissingRequiredClaimError as error:
            raise BearerTokenInvalidError(f"it has no {error.claim}") from None
        except BadNameError as error:
            raise BearerTokenInvalidError(str(error)) from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise BearerTokenInvalidError(_WRONG.get(type(error), _UNREADABLE)) from None
        return Identity(TOKEN + name, expires_at, key.digest)

    def _key(self, token: str) -> tuple[Key, str]:
        """Return the key that a token names, and the algorithm of that key by which it says it was signed."""
        try:
            header: dict[str, Any] = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            # Not one of its kinds, but the error itself: the header could be read, and PyJWT does not take it.
            raise BearerTokenInvalidError(
                _BAD_HEADER if type(error) is jwt.InvalidTokenError else _UNREADABLE
            ) from None
        if "crit" in header:
            # PyJWT looks at it from 2.12 on, and takes b64, which no token of ours needs.
            raise BearerTokenInvalidError(_BAD_HEADER)
        kid, algorithm = header.get("kid", ""), header.get("alg")
        key = self._keys.get(kid) if isinstance(kid, str) else None
        if key is None and len(self._keys) == 1 and (kid == "" or "" in self._keys):
            # There is nothing to choose.
            (key,) = self._keys.values()
        if key is None:
            raise BearerTokenInvalidError("none of the keys has its kid" if kid else "it names no key (kid)")
        if algorithm not in key.algorithms:
            raise BearerTokenInvalidError(f"its key takes {', '.join(key.algorithms)} alone (alg)")
        return key, str(algorithm)
