"""Should gRPC's server end by itself, the process ends with it: one that only looks alive is not started again."""

import sys

from e2e.support_e2e import run

FAILS_ON_ITS_FIRST_CALL = """
import asyncio
from operation_service import cli, grpc_server

async def fail(server, method):
    await asyncio.sleep(1)
    raise RuntimeError("gRPC's queue is broken")

grpc_server._AioServer._serve = fail
cli.main()
"""


async def test_a_server_that_ends_by_itself_ends_the_process_with_an_error(etcd: str) -> None:
    arguments = ("serve", "--listen", "127.0.0.1:0", "--etcd-endpoints", etcd)
    finished = await run(sys.executable, "-c", FAILS_ON_ITS_FIRST_CALL, *arguments)
    assert finished.code == 1
    assert "gRPC's queue is broken" in finished.err
    assert finished.err_lines[-1] == (
        "operation-service: gRPC takes no more calls: start the service again, and look into its log"
    )
