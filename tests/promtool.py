"""promtool, where it is there. PROMTOOL_IS_NEEDED=1 makes it an error that it is not."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def promtool(*arguments: str | Path, folder: Path = ROOT, told: str = "") -> str:
    """Run it; it has to succeed. Without it the test is skipped."""
    program = shutil.which("promtool")
    if program is None:
        told = "there is no promtool: apt-get install prometheus"
        if os.environ.get("PROMTOOL_IS_NEEDED"):
            pytest.fail(told)
        pytest.skip(told)
    done = subprocess.run(
        [program, *arguments],
        check=False,
        input=told,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
