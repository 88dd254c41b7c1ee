"""deploy/systemd: a unit that systemd takes, that shuts the service in, and in which it can work."""

import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
from e2e.support_e2e import PROGRAM, ROOT, grpcurl, run, start_program
from manifests import flags

from operation_service import server
from operation_service.cli_serve import serve as serve_command
from operation_service.embedded_binary import EtcdBinary

FOLDER = ROOT / "deploy" / "systemd"
UNIT = FOLDER / "operation-service.service"
TEXT = UNIT.read_text()
ENV_FILE = FOLDER / "operation-service.env"
EXPOSURE = 1.2
"""Of 10; 9.6 has a unit that says nothing of it."""

# Refuses memory that is writable and executable, or becomes the latter, as MemoryDenyWriteExecute= does, and goes on.
SHUT_IN = (
    "import ctypes, os, sys\n"
    "assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0, 'no PR_SET_MDWE'\n"
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def settings(name: str) -> list[str]:
    """What the unit says for a name, in order."""
    return re.findall(rf"^{name}=(.*)$", TEXT, re.MULTILINE)


def needed(program: str) -> None:
    """Skip the test without a program; with SYSTEMD_IS_NEEDED=1 that is an error."""
    if shutil.which(program) is None:
        assert os.environ.get("SYSTEMD_IS_NEEDED") != "1", f"{program} is missing"
        pytest.skip(f"{program} is missing")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a program that is there."""
    copy = tmp_path / UNIT.name
    copy.write_text(TEXT.replace("/opt/operation-service/bin/operation-service", str(PROGRAM)))
    return copy


async def test_systemd_finds_nothing_wrong_with_the_unit(unit: Path) -> None:
    needed("systemd-analyze")
    verified = await run("systemd-analyze", "verify", unit)
    assert (verified.code, verified.out + verified.err) == (0, "")


async def test_a_unit_with_a_mistake_is_found_out(tmp_path: Path) -> None:
    needed("systemd-analyze")
    wrong = tmp_path / UNIT.name
    wrong.write_text(f"[Service]\nExecStart={PROGRAM}\nProtectHome=perhaps\n")
    assert "Failed to parse protect home value" in (await run("systemd-analyze", "verify", wrong)).err


async def test_the_unit_shuts_the_service_in(unit: Path) -> None:
    needed("systemd-analyze")
    told = await run("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told.out)
    assert exposure, told
    assert float(exposure[1]) <= EXPOSURE


async def test_the_service_makes_no_system_call_that_the_unit_forbids(binary: EtcdBinary, tmp_path: Path) -> None:
    """With workers and an etcd of its own, from its start to its end."""
    needed("systemd-analyze")
    needed("strace")
    trace = tmp_path / "trace"
    flags = ("--listen", "127.0.0.1:0", "--workers", "2", "--etcd-binary", binary.path, "--data-dir", tmp_path / "data")
    traced = ("strace", "--follow-forks", "--quiet=all", "--seccomp-bpf", "--output", trace)
    shut_in = (sys.executable, "-c", SHUT_IN, PROGRAM, "serve", *flags)
    command = (*traced, *shut_in)
    service = await start_program(tmp_path / "log", command, tmp_path, {})
    try:
        await service.serving()
        done = await grpcurl(service.address, "ListOperations")
        assert done.code == 0, done
    finally:
        # strace does not hand signals on.
        (child,) = children(service.process.pid)
        os.kill(child, signal.SIGTERM)
        assert await service.exit_code() == 0, service.log
    # What was interrupted and begins again strace may tell by its number, which then is minus ERESTARTSYS.
    made = set(re.findall(r"^\d+ +(?!syscall_0xf)([a-z0-9_]+)\(", trace.read_text(), re.MULTILINE))
    programs = re.findall(r'^\d+ +execve\("([^"]+)"', trace.read_text(), re.MULTILINE)
    assert str(binary.path) in programs
    assert sum("python" in program for program in programs) >= 3, "its workers are not in it"
    assert made - await allowed() == set()


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def allowed() -> set[str]:
    """The system calls that the unit's filter lets through."""
    names: set[str] = set()
    for line in settings("SystemCallFilter"):
        for group in line.removeprefix("~").split():
            calls = await calls_of(group)
            names = names - calls if line.startswith("~") else names | calls
    return names


async def calls_of(group: str) -> set[str]:
    """The system calls of a group, and of the groups in it."""
    lines = (await run("systemd-analyze", "syscall-filter", group)).out.splitlines()
    words = {line.strip() for line in lines if line.startswith(" ") and not line.strip().startswith("#")}
    found = {word for word in words if not word.startswith("@")}
    return found.union(*[await calls_of(word) for word in words if word.startswith("@")])


def test_every_variable_is_a_flag_of_the_command() -> None:
    known = {str(parameter.envvar) for parameter in serve_command.params}
    of_unit = {
        line.partition("=")[0] for line in re.findall(r"Environment=(OPERATION_SERVICE_.*)$", TEXT, re.MULTILINE)
    }
    of_file = set(flags(ENV_FILE))
    assert of_unit | of_file <= known
    assert not of_unit & of_file


def test_every_credential_is_read_and_every_file_that_is_read_is_a_credential() -> None:
    credentials = re.findall(r"LoadCredential=([^:]+):/etc/operation-service/(\S+)", TEXT)
    assert all(name == file for name, file in credentials)
    assert {name for name, _ in credentials} == set(re.findall(r"=%d/(\S+)", TEXT))
    assert not [value for value in flags(ENV_FILE).values() if value.startswith("/")]


def test_the_environment_is_taken_from_where_the_unit_says() -> None:
    assert settings("EnvironmentFile") == [f"/etc/operation-service/{ENV_FILE.name}"]


def test_a_stop_has_the_time_that_it_takes() -> None:
    (stop,) = settings("TimeoutStopSec")
    assert int(stop.removesuffix("s")) >= server.STOP_SECONDS + 5
    assert settings("KillMode") == ["mixed"]


async def test_what_no_restart_mends_is_not_started_again(tmp_path: Path) -> None:
    assert settings("Restart") == ["on-failure"]
    ended = await run(PROGRAM, "serve", "--listen", "nowhere", "--data-dir", tmp_path)
    assert settings("RestartPreventExitStatus") == [str(ended.code)]
