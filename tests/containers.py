"""Dockerfile and compose.yaml as they are written, and what follows from them for a process."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def stage(name: str) -> str:
    """The lines of a stage of the Dockerfile."""
    found = re.search(rf"^FROM \S+ AS {name}$(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


def image_environment(name: str) -> dict[str, str]:
    """The variables that a stage sets, its PATH apart."""
    (block,) = re.findall(r"^ENV ((?:.*\\\n)*.*)$", stage(name), re.MULTILINE)
    return {key: value for key, value in re.findall(r"([A-Z_]+)=(\S+)", block) if key != "PATH"}


def container_environment(service: str) -> dict[str, str]:
    """The variables of a service of compose.yaml: its image's, and its own."""
    own: dict[str, str] = SERVICES[service].get("environment", {})
    return image_environment(SERVICES[service]["build"]["target"]) | own


def replaced(variables: dict[str, str], replacements: dict[str, str]) -> dict[str, str]:
    """The variables with what is in their values replaced; each replacement has to be needed."""
    for old, new in replacements.items():
        assert any(old in value for value in variables.values()), old
        variables = {name: value.replace(old, new) for name, value in variables.items()}
    return variables
