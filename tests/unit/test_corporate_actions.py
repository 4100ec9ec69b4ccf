"""What follows of a corporate action, once: limits on quantities, the prior close, the alert, and its own key."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from agents import corporate_actions
from agents.corporate_actions import ActionFollower
from agents.reference_tail import ReferenceTail
from agents.router import Place
from agents.statement_keys import DONE, Found, give_own_keys
from app.settings import Settings
from app.verify import _fold, _Topics
from models import trade_columns as tc
from schemas.codec import decoder_of, encode, encode_account
from schemas.corporate import CorporateAction
from schemas.keys import external_key
from schemas.records import External, Instrument, Limit
from tables.records import RecordBatch
from tests.folding import feed, new_partition, trade

T0 = 1_800_000_000_000_000_000
TOPICS = {name: name for name in ("limits", "alerts", "corporate.actions", "reference.instruments", "reference.accounts")}


class Sent:
    def __init__(self) -> None:
        self.records: list[tuple[str, bytes, Any]] = []

    def send(self, topic: str, key: bytes, value: bytes | None, partition: int | None = None) -> None:
        self.records.append((topic, key, None if value is None else json.loads(value)))

    async def flush(self) -> None: ...

    def on(self, topic: str) -> list[Any]:
        return [value for name, _, value in self.records if name == topic]


def limit(name: str, metric: str, node: str, instrument: str | None = None, value: int = 100) -> Limit:
    return Limit(limit_id=name, node=node, metric=metric, limit=Decimal(value), version=3, by="rm", reason="a maximum",
                 instrument=instrument)


def follower(monkeypatch: pytest.MonkeyPatch, limits: list[Limit], owned: set[int]) -> tuple[Any, Sent, ReferenceTail]:
    async def read_range(client: Any, starts: Any, on_batch: Any) -> None:
        n = len(limits)
        on_batch(RecordBatch("limits", 0, np.arange(n), [encode(x) for x in limits], [x.limit_id.encode() for x in limits], {}, np.zeros(n, np.int64), n))

    monkeypatch.setattr(corporate_actions, "read_range", read_range)
    part, sent = new_partition(), Sent()
    tail = ReferenceTail(cast(Any, SimpleNamespace()), TOPICS, part.reference, cast(Any, SimpleNamespace(add=lambda *_, **__: None)))
    made = ActionFollower(tail, dict.fromkeys(owned, part), cast(Any, None), TOPICS, cast(Any, sent), lambda: T0, lambda: None)
    tail.on_read = made.read
    return made, sent, tail


def heard(tail: ReferenceTail, key: str, **said: Any) -> None:
    record = decoder_of(CorporateAction).decode(json.dumps({"action_id": "CA1", "instrument": "ACME", "effective_ts": T0 - 10**9, **said}).encode())
    tail._on_action(record, Place("corporate.actions", 0, 1, key))
    tail.on_read()


def test_limits_on_quantities_and_the_close_follow_a_split_once(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [limit("L", "position_long", "account:A1", "ACME"), limit("S", "position_short", "account:A1", "FUT"),
              limit("Q", "order_quantity", "instrument:ACME"), limit("F", "order_quantity", "firm"),
              limit("G", "gross", "firm")]

    async def run() -> None:
        _, sent, tail = follower(monkeypatch, limits, {0})
        closed = Instrument(instrument="ACME", asset_class="equity", currency="USD", prior_close=Decimal(400),
                            prior_close_date="2027-01-14")
        tail._on_instrument(closed, Place("reference.instruments", 0, 1, "ACME"))
        heard(tail, "ACME", kind="split", ratio="4")
        await asyncio.sleep(0.05)
        assert {(x["limit_id"], x["limit"], x["version"], x["by"]) for x in sent.on("limits")} == {
            ("L", "400", 4, "corporate.actions"), ("Q", "400", 4, "corporate.actions")}
        assert [(x["prior_close"], x["prior_close_splits"]) for x in sent.on("reference.instruments")] == [("100", ["CA1"])]
        (alert,) = sent.on("alerts")
        assert alert["kind"] == "corporate_action" and "2 limits" in alert["note"] and "orders that work" in alert["note"]
        own, withdrawn, done = [(key, value) for topic, key, value in sent.records if topic == "corporate.actions"]
        assert withdrawn == (b"ACME", None), "nothing of that name stands: who starts later finds the action under its own key alone"
        assert own[1]["followed_ts"] is None and done[1]["followed_ts"] == T0 and own[0] == done[0] == b"ACME|CA1"
        # what it wrote comes back, and a start finds it: nothing is done twice
        count = len(sent.records)
        heard(tail, "ACME|CA1", kind="split", ratio="4", followed_ts=T0)
        limits[:] = [decoder_of(Limit).decode(json.dumps(x).encode()) for x in sent.on("limits")]
        _, later, tail = follower(monkeypatch, limits, {0})
        heard(tail, "ACME|CA1", kind="split", ratio="4")
        await asyncio.sleep(0.05)
        assert len(sent.records) == count and later.on("limits") == []

    asyncio.run(run())


def test_only_the_owner_of_the_first_partition_has_the_rest_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        _, sent, tail = follower(monkeypatch, [limit("L", "position_long", "account:A1", "ACME")], {1})
        heard(tail, "ACME", kind="split", ratio="4")
        await asyncio.sleep(0.05)
        assert sent.records == [] and tail.reference.decimals_of("ACME") == 2

    asyncio.run(run())


def test_a_dividend_is_told_and_changes_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        _, sent, tail = follower(monkeypatch, [limit("L", "position_long", "account:A1", "ACME")], {0})
        heard(tail, "ACME|CA1", kind="cash_dividend", amount="0.35", currency="USD")
        await asyncio.sleep(0.05)
        assert sent.on("limits") == [] and "carry" in sent.on("alerts")[0]["note"]

    asyncio.run(run())


def test_a_stage_that_starts_gives_statements_their_keys_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [External(source="PB", account="A1", instrument=name, quantity=Decimal(1), ts_event=T0, kind="start_of_day")
            for name in ("X", "Y")]

    async def found(client: Any, topic: str, partitions: Any) -> Found:
        out = Found()
        for k, record in enumerate(made):
            out.take(0, k, b"A1", encode(record))
        return out

    async def run() -> None:
        monkeypatch.setattr("agents.statement_keys.find_shared_keys", found)
        sent, writers = Sent(), {0: SimpleNamespace(marker=SimpleNamespace(extra={}))}
        for _ in range(2):
            await give_own_keys(cast(Any, None), cast(Any, sent), "positions.external", 1, cast(Any, writers))
        assert [key for _, key, _ in sent.records] == [external_key(made[0]), external_key(made[1]), b"A1"]
        assert sent.records[-1][2] is None and DONE in writers[0].marker.extra

    asyncio.run(run())


BAD: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "reference.instruments": [("ACME", {"instrument": "ACME", "asset_class": "equity", "currency": "USD", "prior_close": "-5"}), ("ACME", {})],
    "reference.accounts": [("A1", {"account": "A1", "book": "B", "desk": "", "strategy": "S", "fund": "F"})],
    "corporate.actions": [("ACME|CA1", {"action_id": "CA1", "instrument": "ACME", "effective_ts": T0 - 10**9, "kind": "split", "ratio": "0"})]}


@pytest.mark.parametrize("topic", sorted(BAD))
@pytest.mark.parametrize("owned", [0, 3])
def test_what_stands_is_written_once_more_where_a_refused_record_would_be_all_that_compaction_leaves(
        monkeypatch: pytest.MonkeyPatch, topic: str, owned: int) -> None:
    async def run() -> None:
        made, sent, tail = follower(monkeypatch, [], {owned})
        heard(tail, "ACME|CA1", kind="split", ratio="4")
        await asyncio.sleep(0)
        sent.records.clear()
        stands = {"reference.instruments": encode(tail.reference.instrument_records["ACME"]), "reference.accounts": encode_account(tail.reference.account_records["A1"]),
                  "corporate.actions": encode(tail.reference.actions.find("ACME", "CA1"))}[topic]
        router, aside = tail._tail._on_batch, list[str]()
        tail._put_aside = lambda batch, k, reason, detail, raw: aside.append(str(reason))

        def come(key: str, value: bytes) -> None:
            router(RecordBatch(TOPICS[topic], 0, np.array([7]), [value], [key.encode()], {}, np.array([T0 // 10**6]), 8))

        for count, (key, record) in enumerate(BAD[topic], 1):
            come(key, json.dumps(record).encode())
            come(f"nobody{count}", json.dumps(record).encode())  # nothing stands under it
            assert set(aside) == {"bad_field"}
            made.turn()
            made.turn()
            assert sent.on(TOPICS[topic]) == ([] if owned else [json.loads(stands)] * count)
            come(key, json.dumps(record).encode())  # again before what was written came back: that one follows it
            made.turn()
            assert sent.on(TOPICS[topic]) == ([] if owned else [json.loads(stands)] * count)
            come(key, stands)
        come(BAD[topic][0][0], json.dumps(BAD[topic][0][1]).encode())
        come(BAD[topic][0][0], stands)  # put right by its sender: nothing is left to do
        sent.records.clear()
        made.turn()
        assert sent.on(TOPICS[topic]) == []

    asyncio.run(run())


def test_a_limit_that_its_readers_refused_is_not_what_a_split_restates(monkeypatch: pytest.MonkeyPatch) -> None:
    """One person's raise of two people's limit stands nowhere; nor does one on what nobody measures."""
    both = msgspec.structs.replace(limit("L", "position_long", "account:A1", "ACME"), approved_by="ann")
    alone = msgspec.structs.replace(both, limit=Decimal(10**6), version=4, approved_by=None)

    async def run() -> None:
        _, sent, tail = follower(monkeypatch, [both, alone, limit("N", "position_longg", "account:A1", "ACME")], {0})
        heard(tail, "ACME|CA1", kind="split", ratio="4")
        await asyncio.sleep(0.05)
        assert [(x["limit_id"], x["limit"], x["approved_by"]) for x in sent.on("limits")] == [("L", "400", "ann")]
    asyncio.run(run())


def test_the_naive_book_of_verify_counts_quantities_with_the_decimals_of_splits() -> None:
    part, settings = new_partition(), Settings(partitions=1)
    part.reference.add_action(decoder_of(CorporateAction).decode(json.dumps(
        {"action_id": "CA", "instrument": "EURUSD", "kind": "split", "ratio": "1.5", "effective_ts": T0})))
    part.reference.turn(T0 + 1)
    trades = [trade("T1", "buy", "1", "10", T0 - 10), trade("T2", "buy", "0.5", "10", T0 + 10)]
    assert feed(part, trades) == [tc.APPLIED, tc.APPLIED]
    read = _Topics(settings)
    read.newest.reference = part.reference
    read.trades[0] = [(k, T0 + 10**9, json.dumps(t).encode()) for k, t in enumerate(trades)]
    book = _fold(read, 0, 2, part.reference.instrument_records, settings)
    assert book.position("A1", "EURUSD").quantity == Decimal(part.records(np.arange(1))[0].quantity) == 2
