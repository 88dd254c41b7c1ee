"""THIRD_PARTY_NOTICES.md: the licences of what the image has besides the service.

`python -m tools.notices generate` takes them out of the wheels that the image is made of, and needs a package index for
that; `check` needs none: it says whether the page has the packages and versions of requirements/image.txt, and the
texts of those that are installed here in the same version.
"""

import json
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, PackageMetadata, PathDistribution, distributions
from pathlib import Path
from typing import NamedTuple

from packaging.utils import canonicalize_name

from tools.committed import ROOT, generate_or_check
from tools.image_environment import image_environment, site_packages
from tools.locked import IMAGE, read

PAGE = Path("THIRD_PARTY_NOTICES.md")

_LICENCE = re.compile(r"(^|/)(licen[cs]e|copying|notice|authors)[^/]*$", re.IGNORECASE)
_SBOM = re.compile(r"\.dist-info/sboms/[^/]+\.json$")
_HEADING = re.compile(r"^## (\S+) (\S+)$", re.MULTILINE)
_HEAD = """\
# Third-party notices

<!-- Made by tools/notices.py from the wheels of requirements/image.txt: run `make notices`. -->

The container image has these packages besides the service, which is under the terms of [LICENSE](LICENSE). What its
base image brings, Python and Debian's packages, says so itself in `/usr/share/doc/*/copyright` and
`/usr/local/lib/python3.11/LICENSE.txt`.
"""


class Notice(NamedTuple):
    """What a package says of its licence.

    Attributes:
        name: The package.
        version: Its version.
        licence: What its metadata call the licence.
        texts: Its files with licences and authors, by name.
        compiled_in: What else is in its binaries, with licences, as its own bill of materials says (PEP 770).
    """

    name: str
    version: str
    licence: str
    texts: Mapping[str, str]
    compiled_in: tuple[str, ...]


def notice(package: Distribution) -> Notice:
    """Return what a package says of its licence.

    Raises:
        ValueError: It has no file that does.
    """
    files = [file for file in package.files or () if ".dist-info/" in str(file)]
    texts = {file.name: file.read_text(encoding="utf-8").strip() for file in files if _LICENCE.search(str(file))}
    name = canonicalize_name(package.metadata["Name"])
    if not texts:
        raise ValueError(f"{name} ships no licence: find out under which it is, and say so in tools/notices.py")
    bills = [json.loads(file.read_text(encoding="utf-8")) for file in files if _SBOM.search(str(file))]
    compiled_in = sorted({line for bill in bills for line in map(_component, bill["components"]) if line})
    return Notice(name, package.version, _licence(package.metadata), dict(sorted(texts.items())), tuple(compiled_in))


def page(notices: Iterable[Notice]) -> str:
    """Return the page: each package, and each distinct text once."""
    parts, seen = [_HEAD], dict[str, str]()
    for each in sorted(notices):
        parts.append(f"## {each.name} {each.version}\n\n{each.licence}\n")
        if each.compiled_in:
            parts.append("In its binaries: " + "; ".join(each.compiled_in) + ".\n")
        for file, text in each.texts.items():
            first = seen.setdefault(text, f"{file} of {each.name}")
            parts.append(_fenced(file, text) if first == f"{file} of {each.name}" else f"{file}: as {first}, above.\n")
    return "\n".join(parts)


def complaints(text: str, locked: Mapping[str, str], installed: Iterable[Notice]) -> list[str]:
    """Return what is wrong with the page.

    Args:
        text: The page.
        locked: The version of each package of the image.
        installed: The packages that can be looked at here, whatever their version.
    """
    shown = dict(_HEADING.findall(text))
    found = [f"{name} {version} is missing" for name, version in locked.items() if shown.get(name) != version]
    found += [f"{name} {shown[name]} is not in the image" for name in shown.keys() - locked.keys()]
    for each in installed:
        if locked.get(each.name) == each.version:
            lacking = [file for file, licence in each.texts.items() if licence not in text]
            found += [f"{file} of {each.name} is not as the package has it" for file in lacking]
    return found


def _component(component: dict[str, object]) -> str:
    name, licences = component["name"], component.get("licenses")
    words = [_name(each) for each in licences] if isinstance(licences, list) else []
    return f"{name} {component.get('version', '')}".strip() + (f" ({', '.join(words)})" if words else "")


def _name(licence: dict[str, str | dict[str, str]]) -> str:
    inner = licence.get("license")
    return str(inner.get("id") or inner.get("name") if isinstance(inner, dict) else licence.get("expression"))


def _licence(metadata: PackageMetadata) -> str:
    for key in ("License-Expression", "License"):
        if key in metadata:
            return str(metadata[key])
    classifiers = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier", []) if "License ::" in line]
    return ", ".join(classifiers) or "See its licence."


def _fenced(file: str, text: str) -> str:
    return f"{file}:\n\n````text\n{text}\n````\n"


def _versions() -> dict[str, str]:
    return {name: package.version for name, package in read((ROOT / IMAGE).read_text(encoding="utf-8")).items()}


def _generate() -> None:
    with image_environment() as python:
        packages = [PathDistribution(path) for path in site_packages(python).glob("*.dist-info")]
        (ROOT / PAGE).write_text(page(map(notice, packages)), encoding="utf-8")


def _complaints() -> Iterable[str]:
    locked = _versions()
    here: dict[str, Distribution] = {
        canonicalize_name(package.metadata["Name"]): package for package in distributions()
    }
    installed = [
        notice(here[name]) for name, version in locked.items() if name in here and here[name].version == version
    ]
    for complaint in complaints((ROOT / PAGE).read_text(encoding="utf-8"), locked, installed):
        yield f"{PAGE}: {complaint}"


if __name__ == "__main__":
    generate_or_check(_generate, _complaints, "make notices")
