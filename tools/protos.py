"""Generate everything that is made from the protos, or check that what is committed is just that.

`generate` writes `src/n0stack/` and the descriptor sets; `check` generates into a scratch folder, compares, and
runs buf's linter, formatter and breaking-change detector.
"""

import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
SERVICE_PROTOS = (
    "n0stack/protobuf/operation.proto",
    "n0stack/operation/v1alpha/operation_service.proto",
)
# What reflection serves besides the service itself, so that grpcurl can print the error details.
REFLECTED_PROTOS = (*SERVICE_PROTOS, "google/rpc/error_details.proto", "google/rpc/code.proto")
EXAMPLE_PROTOS = ("n0stack/infra/v1alpha/virtual_machine.proto",)

SERVICE_DESCRIPTORS = Path("src/operation_service/descriptors.binpb")
EXAMPLE_DESCRIPTORS = Path("examples/virtual_machine.binpb")


def _protoc(*args: str) -> None:
    includes = [f"-I{ROOT / 'proto'}", f"-I{ROOT / 'examples'}", f"-I{files('grpc_tools') / '_proto'}"]
    # google/rpc lies beside the generated modules of googleapis-common-protos.
    includes.append(f"-I{files('google.rpc')._paths[0].parent.parent}")  # type: ignore[attr-defined]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *includes, *args], check=True)


def _generate(root: Path) -> None:
    out = root / "src"
    (out / "operation_service").mkdir(parents=True, exist_ok=True)
    (root / "examples").mkdir(parents=True, exist_ok=True)
    _protoc(
        f"--plugin=protoc-gen-mypy={BIN / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={BIN / 'protoc-gen-mypy_grpc'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
        *SERVICE_PROTOS,
    )
    # operation.proto has no service; protoc writes an empty module for it all the same.
    for empty in out.glob("n0stack/protobuf/*_pb2_grpc.py*"):
        empty.unlink()
    for leaf in ("n0stack/protobuf", "n0stack/operation/v1alpha"):
        (out / leaf / "py.typed").touch()
    _protoc("--include_imports", "--include_source_info", f"-o{root / SERVICE_DESCRIPTORS}", *REFLECTED_PROTOS)
    _protoc("--include_imports", "--include_source_info", f"-o{root / EXAMPLE_DESCRIPTORS}", *EXAMPLE_PROTOS)


def _generated(root: Path) -> dict[Path, bytes]:
    paths = [path for path in (root / "src/n0stack").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    paths += [root / SERVICE_DESCRIPTORS, root / EXAMPLE_DESCRIPTORS]
    return {path.relative_to(root): path.read_bytes() for path in paths if path.exists()}


def _stale(scratch: Path) -> list[Path]:
    """Return the files that differ from what the protos generate, or that only one side has."""
    _generate(scratch)
    fresh, committed = _generated(scratch), _generated(ROOT)
    return sorted(path for path in fresh.keys() | committed.keys() if fresh.get(path) != committed.get(path))


def _buf(*args: str) -> int:
    return subprocess.run([str(BIN / "buf"), *args], cwd=ROOT, check=False).returncode


def _own_protos(descriptors: Path, scratch: Path) -> str:
    """Return a descriptor set as an image that buf reads without looking for google/rpc anywhere."""
    image = scratch / f"{descriptors.stem}.image.binpb"
    image.write_bytes((ROOT / descriptors).read_bytes())
    return str(image)


def _check() -> int:
    with tempfile.TemporaryDirectory() as folder:
        stale = _stale(Path(folder))
        for path in stale:
            print(f"{path} is not what the protos generate: run `make proto`")
        image = _own_protos(SERVICE_DESCRIPTORS, Path(folder))
        failures = [
            bool(stale),
            _buf("format", "--diff", "--exit-code", "proto"),
            _buf("format", "--diff", "--exit-code", "examples"),
            _buf("lint", image),
        ]
        return int(any(failures))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["generate"]:
            _generate(ROOT)
        case ["check"]:
            sys.exit(_check())
        case _:
            sys.exit("usage: protos.py generate|check")
