"""The files that say who may do what: the policy, and the keys of tokens; each as its newest good content says."""

from operation_service.access_policy import Policy
from operation_service.bearer_tokens import BearerTokens
from operation_service.jwks import keys_of
from operation_service.kept_files import KeptFiles
from operation_service.policy_file import policy_of
from operation_service.settings_access import CallerAccess

_POLICY = "--policy"
_JWKS = "--jwt-jwks"


class AccessFiles:
    """The files that are there.

    Args:
        asked: Their names, and what tokens have to be.

    Attributes:
        policy: None: there is none, and whoever may call may do all.
        tokens: None: no tokens are taken.

    Raises:
        SettingsError: A file is not good.
    """

    def __init__(self, asked: CallerAccess) -> None:
        self.policy: KeptFiles[Policy] | None = None
        self.tokens: KeptFiles[BearerTokens] | None = None
        policy, jwks = asked.policy, asked.jwks
        if policy is not None:
            self.policy = KeptFiles({_POLICY: policy}, lambda found: policy_of(found[_POLICY], policy), settles=True)
        if jwks is not None:
            issuer, audience = asked.issuer or "", asked.audience or ""
            self.tokens = KeptFiles(
                {_JWKS: jwks}, lambda found: BearerTokens(keys_of(found[_JWKS], jwks), issuer, audience), settles=True
            )
