"""Who a process is, and what a session makes of it."""

import re
import subprocess
import sys

import pytest
from client_support import SELF, START, PushedClock

from operation_service.client import forks, peer
from operation_service.client.session import Session


def a_process(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_process_has_one_token_of_32_digits() -> None:
    assert peer.peer_token() == peer.peer_token()
    assert re.fullmatch("[0-9a-f]{32}", peer.peer_token())


def test_another_process_has_another_token() -> None:
    assert a_process("from operation_service.client import peer_token; print(peer_token())") != peer.peer_token()


def test_a_child_has_another_token_whenever_it_was_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "_token", peer.peer_token())
    of_the_parent = peer.peer_token()
    peer._make_anew()  # noqa: SLF001, what each fork does in the child
    assert peer.peer_token() != of_the_parent


def test_threads_whose_first_calls_coincide_have_the_same_token() -> None:
    """The host's name is asked for without the interpreter's lock: there the other thread gets its turn."""
    script = """
import socket, threading
both = threading.Barrier(2, timeout=1)
name = socket.gethostname
def waits():
    try:
        both.wait()
    except threading.BrokenBarrierError:
        pass
    return name()
socket.gethostname = waits
from operation_service.client.peer import peer_token
tokens = []
threads = [threading.Thread(target=lambda: tokens.append(peer_token())) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(set(tokens)), len(tokens))
"""
    assert a_process(script) == "1 2"


def test_a_session_has_the_token_of_the_process_unless_it_is_given_one() -> None:
    clock = PushedClock()
    assert Session(None, 10, clock).token == peer.peer_token()
    assert Session(SELF, 10, clock).token == SELF


def test_a_token_that_was_given_is_not_to_be_used_in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    given, of_the_process = (Session(token, 10, PushedClock()) for token in (SELF, None))
    monkeypatch.setattr(forks, "_generation", forks.generation() + 1)
    with pytest.raises(RuntimeError, match="make a new client here"):
        _ = given.token
    assert of_the_process.token == peer.peer_token()
    assert Session(SELF, 10, PushedClock()).token == SELF


def test_a_session_is_patient_for_its_timeout_from_each_call_on() -> None:
    clock = PushedClock()
    session = Session(SELF, 7, clock)
    clock.push(100)
    patience = session.patience()
    assert (patience.until, patience.left()) == (START + 107, 7)
    clock.push(8)
    assert patience.left() == 0


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_call_must_have_some_time(timeout: float) -> None:
    with pytest.raises(ValueError, match=f"timeout must be more than 0 seconds, and have an end, not {timeout}"):
        Session(None, timeout, PushedClock())


def test_each_fork_is_counted_and_tells_the_rooms_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(forks, "_after_fork", [lambda: told.append("first"), lambda: told.append("second")])
    monkeypatch.setattr(forks, "_generation", 3)
    forks._forked()  # noqa: SLF001, as a fork does
    assert (told, forks.generation()) == (["first", "second"], 4)


@pytest.mark.parametrize(
    ("generation", "is_prepared", "is_refused"),
    [(0, False, False), (0, True, False), (1, True, False), (1, False, True)],
)
def test_grpc_is_not_used_in_a_child_where_it_would_hang(
    monkeypatch: pytest.MonkeyPatch, generation: int, is_prepared: bool, is_refused: bool
) -> None:
    monkeypatch.setattr(forks, "_generation", generation)
    monkeypatch.setattr(forks, "_is_grpc_prepared", is_prepared)
    if is_refused:
        with pytest.raises(RuntimeError, match="GRPC_ENABLE_FORK_SUPPORT=1"):
            forks.use_grpc()
    else:
        forks.use_grpc()


@pytest.mark.parametrize("was_used", [True, False])
def test_grpc_aio_is_not_used_in_a_child_of_a_process_that_has_used_it(
    monkeypatch: pytest.MonkeyPatch, was_used: bool
) -> None:
    monkeypatch.setattr(forks, "_after_fork", [])
    monkeypatch.setattr(forks, "_generation", 0)
    monkeypatch.setattr(forks, "_is_grpc_prepared", True)
    monkeypatch.setattr(forks, "_was_aio_used", False)
    monkeypatch.setattr(forks, "_is_aio_broken", False)
    if was_used:
        forks.use_aio()
    forks._forked()  # noqa: SLF001, as a fork does
    if was_used:
        with pytest.raises(RuntimeError, match="use the blocking Client here"):
            forks.use_aio()
    else:
        forks.use_aio()
