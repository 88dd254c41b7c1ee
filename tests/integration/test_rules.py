"""CONTRACT section 4, rule by rule, over the wire and on a real etcd."""

from datetime import timedelta

import grpc
from support import NAME, PROJECT, Peer, messages, refused


async def test_rule_1_a_proposal_for_a_free_resource_takes_the_lock(peer: Peer) -> None:
    operation = await peer.propose(lock_for_seconds=30)
    assert operation.proposing_peer_token == peer.token
    assert await peer.state() == "LOCKED"
