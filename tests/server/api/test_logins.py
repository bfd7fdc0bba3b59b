"""Failed logins: limited for each peer, in bounded memory, at no cost to good keys."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
import pytest
from clusters.v1 import cluster_requests_pb2
from google.rpc import error_details_pb2

from server.api import logins
from server.api.logins import FailedLogins, TooManyFailedLoginsError
from tests.server.api.failures import Failure, failure_of
from tests.server.api.world import Caller, World

HERE, THERE = "ipv4:192.0.2.1:4000", "ipv4:192.0.2.2:4000"


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def spent(clock: Clock, peer: str = HERE, limit: int = 6) -> FailedLogins:
    """Give a limiter whose tries one peer has used up."""
    limiter = FailedLogins(limit, clock)
    for _ in range(limit):
        limiter.check(peer, "wrong")
        limiter.failed(peer)
    return limiter


def test_a_peer_without_tries_waits_and_others_do_not(clock: Clock) -> None:
    limiter = spent(clock)

    with pytest.raises(TooManyFailedLoginsError) as raised:
        limiter.check(HERE, "wrong")
    limiter.check(THERE, "wrong")

    assert raised.value.retry_after_s == pytest.approx(10.0)


def test_time_gives_tries_back_one_by_one(clock: Clock) -> None:
    limiter = spent(clock)
    clock.now_s += 10.0

    limiter.check(HERE, "wrong")
    limiter.failed(HERE)
    with pytest.raises(TooManyFailedLoginsError):
        limiter.check(HERE, "wrong")


def test_another_port_of_the_address_is_the_same_peer(clock: Clock) -> None:
    limiter = spent(clock)
    with pytest.raises(TooManyFailedLoginsError):
        limiter.check("ipv4:192.0.2.1:4999", "wrong")


def test_an_ipv6_site_is_one_peer_and_a_mapped_address_is_its_ipv4(clock: Clock) -> None:
    limiter = spent(clock, "ipv6:%5B2001:db8::1%5D:4000")
    with pytest.raises(TooManyFailedLoginsError):
        limiter.check("ipv6:%5B2001:db8::ffff%5D:4000", "wrong")
    limiter.check("ipv6:%5B2001:db8:0:1::1%5D:4000", "wrong")

    mapped = spent(clock, HERE)
    with pytest.raises(TooManyFailedLoginsError):
        mapped.check("ipv6:%5B::ffff:192.0.2.1%5D:4000", "wrong")


def test_a_key_that_was_good_passes_from_the_same_address(clock: Clock) -> None:
    limiter = spent(clock)
    limiter.succeeded("good")

    limiter.check(HERE, "good")


def test_memory_is_bounded_by_peers_and_by_keys(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logins, "PEERS_KEPT", 100)
    monkeypatch.setattr(logins, "KEYS_KEPT", 100)
    limiter = FailedLogins(6, clock)
    for n in range(1000):
        limiter.failed(f"ipv4:10.0.{n // 256}.{n % 256}:1")
        limiter.succeeded(f"key {n}")

    assert len(limiter._buckets) == 100
    assert len(limiter._good_keys) == 100


async def refused(caller: Caller) -> Failure:
    return await failure_of(
        caller.call(caller.clusters.ListClusters, cluster_requests_pb2.ListClustersRequest())
    )


async def test_over_the_wire_the_answer_says_when_to_try_again(world: World) -> None:
    good, wrong = world.connect(), world.connect(key="sk_wrong")
    request = cluster_requests_pb2.ListClustersRequest()
    await good.call(good.clusters.ListClusters, request)
    failures = [await refused(wrong) for _ in range(31)]

    last = failures[-1]
    assert {failure.code for failure in failures[:30]} == {grpc.StatusCode.UNAUTHENTICATED}
    assert last.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert last.reason == "TOO_MANY_FAILED_LOGINS"
    assert 0 < last.detail(error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() <= 2000
    # The same address, as behind a gateway: a key that was good here goes on.
    await good.call(good.clusters.ListClusters, request)


async def test_calls_without_a_key_cost_no_tries(world: World) -> None:
    failures = [await refused(world.connect(key="")) for _ in range(40)]

    assert {failure.code for failure in failures} == {grpc.StatusCode.UNAUTHENTICATED}
