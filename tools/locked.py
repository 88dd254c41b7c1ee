"""The lock files of the image, requirements/*.txt: read, and held against pyproject.toml. No I/O but reading.

Each package stands there with one version, the hashes of its files, and who needs it.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.committed import ROOT

IMAGE = Path("requirements/image.txt")
BUILD = Path("requirements/build.txt")
EXTRAS = ("otel",)
"""What the image has besides what the service cannot do without, as far as pyproject.toml has it."""
PLATFORM = {"sys_platform": "linux", "python_version": "3.11", "python_full_version": "3.11.0"}
"""The image's, whatever machine looks."""

_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")
_VIA = re.compile(r"^ +#(?: via)? +(?!via$)(.+)$", re.MULTILINE)
_PROJECT = "the project"


class Locked(NamedTuple):
    """A package of a lock file.

    Attributes:
        version: The only one that is installed.
        hashes: How many files of it are known.
        needed_by: The packages that need it, the project by the name that stands in front of `(pyproject.toml)`.
    """

    version: str
    hashes: int
    needed_by: frozenset[str]


def pyproject() -> dict[str, Any]:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def image_extras(project: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the extras of pyproject.toml that the image has."""
    return tuple(extra for extra in EXTRAS if extra in project["project"].get("optional-dependencies", {}))


def needs(project: Mapping[str, Any]) -> dict[Path, list[Requirement]]:
    """Return what each lock file is made for, on the image's platform."""
    extras = image_extras(project)
    image = [*project["project"]["dependencies"]]
    for extra in extras:
        image += project["project"]["optional-dependencies"][extra]
    texts = {IMAGE: image, BUILD: project["build-system"]["requires"]}
    return {path: [each for each in map(Requirement, lines) if _counts(each)] for path, lines in texts.items()}


def read(text: str) -> dict[str, Locked]:
    """Return what a lock file has, by name."""
    packages: dict[str, Locked] = {}
    for block in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]:
        requirement = Requirement(block.partition("\\")[0].strip())
        if not _counts(requirement):
            continue
        (pin,) = requirement.specifier
        needed_by = frozenset(
            _PROJECT if by.endswith("(pyproject.toml)") else canonicalize_name(by) for by in _VIA.findall(block)
        )
        # What stands there for nobody was asked for itself.
        locked = Locked(pin.version, len(_HASH.findall(block)), needed_by or frozenset({_PROJECT}))
        packages[canonicalize_name(requirement.name)] = locked
    return packages


def complaints(locked: Mapping[str, Locked], needed: Iterable[Requirement]) -> list[str]:
    """Return what is wrong with a lock file: nothing, if it is what the requirements ask for, and what that needs."""
    wanted: dict[str, Requirement] = {canonicalize_name(each.name): each for each in needed}
    found = [f"{name} is not locked" for name in wanted if name not in locked]
    for name, package in locked.items():
        if name in wanted and not wanted[name].specifier.contains(package.version, prereleases=True):
            found.append(f"{name} {package.version} is not {wanted[name].specifier}")
        if (_PROJECT in package.needed_by) is not (name in wanted):
            found.append(f"{name}: pyproject.toml and the lock do not agree whether the project itself needs it")
        if not package.hashes:
            found.append(f"{name} has no hash")
    found += [f"{name}: nothing that is locked needs it" for name in locked.keys() - _reached(locked)]
    return found


def _reached(locked: Mapping[str, Locked]) -> set[str]:
    """Return what the project needs, and what that needs, and so on."""
    reached = {name for name, package in locked.items() if _PROJECT in package.needed_by}
    while more := {name for name, package in locked.items() if package.needed_by & reached} - reached:
        reached |= more
    return reached


def _counts(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({**PLATFORM, "extra": ""})
