"""Generate everything that is made from the protos, or check that what is committed is just that.

`generate` writes `src/n0stack/` and the descriptor sets. `check [REVISION]` changes nothing: it generates into a
scratch folder, compares, and runs buf's formatter, linter and breaking-change detector, the last one against the
descriptor set of that git revision (HEAD if none is given).
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from google.rpc import status_pb2

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

SERVICE_PROTOS = ("n0stack/protobuf/operation.proto", "n0stack/operation/v1alpha/operation_service.proto")
# What reflection serves besides the service itself, so that grpcurl can print the error details.
REFLECTED_PROTOS = (*SERVICE_PROTOS, "google/rpc/error_details.proto", "google/rpc/code.proto")
EXAMPLE_PROTOS = ("n0stack/infra/v1alpha/virtual_machine.proto",)

GENERATED_CODE = Path("src/n0stack")
SERVICE_DESCRIPTORS = Path("src/operation_service/descriptors.binpb")
EXAMPLE_DESCRIPTORS = Path("examples/virtual_machine.binpb")

# google/api and google/rpc lie beside the modules generated from them; google/protobuf comes with grpc_tools.
INCLUDES = (ROOT / "proto", ROOT / "examples", Path(status_pb2.__file__).parents[2])


def _protoc(*args: str) -> None:
    includes = [f"--proto_path={folder}" for folder in INCLUDES]
    protoc = subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *includes, *args], check=False)
    if protoc.returncode:
        sys.exit(protoc.returncode)  # protoc has said what is wrong


def _generate_code(root: Path) -> None:
    out = root / GENERATED_CODE.parent
    out.mkdir(parents=True, exist_ok=True)
    _protoc(
        f"--plugin={BIN / 'protoc-gen-mypy'}",
        f"--plugin={BIN / 'protoc-gen-mypy_grpc'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
        *SERVICE_PROTOS,
    )
    # operation.proto has no service; an empty module comes of it all the same.
    for empty in out.glob("n0stack/protobuf/*_pb2_grpc.py*"):
        empty.unlink()
    for proto in SERVICE_PROTOS:
        (out / proto).with_name("py.typed").touch()


def _generate_descriptors(target: Path, protos: tuple[str, ...]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    _protoc("--include_imports", "--include_source_info", f"--descriptor_set_out={target}", *protos)


def _generate(root: Path) -> None:
    _generate_code(root)
    _generate_descriptors(root / SERVICE_DESCRIPTORS, REFLECTED_PROTOS)
    _generate_descriptors(root / EXAMPLE_DESCRIPTORS, EXAMPLE_PROTOS)


def _generated(root: Path) -> dict[Path, bytes]:
    code = [path for path in (root / GENERATED_CODE).rglob("*") if "__pycache__" not in path.parts]
    paths = [*code, root / SERVICE_DESCRIPTORS, root / EXAMPLE_DESCRIPTORS]
    return {path.relative_to(root): path.read_bytes() for path in paths if path.is_file()}


def _is_fresh(scratch: Path) -> bool:
    fresh, committed = _generated(scratch), _generated(ROOT)
    stale = sorted(path for path in fresh.keys() | committed.keys() if fresh.get(path) != committed.get(path))
    for path in stale:
        print(f"{path} is not what the protos generate: run `make proto`")
    return not stale


def _buf(*args: str | Path) -> bool:
    return subprocess.run([BIN / "buf", *args], cwd=ROOT, check=False).returncode == 0


def _is_compatible(image: Path, revision: str) -> bool:
    # "./" makes git look below this folder, wherever in a repository it lies.
    show = ["git", "show", f"{revision}:./{SERVICE_DESCRIPTORS}"]
    try:
        baseline = subprocess.run(show, cwd=ROOT, check=True, capture_output=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        print(f"breaking changes: not checked, git has no {SERVICE_DESCRIPTORS} of {revision} here")
        return True
    against = image.with_name("baseline.binpb")
    against.write_bytes(baseline)
    return _buf("breaking", image, "--against", against)


def _check(revision: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        _generate(scratch)
        # A list, not `and`: one run tells of everything.
        return all(
            [
                _is_fresh(scratch),
                _buf("format", "--diff", "--exit-code"),
                _buf("lint", scratch / SERVICE_DESCRIPTORS),
                _buf("lint", scratch / EXAMPLE_DESCRIPTORS),
                _is_compatible(scratch / SERVICE_DESCRIPTORS, revision),
            ]
        )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["generate"]:
            _generate(ROOT)
        case ["check", *revision] if len(revision) <= 1:
            sys.exit(not _check(*revision or ["HEAD"]))
        case _:
            sys.exit("usage: protos.py generate | check [REVISION]")
