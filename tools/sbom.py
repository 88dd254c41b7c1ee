"""The bill of materials of the image (CycloneDX, JSON), made from what requirements/image.txt installs.

`python -m tools.sbom FILE` needs a package index. The same lock file makes the same bill.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from tools.committed import ROOT
from tools.image_environment import image_environment
from tools.locked import IMAGE, Locked, read


def complaints(bill: Mapping[str, Any], locked: Mapping[str, Locked]) -> list[str]:
    """Return what is wrong with a bill: nothing, if it has the packages that are locked and no others."""
    has: dict[str, str] = {canonicalize_name(each["name"]): each["version"] for each in bill.get("components", ())}
    wants = {name: package.version for name, package in locked.items()}
    found = [f"{name} {wants[name]} is not in the bill" for name in wants if has.get(name) != wants[name]]
    return found + [f"{name} {has[name]} is not locked" for name in has.keys() - wants.keys()]


def _main(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with image_environment() as python:
        command = [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", "pyproject.toml"]
        flags = ("--output-reproducible", "--gather-license-texts", "--of", "JSON", "--validate", "-o", path.resolve())
        subprocess.run([*command, *flags, python], cwd=ROOT, check=True)
    locked = read((ROOT / IMAGE).read_text(encoding="utf-8"))
    if wrong := complaints(json.loads(path.read_text(encoding="utf-8")), locked):
        sys.exit("\n".join(wrong))
    print(f"{path}: {len(locked)} packages")


if __name__ == "__main__":
    match sys.argv[1:]:
        case [file]:
            _main(Path(file))
        case _:
            sys.exit(f"usage: {sys.argv[0]} FILE")
