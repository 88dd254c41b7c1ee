"""The store as the service puts it together, for tests that need no more of the service."""

from collections.abc import Callable

from operation_service.clock import Clock
from operation_service.commits import Commits
from operation_service.etcd_client import EtcdClient
from operation_service.etcd_store import EtcdStore
from operation_service.keys import Keys
from operation_service.leases import Leases
from operation_service.lock_times import LockTimes
from operation_service.model import Resource


def a_store(
    etcd: EtcdClient,
    keys: Keys,
    clock: Clock,
    *,
    leases: Leases | None = None,
    times: LockTimes | None = None,
    on_operation_replaced: Callable[[Resource, str], None] = lambda _resource, _operation_id: None,
) -> EtcdStore:
    """Return a store, with leases and lock times of its own unless they are given."""
    leases, times = leases or Leases(etcd, clock, 60), times or LockTimes(clock)
    commits = Commits(etcd, keys, leases, times, clock, on_operation_replaced=on_operation_replaced)
    return EtcdStore(etcd, keys, times, commits)
