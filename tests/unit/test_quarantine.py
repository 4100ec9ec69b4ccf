"""What was not applied is seen, explained and brought back: filters, reasons, keys, neighbours, who and why, refused again."""

from __future__ import annotations

import asyncio
import base64
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from agents.quarantine import RETRY_HEADER, Quarantine, RefusalAlerts
from app import quarantine as q
from app.control import Refused
from app.put_aside import WAITING_MAX, AsideWriter
from app.settings import Settings
from models.quarantined import QuarantineLog, explained, id_of, retry_of
from schemas.codec import decoder_of
from schemas.reasons import QuarantineReason
from schemas.records import Alert, Quarantined
from schemas.topics import TOPICS
from tables.records import RecordBatch

NOW = 1_795_000_000_000_000_000
TRADE = b'{"account":"A","trade_id":"T1"}'
WHY = "the account is known by now"


def put(topic: str = "trades", offset: int = 5, raw: bytes = TRADE, reason: str = "unknown_account", detail: str = "account: expected a known account, was 'A'", **more: Any) -> Quarantined:
    return Quarantined(topic=topic, partition=1, offset=offset, reason=reason, detail=detail, raw_base64=base64.b64encode(raw).decode(), ts=NOW, **more)


class Broker:
    """One partition of each topic, and what is published to it."""

    def __init__(self, **logs: list[tuple[int, bytes | None, bytes | None]]) -> None:
        self.logs, self.sent = {k.replace("_", "."): v for k, v in logs.items()}, list[tuple[str, bytes, bytes | None, int | None, Any]]()

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def producer(self, **_: Any) -> Broker:
        return self

    async def send_and_wait(self, topic: str, value: bytes, key: bytes | None, partition: int | None = None, headers: Any = ()) -> Any:
        self.sent.append((topic, value, key, partition, headers))
        return SimpleNamespace(partition=1 if partition is None else partition, offset=99)

    async def ends_of(self, _: Any, tps: list[Any]) -> dict[Any, int]:
        return {tp: max((o for o, *_ in self.logs.get(tp.topic, [])), default=-1) + 1 for tp in tps}

    async def read_range(self, _: Any, starts: dict[Any, int], on_batch: Any, before: Any = None) -> None:
        for tp, start in starts.items():
            rows = [r for r in self.logs[tp.topic] if r[0] >= start and (before is None or r[0] < before[tp])]
            on_batch(RecordBatch(tp.topic, tp.partition, np.array([o for o, *_ in rows]), [v for *_, v in rows], [k for _, k, _ in rows], {}, np.zeros(len(rows), np.int64), 0))


def retried(monkeypatch: pytest.MonkeyPatch, broker: Broker, *records: Quarantined, dry_run: bool = False, why: str = WHY) -> list[dict[str, Any]]:
    monkeypatch.setattr(q, "ends_of", broker.ends_of)
    monkeypatch.setattr(q, "read_range", broker.read_range)
    monkeypatch.setattr(Settings, "client", lambda _: broker)
    return asyncio.run(q.retry(Settings(brokers="none:1"), records, "ann", why, dry_run))


def test_a_record_is_published_again_with_its_key_and_says_who_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(trades=[(4, b"B", b"{}"), (5, b"A", TRADE), (6, b"A", b"{}")])
    (line,) = retried(monkeypatch, broker, put())
    (topic, value, key, partition, headers), (kept_on, seen, kept_as, *_) = broker.sent
    assert (topic, value, key, partition, headers) == ("trades", TRADE, b"A", None, [(RETRY_HEADER, b"trades-1-5")])
    said = decoder_of(Quarantined).decode(seen)
    assert (kept_on, kept_as) == ("quarantine", b"trades-1-5") and (said.retried_by, said.retried_why, said.retried_as) == ("ann", WHY, "1@99")
    assert line["done"] and "duplicate" in line["effect"]
    (again,) = retried(monkeypatch, broker, said)
    assert not again["done"] and again["why_not"] == "was retried by ann as 1@99" and len(broker.sent) == 2, "once"
    assert retried(monkeypatch, broker, put(), dry_run=True, why="")[0]["key"] == "A" and len(broker.sent) == 2
    with pytest.raises(Refused, match="reason: expected at least 10"):
        retried(monkeypatch, broker, put(), why="so")


def test_of_an_array_the_record_alone_comes_back_and_what_is_long_is_read_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    long = b'{"account":"A","note":"' + b"x" * 70_000 + b'"}'
    broker = Broker(trades=[(5, b"A", b'[{"account":"N"},' + TRADE + b"]"), (6, b"A", long)])
    retried(monkeypatch, broker, put(index=1), put(offset=6, raw=long[:65_536]), q.shortened(put(offset=6, raw=long[:65_536]), q.RAW_KEPT))
    assert [v for topic, v, *_ in broker.sent if topic == "trades"] == [TRADE, long, long]
    gone = Broker(trades=[])
    retried(monkeypatch, gone, put(), put(offset=9, raw=b"{not json"))
    assert [(v, k, p) for topic, v, k, p, _ in gone.sent if topic == "trades"] == [(TRADE, b"A", None), (b"{not json", None, 1)], "its own field, else its partition"
    assert retried(monkeypatch, gone, put(raw=b""))[0]["why_not"] == "its bytes are on no log any more"


def test_what_a_retry_may_bring_back_is_said_topic_by_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(reference_accounts=[(5, b"A", b"{}"), (6, b"A", b"{}"), (7, b"C", b"{}")])
    older, newest = (put("reference.accounts", offset, b'{"account":"x"}', "bad_field") for offset in (5, 7))
    assert [line.get("why_not") for line in retried(monkeypatch, broker, older, newest)] == ["a newer record of its key stands", None]
    for topic in ("orders", "limits", "controls", "approvals", "marks", "risk", "decisions"):
        (line,) = retried(monkeypatch, broker, put(topic))
        assert not line["done"] and line["why_not"] == retry_of(topic).effect
    assert "send what the batch held" in retried(monkeypatch, Broker(trades=[]), put(reason="skipped", raw=b""))[0]["why_not"]
    assert all(retry_of(t.name).effect for t in TOPICS)
    assert {t.name for t in TOPICS if retry_of(t.name).allowed} == {t.name for t in TOPICS if t.direction == "in"} - {"orders"}


def test_one_that_is_refused_again_names_the_first() -> None:
    sent: list[bytes] = []
    publisher = SimpleNamespace(send=lambda topic, key, value, *_: sent.append(value))
    batch = RecordBatch("trades", 1, np.array([99]), [TRADE], [b"A"], {0: [(RETRY_HEADER, b"trades-1-5")]}, np.array([7]), 100)
    Quarantine({"quarantine": "quarantine", "alerts": "alerts"}, publisher, SimpleNamespace(add=lambda *_, **__: None)).send(batch, 0, QuarantineReason.UNKNOWN_ACCOUNT, "account: expected one", TRADE)  # type: ignore[arg-type]
    again = decoder_of(Quarantined).decode(sent[0])
    assert again.retry_of == "trades-1-5" and explained(again, "trades")["state"] == "again"


def test_what_is_not_applied_is_said_at_once_and_then_once_a_minute_with_its_count() -> None:
    sent: list[Alert] = []
    later: list[Any] = []

    async def run() -> None:
        now = [0.0]
        alerts = RefusalAlerts("alerts", SimpleNamespace(send=lambda topic, key, value: sent.append(decoder_of(Alert).decode(value))), lambda: NOW, lambda: now[0])  # type: ignore[arg-type]
        monkey = asyncio.get_running_loop()
        monkey.call_later = lambda delay, call, *args: later.append((delay, call, args))  # type: ignore[method-assign,assignment]
        for second, offset, reason in ((0, 1, "bad_field"), (1, 2, "bad_field"), (2, 3, "bad_field"), (3, 4, "not_json")):
            now[0] = float(second)
            alerts.refused(put(offset=offset, reason=reason))
        assert [(a.metric, a.value) for a in sent] == [("trades bad_field", 1.0), ("trades not_json", 1.0)]
        ((delay, call, args),) = later
        now[0] = 1 + delay
        call(*args)
        assert (delay, sent[-1].metric, sent[-1].value, sent[-1].kind) == (59.0, "trades bad_field", 2.0, "quarantine")
        call(*args)
        now[0] = 200.0
        alerts.refused(put(offset=9))
        assert [a.value for a in sent] == [1.0, 1.0, 2.0, 1.0] and "trades unknown_account" in sent[-1].metric
        assert (sent[0].node, sent[0].limit_id) == ("firm", "quarantine.trades.bad_field") and "1@1" in str(sent[0].note)

    asyncio.run(run())


@pytest.mark.parametrize(("detail", "field", "value", "expected"), [
    ("account: expected a known account, was 'A'", "account", "'A'", "expected a known account"),
    ("Expected `int`, got `str` - at `$.quantity`, was \"ten\"", "quantity", '"ten"', "Expected `int`, got `str`"),
    ("Invalid enum value 'x' - at `$.side`, expected buy or sell, was \"x\"", "side", '"x"', "Invalid enum value 'x', expected buy or sell"),
    ("Object missing required field `price`", "price", None, "Object missing required field `price`"),
    ("JSON is malformed: invalid character", None, None, "JSON is malformed: invalid character")])
def test_a_detail_is_taken_apart(detail: str, field: str | None, value: str | None, expected: str) -> None:
    found = explained(put(detail=detail, reason="bad_field"), "trades")
    assert (found["field"], found["value"], found["expected"]) == (field, value, expected) and found["what_to_do"] and found["meaning"]


def test_counts_follow_what_waits_and_filters_choose() -> None:
    log = QuarantineLog(kept=3)
    for offset in range(5):
        log.take(put(offset=offset))
    assert list(log.records) == ["trades-1-2", "trades-1-3", "trades-1-4"] and log.summary()[0]["count"] == 5
    back = {"retried_ts": NOW, "retried_by": "ann"}
    log.take(msgspec.structs.replace(put(offset=4), **back))
    log.take(put(offset=4))  # read again where it stood
    log.take(msgspec.structs.replace(put(offset=0), **back))  # kept no more
    log.take(put(offset=3))
    assert log.summary()[0]["count"] == 3 and log.records["trades-1-4"].retried_by == "ann"
    log.take(put("orders", reason="bad_field"))
    assert [id_of(r) for r in log.chosen("orders")] == ["orders-1-5"] == [id_of(r) for r in log.chosen(reason="bad_field")] and log.chosen(since_ns=NOW + 1) == []
    assert q.since_ns("2h", NOW) == NOW - 7_200 * 10**9 and q.since_ns(None, NOW) == 0 and q.since_ns("2026-11-20T14:30:00Z", NOW) > 0
    for wrong in ("yesterday", "2w", "", "9999-12-31T23:59:59-05:00"):
        with pytest.raises(Refused, match="since: expected a time"):
            q.since_ns(wrong, NOW)


def test_what_waits_for_the_broker_is_bounded_said_once_and_never_holds_up_a_flush(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[bytes | None] = []

    class Producer:
        async def start(self) -> None: ...

        async def stop(self) -> None: ...

        async def send_and_wait(self, topic: str, value: bytes | None, key: bytes | None, partition: int) -> None:
            sent.append(value)

    async def run() -> None:
        writer = AsideWriter(cast(Any, SimpleNamespace(partitions=4, client=lambda: SimpleNamespace(producer=lambda **_: Producer()))))
        for k in range(WAITING_MAX + 7):
            writer.send("quarantine", b"k", str(k).encode())
        task = asyncio.create_task(writer._run())
        await asyncio.wait_for(writer.flush(), 5)
        task.cancel()
    asyncio.run(run())
    assert sent == [str(k).encode() for k in range(7, WAITING_MAX + 7)]
    assert [r.message for r in caplog.records if r.name == "app.put_aside"] == [
        f"put aside: {WAITING_MAX} records wait for the broker, the oldest ones are dropped from now on",
        "put aside: 7 records were dropped while the broker took none"]
