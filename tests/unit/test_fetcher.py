"""The fetcher of an aiokafka consumer never sleeps while a broker could be asked."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.structs import TopicPartition

from tables.records import tune_fetcher

TP = TopicPartition("trades", 0)
#: which comes first, that a request ends without records or that others are taken, and turns of the loop in between
MEETINGS = [(ends_first, distance) for ends_first in (True, False) for distance in range(4)]
TURNS = 20


class Client:
    """A broker that answers when told to."""

    _metadata_max_age_ms = 300_000

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.cluster = SimpleNamespace(leader_for_partition=lambda tp: 0)
        self.asked: list[asyncio.Future[Any]] = []

    async def send(self, node: int, request: Any) -> Any:
        self.asked.append(self._loop.create_future())
        return await self.asked[-1]

    def answer_nothing(self) -> None:
        self.asked[-1].set_result(SimpleNamespace(API_VERSION=4, topics=[]))


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def asks_again(ends_first: bool, distance: int, tuned: bool) -> bool:
    """Let a request end empty about when somebody takes records; say whether the next one follows."""
    client, subscriptions = Client(), SubscriptionState()
    subscriptions.assign_from_user({TP})
    subscriptions.subscription.assignment.state_value(TP).reset_to(0)
    fetcher = Fetcher(client, subscriptions)
    if tuned:
        tune_fetcher(fetcher, 0.0)
    await turns(TURNS)
    assert len(client.asked) == 1
    steps = [client.answer_nothing, lambda: fetcher._notify(fetcher._wait_consume_future)]
    first, second = steps if ends_first else steps[::-1]
    first()
    await turns(distance)
    second()
    await turns(TURNS)
    again = len(client.asked) == 2
    await fetcher.close()
    return again


@pytest.mark.parametrize(("ends_first", "distance"), MEETINGS)
def test_a_request_follows_one_that_ended_whatever_else_happens_in_that_turn(ends_first: bool, distance: int) -> None:
    assert asyncio.run(asks_again(ends_first, distance, tuned=True))


def test_aiokafka_alone_sleeps_where_both_meet() -> None:
    """The day this fails, `tune_fetcher` need not look after it any more."""
    assert not all(asyncio.run(asks_again(*meeting, tuned=False)) for meeting in MEETINGS)


async def asked_over(every_s: dict[str, float], answers: int) -> list[set[str]]:
    """Answer requests as they come; return what each of them named."""
    client, subscriptions = Client(), SubscriptionState()
    tps = {TopicPartition(t, p) for t in ("orders", "trades") for p in range(2)}
    subscriptions.assign_from_user(tps)
    for tp in tps:
        subscriptions.subscription.assignment.state_value(tp).reset_to(0)
    fetcher, found = Fetcher(client, subscriptions), []
    send = client.send

    async def noted(node: int, request: Any) -> Any:
        found.append({topic for topic, _ in request.topics})
        return await send(node, request)
    client.send = noted  # type: ignore[method-assign]
    tune_fetcher(fetcher, 0.0, every_s)
    while len(found) < answers:
        await asyncio.sleep(0.001)
        if client.asked and not client.asked[-1].done():
            client.answer_nothing()
    assert not fetcher._records, "nothing that stands in for records is left among them"
    await fetcher.close()
    return found


def test_a_topic_that_can_wait_is_not_asked_for_more_often_and_holds_nobody_up() -> None:
    found = asyncio.run(asked_over({"trades": 3600.0}, 30))
    assert found == [{"orders", "trades"}] + 29 * [{"orders"}]


def test_where_nothing_is_due_the_fetcher_wakes_when_something_is() -> None:
    found = asyncio.run(asked_over({"trades": 0.02, "orders": 0.02}, 5))
    assert len(found) == 5 and all(named == {"orders", "trades"} for named in found), "and does not wait for somebody to wake it"
