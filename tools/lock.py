"""The versions and hashes of all that goes into the image: requirements/image.txt, and build.txt for its wheel.

`python -m tools.lock generate` asks the package index for the newest that pyproject.toml allows; `check` says whether
what is committed still fits, without a network.
"""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tools.committed import ROOT, generate_or_check
from tools.locked import BUILD, IMAGE, complaints, image_extras, needs, pyproject, read

_FLAGS = (
    "--universal",  # one file for x86_64 and aarch64; pyproject.toml says that the platform is Linux
    "--python-version=3.11",
    "--generate-hashes",
    "--no-emit-index-url",  # any index may serve them: the hashes say what is right
    "--upgrade",
    "--only-binary=:all:",  # as the Dockerfile installs them
    "--custom-compile-command=make lock",
    "--quiet",
)


def _generate() -> None:
    project = pyproject()
    extras = [f"--extra={extra}" for extra in image_extras(project)]
    _compile(IMAGE, "pyproject.toml", *extras)
    _compile(BUILD, "-", stdin="\n".join(project["build-system"]["requires"]))


def _compile(path: Path, *what: str, stdin: str = "") -> None:
    command = [sys.executable, "-m", "uv", "pip", "compile", *what, *_FLAGS, f"--output-file={path}"]
    done = subprocess.run(command, cwd=ROOT, input=stdin, text=True, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        sys.exit(f"{path} could not be made: is a package index in reach?")


def _complaints() -> Iterable[str]:
    for path, needed in needs(pyproject()).items():
        for complaint in complaints(read((ROOT / path).read_text(encoding="utf-8")), needed):
            yield f"{path}: {complaint}"


if __name__ == "__main__":
    generate_or_check(_generate, _complaints, "make lock")
