"""What plays the pages, with pages made for it: a page that is wrong is found out."""

from pathlib import Path

import pytest
from e2e.page_blocks import Script, session
from e2e.page_fences import not_run
from e2e.page_player import play
from e2e.support_e2e import Serve

START = """
```console
$ make test
$ make run ARGS="--data-dir kept"
...
2026-11-25 00:24:48,254 INFO operation_service.server: serving on 127.0.0.1:50051, etcd at http://127.0.0.1:41765
```
"""
CALLS = """
```python
import grpc

channel = grpc.insecure_channel("127.0.0.1:50051")
grpc.channel_ready_future(channel).result(timeout=10)
```

which goes on, and prints

```python continued
print("ready")
channel.close()
```
```text
ready
```
"""
ASKS = """
```console
$ .venv/bin/operation-service health --listen 127.0.0.1:50051; echo $?
...
0
$ (exit 7)
$ echo $?
7
```
"""
WRITES = """
```console
$ .venv/bin/etcdctl --endpoints http://127.0.0.1:41765 put key value
OK
```
"""
READS = """
```console
$ make run ARGS="--data-dir kept"
...
2026-11-25 00:24:48,254 INFO operation_service.server: serving on 127.0.0.1:50051, etcd at http://127.0.0.1:40001
$ .venv/bin/etcdctl --endpoints http://127.0.0.1:40001 get key
key
value
```
"""


async def test_commands_and_scripts_are_run_in_the_order_of_the_page(tmp_path: Path, serve: Serve) -> None:
    assert await play("page", START + ASKS + CALLS + WRITES + READS + CALLS, tmp_path, serve) == []


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("\nready\n", "\nfar from it\n", "gives:\nready"),
        ('print("ready")', "raise SystemExit(3)", "the script ends with 3"),
        ("\n7\n", "\n8\n", "gives:\n7"),
        ("\n```python continued", "\n```python", "NameError: name 'channel' is not defined"),
    ],
)
async def test_a_page_that_shows_something_else_is_found_out(
    right: str, wrong: str, told: str, tmp_path: Path, serve: Serve
) -> None:
    page = START + ASKS + CALLS
    assert page.count(right) == 1
    (difference,) = await play("page", page.replace(right, wrong), tmp_path, serve)
    assert told in difference


def test_a_script_and_what_continues_it_are_one() -> None:
    (script,) = [step for step in session(START + CALLS) if isinstance(step, Script)]
    assert script.text.startswith("import grpc")
    assert script.text.endswith("channel.close()")
    assert script.shown == ("ready",)


def test_what_continues_a_script_follows_it_at_once() -> None:
    with pytest.raises(AssertionError, match="continues no Python block"):
        session(START + CALLS.replace("```python continued", "```console\n$ true\n```\n```python continued"))


@pytest.mark.parametrize("page", [START + CALLS + ASKS, "no fence", "~~~\n~~~"])
def test_a_session_is_run_from_its_start_on(page: str) -> None:
    assert not_run(page, ()) == []


@pytest.mark.parametrize(
    "page",
    [
        "```go\npackage main\n```",
        START + "```text\nnobody said this\n```",
        ASKS + START,
        CALLS.partition("```text")[0].partition("```python continued")[0],
        "1. In a list:\n   ```yaml\n   a: 1\n   ```",
    ],
    ids=["another language", "text after a command", "before the start", "no start", "in a list"],
)
def test_a_fence_that_no_session_runs_has_to_be_listed(page: str) -> None:
    (fence,) = not_run(page, ())
    assert not_run(page, [fence.head]) == []
