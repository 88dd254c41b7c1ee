"""CONTRACT section 6: what each flag may be, and that a wrong one is named in one clear line."""

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from operation_service.settings import Settings, SettingsError, default_data_dir, is_loopback, parse_endpoints
from operation_service.settings_access import CallerAccess
from operation_service.settings_tls import ServerTls

FILE = Path("file")

TEN_YEARS = 10 * 365 * 86_400
TLS = ServerTls(cert=Path("tls.crt"), key=Path("tls.key"))


def refused(flag: str, **settings: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**settings)
    line = str(caught.value)
    assert flag in line
    assert len(line.splitlines()) == 1


def test_the_defaults_are_the_contracts() -> None:
    settings = Settings()
    assert settings.listen == "127.0.0.1:50051"
    assert settings.etcd_endpoints == ()
    assert settings.data_dir is None
    assert settings.key_prefix == "/n0stack/operation/"
    assert settings.descriptor_sets == ()
    assert (settings.max_lock_seconds, settings.retention_seconds) == (86_400, 604_800)
    assert (settings.max_calls_in_flight, settings.max_watches) == (512, 2_000)
    assert settings.workers == 1


def test_nothing_is_changed_afterwards() -> None:
    settings: Any = Settings()
    with pytest.raises(FrozenInstanceError):
        settings.listen = "127.0.0.1:1"


@pytest.mark.parametrize(
    "listen",
    [
        "127.0.0.1:50051",
        "127.0.0.1:0",
        "0.0.0.0:1",
        "localhost:65535",
        "operation.example.com:443",
        "[::1]:50051",
        "[::]:0",
        "[fe80::1%eth0]:50051",
    ],
)
def test_listen_may_be_a_host_and_a_port(listen: str) -> None:
    assert Settings(listen=listen, is_insecure=True).listen == listen


@pytest.mark.parametrize(
    "listen",
    [
        "",
        ":",
        ":50051",
        "50051",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:http",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:+1",
        "127.0.0.1: 1",
        "127.0.0.1:1 ",
        "127.0.0.1:1\n",
        "127.0.0.1:1.0",
        "127.0.0.1:\uff11",
        "127.0.0.1:\u00b2",
        "::1:50051",
        "::1",
        "[::1]",
        "[::1]50051",
        "[::1:50051",
        "::1]:50051",
        "[]:50051",
        "[zz]:50051",
        "[127.0.0.1]:50051",
        "a b:50051",
        "a\n:50051",
        "a/b:50051",
        "é:50051",
        "h" * 254 + ":50051",
        "http://127.0.0.1:50051",
        "unix:/run/operation.sock",
        "dns:///localhost:50051",
        "127.0.0.1:" + "1" * 5_000,
    ],
    ids=lambda listen: ascii(listen)[:30],
)
def test_any_other_listen_is_refused(listen: str) -> None:
    refused("--listen", listen=listen)


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "127.255.255.254:1", "localhost:1", "[::1]:1", "[0:0::1]:1"])
def test_what_only_this_machine_reaches_needs_no_tls(listen: str) -> None:
    assert is_loopback(listen)
    assert Settings(listen=listen).tls is None


@pytest.mark.parametrize(
    "listen",
    [
        "0.0.0.0:1",
        "[::]:1",
        "128.0.0.1:1",
        "10.0.0.1:1",
        "[fe80::1%eth0]:1",
        "[2001:db8::1]:1",
        "operation.example.com:1",
        "localhost.example.com:1",
        # Whatever these stand for: they are no address, and a name may be anybody's.
        "127.0.0.1.example.com:1",
        "127.1:1",
        "0:1",
    ],
)
def test_what_others_can_reach_is_served_with_tls_or_when_told_to_be_insecure(listen: str) -> None:
    assert not is_loopback(listen)
    refused("--insecure", listen=listen)
    refused("--tls-cert", listen=listen)
    assert Settings(listen=listen, is_insecure=True).listen == listen
    assert Settings(listen=listen, tls=TLS).listen == listen


def test_the_health_alone_is_told_in_plaintext_everywhere() -> None:
    assert Settings(health_listen="0.0.0.0:1").health_listen == "0.0.0.0:1"
    refused("--health-listen", health_listen="0.0.0.0")  # noqa: S104


@pytest.mark.parametrize(
    ("cert", "key", "client_ca"),
    [(Path("a"), None, None), (None, Path("a"), None), (None, None, Path("a")), (Path("a"), None, Path("b"))],
)
def test_a_certificate_and_its_key_go_together(cert: Path | None, key: Path | None, client_ca: Path | None) -> None:
    with pytest.raises(SettingsError, match=r"--tls-cert and --tls-key"):
        ServerTls.of(cert, key, client_ca)


@pytest.mark.parametrize(
    ("text", "endpoints"),
    [
        ("", ()),
        ("http://127.0.0.1:2379", ("http://127.0.0.1:2379",)),
        ("https://etcd.example.com:443", ("https://etcd.example.com:443",)),
        ("http://[::1]:2379", ("http://[::1]:2379",)),
        ("http://a:1,http://b:2,https://c:3", ("http://a:1", "http://b:2", "https://c:3")),
        (" http://a:1 , http://b:2 ", ("http://a:1", "http://b:2")),
        ("http://a:1/,http://b:2/", ("http://a:1", "http://b:2")),
    ],
)
def test_etcd_endpoints_may_be_urls_joined_by_commas(text: str, endpoints: tuple[str, ...]) -> None:
    assert Settings(etcd_endpoints=parse_endpoints(text)).etcd_endpoints == endpoints


@pytest.mark.parametrize(
    "text",
    [
        ",",
        " ",
        "http://a:1,",
        ",http://a:1",
        "http://a:1,,http://b:2",
        "http://a:1 http://b:2",
        "http://a:1;http://b:2",
        "127.0.0.1:2379",
        "localhost",
        "http:127.0.0.1:2379",
        "http://",
        "http://:2379",
        "http://127.0.0.1",
        "http://127.0.0.1:",
        "http://127.0.0.1:0",
        "http://127.0.0.1:65536",
        "http://127.0.0.1:etcd",
        "http://[::1]",
        "http://::1:2379",
        "http://fe80::1:2379",
        "http://a:b:2379",
        "http://[::1:2379",
        "http://[zz]:2379",
        "http://a b:2379",
        "http://a\n:2379",
        "http://user@127.0.0.1:2379",
        "http://user:word@127.0.0.1:2379",
        "http://127.0.0.1:2379/v3",
        "http://127.0.0.1:2379?a=b",
        "http://127.0.0.1:2379#a",
        "ftp://127.0.0.1:2379",
        "unix:///run/etcd.sock",
        "http://127.0.0.1:" + "1" * 5_000,
    ],
    ids=lambda text: ascii(text)[:40],
)
def test_any_other_etcd_endpoints_are_refused(text: str) -> None:
    refused("--etcd-endpoints", etcd_endpoints=parse_endpoints(text))


@pytest.mark.parametrize("settings", [{"data_dir": Path("data")}, {"etcd_binary": Path("etcd")}], ids=str)
def test_what_is_the_embedded_etcds_goes_with_no_other_etcd(settings: dict[str, Any]) -> None:
    assert Settings(**settings)
    refused("--etcd-endpoints", etcd_endpoints=("http://127.0.0.1:2379",), **settings)
    refused("--data-dir", etcd_endpoints=("http://127.0.0.1:2379",), **settings)


@pytest.mark.parametrize("prefix", ["/", "a/", "/n0stack/operation/", "~!#/", "/" * 200])
def test_a_key_prefix_may_be_200_printable_ascii_characters_that_end_with_a_slash(prefix: str) -> None:
    assert Settings(key_prefix=prefix).key_prefix == prefix


@pytest.mark.parametrize(
    "prefix", ["", "a", "/a", "/" * 201, "a b/", "a\n/", "/\n", "/a/\n", "\0/", "é/", "/\u2028/", "\x7f/"], ids=ascii
)
def test_any_other_key_prefix_is_refused(prefix: str) -> None:
    refused("--key-prefix", key_prefix=prefix)


@pytest.mark.parametrize("flag", ["max_lock_seconds", "retention_seconds"])
@pytest.mark.parametrize("seconds", [1, 2, TEN_YEARS])
def test_seconds_may_be_1_to_ten_years(flag: str, seconds: int) -> None:
    settings: dict[str, Any] = {flag: seconds}
    assert getattr(Settings(**settings), flag) == seconds


@pytest.mark.parametrize("flag", ["max_lock_seconds", "retention_seconds"])
@pytest.mark.parametrize("seconds", [0, -1, TEN_YEARS + 1, 2**63])
def test_any_other_seconds_are_refused(flag: str, seconds: int) -> None:
    refused(f"--{flag.replace('_', '-')}", **{flag: seconds})


@pytest.mark.parametrize("flag", ["max_calls_in_flight", "max_watches"])
@pytest.mark.parametrize("count", [1, 2, 100_000])
def test_limits_may_be_1_to_100_000(flag: str, count: int) -> None:
    settings: dict[str, Any] = {flag: count}
    assert getattr(Settings(**settings), flag) == count


@pytest.mark.parametrize("flag", ["max_calls_in_flight", "max_watches"])
@pytest.mark.parametrize("count", [0, -1, 100_001])
def test_any_other_limits_are_refused(flag: str, count: int) -> None:
    refused(f"--{flag.replace('_', '-')}", **{flag: count})


@pytest.mark.parametrize("state_home", ["/state", "/a/b"])
def test_the_data_dir_is_under_the_users_state_directory(monkeypatch: pytest.MonkeyPatch, state_home: str) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", state_home)
    assert default_data_dir() == Path(state_home) / "operation-service"


@pytest.mark.parametrize("state_home", [None, "", "relative"])
def test_without_a_usable_state_directory_it_is_the_usual_one_at_home(
    monkeypatch: pytest.MonkeyPatch, state_home: str | None
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    if state_home is None:
        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    else:
        monkeypatch.setenv("XDG_STATE_HOME", state_home)
    assert default_data_dir() == Path("/home/somebody/.local/state/operation-service")


@pytest.mark.parametrize("workers", [1, 2, 64])
def test_workers_may_be_1_to_64(workers: int) -> None:
    assert Settings(workers=workers).workers == workers


@pytest.mark.parametrize("workers", [-1, 0, 65])
def test_other_numbers_of_workers_are_refused(workers: int) -> None:
    refused("--workers", workers=workers)


@pytest.mark.parametrize("client_ca", [None, FILE])
@pytest.mark.parametrize("jwks", [None, FILE])
@pytest.mark.parametrize("policy", [None, FILE])
def test_a_policy_needs_something_that_tells_who_calls(
    policy: Path | None, jwks: Path | None, client_ca: Path | None
) -> None:
    issuer, audience = ("a", "b") if jwks else (None, None)
    access = CallerAccess(policy=policy, jwks=jwks, issuer=issuer, audience=audience)
    tls = ServerTls(cert=FILE, key=FILE, client_ca=client_ca)
    if policy and not jwks and not client_ca:
        with pytest.raises(
            SettingsError, match=r"--policy needs to know who calls: give --tls-client-ca or --jwt-jwks too$"
        ):
            Settings(access=access, tls=tls)
    else:
        assert Settings(access=access, tls=tls).access.policy == policy
