"""The keys of tokens, read from a JWK Set (RFC 7517) and judged as a whole before any token is checked with them.

Each key takes the algorithms that are made for it, and no others: what a token says of its own algorithm never chooses
how a key is used. There are no shared secrets among them: whoever can check such a token can also make it.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from msgspec import Struct

from operation_service.settings_error import SettingsError

_MAX_KEYS = 100
_MIN_RSA_BITS = 2_048
_MAX_RSA_BITS = 8_192
"""Such a signature takes 0.2 ms to check; one of 16,384 bits, four times that."""

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_OF_CURVES = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",), "Ed25519": ("EdDSA",)}
_KINDS = {"RSA": (None,), "EC": ("P-256", "P-384", "P-521"), "OKP": ("Ed25519",)}

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class Key(Struct, frozen=True):
    """A key that vouches for tokens.

    Attributes:
        public: The key.
        algorithms: Those that it takes.
        digest: Tells it from all others, whatever it is called, and whatever else is said of it.
    """

    public: PublicKey
    algorithms: tuple[str, ...]
    digest: bytes


Keys = Mapping[str, Key]
"""By their `kid`. A set of one key may have it without."""


class _Set(Struct):
    keys: list[dict[str, Any]]


def keys_of(content: bytes, file: Path) -> Keys:
    """Return the keys of a JWK Set that can vouch for tokens.

    Keys for encryption, and kinds and curves that this service does not know, are passed over, as the RFC wants it.

    Args:
        content: What is in the file.
        file: Its name, for what is said of it.

    Raises:
        SettingsError: It is none, it has none, or one that must not be there.
    """
    where = f"--jwt-jwks {file}"
    try:
        found = msgspec.json.decode(content, type=_Set).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f'{where}: it is no JWK Set, {{"keys": […]}}: {error}') from error
    if len(found) > _MAX_KEYS:
        raise SettingsError(f"{where}: it has {len(found)} keys; {_MAX_KEYS} are the most")
    keys: dict[str, Key] = {}
    for place, jwk in enumerate(found):
        at = f"{where}: keys[{place}]"
        key = _key(jwk, at)
        if key is None:
            continue
        kid = jwk.get("kid", "")
        if not isinstance(kid, str):
            raise SettingsError(f"{at}: kid is no text")
        if kid in keys:
            raise SettingsError(f"{at}: " + (f"another key has the kid {kid!r} too" if kid else "it needs a kid"))
        keys[kid] = key
    if not keys:
        raise SettingsError(f"{where}: there is no key in it that could vouch for a token")
    if "" in keys and len(keys) > 1:
        raise SettingsError(f"{where}: one of its keys has no kid, which it needs where there are others")
    return keys


def _key(jwk: dict[str, Any], at: str) -> Key | None:
    """Return what is to be used of a JWK. None: it is not for this.

    Raises:
        SettingsError: It must not be there.
    """
    kind, curve = jwk.get("kty"), jwk.get("crv")
    if kind == "oct":
        raise SettingsError(f"{at}: it is a shared secret (oct): whoever can check its tokens can also make them")
    if "d" in jwk:
        raise SettingsError(f"{at}: it has a private key in it: leave here only what the public key is made of")
    if jwk.get("use", "sig") != "sig" or "verify" not in _as_list(jwk.get("key_ops"), "verify"):
        return None
    if not isinstance(kind, str) or (None if kind == "RSA" else curve) not in _KINDS.get(kind, ()):
        return None
    made_for = _RSA if kind == "RSA" else _OF_CURVES[str(curve)]
    algorithms = tuple(each for each in made_for if jwk.get("alg", each) == each)
    if not algorithms:
        raise SettingsError(f"{at}: its alg must be one of {', '.join(made_for)}, or left out")
    try:
        public = jwt.PyJWK(jwk, made_for[0]).key
    except (
        *(jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, OverflowError, UnsupportedAlgorithm),
    ) as error:
        # Not the error's own words: they may show the whole key.
        raise SettingsError(f"{at}: it is no {kind} key that can be read") from error
    if isinstance(public, rsa.RSAPublicKey) and not _MIN_RSA_BITS <= public.key_size <= _MAX_RSA_BITS:
        raise SettingsError(
            f"{at}: an RSA key must have {_MIN_RSA_BITS} to {_MAX_RSA_BITS} bits, not {public.key_size}"
        )
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256(der).digest()
    return Key(public, algorithms, digest)


def _as_list(value: object, otherwise: str) -> list[object]:
    return value if isinstance(value, list) else [otherwise]
