"""compose.yaml's certificates and etcd, on this machine."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from containers import ROOT, SERVICES, container_environment, replaced
from e2e.support_e2e import Finished, etcdctl_path, run, until
from ports import a_port

from operation_service.embedded_binary import EtcdBinary

SCRIPT = ROOT / "deploy" / "compose" / "certificates.py"
IS_ROOT = os.geteuid() == 0
UID = 10_001 if IS_ROOT else os.geteuid()
"""Whose the keys are: the containers' user, if we may make somebody else's files."""


async def certificates(folder: Path, *names: str) -> Finished:
    """Run the script as compose.yaml does: as root without what root can do, but for CHOWN."""
    service = SERVICES["certificates"]
    assert (service["user"], service["cap_drop"], service["cap_add"]) == ("0:0", ["ALL"], ["CHOWN"])
    path, uid, *own_names = service["command"]
    assert (path, uid) == ("/certificates", "10001")
    held = ("setpriv", "--bounding-set=-all,+chown", "--inh-caps=-all,+chown") if IS_ROOT else ()
    done = await run(*held, sys.executable, SCRIPT, folder / "certificates", str(UID), *own_names, *names)
    assert done.code == 0, done
    return done


@contextlib.asynccontextmanager
async def composed_etcd(issued: Path, binary: EtcdBinary, tmp_path: Path) -> AsyncIterator[str]:
    """The etcd of compose.yaml, by its variables: where it is called."""
    port = a_port()
    variables = replaced(
        container_environment("etcd"),
        {
            "/certificates": str(issued / "etcd"),
            "/data": str(tmp_path / "data"),
            "https://0.0.0.0:2379": f"https://127.0.0.1:{port}",
            "https://etcd:2379": f"https://localhost:{port}",
            "https://127.0.0.1:2379": f"https://127.0.0.1:{port}",
            "http://127.0.0.1:2380": f"http://127.0.0.1:{a_port()}",
        },
    )
    with (tmp_path / "etcd.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(binary.path, stdout=log, stderr=log, env=os.environ | variables)
    _, *healthcheck = SERVICES["etcd"]["healthcheck"]["test"]
    command = [etcdctl_path(), *healthcheck[1:]]
    of_client = {name: value for name, value in variables.items() if name.startswith("ETCDCTL")}

    async def is_healthy() -> bool:
        assert process.returncode is None, (tmp_path / "etcd.log").read_text()
        return (await run(*command, **of_client)).code == 0

    try:
        await until(is_healthy)
        yield f"https://localhost:{port}"
    finally:
        process.terminate()
        await process.wait()
