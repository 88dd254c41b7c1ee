"""What the image has, laid out for tools to look at: an environment made of requirements/image.txt alone."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.committed import ROOT
from tools.locked import IMAGE


@contextmanager
def image_environment() -> Iterator[Path]:
    """Make the environment, as the Dockerfile does; it is gone afterwards. Yields its Python. Needs a package index."""
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--python",
            str(python),
            "install",
            "--quiet",
        ]
        flags = ("--no-deps", "--only-binary=:all:", "--require-hashes")
        done = subprocess.run([*pip, *flags, "--requirement", ROOT / IMAGE], check=False)
        if done.returncode:
            sys.exit(f"{IMAGE} cannot be installed: is a package index in reach?")
        yield python


def site_packages(python: Path) -> Path:
    """Return where an environment's packages lie."""
    (folder,) = python.parent.parent.glob("lib/python3.*/site-packages")
    return folder
