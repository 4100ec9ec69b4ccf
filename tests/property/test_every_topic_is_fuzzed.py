"""F30, R8: each topic with each field bent, at each of its readers: refused by all alike or by none, and all live on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import date
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from agents.gate import GateStage
from agents.positions import PositionStage
from agents.reference_tail import ReferenceTail
from agents.reload import KeyReloads
from agents.risk import RiskStage
from agents.router import Place
from app.gateway.server import Gateway
from app.interest import interest_until
from app.offline import Offline
from app.recovery import by_trade_time
from app.roll import _Read, close_of, with_closes
from app.settings import Settings
from app.sink.tables import sink_tables
from app.verify import _fold, _Topics, report_of
from models import trade_columns as tc
from models.quote_columns import READ, decode_quotes
from models.reconciliation import reconcile
from models.reference import Reference
from models.trade_decode import decode_trades
from schemas.codec import encode, tick_decoder, trade_decoder
from schemas.nodes import Risk
from schemas.records import External, Tick, Trade
from schemas.topics import TOPICS
from tables.position_partition import PositionPartition
from tables.records import RecordBatch
from tables.refold import fold
from tests.folding import reference

T0 = 1_795_000_000_000_000_000
LATEST_NS = T0 + 60_000_000_000
LEVELS = ("book", "desk", "strategy", "fund", "firm")
TEXTS = ["", "x", "\u0000", "é" * 200, "NaN", "sNaN", "Infinity", "-Infinity", "1e400", "1e-400", "1e999999999", "-1e999999999", "1" + "0" * 20_000, "0." + "0" * 5_000, "1_0",
         "\uff11\uff12", " 1", "0x1F", "-1", "9223372036854775808", "-9223372036854775809", "a" * 129]
TIMES = ["9999-12-31", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+14:00", "2555-06-01T00:00:00Z", "2262-04-11T23:47:16.854775808Z",
         "2016-12-31T23:59:60Z", "2026-11-20", "2026-11-20T10:00:00", "2026-02-30T00:00:00Z", "2026-11-20T24:00:00Z", "20 November", "June", "15/01/2027", "2027-01",
         "2026-11-20T10:00:00.1234567890Z", T0 // 10**6, T0 // 10**3, T0 // 10**9, T0 + 365 * 86_400 * 10**9]
NUMBERS = [0, -1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**40, 1.5, 5e-324, 1.7e308, -1.7e308]
SHAPES = [None, True, False, [], {}, [[]], {"a": {"b": []}}, [None], [1, 2], ["x"], {"": 0}]
BENT = [*TEXTS, *TIMES, *NUMBERS, *SHAPES]
MARK = {"instrument": "X", "window_end": T0, "ts_event": T0, "bid": 1.0, "ask": 1.1, "mid": 1.05, "last": None, "quality": "good"}
ORDER = {"order_id": "o", "account": "A1", "trader": "t", "instrument": "X", "side": "buy", "type": "limit", "quantity": "1", "price": "1", "ts_event": T0}
#: a good record of each topic that several roles follow
GOOD: dict[str, dict[str, Any]] = {
    "reference.instruments": {"instrument": "X", "asset_class": "option", "currency": "USD", "underlying": "U", "right": "call", "strike": "100", "expiry": "2027-06-18",
                              "price_increment": "0.01", "quantity_increment": "1", "multiplier": "10"},
    "reference.accounts": {"account": "A1", "book": "B", "desk": "D", "strategy": "S", "fund": "F", "nav": "1000"},
    "corporate.actions": {"action_id": "CA1", "instrument": "X", "kind": "split", "ratio": "4", "effective_ts": T0},
    "reference.counterparties": {"counterparty": "C", "rating": 1},
    "limits": {"limit_id": "L", "node": "firm", "metric": "gross", "limit": "1", "version": 1, "by": "r", "reason": "test of records"},
    "controls": {"scope": "desk:D", "state": "halted", "reason": "test of records", "by": "x", "ts": T0, "rev": 1},
    "approvals": {"approval_id": "a", "kind": "limit", "fields": {}, "by": "x", "asked_ts": T0, "lapses_ts": T0 + 10**9},
    "market.surfaces": {"underlying": "U", "ts_event": T0, "rates": [[1.0, 0.02]], "vols": [{"expiry": "2027-06-18", "strikes": [90.0], "vols": [0.2]}]},
    "touches": {"instrument": "X", "touched": True, "ts_event": T0, "by": "x", "reason": "test of records"},
    "marks": MARK, "progress": {"partition": 0, "next_offset": 5, "ts": T0, "behind_ms": 0},
    "unit-vars": {"instruments": ["X"], "var_99": [1.0], "ts": T0, "part": 0},
    "positions.external": {"source": "bank", "account": "A1", "instrument": "EURUSD", "quantity": "5", "ts_event": T0, "kind": "snapshot", "average_price": "1.1", "realised_pnl": "0"},
    "positions": {"account": "A1", "instrument": "EURUSD", "quantity": "5", "average_price": 1.1, "realised_pnl": 0.0, "fees": {}, "currency": "USD", "trades": 1, "last_ts_event": T0,
                  "fifo": {"realised_pnl": 0.0, "average_price": 1.1, "lots": 1}, "break_even_price": None, "as_of": {"partition": 0, "offset": 1}, "opening_quantity": "5",
                  "opening_ts": T0},
    "exposure": {"node": "firm", "partition": 0, "gate": "g", "figures": {"gross": 1.0}, "windows": {"1000": [1.0, 2.0]}, "ts": T0, "outcomes": {"1000": [1, 0]}},
    "limits-used": {"partitions": [0], "used": [["firm", "message_rate", 1000, "", 1.0]], "ts": T0},
    "alerts": {"alert_id": "a", "kind": "breach", "node": "firm", "metric": "gross", "value": 2.0, "limit": 1.0, "utilisation": 2.0, "cause_ts": T0, "raised_ts": T0, "snapshot_id": 1,
               "limit_id": "L"},
    "decisions": {"order_id": "o", "account": "A1", "instrument": "X", "outcome": "reject", "reasons": [{"code": "HALTED", "measured": "halted", "limit": "active"}], "effect": {"gross": 1.0},
                  "snapshot_id": 1, "limits_version": 1, "ts_event": T0, "ts_decision": T0, "service_ns": 1, "order": ORDER},
    "risk": {"node": "firm", "snapshot_id": 1, "ts": T0, "as_of": [{"partition": 0, "offset": 1}], "quality": {}, "base_currency": "USD",
             "pnl": dict.fromkeys(("realised", "unrealised", "day", "price", "fx", "fees", "total"), 1.0), "exposure": {"gross": 1.0, "net": 1.0, "long": 1.0, "short": 0.0, "positions": 1},
             "greeks": {"delta": 1.0}, "models": {"var_hist": {"var_99": 1.0, "quality": "good"}}, "prior_day": {"total": 1.0}}}
KINDS: dict[str, type[msgspec.Struct]] = {"risk": Risk}
TRADE = {"trade_id": "T", "account": "A1", "instrument": "EURUSD", "side": "buy", "quantity": "1", "price": "1.1", "ts_event": T0}


class Quiet:
    """Counters and a publisher that take all there is."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class Sent(Quiet):
    """A publisher that has everything at once."""

    def send(self, *_: Any, **__: Any) -> asyncio.Future[None]:
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


class Border:
    """A reader that has no router: it takes a record, or says that it refuses it."""

    def __init__(self, topic: str, reads: Callable[[bytes], object]) -> None:
        self._subscriptions, self._reads = {topic: SimpleNamespace(record=None)}, reads

    def hand_on(self, raw: bytes, place: Place) -> Any:
        try:
            refused = self._reads(raw)
        except ValueError:
            refused = True
        return ("refused", "") if refused else None


def intakes(risk: RiskStage, gate: GateStage, gateway: Gateway) -> dict[str, Border]:
    """Return the readers of positions, facts and nodes that take whole slices, or read in the store's way."""
    tables = {t.topic: t for t in sink_tables(1)}

    def stored(topic: str) -> Border:
        return Border(topic, lambda raw: tables[topic].rows_of(0, 1, raw, LATEST_NS) and None)

    return {"risk rows": Border("positions", lambda raw: risk.book.add_positions([raw], 0).refused),
            "gate rows": Border("positions", lambda raw: gate.gate.add_positions([raw], 0).refused),
            "gateway rows": Border("positions", lambda raw: gateway.state.add_positions([raw], 0)),
            **{f"stored {topic}": stored(topic) for topic in ("positions", "risk", "decisions", "alerts")}}


def routers(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], Callable[[], None]]:
    """Return the border of each role by name, without a broker, and what makes each of them use what it has taken in."""
    topics, quiet = {t.name: t.name for t in TOPICS}, cast(Any, Quiet())
    known = Reference(lambda account: 0)
    tail = ReferenceTail(quiet, topics, known, quiet)
    given = cast(Any, SimpleNamespace(reference=Reference(lambda account: 0)))
    risk = RiskStage(quiet, topics, given, quiet, lambda: T0, quiet, "USD", LEVELS, 1)
    gate = GateStage(quiet, topics, given, quiet, lambda: T0, quiet, "USD", LEVELS, 1, quiet)
    monkeypatch.setattr(Settings, "client", lambda self: quiet)
    settings = Settings(partitions=1)
    gateway = Gateway(settings)
    gate.inputs.var_limited.add("k")
    gateway.state.follow("firm")
    verified, rolled = _Topics(settings), _Read(settings)
    states = Offline(settings).follow("reference.instruments", "corporate.actions", "positions", "positions.external")

    def use() -> None:
        assert report_of(verified, settings)["ok"]
        closes = {name: c for name, m in rolled.marks.items() if (c := close_of(m)) is not None}
        encode(with_closes(rolled.instruments, closes, date(2026, 11, 28)))
        encode(interest_until(T0, rolled.positions.values(), rolled.instruments, settings.trading_day()).booked)
        assert all(T0 - 10**18 < ns < LATEST_NS for ns in rolled.rolled.values())
        reconcile(states.positions, states.statements, states.reference.instrument_records, {}, T0)
        known.arrays()
        gate.gate.refresh(T0)
        risk.book.revalue(T0)
        risk.models.run(T0)
        gateway.state.turn()
        gateway.state.approvals.waiting(T0)

    return {"reference": cast(Any, tail)._router, "risk": risk._router, "gate": gate.inputs.router, "gateway": gateway._router, "verify": verified.newest.router,
            "roll": rolled.take, "reconcile": states.router, **intakes(risk, gate, gateway)}, use


#: above whatever version a bent record may have: each one is looked at as the next version of its limit
VERSIONS = count(2 * 10**15)


def newest(good: dict[str, Any]) -> dict[str, Any]:
    return good | {"version": next(VERSIONS)} if "version" in good else good


def bent(good: dict[str, Any], cls: type[msgspec.Struct]) -> Iterator[tuple[str, bytes]]:
    for field in cls.__struct_encode_fields__:
        for value in BENT:
            yield f"{field}={str(value)[:40]!r}", json.dumps(newest(good) | {field: value}).encode()
        yield f"no {field}", json.dumps({k: v for k, v in newest(good).items() if k != field}).encode()


RAW = [b"", b"[]", b"{}", b"null", b"1", b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"\x00\x00\x00\x00\x01x", b"{} {}", b'{"a":1,}', b"[" * 3_000, b'{"a":' * 3_000, b'"\\ud800"']


@pytest.mark.parametrize("topic", GOOD)
def test_all_readers_of_a_topic_take_or_refuse_a_record_alike(topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    readers, use = routers(monkeypatch)
    readers = {name: router for name, router in readers.items() if topic in router._subscriptions}
    assert readers
    cls = KINDS.get(topic) or next(found for router in readers.values() if (found := router._subscriptions[topic].record) is not None)
    place, refused, differ = Place(topic, 0, 1, "k", LATEST_NS), 0, []
    cases = [*bent(GOOD[topic], cls), *((repr(raw[:20]), raw) for raw in RAW)]
    for n, (what, raw) in enumerate(cases):
        codes = {name: (found or (None,))[0] for name, router in readers.items() for found in [router.hand_on(raw, place)]}
        refused += any(codes.values())
        told = {code for name, code in codes.items() if not isinstance(readers[name], Border)}
        if len(told) > 1 or len(set(map(bool, codes.values()))) > 1 or "not_applied" in codes.values():
            differ.append((what, codes))
        if n % 25 == 0:
            use()
    assert not differ, f"{len(differ)} of {len(cases)}: {differ[:12]}"
    assert refused > 20
    use()
    good = encode(newest(GOOD[topic]))
    for name, router in readers.items():
        assert router.hand_on(good, place) is None, name


def position_part() -> PositionPartition:
    return PositionPartition(0, reference(), 4096, 0)


def test_all_readers_of_trades_take_or_refuse_a_record_alike() -> None:
    cases = [*bent(TRADE, Trade), *((repr(raw[:20]), raw) for raw in RAW if raw != b"[]")]
    good, latest = json.dumps(TRADE).encode(), np.full(3, LATEST_NS)
    rows_of = sink_tables(1)[0].rows_of
    settings, refused = Settings(partitions=1), 0
    verified = _Topics(settings)
    verified.newest.reference = reference()
    for what, raw in cases:
        decoded = decode_trades([good, raw, good], latest)
        taken = bool((decoded.rows["status"][decoded.messages == 1] != tc.POISON).any())
        assert (decoded.rows["status"][decoded.messages != 1] == tc.READ).all() and all(p.message == 1 for p in decoded.poison), what
        try:
            trade_decoder.decode(raw)
            plain = True
        except ValueError:
            plain = False
        assert plain or not taken, what
        assert not rows_of(0, 1, raw, LATEST_NS) or taken, what
        part = position_part()
        fold(part, [(k, T0 // 10**6, value) for k, value in enumerate((good, raw, good.replace(b'"T"', b'"U"')))])
        assert len(by_trade_time([(k, T0 // 10**6, value) for k, value in enumerate((good, raw, good))])) == 2 + taken, what
        verified.trades[0] = [(k, LATEST_NS, value) for k, value in enumerate((good, raw, good.replace(b'"T"', b'"U"')))]
        assert len(_fold(verified, 0, 3, verified.newest.reference.instrument_records, settings).fills[("A1", "EURUSD")]) >= 2, what
        records = part.records(np.arange(len(part.positions)))
        assert sum(r.trades for r in records if r.instrument == "EURUSD") >= 2, what
        refused += not taken
    assert refused > 100


def test_all_readers_of_statements_take_or_refuse_a_record_alike(tmp_path: Path) -> None:
    topics, quiet = {t.name: t.name for t in TOPICS}, cast(Any, Quiet())
    known = cast(Any, SimpleNamespace(reference=reference(), catch_up=lambda: asyncio.sleep(0)))
    stage = PositionStage(quiet, "g", topics, 1, tmp_path, known, cast(Any, Sent()), lambda: T0, quiet, 4096, 0)
    reloads = KeyReloads(quiet, topics, quiet, lambda: T0, quiet, 4096, 0, lambda part: None)
    offline = Offline(Settings(partitions=1)).follow("positions.external")
    place, ms = Place("positions.external", 0, 1, "k", LATEST_NS), T0 // 10**6
    shown: list[Any] = []
    stage._quarantine.send = lambda batch, m, reason, *more: shown.append((reason, *more))  # type: ignore[method-assign,assignment]

    async def every() -> None:
        for kind in ("snapshot", "start_of_day", "roll"):
            states_nothing = {"instrument": "*", "quantity": "0", "average_price": None, "realised_pnl": None}
            good = GOOD["positions.external"] | {"kind": kind} | (states_nothing if kind == "roll" else {})
            for what, raw in [*bent(good, External), *((repr(raw[:20]), raw) for raw in RAW)]:
                message = b"[" + raw + b"," + json.dumps(good).encode() + b"]" if raw not in RAW else raw
                part, batch = position_part(), RecordBatch("positions.external", 0, np.array([1]), [message], [b"k"], {}, np.array([ms]), 2)
                shown.clear()
                await stage.statements.take(batch, part, [])
                offline.statements.clear()
                refused = offline.router.hand_on(message, place)
                assert all(reason != "not_applied" for reason, *_ in shown), (what, shown)
                if not what.startswith(("account", "instrument")) and (kind == "snapshot" or refused):  # a snapshot of what nobody holds is a break
                    assert bool(shown) == bool(refused), (what, shown, refused)
                if message is not raw:
                    assert offline.statements, what  # its neighbour was taken
                reloads._fold(part, [(ms, 1, 1, message)])

    asyncio.run(every())


def test_all_readers_of_ticks_take_or_refuse_a_record_alike() -> None:
    good = {"instrument": "EURUSD", "ts_event": T0, "bid": "1.1", "ask": "1.2"}
    arrays = reference().arrays()

    refused = 0
    for what, raw in [*bent(good, Tick), *((repr(raw[:20]), raw) for raw in RAW if raw != b"[]")]:
        plain = json.dumps(good).encode()
        decoded = decode_quotes([plain, raw, plain], arrays.instruments, arrays.instrument_known, LATEST_NS)
        statuses = decoded.rows["status"].tolist()
        assert statuses.count(READ) >= 2 and {m for m, *_ in decoded.poison} <= {1}, what
        alone = decode_quotes([raw], arrays.instruments, arrays.instrument_known, LATEST_NS)
        try:
            tick_decoder.decode(raw)
        except ValueError:
            assert alone.poison, what
        refused += bool(alone.poison)
    assert refused > 50
