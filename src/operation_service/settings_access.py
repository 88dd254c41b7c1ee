"""Who may call, and who says who they are."""

from dataclasses import dataclass
from pathlib import Path

from operation_service.settings_error import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerAccess:
    """How callers are told apart, and what they may do.

    Attributes:
        policy: The file that says who may do what. None: whoever may call may do all.
        jwks: The JWK Set with the keys of the tokens that callers may show. None: no tokens are taken.
        issuer: What `iss` of a token has to be.
        audience: What has to be among `aud` of a token.

    Raises:
        SettingsError: They do not go together.
    """

    policy: Path | None = None
    jwks: Path | None = None
    issuer: str | None = None
    audience: str | None = None

    def __post_init__(self) -> None:
        if self.jwks is None and (self.issuer is not None or self.audience is not None):
            raise SettingsError("--jwt-issuer and --jwt-audience say what a token has to be: they need --jwt-jwks too")
        if self.jwks is not None and not (self.issuer and self.audience):
            raise SettingsError("--jwt-jwks needs --jwt-issuer and --jwt-audience: a token for another is none for us")
