"""The file of --policy: TOML, with a table for each binding.

[[bindings]]
subjects = ["certificate:spiffe://n0stack/agent-1", "token:alice"]
roles = ["operate"]
projects = ["demo"]
"""

import tomllib
from pathlib import Path

import msgspec
from msgspec import Struct

from operation_service.access_policy import ANY, Binding, Policy
from operation_service.identities import KINDS, BadNameError, checked_name
from operation_service.roles import Role
from operation_service.settings_error import SettingsError
from operation_service.terminal_text import shown
from operation_service.validation import is_project

MAX_PROJECTS = 1_000
"""Of one subject, `*` apart: a list or a watch over all of them reads a range of etcd for each."""


class _Binding(Struct, forbid_unknown_fields=True):
    subjects: list[str]
    roles: list[Role]
    projects: list[str]


class _File(Struct, forbid_unknown_fields=True):
    bindings: list[_Binding]


def policy_of(content: bytes, file: Path) -> Policy:
    """Return the policy in a file.

    Args:
        content: What is in it.
        file: Its name, for what is said of it.

    Raises:
        SettingsError: It is none; says what is wrong, and where.
    """
    where = f"--policy {file}"
    try:
        found = msgspec.convert(tomllib.loads(content.decode()), _File)
    except UnicodeDecodeError as error:
        raise SettingsError(f"{where}: it is not UTF-8") from error
    except msgspec.ValidationError as error:
        # It shows names of fields as they are, which may be of more than one line.
        raise SettingsError(f"{where}: {shown(str(error))}") from error
    except (ValueError, RecursionError) as error:
        # Not tomllib's own error alone: a number of more than 4,300 digits is refused by int().
        raise SettingsError(f"{where}: it is no TOML: {shown(str(error))}") from error
    if not found.bindings:
        raise SettingsError(f"{where}: it has no [[bindings]]: nobody could do anything")
    policy = Policy(_binding(each, f"{where}: bindings[{place}]") for place, each in enumerate(found.bindings))
    if policy.most_projects > MAX_PROJECTS:
        raise SettingsError(
            f"{where}: a subject has roles on {policy.most_projects} projects; {MAX_PROJECTS} are the most"
        )
    return policy


def _binding(found: _Binding, at: str) -> Binding:
    for name, values in (("subjects", found.subjects), ("roles", found.roles), ("projects", found.projects)):
        if not values:
            raise SettingsError(f"{at}.{name}: it names none")
    for place, subject in enumerate(found.subjects):
        kind = next((kind for kind in KINDS if subject.startswith(kind)), None)
        if kind is None:
            raise SettingsError(f"{at}.subjects[{place}]: must be certificate:NAME or token:SUB, not {subject!r}")
        try:
            name = checked_name(subject.removeprefix(kind), f"what is behind {kind}")
        except BadNameError as error:
            raise SettingsError(f"{at}.subjects[{place}]: {error}") from error
        if name != ANY and (ANY in name or name != name.strip()):
            raise SettingsError(
                f"{at}.subjects[{place}]: {subject!r} is no whole name, nor {kind}{ANY}, and matches nobody"
            )
    for place, project in enumerate(found.projects):
        if project != ANY and not is_project(project):
            raise SettingsError(f'{at}.projects[{place}]: must be a project, or "*" for all, not {project!r}')
    return Binding(tuple(found.subjects), tuple(found.roles), tuple(found.projects))
