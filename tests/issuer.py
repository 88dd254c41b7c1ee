"""Who issues tokens in tests: good ones, and with anything in them that a test wants to be wrong."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER = "https://issuer.example"
AUDIENCE = "operation-service"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
_ALGORITHMS: dict[type, Any] = {
    rsa.RSAPublicKey: jwt.algorithms.RSAAlgorithm,
    ec.EllipticCurvePublicKey: jwt.algorithms.ECAlgorithm,
    ed25519.Ed25519PublicKey: jwt.algorithms.OKPAlgorithm,
}


def public_jwk(key: PrivateKey, kid: str | None = "key-1", **more: Any) -> dict[str, Any]:
    """The public half of a key, as a JWK Set has it."""
    public = key.public_key()
    kind = next(kind for kind in _ALGORITHMS if isinstance(public, kind))
    jwk: dict[str, Any] = json.loads(_ALGORITHMS[kind].to_jwk(public))
    return jwk | ({} if kid is None else {"kid": kid}) | more


def jwk_set(*jwks: dict[str, Any]) -> bytes:
    return json.dumps({"keys": jwks}).encode()


def claims(subject: str = "alice", **changed: Any) -> dict[str, Any]:
    """What a good token says, with some of it changed; None leaves it out."""
    now = int(time.time())
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + 86_400}
    return {name: value for name, value in (good | changed).items() if value is not None}


class Issuer:
    """Has a key, and tells its public half in a file."""

    def __init__(self, folder: Path, kid: str = "key-1") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.kid = kid
        self.file = folder / f"{kid}.jwks"
        self.file.write_bytes(jwk_set(public_jwk(self.key, kid)))

    def token(self, subject: str = "alice", **changed: Any) -> str:
        return jwt.encode(claims(subject, **changed), self.key, "ES256", headers={"kid": self.kid})

    @property
    def public_pem(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


def unsigned(header: dict[str, Any], payload: dict[str, Any], signature: bytes = b"") -> str:
    """A token put together by hand, whatever its header says of how it was signed."""
    parts = (json.dumps(header).encode(), json.dumps(payload).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
