"""docs/go.md: its commands generate the code and compile the example, which then works against the real service."""

import asyncio
import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.page_blocks import fences
from e2e.page_masks import is_shown
from e2e.support_e2e import ROOT, Finished, Serve, environment, etcdctl, run
from google.protobuf.descriptor_pb2 import FileDescriptorSet

PAGE = (ROOT / "docs" / "go.md").read_text()
BLOCKS = fences(PAGE)
PROGRAM = ROOT / "examples" / "go" / "main.go"
BUILD_SECONDS = 150.0

TOOLS = ("go", "gofmt", "protoc-gen-go", "protoc-gen-go-grpc")
GOCODE = Path("/usr/share/gocode/src")
PACKAGES = (
    "google.golang.org/grpc",
    "google.golang.org/genproto/googleapis/api/annotations",
    "google.golang.org/genproto/googleapis/rpc/errdetails",
    "github.com/golang/protobuf/ptypes/any",
)


def missing() -> list[str]:
    tools = [tool for tool in TOOLS if shutil.which(tool) is None]
    return tools + [package for package in PACKAGES if not (GOCODE / package).is_dir()]


def are_demanded() -> bool:
    """Whether GO_IS_NEEDED=1 says that Go and its packages have to be here: then doing without is an error."""
    return os.environ.get("GO_IS_NEEDED") == "1"


@dataclass(frozen=True)
class Operator:
    """The compiled example."""

    path: Path

    async def start(self, *flags: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            self.path,
            *flags,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(),
        )

    async def run(self, *flags: str) -> Finished:
        return await run(self.path, *flags)


def commands() -> str:
    """The page's commands for Debian, after those that install its packages."""
    (block,) = (fence for fence in BLOCKS if fence.head.startswith("known="))
    return "\n".join(block.lines)


@pytest.fixture(scope="module")
async def operator(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """Generate and compile as the page says, in a folder that looks like the repository."""
    if lacking := missing():
        reason = f"no Go with gRPC as Debian has it, docs/go.md says how to install it (missing: {', '.join(lacking)})"
        assert not are_demanded(), reason
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("go")
    (folder / "src").symlink_to(ROOT / "src")
    shutil.copytree(ROOT / "examples", folder / "examples")
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    if shutil.which("protoc") is None:
        protoc = bin_folder / "protoc"
        protoc.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m grpc_tools.protoc "$@"\n')
        protoc.chmod(0o755)
    variables = {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "GOCACHE": str(folder / "cache"),
        "GOFLAGS": "",
        "GOPROXY": "off",
    }
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euc", commands()),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
        env=environment(**variables),
    )
    async with asyncio.timeout(BUILD_SECONDS):
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return Operator(folder / "operator")


@pytest.mark.timeout(180)
async def test_the_program_of_the_page_does_what_the_page_shows(operator: Operator, serve: Serve) -> None:
    server = await serve()
    (shown,) = (fence for fence in BLOCKS if fence.head == "$ ./operator")
    done = await operator.run("-address", server.address)
    assert (done.code, done.err) == (0, "")
    real, expected = ([re.sub(r"token \d+", "token N", line) for line in lines] for lines in (
        done.out.splitlines(), shown.lines[1:]
    ))  # fmt: skip
    assert is_shown(real, expected), done.out


@pytest.mark.timeout(180)
async def test_a_lock_that_is_taken_away_ends_the_work(operator: Operator, serve: Serve) -> None:
    server = await serve()
    process = await operator.start("-address", server.address, "-lock-for", "3s", "-work-for", "50s")
    assert process.stdout
    try:
        async with asyncio.timeout(30):
            while await process.stdout.readline() != b"renewed\n":
                pass
        await etcdctl(server.etcd_url, "del", "/n0stack/operation/locks/demo/virtual_machines/web-1")
        async with asyncio.timeout(30):
            _, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 1
    assert "the lock is lost, stop working on the resource" in err.decode()
    assert 'reason: "FENCING_TOKEN_MISMATCH"' in err.decode()


@pytest.mark.timeout(180)
async def test_a_resource_that_another_holds_is_not_waited_for(operator: Operator, serve: Serve) -> None:
    server = await serve()
    flags = ("-address", server.address, "-name", "networks/lan")
    first = await operator.start(*flags, "-work-for", "50s")
    assert first.stdout
    try:
        async with asyncio.timeout(30):
            await first.stdout.readline()
        second = await operator.run(*flags)
    finally:
        first.kill()
        await first.communicate()
    assert (second.code, second.out) == (1, "")
    assert 'reason: "LOCKED"' in second.err


@pytest.mark.timeout(180)
async def test_the_program_is_formatted_as_go_wants_it(operator: Operator) -> None:
    assert operator.path.exists()
    assert (await run("gofmt", "-l", PROGRAM)).out == ""


def test_the_pages_go_is_the_programs() -> None:
    code = PROGRAM.read_text()
    blocks = ["\n".join(fence.lines) for fence in BLOCKS if fence.info == "go"]
    assert blocks
    assert [block for block in blocks if f"\n{block}\n" not in code] == []


def test_what_ci_installs_is_what_the_page_says() -> None:
    (block,) = (fence for fence in BLOCKS if fence.head.startswith("apt-get install"))
    packages = [word for word in " ".join(block.lines).replace("\\", "").split()[2:] if not word.startswith("--")]
    ci = (ROOT / ".ci" / "run").read_text()
    assert [package for package in packages if not re.search(rf"\b{package}\b", ci)] == []


def test_what_needs_the_network_names_what_is_there() -> None:
    """Its commands cannot be run here; that they name files and the module as they are can be looked at."""
    (generate,) = ("\n".join(fence.lines) for fence in BLOCKS if fence.head.startswith("go install"))
    (use,) = ("\n".join(fence.lines) for fence in BLOCKS if fence.head.startswith("go mod edit"))
    (descriptors,) = re.findall(r"--descriptor_set_in=(\S+)", generate)
    protos = FileDescriptorSet.FromString((ROOT / descriptors).read_bytes()).file
    named = [file for file in protos if file.name in re.findall(r"\S+\.proto", generate)]
    assert sorted(file.name for file in named) == sorted(
        str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto")
    )
    modules = {*re.findall(r"module=(\S+)", generate), *re.findall(r"(?:require|replace)=([^@=]+)", use)}
    assert len(modules) == 1
    assert [file.name for file in named if not file.options.go_package.startswith(f"{min(modules)}/")] == []
