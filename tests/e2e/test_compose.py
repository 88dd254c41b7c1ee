"""Dockerfile and compose.yaml: no engine runs here, so their commands and variables are tried on this machine."""

import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import click
import pytest
from containers import SERVICES, container_environment, image_environment, stage
from cryptography import x509
from e2e.support_compose import IS_ROOT, UID, certificates, composed_etcd
from e2e.support_e2e import etcdctl_path, run

from operation_service import server
from operation_service.cli_serve import serve as serve_command
from operation_service.embedded_binary import EtcdBinary


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that others than this user may enter, as they may a volume."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="module")
async def issued(folder: Path) -> Path:
    """What the script has made."""
    assert (await certificates(folder)).out == "written\n"
    return folder / "certificates"


@pytest.fixture
async def etcd_url(issued: Path, binary: EtcdBinary, tmp_path: Path) -> AsyncIterator[str]:
    async with composed_etcd(issued, binary, tmp_path) as url:
        yield url


def files(folder: Path, pattern: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob(pattern)}


def test_each_side_has_its_certificates_and_no_key_of_another(issued: Path) -> None:
    assert files(issued, "*.key") == {"etcd/tls.key", "service/tls.key", "service/etcd.key"}
    assert files(issued, "*.crt") == {
        "etcd/ca.crt", "etcd/tls.crt", "service/ca.crt", "service/tls.crt", "service/etcd.crt", "service/etcd-ca.crt"
    }  # fmt: skip
    assert (issued / "etcd" / "ca.crt").read_bytes() == (issued / "service" / "etcd-ca.crt").read_bytes()
    assert (issued / "etcd" / "ca.crt").read_bytes() != (issued / "service" / "ca.crt").read_bytes()


def test_keys_are_their_readers_alone(issued: Path) -> None:
    for key in issued.rglob("*.key"):
        status = key.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o400, UID)


@pytest.mark.skipif(not IS_ROOT or shutil.which("setpriv") is None, reason="only root can be somebody else")
async def test_the_containers_user_reads_the_keys_and_others_do_not(issued: Path) -> None:
    for uid, code in (("10001", 0), ("10002", 1)):
        read = await run("setpriv", f"--reuid={uid}", "--clear-groups", "cat", issued / "service" / "tls.key")
        assert read.code == code, read


def test_certificates_are_for_the_names_by_which_they_are_asked(issued: Path) -> None:
    for file, names in (("etcd/tls.crt", {"etcd"}), ("service/tls.crt", {"replica-1", "replica-2", "localhost"})):
        cert = x509.load_pem_x509_certificate((issued / file).read_bytes())
        alternatives = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names <= set(alternatives.get_values_for_type(x509.DNSName))
        assert {str(ip) for ip in alternatives.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "::1"}


async def test_what_is_good_is_kept_and_what_is_not_is_made_anew(tmp_path: Path) -> None:
    assert (await certificates(tmp_path)).out == "written\n"
    cert = tmp_path / "certificates" / "service" / "tls.crt"
    before = cert.read_bytes()
    assert (await certificates(tmp_path)).out == "good for another month\n"
    assert cert.read_bytes() == before
    assert (await certificates(tmp_path, "replica-3")).out == "written\n"
    assert cert.read_bytes() != before


async def test_a_run_that_broke_off_is_done_again(tmp_path: Path) -> None:
    await certificates(tmp_path)
    (tmp_path / "certificates" / "service" / "tls.crt").unlink()
    assert (await certificates(tmp_path)).out == "written\n"


async def test_etcd_lets_nobody_in_without_a_certificate(etcd_url: str, issued: Path) -> None:
    service = issued / "service"
    command = (etcdctl_path(), "--endpoints", etcd_url, "--cacert", service / "etcd-ca.crt")
    with_one = await run(*command, "--cert", service / "etcd.crt", "--key", service / "etcd.key", "get", "x")
    assert with_one.code == 0, with_one
    assert (await run(*command, "--command-timeout=2s", "get", "x")).code != 0


def test_every_variable_is_a_flag_of_the_command() -> None:
    known = {str(parameter.envvar) for parameter in serve_command.params if isinstance(parameter, click.Option)}
    for service in ("replica-1", "replica-2"):
        assert container_environment(service).keys() <= known


def test_what_is_read_is_mounted() -> None:
    for service, volume in (("etcd", "etcd"), ("replica-1", "service"), ("replica-2", "service")):
        assert f"{volume}-certificates:/certificates:ro" in SERVICES[service]["volumes"]
        read = {
            value for value in container_environment(service).values() if value.startswith("/") and value != "/data"
        }
        assert {str(Path(file).parent) for file in read} == {"/certificates"}
        assert f"{volume}-certificates:/certificates/{volume}" in SERVICES["certificates"]["volumes"]


def test_nothing_starts_before_its_certificates() -> None:
    for service in ("etcd", "replica-1", "replica-2"):
        condition = SERVICES[service]["depends_on"]["certificates"]["condition"]
        assert condition == "service_completed_successfully"


def test_a_stop_has_the_time_that_it_takes() -> None:
    grace = int(SERVICES["replica-1"]["stop_grace_period"].removesuffix("s"))
    assert grace > server.STOP_SECONDS


def test_the_image_asks_for_its_health_where_it_is_told() -> None:
    health_listen = image_environment("service")["OPERATION_SERVICE_HEALTH_LISTEN"]
    assert health_listen.startswith("127.0.0.1:")
    assert 'health --listen \\"$OPERATION_SERVICE_HEALTH_LISTEN\\"' in stage("service")


def test_the_image_is_made_of_what_is_locked() -> None:
    lines = [line for line in stage("dependencies").splitlines() if "--requirement" in line]
    assert len(lines) == 2
    assert all("--require-hashes" in line and "--no-deps" in line for line in lines)
