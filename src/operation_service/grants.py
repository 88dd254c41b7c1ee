"""What one subject may do, put together from what bindings grant to many. Pure.

What a binding says is kept once, however many subjects it names and whatever else these may do, and put together when
somebody asks: so a policy takes memory by the size of its file, not by subjects times projects.
"""

import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence

from msgspec import Struct

from operation_service.roles import Role

Roles = frozenset[Role]
NO_ROLES: Roles = frozenset()

_PARTS_LOOKED_INTO = 4
"""One after the other, each time that something has happened. More are put together, up to 1,000 projects."""


class Part(Struct, frozen=True, eq=False):
    """What bindings with the same subjects grant together.

    Attributes:
        everywhere: On every project.
        projects: On some projects.
    """

    everywhere: Roles
    projects: Mapping[str, Roles]


class Projects(Collection[str]):
    """Some projects, in the order of their keys. They stay what they are, whatever becomes of the policy.

    Args:
        some: Parts of them, which are kept, not copied, if they are few.

    Attributes:
        some: All of them, in a few parts.
    """

    __slots__ = ("__weakref__", "some")

    def __init__(self, some: Sequence[Collection[str]]) -> None:
        self.some = some if len(some) <= _PARTS_LOOKED_INTO else (frozenset().union(*some),)

    def __contains__(self, project: object) -> bool:
        for some in self.some:  # noqa: SIM110, any() with a generator takes several times as long
            if project in some:
                return True
        return False

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._all(), key=_key_order))

    def __len__(self) -> int:
        return len(self.some[0]) if len(self.some) == 1 else len(self._all())

    def __bool__(self) -> bool:
        return any(self.some)

    def first_beyond(self, others: "Projects") -> str | None:
        """Return the first of these that is not among the others. None: all are."""
        return min(self._all().difference(*others.some), key=_key_order, default=None)

    def _all(self) -> frozenset[str]:
        return frozenset[str]().union(*self.some)


class Grants:
    """All that one subject may do.

    Args:
        parts: What it is granted.
        naming: The parts of the whole policy, by the projects that they name.

    Attributes:
        everywhere: On every project.
        is_nothing: Whether it may do nothing at all.
    """

    __slots__ = ("_few", "_naming", "_parts", "_projects", "everywhere", "is_nothing")

    def __init__(
        self, parts: frozenset[Part] = frozenset(), naming: Mapping[str, frozenset[Part]] | None = None
    ) -> None:
        self._parts = parts
        self._naming = naming or {}
        projects = tuple(part.projects for part in parts if part.projects)
        self._few = projects if len(projects) <= _PARTS_LOOKED_INTO else None
        self._projects: weakref.ref[Projects] | None = None
        self.everywhere = NO_ROLES.union(*(part.everywhere for part in parts))
        self.is_nothing = not self.everywhere and not projects

    def on(self, project: str) -> Roles:
        """Return the roles on a project."""
        roles = self.everywhere
        for some in self._few if self._few is not None else self._that_name(project):
            if more := some.get(project):
                roles = roles | more if roles else more
        return roles

    def _that_name(self, project: str) -> list[Mapping[str, Roles]]:
        """Return what names a project: takes time by the smaller of the two, the subject's parts and the project's."""
        return [part.projects for part in self._parts & self._naming.get(project, frozenset())]

    @property
    def projects(self) -> Projects:
        """The projects on which it is granted something, `*` apart: one object for all who hold it at the same time."""
        projects = self._projects() if self._projects is not None else None
        if projects is None:
            projects = Projects([part.projects for part in self._parts if part.projects])
            # Kept for as long as somebody uses it: thousands of subjects may ask once each.
            self._projects = weakref.ref(projects)
        return projects

    @property
    def most_projects(self) -> int:
        """How many projects there are at the most; found out without looking at each."""
        return sum(len(part.projects) for part in self._parts)

    @property
    def readable(self) -> Projects | None:
        """The projects that it may read. None: all. Every role allows to read."""
        return None if self.everywhere else self.projects


NOTHING = Grants()
EVERYTHING = Grants(frozenset({Part(frozenset(Role), {})}))


def _key_order(project: str) -> str:
    """Return what projects are sorted by in etcd: `a-b/` comes before `a/`, for what `-` and `/` are in ASCII."""
    return project + "/"
