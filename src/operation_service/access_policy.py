"""Who may do what: the bindings of a policy, and what follows from them. Pure.

Nothing is granted but by a binding, and nothing that one grants is taken away by another: the order does not matter.
"""

from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct

from operation_service.identities import KINDS
from operation_service.roles import INCLUDED, Role

ANY = "*"
"""Stands for all projects, or behind a kind (`certificate:*`) for all subjects of it."""

Roles = frozenset[Role]
_NONE: Roles = frozenset()


class Binding(Struct, frozen=True):
    """That some subjects have some roles on some projects."""

    subjects: tuple[str, ...]
    roles: tuple[Role, ...]
    projects: tuple[str, ...]


class Grants(Struct, frozen=True):
    """All that one subject may do.

    Attributes:
        everywhere: On every project.
        projects: On some projects, what it may everywhere included, in the order of their keys.
    """

    everywhere: Roles = _NONE
    projects: Mapping[str, Roles] = {}

    def on(self, project: str) -> Roles:
        """Return the roles on a project."""
        return self.projects.get(project, self.everywhere)

    @property
    def is_nothing(self) -> bool:
        """Whether it may do nothing at all."""
        return not self.everywhere and not self.projects

    @property
    def readable(self) -> Collection[str] | None:
        """The projects that it may read, in the order of their keys. None: all. Every role allows to read."""
        return None if self.everywhere else self.projects.keys()


NOTHING = Grants()
EVERYTHING = Grants(frozenset(Role))


def _key_order(project: str) -> str:
    """Return what projects are sorted by in etcd: `a-b/` comes before `a/`, for what `-` and `/` are in ASCII."""
    return project + "/"


def _grants(bindings: Iterable[Binding]) -> Grants:
    everywhere: Roles = _NONE
    projects: dict[str, Roles] = {}
    for binding in bindings:
        roles = _NONE.union(*(INCLUDED[role] for role in binding.roles))
        for project in binding.projects:
            if project == ANY:
                everywhere |= roles
            else:
                projects[project] = projects.get(project, _NONE) | roles
    return Grants(everywhere, {each: projects[each] | everywhere for each in sorted(projects, key=_key_order)})


class Policy:
    """Who may do what.

    Args:
        bindings: What is granted.
    """

    def __init__(self, bindings: Iterable[Binding]) -> None:
        by_subject: dict[str, list[Binding]] = {}
        for binding in bindings:
            for subject in dict.fromkeys(binding.subjects):
                by_subject.setdefault(subject, []).append(binding)
        of_all = {kind: by_subject.get(kind + ANY, []) for kind in KINDS}
        self._of_kind = {kind: _grants(granted) for kind, granted in of_all.items()}
        self._grants = {
            subject: _grants([*granted, *of_all[kind]])
            for subject, granted in by_subject.items()
            for kind in KINDS
            if subject.startswith(kind) and subject != kind + ANY
        }

    def grants(self, subject: str) -> Grants:
        """Return what a subject may do."""
        granted = self._grants.get(subject)
        if granted is not None:
            return granted
        return next((self._of_kind[kind] for kind in KINDS if subject.startswith(kind)), NOTHING)

    @property
    def most_projects(self) -> int:
        """On how many projects, `*` apart, somebody has roles at the most."""
        return max((len(each.projects) for each in (*self._grants.values(), *self._of_kind.values())), default=0)
