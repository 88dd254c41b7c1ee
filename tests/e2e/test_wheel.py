"""What is published: an sdist from the repository, a wheel from the sdist alone, and a service from the wheel alone."""

import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.support_e2e import ROOT, Finished, run, run_in, start_program

from operation_service.embedded_binary import EtcdBinary

BUILD = (sys.executable, "-m", "build", "--no-isolation", "--outdir")


@dataclass(frozen=True)
class Built:
    """What was built, and what is in it."""

    sdist: set[str]
    wheel: set[str]
    wheel_path: Path
    metadata: str


@pytest.fixture(scope="module")
async def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    succeeded(await run(*BUILD, folder, "--sdist", ROOT))
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    succeeded(await run_in(folder, *BUILD, folder, "--wheel", source))
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    files = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    return Built(files, names, wheel, metadata)


@pytest.fixture(scope="module")
async def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment's programs: it has the wheel, and what that needs from the tests' own."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python3.*/site-packages")
    # A folder of another's .pth is searched, but its own .pth files are not read: so not what is being tested.
    (packages / "borrowed.pth").write_text(
        "\n".join(path for path in sys.path if path.endswith("site-packages")) + "\n"
    )
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder / "bin" / "python")
    succeeded(await run(*pip, "install", "--no-deps", "--no-index", "--ignore-installed", built.wheel_path))
    return folder / "bin"


def succeeded(finished: Finished) -> None:
    assert finished.code == 0, finished.out + finished.err


def tracked(*folders: str) -> set[str]:
    """The files below the repository's folders, without what Python has left there."""
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in paths if "__pycache__" not in path.parts and path.suffix != ".log"}


def test_the_wheel_has_the_code_and_what_it_reads_and_nothing_else(built: Built) -> None:
    code = {name.removeprefix("src/") for name in tracked("src/operation_service", "src/n0stack")}
    assert {name for name in built.wheel if ".dist-info/" not in name} == code
    assert {
        "operation_service/py.typed",
        "operation_service/descriptors.binpb",
        "n0stack/protobuf/py.typed",
        "n0stack/operation/v1alpha/py.typed",
    } <= code


def test_the_wheel_says_under_which_licence_it_is(built: Built) -> None:
    licences = {name.partition(".dist-info/")[2] for name in built.wheel if "/licenses/" in name}
    assert licences == {"licenses/LICENSE", "licenses/THIRD_PARTY_NOTICES.md"}
    assert "\nLicense-Expression: BSD-2-Clause\n" in built.metadata


def test_the_sdist_has_all_that_it_takes_to_build_test_and_deploy(built: Built) -> None:
    assert tracked("src", "proto", "tests", "examples", "docs", "tools", "deploy", "requirements") <= built.sdist
    assert {"LICENSE", "THIRD_PARTY_NOTICES.md", "README.md", "Makefile", "Dockerfile", "compose.yaml"} <= built.sdist


async def test_the_wheel_serves_without_the_repository(installed: Path, binary: EtcdBinary, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    where = await run_in(empty, installed / "python", "-c", "import operation_service as o; print(o.__file__)")
    assert where.out.startswith(str(installed.parent)), where
    program = installed / "operation-service"
    version = await run_in(empty, program, "--version")
    assert (version.code, version.out) == (0, "operation-service, version 0.1.0\n"), version
    completion = await run_in(empty, program, "completion", "bash")
    assert "_OPERATION_SERVICE_COMPLETE" in completion.out, completion
    flags = ("--listen", "127.0.0.1:0", "--etcd-binary", binary.path, "--data-dir", tmp_path / "data")
    server = await start_program(tmp_path / "service.log", (program, "serve", *flags), empty, {})
    try:
        await server.serving()
        health = await run_in(empty, program, "health", "--address", server.address)
        assert (health.code, health.out) == (0, f"{server.address} is SERVING\n"), health
    finally:
        assert await server.stop() == 0
    assert list(empty.iterdir()) == []
