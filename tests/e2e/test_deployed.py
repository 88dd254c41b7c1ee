"""The real service with the variables of each deployment, real certificates and a real etcd with TLS.

Paths and addresses are this machine's; all else is as it stands in deploy/ and compose.yaml.
"""

import json
import re
import shutil
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority, KeyPair
from containers import container_environment, replaced
from e2e.support_compose import certificates, composed_etcd
from e2e.support_e2e import PROGRAM, ROOT, Server, run, start_program, until_health
from manifests import BASE, flags
from ports import a_port

from n0stack.operation.v1alpha.operation_service_pb2 import ListOperationsRequest
from operation_service.embedded_binary import EtcdBinary

LIST = "/n0stack.operation.v1alpha.OperationService/ListOperations"
UNIT = (ROOT / "deploy" / "systemd" / "operation-service.service").read_text()


@dataclass(frozen=True)
class Parts:
    """What a deployment finds around it.

    Attributes:
        certificates: Those of compose.yaml.
        etcd_url: An etcd that takes nobody without a certificate.
        callers: The CA of the callers.
        caller: A caller's certificate.
    """

    certificates: Path
    etcd_url: str
    callers: Authority
    caller: KeyPair

    @property
    def service_ca(self) -> bytes:
        return (self.certificates / "service" / "ca.crt").read_bytes()


@pytest.fixture
async def parts(binary: EtcdBinary, tmp_path: Path) -> AsyncIterator[Parts]:
    await certificates(tmp_path)
    folder = tmp_path / "certificates"
    callers = Authority(tmp_path, "callers")
    async with composed_etcd(folder, binary, tmp_path) as url:
        yield Parts(folder, url, callers, callers.issue("caller", dns=("agent.n0stack.svc",)))


@dataclass(frozen=True)
class Addresses:
    """Where a deployed service listens."""

    service: str
    health: str
    metrics: str

    @classmethod
    def free(cls) -> "Addresses":
        return cls(*(f"127.0.0.1:{a_port()}" for _ in range(3)))

    @property
    def replacements(self) -> dict[str, str]:
        """By what the variables say instead."""
        return {
            "0.0.0.0:50051": self.service,
            "0.0.0.0:50052": self.health,
            "127.0.0.1:50052": self.health,
            "0.0.0.0:9464": self.metrics,
            "127.0.0.1:9464": self.metrics,
        }


def of_this_machine(variables: Mapping[str, str], addresses: Addresses, parts: Parts) -> dict[str, str]:
    """The variables with the addresses of this machine, and its etcd."""
    assert variables["OPERATION_SERVICE_ETCD_ENDPOINTS"].startswith("https://")
    here = {**variables, "OPERATION_SERVICE_ETCD_ENDPOINTS": parts.etcd_url}
    text = "".join(here.values())
    return replaced(here, {old: new for old, new in addresses.replacements.items() if old in text})


async def calls(address: str, parts: Parts, caller: KeyPair | None) -> None:
    """Call it by TLS."""
    pair = (caller.key, caller.cert) if caller else (None, None)
    credentials = grpc.ssl_channel_credentials(parts.service_ca, *pair)
    async with grpc.aio.secure_channel(address.replace("127.0.0.1", "localhost"), credentials) as channel:
        rpc: Any = channel.unary_unary(LIST, request_serializer=ListOperationsRequest.SerializeToString)
        await rpc(ListOperationsRequest(), timeout=10)


async def refuses(address: str, parts: Parts) -> None:
    """See that it does not take a caller without a certificate."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await calls(address, parts, None)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def secret(folder: Path, cert: Path, key: Path, ca: Path) -> Path:
    """A Secret with certificates, as it is mounted."""
    folder.mkdir(parents=True)
    for name, file in (("tls.crt", cert), ("tls.key", key), ("ca.crt", ca)):
        shutil.copy(file, folder / name)
    return folder


async def in_kubernetes(tmp_path: Path, parts: Parts, addresses: Addresses) -> Server:
    """A pod of deploy/kubernetes/base."""
    of_service = parts.certificates / "service"
    mounted = tmp_path / "mounted"
    secret(mounted / "tls", of_service / "tls.crt", of_service / "tls.key", parts.callers.ca_file)
    secret(mounted / "etcd", of_service / "etcd.crt", of_service / "etcd.key", of_service / "etcd-ca.crt")
    (mounted / "policy").mkdir()
    shutil.copy(BASE / "policy.toml", mounted / "policy")
    variables = replaced(of_this_machine(flags(), addresses, parts), {"/etc/operation-service": str(mounted)})
    return await start_program(tmp_path / "log", (PROGRAM, "serve"), tmp_path, variables)


async def by_systemd(tmp_path: Path, parts: Parts, addresses: Addresses) -> Server:
    """The service of deploy/systemd."""
    of_service = parts.certificates / "service"
    files = {
        "tls.crt": of_service / "tls.crt",
        "tls.key": of_service / "tls.key",
        "callers-ca.crt": parts.callers.ca_file,
        "etcd-ca.crt": of_service / "etcd-ca.crt",
        "etcd.crt": of_service / "etcd.crt",
        "etcd.key": of_service / "etcd.key",
    }
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for name in re.findall(r"^LoadCredential=([^:]+):", UNIT, re.MULTILINE):
        shutil.copy(files[name], credentials / name)
    of_unit = dict(line.split("=", 1) for line in re.findall(r"^Environment=(.*)$", UNIT, re.MULTILINE))
    of_unit = replaced(of_unit, {"%d": str(credentials)})
    of_file = flags(ROOT / "deploy" / "systemd" / "operation-service.env")
    variables = of_this_machine(of_unit | of_file, addresses, parts)
    return await start_program(tmp_path / "log", (PROGRAM, "serve"), tmp_path, variables)


@pytest.mark.parametrize("deploy", [in_kubernetes, by_systemd])
async def test_a_deployed_service_is_healthy_takes_callers_with_certificates_and_ends(
    deploy: Callable[[Path, Parts, Addresses], Awaitable[Server]], tmp_path: Path, parts: Parts
) -> None:
    addresses = Addresses.free()
    service = await deploy(tmp_path, parts, addresses)
    try:
        await service.serving()
        await until_health(addresses.health, "SERVING")
        await calls(addresses.service, parts, parts.caller)
        await refuses(addresses.service, parts)
        with urllib.request.urlopen(f"http://{addresses.metrics}/metrics", timeout=10) as answer:  # noqa: ASYNC210
            assert b"# TYPE " in answer.read()
    finally:
        code = await service.stop()
    assert code == 0
    lines = service.log.splitlines()
    assert lines
    assert all(isinstance(json.loads(line), dict) for line in lines)


async def test_both_replicas_of_compose_serve_over_one_etcd(tmp_path: Path, parts: Parts) -> None:
    replicas: list[Server] = []
    try:
        for name in ("replica-1", "replica-2"):
            addresses = Addresses.free()
            variables = of_this_machine(container_environment(name), addresses, parts)
            variables = replaced(variables, {"/certificates": str(parts.certificates / "service")})
            replica = await start_program(tmp_path / name, (PROGRAM, "serve"), tmp_path, variables)
            replicas.append(replica)
            await replica.serving()
            # As the image's HEALTHCHECK does.
            health = variables["OPERATION_SERVICE_HEALTH_LISTEN"]
            asked = await run(PROGRAM, "health", "--listen", health, **variables)
            assert (asked.code, asked.out) == (0, f"{health} is SERVING\n"), asked
            await calls(addresses.service, parts, None)
    finally:
        codes = [await replica.stop() for replica in replicas]
    assert codes == [0, 0]
