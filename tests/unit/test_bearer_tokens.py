"""Tokens and their keys: what is taken, and what is not."""

import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from issuer import AUDIENCE, ISSUER, Issuer, claims, jwk_set, public_jwk, unsigned

from operation_service.bearer_tokens import LEEWAY_SECONDS, BearerTokens
from operation_service.errors import BearerTokenExpiredError, BearerTokenInvalidError
from operation_service.jwks import keys_of
from operation_service.settings_error import SettingsError

FILE = Path("keys.json")
RSA = rsa.generate_private_key(65_537, 2_048)
P256, P384, P521 = (ec.generate_private_key(curve()) for curve in (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1))
ED25519 = ed25519.Ed25519PrivateKey.generate()
SECRET = "s" * 64


def tokens(*jwks: dict[str, Any]) -> BearerTokens:
    return BearerTokens(keys_of(jwk_set(*jwks), FILE), ISSUER, AUDIENCE)


def signed(key: Any, algorithm: str, kid: str | None = "key-1", **changed: Any) -> str:
    return jwt.encode(claims(**changed), key, algorithm, headers={"kid": kid} if kid else {})


def why_not(checker: BearerTokens, token: str) -> str:
    with pytest.raises(BearerTokenInvalidError) as refused:
        checker.identity(token)
    return str(refused.value).removeprefix('the token in the metadata "authorization" is not good: ').partition(":")[0]


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        (RSA, ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        (P256, ("ES256",)),
        (P384, ("ES384",)),
        (P521, ("ES512",)),
        (ED25519, ("EdDSA",)),
    ],
    ids=["RSA", "P-256", "P-384", "P-521", "Ed25519"],
)
def test_each_key_takes_the_algorithms_that_are_made_for_it(key: Any, algorithms: tuple[str, ...]) -> None:
    checker = tokens(public_jwk(key))
    for algorithm in algorithms:
        assert checker.identity(signed(key, algorithm)).subject == "token:alice"


def test_a_key_that_names_its_algorithm_takes_no_other() -> None:
    checker = tokens(public_jwk(RSA, alg="PS256"))
    assert checker.identity(signed(RSA, "PS256")).subject == "token:alice"
    assert why_not(checker, signed(RSA, "RS256")) == "its key takes PS256 alone (alg)"


def test_the_key_is_the_one_that_the_token_names() -> None:
    checker = tokens(public_jwk(P256, "one"), public_jwk(ED25519, "two"))
    assert checker.identity(signed(ED25519, "EdDSA", "two")).subject == "token:alice"
    assert why_not(checker, signed(P256, "ES256", "two")) == "its key takes EdDSA alone (alg)"
    assert why_not(checker, signed(P256, "ES256", "three")) == "none of the keys has its kid"
    assert why_not(checker, signed(P256, "ES256", None)) == "it names no key (kid)"


def test_where_there_is_one_key_a_token_need_not_name_it_but_may_not_name_another() -> None:
    checker = tokens(public_jwk(P256))
    assert checker.identity(signed(P256, "ES256", None)).subject == "token:alice"
    assert why_not(checker, signed(P256, "ES256", "other")) == "none of the keys has its kid"


ISSUER_KEY = ec.generate_private_key(ec.SECP256R1())
CHECKER = tokens(public_jwk(ISSUER_KEY))
PEM = ISSUER_KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def with_hmac(header: dict[str, Any]) -> str:
    """Signed with what everybody knows of the key, as if it were a secret."""
    token = unsigned(header, claims())
    head, body, _ = token.split(".")
    signature = hmac.new(PEM, f"{head}.{body}".encode(), hashlib.sha256).digest()
    return unsigned(header, claims(), signature)


NOW = int(time.time())
BAD_HEADER = "its header wants something understood that is not (crit), or kid is no text"


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (unsigned({"alg": "none", "kid": "key-1"}, claims()), "its key takes ES256 alone (alg)"),
        (unsigned({"alg": "NONE", "kid": "key-1"}, claims()), "its key takes ES256 alone (alg)"),
        (unsigned({"kid": "key-1"}, claims()), "its key takes ES256 alone (alg)"),
        (with_hmac({"alg": "HS256", "kid": "key-1"}), "its key takes ES256 alone (alg)"),
        (with_hmac({"alg": "ES256", "kid": "key-1"}), "its signature is not that of its key"),
        (unsigned({"alg": ["ES256"], "kid": "key-1"}, claims()), "its key takes ES256 alone (alg)"),
        (unsigned({"alg": "ES256", "kid": ["key-1"]}, claims()), BAD_HEADER),
        (unsigned({"alg": "ES256", "kid": "key-1"}, claims()), "its signature is not that of its key"),
        (signed(P256, "ES256"), "its signature is not that of its key"),
        (signed(ISSUER_KEY, "ES256", iss="https://other.example"), "iss is not who has to issue it (--jwt-issuer)"),
        (signed(ISSUER_KEY, "ES256", iss="https://issuer"), "iss is not who has to issue it (--jwt-issuer)"),
        (signed(ISSUER_KEY, "ES256", iss=None), "it has no iss"),
        (
            signed(ISSUER_KEY, "ES256", aud="other"),
            "aud has not whom it has to be meant for (--jwt-audience)",
        ),
        (signed(ISSUER_KEY, "ES256", aud=None), "it has no aud"),
        (signed(ISSUER_KEY, "ES256", exp=None), "it has no exp"),
        (signed(ISSUER_KEY, "ES256", nbf=NOW + 86_400), "it is not valid yet (nbf, iat)"),
        (signed(ISSUER_KEY, "ES256", subject="a", sub=None), "it has no sub"),
        (signed(ISSUER_KEY, "ES256", subject=""), "sub is empty"),
        (signed(ISSUER_KEY, "ES256", subject="a" * 256), "sub has more than 255 bytes"),
        (signed(ISSUER_KEY, "ES256", subject="a\nb"), "sub has characters that are not printable"),
        ("", "it is no JSON Web Token that can be read"),
        ("garbage", "it is no JSON Web Token that can be read"),
        ("a.b.c", "it is no JSON Web Token that can be read"),
        ("é.é.é", "it is no JSON Web Token that can be read"),
        (unsigned({"alg": "ES256", "kid": "key-1"}, claims())[:20], "it is no JSON Web Token that can be read"),
    ],
)
def test_a_token_that_is_not_good_lets_nobody_in(token: str, why: str) -> None:
    assert why_not(CHECKER, token) == why


@pytest.mark.parametrize("more", [{"crit": ["x"], "x": 1}, {"crit": ["b64"], "b64": True}, {"crit": []}, {"crit": "x"}])
def test_a_token_that_wants_something_understood_that_is_not_is_told_so(more: dict[str, Any]) -> None:
    """By whichever version of PyJWT: it looks at some of this from 2.12 on."""
    token = unsigned({"alg": "ES256", "kid": "key-1"} | more, claims())
    assert why_not(CHECKER, token) == BAD_HEADER


@pytest.mark.parametrize("exp", ["soon", True, [], 1e400, -1e400, float("nan")])
def test_what_is_no_time_is_no_end(exp: object) -> None:
    with pytest.raises((BearerTokenInvalidError, BearerTokenExpiredError)):
        CHECKER.identity(signed(ISSUER_KEY, "ES256", exp=exp))


def test_the_audience_may_be_one_of_several() -> None:
    assert CHECKER.identity(signed(ISSUER_KEY, "ES256", aud=["x", AUDIENCE])).subject == "token:alice"


def test_a_token_that_ended_a_moment_ago_is_taken_for_clocks_differ_and_one_that_ended_before_that_is_not() -> None:
    # By now: the tests before this one may have taken minutes.
    now = int(time.time())
    ended = CHECKER.identity(signed(ISSUER_KEY, "ES256", exp=now - 2))
    assert ended.expires_at == now - 2 + LEEWAY_SECONDS
    with pytest.raises(BearerTokenExpiredError):
        CHECKER.identity(signed(ISSUER_KEY, "ES256", exp=now - 60))


def test_a_token_that_was_good_is_not_taken_once_it_has_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    end = int(time.time()) + 60
    token = signed(ISSUER_KEY, "ES256", exp=end)
    assert CHECKER.identity(token) is CHECKER.identity(token)
    monkeypatch.setattr("operation_service.bearer_tokens.time.time", lambda: end + LEEWAY_SECONDS)
    with pytest.raises(BearerTokenExpiredError):
        CHECKER.identity(token)


def test_only_so_many_good_tokens_are_remembered_and_none_of_the_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operation_service.bearer_tokens._KEPT", 3)
    checker = tokens(public_jwk(ISSUER_KEY))
    for number in range(5):
        checker.identity(signed(ISSUER_KEY, "ES256", subject=str(number)))
        why_not(checker, signed(P256, "ES256", subject=str(number)))
    assert [identity.subject for identity in checker._good.values()] == ["token:2", "token:3", "token:4"]  # noqa: SLF001


def test_what_is_remembered_of_a_token_is_not_the_token(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path)
    checker = BearerTokens(keys_of(issuer.file.read_bytes(), issuer.file), ISSUER, AUDIENCE)
    token = issuer.token()
    checker.identity(token)
    assert token not in repr(vars(checker))


def test_a_key_vouches_for_as_long_as_it_is_among_the_keys() -> None:
    one, two = public_jwk(P256, "one"), public_jwk(P384, "two")
    identity = tokens(one, two).identity(signed(P256, "ES256", "one"))
    assert tokens(one).vouch_for(identity)
    assert not tokens(two).vouch_for(identity)
    # A new key under an old name is another key.
    assert not tokens(public_jwk(ISSUER_KEY, "one")).vouch_for(identity)


SHARED = json.loads(jwt.algorithms.HMACAlgorithm.to_jwk(SECRET))
PRIVATE = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(P256)) | {"kid": "key-1"}
SHORT = public_jwk(rsa.generate_private_key(65_537, 1_024))  # noqa: S505, to be refused


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "it is no JWK Set"),
        (b"[]", "it is no JWK Set"),
        (b"{}", "it is no JWK Set"),
        (b"\xff", "it is no JWK Set"),
        (jwk_set(), "there is no key in it that could vouch for a token"),
        (jwk_set(public_jwk(P256), SHARED), "keys[1]: it is a shared secret (oct)"),
        (jwk_set(PRIVATE), "keys[0]: it has a private key in it"),
        (jwk_set(SHORT), "keys[0]: an RSA key must have 2048 to 8192 bits, not 1024"),
        (jwk_set(public_jwk(P256, alg="HS256")), "keys[0]: its alg must be one of ES256, or left out"),
        (jwk_set(public_jwk(RSA, alg="none")), "keys[0]: its alg must be one of RS256"),
        (jwk_set(public_jwk(P256), public_jwk(P384)), "keys[1]: another key has the kid 'key-1' too"),
        (jwk_set(public_jwk(P256, None), public_jwk(P384, None)), "keys[1]: it needs a kid"),
        (jwk_set(public_jwk(P256, None), public_jwk(P384)), "one of its keys has no kid"),
        (jwk_set(public_jwk(P256) | {"kid": 1}), "keys[0]: kid is no text"),
        (jwk_set(public_jwk(P256) | {"x": "AA"}), "keys[0]: it is no EC key that can be read"),
        (jwk_set(public_jwk(RSA) | {"n": 7}), "keys[0]: it is no RSA key that can be read"),
        (jwk_set(public_jwk(P256, use="enc")), "there is no key in it that could vouch for a token"),
        (jwk_set(public_jwk(P256, key_ops=["encrypt"])), "there is no key in it that could vouch for a token"),
        (jwk_set({"kty": "LATER", "kid": "a"}), "there is no key in it that could vouch for a token"),
        (jwk_set(*[public_jwk(P256, str(number)) for number in range(101)]), "it has 101 keys; 100 are the most"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_with_the_keys_is_told_in_one_line_without_the_keys(content: bytes, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        keys_of(content, FILE)
    assert str(refused.value).startswith(f"--jwt-jwks keys.json: {said}")
    assert "\n" not in str(refused.value)
    assert str(PRIVATE["d"]) not in str(refused.value)


def test_keys_that_are_for_something_else_or_of_a_later_kind_are_passed_over() -> None:
    others = [public_jwk(RSA, "enc", use="enc"), {"kty": "LATER"}, {"kty": "OKP", "crv": "X25519", "x": "AA"}]
    keys = keys_of(jwk_set(*others, public_jwk(P256, use="sig", key_ops=["verify"])), FILE)
    assert list(keys) == ["key-1"]
