"""What a supervisor tells its workers arrives as it was meant, and so does what they report."""

import os
from pathlib import Path

from operation_service import handover
from operation_service.settings import Settings
from operation_service.settings_tls import EtcdAccess, ServerTls

URL = "http://127.0.0.1:2379"
TLS = ServerTls(cert=Path("tls.crt"), key=Path(os.fsdecode(b"not \xff UTF-8")), client_ca=Path("ca.crt"))


def test_a_worker_is_told_the_settings_with_the_ports_and_the_etcd_that_all_share() -> None:
    settings = Settings(
        listen="[::1]:50051",
        etcd_binary=Path("/usr/bin/etcd"),
        data_dir=Path("data"),
        key_prefix="/prefix/",
        tls=TLS,
        health_listen="[::1]:50052",
        descriptor_sets=(Path("a b"), Path("new\nline"), Path(os.fsdecode(b"not \xff UTF-8"))),
        max_lock_seconds=1,
        retention_seconds=2,
        max_calls_in_flight=3,
        max_watches=4,
        workers=5,
    )
    line = handover.order(settings, (URL,))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert handover.settings_of(line) == Settings(
        listen="[::1]:50051",
        etcd_endpoints=(URL,),
        key_prefix="/prefix/",
        tls=TLS,
        health_listen="[::1]:50052",
        descriptor_sets=settings.descriptor_sets,
        max_lock_seconds=1,
        retention_seconds=2,
        max_calls_in_flight=3,
        max_watches=4,
        workers=5,
    )


def test_a_worker_is_told_how_etcd_knows_the_service() -> None:
    access = EtcdAccess(
        ca=Path("ca"), cert=Path("cert"), key=Path("key"), user="service", password_file=Path("pass word")
    )
    settings = Settings(etcd_endpoints=("https://etcd:2379",), etcd_access=access, workers=2)
    line = handover.order(settings, settings.etcd_endpoints)
    assert handover.settings_of(line).etcd_access == access


def test_why_a_worker_cannot_start_is_one_line() -> None:
    line = handover.wrong("--descriptor-set: a\nb: no such file")
    assert b"\n" not in line
    assert handover.wrong_in(line) == "--descriptor-set: a b: no such file"


def test_other_lines_are_no_reason() -> None:
    assert handover.wrong_in(handover.READY) is None
    assert handover.wrong_in(b"something that a library prints") is None
