"""Transactions that wait while one is under way leave together, as nested ones of a single transaction.

Each keeps its own guards and its own outcome; to its caller it is as if it had gone alone. etcd agrees once on all of
them, and makes them at one revision.

- If the answer never comes, the outcome of each is unknown to its caller, as it would be alone.
- If another replica was faster for one of them, its guards fail, and the others are made.
- If one of them cannot be made at all, as with a lease that has ended, etcd refuses them all and makes none: then each
  goes alone, and only that one fails.

Those of one resource must come one after the other (`turns.py`): etcd takes a key only once in a transaction,
and a guard sees only what was there before all of it.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence

from etcd3 import etcdrpc
from msgspec import Struct

from operation_service.clock import Deadline
from operation_service.errors import StoreError, StoreUnavailableError, again
from operation_service.etcd_client import LeaseGoneError
from operation_service.etcd_ops import Transaction
from operation_service.layout import Layout
from operation_service.together import Settle, Sharing, Together

_log = logging.getLogger(__name__)

AT_ONCE = 100
"""etcd takes 128 operations on a path (ETCD_FACTS, Transactions): these, and what each holds, 10 at the most."""
_MAX_BYTES = 1024 * 1024
"""etcd takes 1.5 MiB in a request; the largest change has 0.4 MiB."""


class Outcome(Struct, frozen=True, gc=False):
    """What became of a transaction: its response, and etcd's revision after it."""

    revision: int
    response: etcdrpc.TxnResponse


class GroupCommit:
    """Sends transactions.

    Args:
        layout: By way of which.
        on_batch: Is told how many leave together.
        sharing: Sees who shares.
    """

    def __init__(
        self, layout: Layout, on_batch: Callable[[int], None] | None = None, sharing: Sharing | None = None
    ) -> None:
        self._layout = layout
        self._on_batch = on_batch
        self._together = Together(
            self._carry_out, max_requests=AT_ONCE, max_size=_MAX_BYTES, is_repeatable=False, sharing=sharing
        )

    def write(
        self, transaction: Transaction, deadline: Deadline, settle: Settle[Outcome]
    ) -> Coroutine[None, None, Outcome]:
        """Carry out a transaction, once: an unclear outcome is for the caller to read back.

        Args:
            transaction: What to write.
            deadline: Until when to wait.
            settle: Is told once what became of it, also when its caller has gone by then. None: it was never sent.

        Raises:
            StoreUnavailableError: etcd could not be reached; `is_outcome_unknown` says whether it may have been made.
            StoreOutOfSpaceError: etcd takes no changes.
            LeaseGoneError: A lease in it has ended; nothing was changed.
        """
        return self._together.do(transaction, transaction.size, deadline, settle)

    async def _carry_out(
        self, transactions: Sequence[Transaction], deadline: Deadline
    ) -> Sequence[Outcome | Exception]:
        if self._on_batch is not None:
            self._on_batch(len(transactions))
        whole = etcdrpc.TxnRequest()
        if len(transactions) == 1:
            transactions[0].write_into(whole)
            return [await self._sent(whole, deadline)]
        for transaction in transactions:
            transaction.write_into(whole.success.add().request_txn)
        outcome = await self._sent(whole, deadline)
        if isinstance(outcome, Outcome):
            return [Outcome(outcome.revision, answer.response_txn) for answer in outcome.response.responses]
        if isinstance(outcome, LeaseGoneError) or (isinstance(outcome, StoreUnavailableError) and outcome.is_refused):
            return await asyncio.gather(*(self._alone(transaction, deadline) for transaction in transactions))
        return [again(outcome) for _ in transactions]

    async def _alone(self, transaction: Transaction, deadline: Deadline) -> Outcome | StoreError | LeaseGoneError:
        request = etcdrpc.TxnRequest()
        transaction.write_into(request)
        return await self._sent(request, deadline)

    async def _sent(self, request: etcdrpc.TxnRequest, deadline: Deadline) -> Outcome | StoreError | LeaseGoneError:
        try:
            response = await self._layout.write(request, deadline)
            return Outcome(response.header.revision, response)
        except (StoreError, LeaseGoneError) as error:
            return error
        except Exception:  # noqa: BLE001, whatever it was, etcd may have made the change
            # Who took it for not made would end leases that are in use.
            _log.exception("what became of a transaction cannot be told")
            return StoreUnavailableError("its answer cannot be understood", is_outcome_unknown=True)
