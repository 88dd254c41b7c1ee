"""What it costs to import the client: a process of its own tells."""

import os
import subprocess
import sys

import pytest

import operation_service.client
from operation_service.client import errors

SERVERS = ("etcd3", "hpack", "msgspec", "uvloop")
"""What only the service needs."""


def a_process(script: str, **environment: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if name != "GRPC_ENABLE_FORK_SUPPORT"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_client_brings_none_of_the_servers_rooms() -> None:
    loaded = a_process("import operation_service.client, sys; print(*sorted(sys.modules))")
    ours = {name for name in loaded if name.startswith("operation_service.")}
    assert {name for name in ours if not name.startswith("operation_service.client")} == set()
    assert {name for name in loaded if name.partition(".")[0] in SERVERS} == set()


def test_grpc_is_told_of_forks_before_it_is_loaded() -> None:
    script = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            print(os.environ.get("GRPC_ENABLE_FORK_SUPPORT"))
sys.meta_path.insert(0, Watch())
import operation_service.client
"""
    assert a_process(script) == ["1"]
    assert a_process(script, GRPC_ENABLE_FORK_SUPPORT="0") == ["0"], "whoever says no is not overruled"


@pytest.mark.parametrize(
    ("before", "environment", "is_prepared"),
    [
        ("", {}, True),
        ("import grpc", {}, False),
        ("import grpc", {"GRPC_ENABLE_FORK_SUPPORT": "true"}, True),
        ("", {"GRPC_ENABLE_FORK_SUPPORT": "0"}, False),
    ],
)
def test_it_knows_whether_grpc_was_told(before: str, environment: dict[str, str], is_prepared: bool) -> None:
    script = f"{before}\nfrom operation_service.client import forks; print(forks._is_grpc_prepared)"
    assert a_process(script, **environment) == [str(is_prepared)]


def test_every_exception_can_be_had_from_the_package() -> None:
    kinds = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.OperationServiceError)
    }
    assert kinds <= set(operation_service.client.__all__)
    assert kinds <= set(vars(operation_service.client))


def test_the_tree_of_exceptions_is_as_its_docstring_draws_it() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        name = line.lstrip(" │├└─").partition(" ")[0]
        if name.endswith("Error") and (line.startswith("    ")):
            depth = (len(line) - len(line.lstrip(" │├└─"))) // 4 - 1
            drawn[name] = above[depth - 1] if depth else ""
            above[depth:] = [name]
    real = {
        name: "" if kind is errors.OperationServiceError else kind.__base__.__name__
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.OperationServiceError) and kind.__base__
    }
    assert drawn == real


def test_a_client_has_loaded_all_of_grpc_before_threads_use_it() -> None:
    """A fork in the midst of gRPC's first steps, in another thread, left a child that waited for ever."""
    code = (
        "import sys; from operation_service.client import Client; before = 'grpc._channel' in sys.modules; "
        "client = Client('127.0.0.1:1'); print(before, 'grpc._channel' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert finished.stdout == "False True\n"
