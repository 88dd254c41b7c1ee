"""The files that say who may do what: the policy, and the keys of tokens; each as its newest good content says."""

from operation_service.access_policy import Policy
from operation_service.bearer_tokens import BearerTokens
from operation_service.jwks import keys_of
from operation_service.kept_file import KeptFile
from operation_service.policy_file import policy_of
from operation_service.settings_access import Access


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

    def __init__(self, asked: Access) -> None:
        self.policy: KeptFile[Policy] | None = None
        self.tokens: KeptFile[BearerTokens] | None = None
        if asked.policy is not None:
            self.policy = KeptFile("--policy", asked.policy, policy_of)
        if asked.jwks is not None:
            issuer, audience = asked.issuer or "", asked.audience or ""
            self.tokens = KeptFile(
                "--jwt-jwks", asked.jwks, lambda content, file: BearerTokens(keys_of(content, file), issuer, audience)
            )
