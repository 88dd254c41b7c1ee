"""deploy/kubernetes as it is written, and what follows from it for a process."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deploy" / "kubernetes"
BASE = FOLDER / "base"

Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    """The documents of a file of YAML."""
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def resources(folder: Path) -> dict[str, Manifest]:
    """What the kustomization of a folder names in that folder itself, by kind."""
    kustomization = documents(folder / "kustomization.yaml")[0]
    files = [folder / name for name in kustomization.get("resources", ()) if (folder / name).is_file()]
    return {each["kind"]: each for file in files for each in documents(file)}


def container(deployment: Manifest) -> Manifest:
    """The only container of the Deployment's pods."""
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def flags(path: Path = BASE / "flags.env") -> dict[str, str]:
    """The variables of a file of variables."""
    lines = (line for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)
