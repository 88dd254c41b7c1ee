"""What a review found: a file towards etcd that does not answer holds up all that the service does."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from e2e.support_e2e import etcdctl_path
from ports import a_port

from operation_service.embedded_etcd import EmbeddedEtcd, find_etcd_binary

_HANGS_SECONDS = 4


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace lets the file hang")
async def test_a_password_file_that_hangs_holds_up_no_other_call(tmp_path: Path) -> None:
    etcd = EmbeddedEtcd(await find_etcd_binary(None), tmp_path / "etcd")
    url = await etcd.start()
    root = ("--user", "root:root")

    def etcdctl(*words: str) -> None:
        subprocess.run([etcdctl_path(), "--endpoints", url, *words], check=True, capture_output=True)

    for words in (
        "user add root:root",
        "user grant-role root root",
        "role add r",
        "role grant-permission r --prefix=true readwrite /n0stack/operation/",
        "user add svc:pw",
        "user grant-role svc r",
        "auth enable",
    ):
        etcdctl(*words.split())
    password, address = tmp_path / "password", f"127.0.0.1:{a_port()}"
    password.write_text("pw\n")
    hanging = ("-P", str(password), "-e", "trace=openat", "-e", f"inject=openat:delay_enter={_HANGS_SECONDS}000000")
    serve = ("-c", "from operation_service.cli import main; main()", "serve", "--listen", address)
    flags = ("--etcd-endpoints", url, "--etcd-user", "svc", "--etcd-password-file", str(password))
    process = await asyncio.create_subprocess_exec(
        *("strace", "-f", "-o", "/dev/null", *hanging, sys.executable, *serve, *flags), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(40):
            while b"serving on" not in (line := await process.stderr.readline()):
                assert line
        async with grpc.aio.insecure_channel(address) as channel:
            check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
            await check(b"", timeout=20)
            # The token is lost, and the password is read for a new one.
            await asyncio.to_thread(etcdctl, *root, "auth", "disable")
            await asyncio.to_thread(etcdctl, "auth", "enable")
            worst, end = 0.0, time.monotonic() + 7
            while time.monotonic() < end:
                begun = time.monotonic()
                await check(b"", timeout=20)
                worst = max(worst, time.monotonic() - begun)
                await asyncio.sleep(0.02)
        assert worst < _HANGS_SECONDS / 2
    finally:
        for child in children(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGTERM)
        async with asyncio.timeout(30):
            await process.wait()
        await etcd.stop()
