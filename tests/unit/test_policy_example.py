"""The policies that people copy are policies."""

import re
from pathlib import Path

from operation_service.policy_file import policy_of
from operation_service.roles import Role

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "policy.toml"
AGENT = "certificate:spiffe://n0stack/agent-1"


def test_the_example_grants_what_its_comments_say() -> None:
    policy = policy_of(EXAMPLE.read_bytes(), EXAMPLE)
    assert policy.grants(AGENT).on("team-a") == {Role.READ, Role.OPERATE}
    assert policy.grants(AGENT).on("another") == set()
    assert policy.grants("certificate:api.n0stack.example").on("another") == {Role.READ, Role.WRITE}
    assert policy.grants("token:anybody").on("demo") == {Role.READ}
    assert policy.grants("certificate:anybody").on("demo") == set()


def test_the_policy_of_the_page_is_one() -> None:
    page = ROOT / "docs" / "security.md"
    (block,) = re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    policy = policy_of(block.encode(), page)
    assert policy.grants(AGENT).on("demo") == {Role.READ, Role.OPERATE}
    assert policy.grants("token:anybody").on("demo") == {Role.READ}
