"""Who may do what: the bindings of a policy, and what follows from them. Pure.

Nothing is granted but by a binding, and nothing that one grants is taken away by another: the order does not matter.
"""

import functools
from collections.abc import Iterable, Sequence

from msgspec import Struct

from operation_service.grants import NO_ROLES, NOTHING, Grants, Part, Roles
from operation_service.identities import KINDS
from operation_service.roles import INCLUDED, Role

ANY = "*"
"""Stands for all projects, or behind a kind (`certificate:*`) for all subjects of it."""


class Binding(Struct, frozen=True):
    """That some subjects have some roles on some projects."""

    subjects: tuple[str, ...]
    roles: tuple[Role, ...]
    projects: tuple[str, ...]


@functools.cache
def _both(some: Roles, others: Roles) -> Roles:
    """Return the roles in one of the two, the same object for the same roles: there are eight."""
    return some | others


def _part(granted: Iterable[tuple[Roles, Iterable[str]]]) -> Part:
    everywhere, on_some = NO_ROLES, dict[str, Roles]()
    for roles, projects in granted:
        for project in projects:
            if project == ANY:
                everywhere = _both(everywhere, roles)
            else:
                on_some[project] = _both(on_some.get(project, NO_ROLES), roles)
    return Part(everywhere, on_some)


def _roles(binding: Binding) -> Roles:
    return functools.reduce(_both, (INCLUDED[role] for role in binding.roles), NO_ROLES)


def _joined(parts: Sequence[Part]) -> Part:
    return _part(
        [(roles, [project]) for part in parts for project, roles in [(ANY, part.everywhere), *part.projects.items()]]
    )


class Policy:
    """Who may do what.

    Args:
        bindings: What is granted.
    """

    def __init__(self, bindings: Iterable[Binding]) -> None:
        by_subjects: dict[frozenset[str], list[Binding]] = {}
        for binding in bindings:
            by_subjects.setdefault(frozenset(binding.subjects), []).append(binding)
        by_subject: dict[str, list[Part]] = {}
        for subjects, alike in by_subjects.items():
            part = _part((_roles(binding), binding.projects) for binding in alike)
            for subject in subjects:
                by_subject.setdefault(subject, []).append(part)
        # One part each: all subjects of a kind have it.
        of_all = {kind: [_joined(by_subject.pop(kind + ANY))] for kind in KINDS if kind + ANY in by_subject}
        parts = {part for some in (*by_subject.values(), *of_all.values()) for part in some}
        self._naming = _by_project(parts)
        self._distinct: dict[frozenset[Part], Grants] = {}
        self._of_kind = {kind: self._shared(of_all.get(kind, [])) for kind in KINDS}
        self._grants = {
            subject: self._shared([*own, *of_all.get(kind, [])])
            for subject, own in by_subject.items()
            for kind in KINDS
            if subject.startswith(kind)
        }

    def grants(self, subject: str) -> Grants:
        """Return what a subject may do: the same for all who are named by the same bindings."""
        granted = self._grants.get(subject)
        if granted is not None:
            return granted
        return next((self._of_kind[kind] for kind in KINDS if subject.startswith(kind)), NOTHING)

    @property
    def most_projects(self) -> int:
        """On how many projects, `*` apart, somebody has roles at the most."""
        most = 0
        for granted in self._distinct.values():
            if granted.most_projects > most:
                most = max(most, len(granted.projects))
        return most

    def _shared(self, parts: Iterable[Part]) -> Grants:
        wanted = frozenset(parts)
        if wanted not in self._distinct:
            self._distinct[wanted] = Grants(wanted, self._naming)
        return self._distinct[wanted]


def _by_project(parts: Iterable[Part]) -> dict[str, frozenset[Part]]:
    naming: dict[str, list[Part]] = {}
    for part in parts:
        for project in part.projects:
            naming.setdefault(project, []).append(part)
    # Projects that stand together everywhere share theirs.
    known: dict[frozenset[Part], frozenset[Part]] = {}
    return {project: known.setdefault(some := frozenset(each), some) for project, each in naming.items()}
