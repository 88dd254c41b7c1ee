"""What a review found in the bounds of dependencies."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement


def test_pyjwt_is_one_that_compares_the_whole_issuer() -> None:
    """2.10.0 takes any part of it (CVE-2024-53861): "h" for "https://issuer.example"."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (pyjwt,) = (each for each in map(Requirement, project["dependencies"]) if each.name == "pyjwt")
    assert not pyjwt.specifier.contains("2.10.0")
