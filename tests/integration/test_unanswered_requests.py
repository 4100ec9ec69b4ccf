"""F25: a request of a transaction that gets no answer is not sent again, by anything of ours that uses transactions."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import aiokafka
import numpy as np
import pytest
from aiokafka.producer.sender import BaseHandler, Sender
from aiokafka.protocol import transaction
from aiokafka.protocol.api import Request
from aiokafka.structs import TopicPartition

import tables.writer
from app.brokers import Broker, EmbeddedBroker
from app.control import set_limit, set_state
from app.faults.plan import Action, Fault, Schedule
from app.faults.proxy import FaultProxy
from app.faults.wire import Api
from app.recovery import rebuild
from app.rule_topics import current
from schemas.records import Control, Limit
from tables.changelog import Batches
from tables.exit_codes import ExitCode
from tables.partition import MARKER_KEY, Marker
from tables.restore import read_changelogs, read_range
from tables.transactions import ONCE, OnceSender, Unanswered
from tests.faults.fake_broker import Disk
from tests.faults.lives import trades
from tests.faults.real_life import ENDS, Impatient, RealLife, Uncured, make_topic
from tests.faults.test_writer_under_crashes import SEEDS
from tests.folding import assert_equal, naive
from tests.integration.harness import Installation, Upstream, prefix_of

pytestmark = pytest.mark.kafka
OF_TRANSACTIONS = (Api.ADD_PARTITIONS_TO_TXN, Api.ADD_OFFSETS_TO_TXN, Api.TXN_OFFSET_COMMIT, Api.END_TXN)
NIGHTLY = SEEDS > 240
#: what a broker says to a request of an epoch before; CONCURRENT_TRANSACTIONS while another of the newer one is ending
FENCED_CODES = {47, 51, 90}


@pytest.fixture(scope="module")
def embedded() -> Iterator[Broker]:
    made = EmbeddedBroker()
    made.start()
    yield made
    made.stop()


@pytest.fixture(params=["deciding", "embedded"])
def at(request: pytest.FixtureRequest) -> Broker:
    return request.getfixturevalue("broker" if request.param == "deciding" else "embedded")


@pytest.fixture
def topic(at: Broker, request: pytest.FixtureRequest) -> str:
    name = prefix_of(request.node.nodeid)
    asyncio.run(make_topic(at.address, name, 1))
    return name


def test_the_library_is_as_it_was_when_this_was_written() -> None:
    """What the cure relies on: a release of aiokafka that changes it has to be looked at, not taken."""
    assert aiokafka.__version__ == "0.14.0"
    assert list(inspect.signature(Sender.__init__).parameters) == [
        "self", "client", "acks", "txn_manager", "message_accumulator", "retry_backoff_ms", "request_timeout_ms"]
    requests = {c for c in vars(transaction).values() if inspect.isclass(c) and issubclass(c, Request) and c is not Request}
    assert requests == {*ONCE, transaction.InitProducerIdRequest}, "a request of transactions that is sent again"
    assert {form.API_VERSION for request in requests for form in request._CLASSES} == {0}, "versions 5 and later need none of this"
    assert "self._sender.client.send(" in inspect.getsource(BaseHandler.do)
    assert "super()._sender_routine()" in inspect.getsource(OnceSender) and inspect.iscoroutinefunction(Sender._sender_routine)


async def commit_one(producer: Any, topic: str, value: bytes = b"x") -> None:
    async with producer.transaction():
        await (await producer.send(topic, value, b"k", 0))
        await producer.send_offsets_to_transaction({TopicPartition(topic, 0): 1}, topic)


@pytest.mark.parametrize("action", [Action.CUT, Action.LOSE_ANSWER, Action.BLACK_HOLE])
@pytest.mark.parametrize("api", OF_TRANSACTIONS)
def test_a_producer_is_done_for_by_a_request_without_an_answer(at: Broker, topic: str, api: Api, action: Action) -> None:
    async def scenario(proxy: FaultProxy) -> None:
        producer = Impatient(proxy.address, request_s=0.4).producer(transactional_id=topic)
        await producer.start()
        with pytest.raises(Unanswered, match=f"of {topic}: no answer") as ended:
            await commit_one(producer, topic)
        assert ended.value.exit_code is ExitCode.TRANSACTION
        with pytest.raises(Unanswered):  # and for whatever comes
            await producer.begin_transaction()
        with pytest.raises(Unanswered):
            await producer.send(topic, b"y", b"k", 0)
        await producer.stop()
    with FaultProxy(at.address, Schedule([Fault(api, action)])) as proxy:
        asyncio.run(scenario(proxy))
        assert len(proxy.hurt()) == 1


#: answers after which aiokafka asks again; CONCURRENT_TRANSACTIONS (51) ends it where offsets are committed
AGAIN = [(api, code) for api in OF_TRANSACTIONS for code in (14, 15, 16, 51) if (api, code) != (Api.TXN_OFFSET_COMMIT, 51)]


@pytest.mark.parametrize(("api", "code"), AGAIN)
def test_a_request_that_was_answered_is_sent_again(broker: Broker, request: pytest.FixtureRequest, api: Api, code: int) -> None:
    """An error is an answer: nothing is on its way any more."""
    name = prefix_of(request.node.nodeid)

    async def scenario(proxy: FaultProxy) -> None:
        await make_topic(broker.address, name, 1)
        producer = Impatient(proxy.address).producer(transactional_id=name)
        await producer.start()
        await commit_one(producer, name)
        await producer.stop()
    with FaultProxy(broker.address, Schedule([Fault(api, Action.ERROR, times=2, error_code=code)])) as proxy:
        asyncio.run(scenario(proxy))
        assert len(proxy.hurt()) == 2


def test_a_connection_that_is_lost_between_transactions_costs_nothing(at: Broker, topic: str) -> None:
    """Nothing has left: an idle worker lives through the restart of a broker."""
    async def scenario(proxy: FaultProxy) -> None:
        producer = Impatient(proxy.address).producer(transactional_id=topic)
        await producer.start()
        for _ in range(3):
            await commit_one(producer, topic)
            proxy.cut_all()
            await asyncio.sleep(0.1)
        await producer.stop()
    with FaultProxy(at.address) as proxy:
        asyncio.run(scenario(proxy))


#: the uncured are shown to tear where they do: it is a matter of when the held request arrives
MET_NOTHING = "the held request met no transaction that it could end in its middle here"


class Believing(RealLife):
    """A life that takes whatever is committed, as it did before batches had to add up."""

    async def read(self, into: Batches) -> None:
        """Read the newest row of every key."""
        found = (await read_changelogs(self.client, {self.at: 0}))[self.at]
        into.rows, into.position = found.rows, found.position
        if marker := found.rows.get(MARKER_KEY):
            into.marker = Marker.unpack(marker)


@pytest.mark.parametrize("who", ["ours", "aiokafka's own", "aiokafka's own, whatever adds up"])
def test_a_held_end_of_a_transaction_and_the_writer(at: Broker, topic: str, who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The changelog is the fold of the log, each trade once.

    With aiokafka's own producer half a flush is committed: it counts twice for who reads all there is, not for who leaves
    out what does not add up (F26).
    """
    monkeypatch.setattr(tables.writer, "BATCH_BYTES", 700)  # a flush is several batches, as a large one is
    cured, kind = who == "ours", Believing if "whatever" in who else RealLife

    async def lives(proxy: FaultProxy) -> tuple[int, int]:
        rng = np.random.default_rng(11)
        log, disk, count, left_out = trades(rng, 60), Disk(rng), 1, 0
        while True:
            life = kind((Impatient if cured else Uncured)(proxy.address), topic, 0, Disk(rng) if kind is Believing else disk, rng)
            try:
                await life.work(log)
                break
            except ENDS as error:
                assert not cured or isinstance(error, Unanswered)
                await life.die()
                count += 1
            finally:
                left_out += life.left_out
        fresh = kind(Impatient(at.address), topic, 0, Disk(rng), rng)
        assert await fresh.restore() == len(log)
        await fresh.die()
        assert_equal(fresh.part, naive(log))
        return count, left_out

    with FaultProxy(at.address, Schedule([Fault(Api.END_TXN, Action.HOLD, nth=2, until=Api.PRODUCE)])) as proxy:
        if cured:
            assert asyncio.run(lives(proxy)) == (2, 0)
            assert set(proxy.tape[-1]["codes"]) <= FENCED_CODES, "the broker refuses what comes late"
        elif kind is RealLife:
            count, left_out = asyncio.run(lives(proxy))
            if not left_out:
                pytest.skip(MET_NOTHING)
            assert count == 2, "half a flush was there, and was left out"
        else:
            try:
                asyncio.run(lives(proxy))
            except AssertionError:  # trades counted twice
                pass
            else:
                pytest.skip(MET_NOTHING)
        if not cured:
            assert proxy.tape[-1]["codes"] == [0], "the broker took the late one for the end of another transaction"
        assert [line["what"] for line in proxy.tape] == ["hurt", "delivered"]


@pytest.mark.parametrize("api", OF_TRANSACTIONS if NIGHTLY else (Api.TXN_OFFSET_COMMIT, Api.END_TXN))
def test_a_worker_ends_and_a_fresh_one_fences_what_comes_late(made: Installation, api: Api) -> None:
    """The process leaves with a code of its own; what was held comes in the middle of a transaction of the next, and is refused."""
    held = Fault(api, Action.HOLD, nth=2, having="-positions-1", until=Api.PRODUCE)

    async def scenario(proxy: FaultProxy) -> None:
        await made.create()
        async with Upstream(made, 25) as upstream:
            doomed = made.worker(DESKRISK_BROKERS=proxy.address).wait_ready()
            await upstream.send(1_500, duplicates=0.05, pause_s=0.05)
            assert await asyncio.to_thread(doomed.wait_exit) == ExitCode.TRANSACTION
            assert any("no answer" in line and "positions-1" in line for line in doomed.lines), doomed.lines[-10:]
            made.worker(DESKRISK_BROKERS=proxy.address).wait_ready()
            await upstream.send(800, pause_s=0.05)
        report = await made.assert_exact()
        assert report["trades"] == len(upstream.sent)

    with FaultProxy(str(made.settings.brokers), Schedule([held])) as proxy:
        asyncio.run(scenario(proxy))
        assert [line["what"] for line in proxy.tape] == ["hurt", "delivered"]
        assert set(proxy.tape[1]["codes"]) <= FENCED_CODES, proxy.tape


LIMIT = {"limit_id": "gross-F0", "node": "fund:F0", "metric": "gross", "limit": "1000000", "reason": "a limit of the fund F0"}


@pytest.mark.parametrize(("api", "action"), [
    (Api.END_TXN, Action.LOSE_ANSWER), (Api.END_TXN, Action.CUT), (Api.END_TXN, Action.HOLD),
    (Api.ADD_PARTITIONS_TO_TXN, Action.LOSE_ANSWER), (Api.ADD_PARTITIONS_TO_TXN, Action.HOLD)])
def test_a_rule_is_written_once_whatever_becomes_of_the_answer(made: Installation, api: Api, action: Action) -> None:
    """Whether it stands is read behind a new fence: it is not written again where it does, and is where it does not."""
    async def scenario(proxy: FaultProxy) -> None:
        await made.create()
        settings = made.settings.model_copy(update={"brokers": proxy.address})
        written = await set_limit(settings, dict(LIMIT), "ann")
        assert written.version == 1 and (await current(made.settings, "limits", Limit)) == {"gross-F0": written}
        again = await set_limit(settings, {**LIMIT, "limit": "900000", "version": 1}, "ann")
        assert (again.version, again.limit) == (2, Decimal(900_000))
        while (await current(made.settings, "limits", Limit)) != {"gross-F0": again}:  # noqa: ASYNC110 - its commit marker is on its way
            await asyncio.sleep(0.1)
        control = await set_state(settings, "fund:F0", "halted", "ann", "for the test of it", rev=0)
        assert (await current(made.settings, "controls", Control)) == {"fund:F0": control}
        lines: list[Any] = []
        limits = TopicPartition(made.settings.topics()["limits"], 0)
        await read_range(made.settings.client(), {limits: 0}, lambda batch: lines.extend(batch.values))
        assert len(lines) == 2, "each version is written once"

    until = Api.PRODUCE if action is Action.HOLD else None
    with FaultProxy(str(made.settings.brokers), Schedule([Fault(api, action, having="writes-limits", until=until)])) as proxy:
        asyncio.run(scenario(proxy))
        late = [line for line in proxy.tape if line["what"] == "delivered"]
        assert len(late) == (action is Action.HOLD) and all(set(line["codes"]) <= FENCED_CODES for line in late)


def test_a_rebuild_that_is_not_answered_says_so_and_can_be_done_again(made: Installation, caplog: pytest.LogCaptureFixture) -> None:
    """The command ends with the code; what it began is refused when it comes late, and the table is right."""
    async def scenario(proxy: FaultProxy) -> None:
        await made.create()
        async with Upstream(made, 26) as upstream:
            worker = made.worker().wait_ready()
            await upstream.send(1_000)
            await made.quiesce()
            assert worker.stop() == 0
            with pytest.raises(Unanswered, match="EndTxn"):
                await rebuild(made.settings.model_copy(update={"brokers": proxy.address}), True, "ann", "a rebuild that is cut")
            report = await rebuild(made.settings, True, "ann", "the same once more")
            assert report["swapped"]
            await asyncio.to_thread(proxy.release)
            made.worker(DESKRISK_BROKERS=proxy.address).wait_ready()
            await upstream.send(300)
        await made.assert_exact()

    caplog.set_level(logging.CRITICAL, "aiokafka")
    with FaultProxy(str(made.settings.brokers), Schedule([Fault(Api.END_TXN, Action.HOLD)])) as proxy:
        asyncio.run(scenario(proxy))
        assert [line["what"] for line in proxy.tape] == ["hurt", "delivered"] and set(proxy.tape[1]["codes"]) <= FENCED_CODES
