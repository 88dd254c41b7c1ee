"""A port that is claimed is for workers of one service, and for nobody else."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from operation_service.port_claim import claimed
from operation_service.settings import SettingsError


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


@contextlib.contextmanager
def listening(host: str, port: int, *, is_shared: bool) -> Iterator[socket.socket]:
    """Listen as gRPC does."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(is_shared))
        listener.bind((host, port))
        listener.listen()
        yield listener


WILDCARD = "0.0.0.0"  # noqa: S104
LISTENS = ["127.0.0.1:0", "localhost:0", f"{WILDCARD}:0", "[::]:0", "[::1]:0"]


@pytest.mark.parametrize("listen", LISTENS)
def test_a_claimed_port_is_claimed_once(listen: str) -> None:
    with claimed(listen) as address:
        assert address.rpartition(":")[0] == listen.rpartition(":")[0]
        with pytest.raises(SettingsError, match="--listen"), claimed(address):
            raise AssertionError
    with claimed(address) as again:
        assert again == address


@pytest.mark.parametrize("listen", LISTENS)
def test_workers_share_a_claimed_port_and_a_service_alone_does_not_get_it(listen: str) -> None:
    host = "::1" if listen == "[::1]:0" else "127.0.0.1"
    with claimed(listen) as address:
        with pytest.raises(OSError, match="in use"), listening(host, port_of(address), is_shared=False):
            raise AssertionError
        with (
            listening(host, port_of(address), is_shared=True),
            listening(host, port_of(address), is_shared=True),
            pytest.raises(SettingsError),
            claimed(address),
        ):
            raise AssertionError


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", WILDCARD, "localhost", "[::]"])
def test_a_port_on_which_somebody_listens_cannot_be_claimed(host: str, is_shared: bool) -> None:
    with (
        listening("127.0.0.1", 0, is_shared=is_shared) as listener,
        pytest.raises(SettingsError, match=f"{listener.getsockname()[1]}"),
        claimed(f"{host}:{listener.getsockname()[1]}"),
    ):
        raise AssertionError


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_a_host_that_is_none_of_this_machine_s_cannot_be_claimed(host: str) -> None:
    with pytest.raises(SettingsError, match=host), claimed(f"{host}:0"):
        raise AssertionError


def test_of_many_that_claim_at_once_at_most_one_gets_the_port() -> None:
    for _ in range(50):
        with claimed("127.0.0.1:0") as address:
            pass
        together, checked = threading.Barrier(8), threading.Barrier(8)
        won: list[int] = []

        def claim(
            number: int,
            address: str = address,
            together: threading.Barrier = together,
            checked: threading.Barrier = checked,
            won: list[int] = won,
        ) -> None:
            together.wait()
            with contextlib.suppress(SettingsError), claimed(address):
                won.append(number)
                checked.wait()
                return
            checked.wait()

        threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) <= 1


def test_a_claim_takes_no_connection_from_the_workers() -> None:
    with claimed("127.0.0.1:0") as address:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port_of(address)))
        with listening("127.0.0.1", port_of(address), is_shared=True) as worker:
            for _ in range(50):
                with socket.create_connection(("127.0.0.1", port_of(address))):
                    worker.settimeout(10)
                    worker.accept()[0].close()


def test_a_port_is_claimed_while_connections_of_a_predecessor_linger() -> None:
    with listening("127.0.0.1", 0, is_shared=False) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as caller:
            listener.accept()[0].close()
            assert caller.recv(1) == b""
    with claimed(f"127.0.0.1:{port}"):
        pass
