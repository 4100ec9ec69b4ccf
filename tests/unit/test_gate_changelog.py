"""A gate that takes over from the changelog is the gate that wrote it, and the one that reads all of the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from aiokafka.structs import TopicPartition

from agents import gate_changelog, gate_takeover
from agents.gate_changelog import CHUNK_IDS, UNFINISHED_NS_MAX, GateChangelog, Kept
from agents.gate_takeover import GateTakeOver
from agents.order_fills import OrderFills
from models.gate.book import GateBook
from models.gate.state import BUCKETS, CREDIT, bucket_ns
from models.gate.state_hash import state_hash
from models.position_progress import PositionsInStep
from schemas.codec import encode
from schemas.gate_state import GateExecuted, GateMark
from schemas.records import AsOf, Control, Decision
from tables.records import RecordBatch
from tests.unit.test_gate_book import DAY_NS, T0, _like, gate, limit, order
from tests.unit.test_order_fills import Counters

__all__ = ["gate"]
TOPICS = {t: t for t in ("decisions", "trades", "orders", "gate-changelog")}
MS = 1_000_000


class Log:
    """Topics of one partition, in memory: publisher and broker at once."""

    def __init__(self) -> None:
        self.records: dict[str, list[tuple[bytes, bytes | None, int]]] = {t: [] for t in TOPICS}
        self.now = T0
        #: whether the broker does not say where a batch lies
        self.vague = False

    def send(self, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None, **_: Any) -> None:
        self.records[topic].append((key or b"", value, self.now))

    def cut(self, topic: str, partition: int) -> asyncio.Future[int | None]:
        found: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        found.set_result((-1 if self.vague else len(self.records[topic])) or None)
        return found

    def compact(self, upto: int) -> None:
        """Keep of the changelog's first records the newest of each key, as the broker does with segments that are closed."""
        old, rest = self.records["gate-changelog"][:upto], self.records["gate-changelog"][upto:]
        last = {key: k for k, (key, _, _) in enumerate(old)}
        self.records["gate-changelog"] = [r for k, r in enumerate(old) if last[r[0]] == k] + rest

    async def read_range(self, _: Any, starts: dict[TopicPartition, int], on_batch: Callable[[RecordBatch], None]) -> dict[TopicPartition, tuple[int, int]]:
        for tp, start in starts.items():
            part = self.records[tp.topic][start:]
            if part:
                on_batch(RecordBatch(tp.topic, 0, np.arange(start, start + len(part)), [v for _, v, _ in part], [k for k, _, _ in part], {}, np.zeros(len(part)), 0))
        return {tp: (len(self.records[tp.topic]),) * 2 for tp in starts}

    async def ends_of(self, _: Any, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: len(self.records[tp.topic]) for tp in tps}

    async def offsets_at(self, _: Any, tps: list[TopicPartition], ts_ms: int) -> dict[TopicPartition, int]:
        found = {tp: next((k for k, r in enumerate(self.records[tp.topic]) if r[2] >= ts_ms * MS), None) for tp in tps}
        return {tp: k for tp, k in found.items() if k is not None}


class Stage:
    """What of the gate's stage decides, follows executions, writes down and takes over."""

    def __init__(self, log: Log, book: GateBook) -> None:
        self.log, self.gate, self.offset = log, book, -1
        rows = SimpleNamespace(names=["A|X", "B|X"], keys={"A|X": 0, "B|X": 1}, offset_of=lambda row: self.offset)
        seen = SimpleNamespace(known=book.known, fill=book.fill, executed_before=book.executed_before, not_executed_before=book.not_executed_before, book=rows)  # a gate whose positions are at an offset
        self.fills = OrderFills(seen, Counters(), lambda _: 0, PositionsInStep(1))  # type: ignore[arg-type]
        self.changelog = GateChangelog(None, TOPICS, log, lambda: log.now, book, self.fills, lambda _: 0)  # type: ignore[arg-type]
        watch = SimpleNamespace(count=lambda d: None, monitor=SimpleNamespace(watches={}))
        self.takeover = GateTakeOver(None, TOPICS, book, watch, self.fills, self.changelog, lambda _: 0)  # type: ignore[arg-type]
        self.next = dict.fromkeys(TOPICS, 0)

    def decide(self, o: Any) -> Decision:
        self.log.records["orders"].append((b"", b"", self.log.now))
        v = self.gate.decide(o, self.log.now)
        d = Decision(order_id=o.order_id, account=o.account, instrument="X", outcome=v.outcome, reasons=v.reasons, effect=v.effect, snapshot_id=0, limits_version=1,  # type: ignore[arg-type]
                     ts_event=self.log.now, ts_decision=self.log.now, service_ns=1, as_of=AsOf(0, self.next["orders"]), order=o, fills_from=self.next["trades"],
                     session="s" if o.action == "new" and o.venue is None and v.outcome == "accept" else None)
        if d.session:
            self.gate.working[o.order_id].session = "s"
        self.next["orders"] += 1
        self.log.send("decisions", b"", encode(d))
        return d

    def trade(self, **t: Any) -> None:
        base = {"account": "A", "instrument": "X", "side": "buy", "price": "1", "ts_event": T0}
        self.log.send("trades", b"", encode(base | t))
        offset = self.next["trades"]
        self.fills.follow(RecordBatch("trades", 0, np.array([offset]), [self.log.records["trades"][offset][1]], [b""], {}, np.zeros(1), offset + 1))
        self.next["trades"] += 1

    def cancel(self, order_id: str) -> None:
        w = self.gate.release(order_id)
        if w is not None:
            self.log.send("decisions", b"", encode(Decision(
                order_id=order_id, account=w.order.account, instrument="X", outcome="cancel", reasons=[], effect={}, snapshot_id=0, limits_version=1,
                ts_event=self.log.now, ts_decision=self.log.now, service_ns=1, order=w.order)))

    def settle(self) -> None:
        """Have the positions include all trades so far."""
        self.offset = self.next["trades"] - 1
        self.fills.arrived(np.array([0, 1]))

    async def write_down(self) -> None:
        await self.changelog.write(0, self.next["orders"], self.next["trades"], [])

    async def take_over(self) -> Any:
        taken = await self.takeover.run({0}, self.log.now)
        self.next = {t: taken.next_offset.get(TopicPartition(t, 0), 0) for t in TOPICS}
        return taken

    def says(self) -> dict[str, Any]:
        """Return all that decides: what works, what is reserved, the day's sums, windows, ids, sessions."""
        g, n = self.gate, len(self.gate.state.node_names)
        index = {name: k for k, name in enumerate(g.state.node_names)}
        return {"working": {k: (w.left, w.executed, w.earlier, w.expires_ns, w.session, w.decided_ns) for k, w in sorted(g.working.items())},
                "nodes": {name: [round(float(x), 6) for x in np.nan_to_num(g.state.nodes["value"][:n][k], nan=-1.0)] for name, k in sorted(index.items())
                          if np.any(np.nan_to_num(g.state.nodes["value"][:n][k]))},
                "executed": sorted(g.executed), "accepted": list(g.accepted), "positions": [[float(g.state.position(a, 0)[f]) for f in ("working_buy", "working_sell", "best_buy", "best_sell")] for a in (0, 1)],
                "windows": {int(stamp): (int(count), round(float(value), 6)) for stamp, count, value in zip(*(g.state.rates[f][0] for f in ("stamp", "count", "value")), strict=True)
                            if stamp > self.log.now // bucket_ns(10_000 * MS) - BUCKETS}}


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    made = Log()
    for module in (gate_changelog, gate_takeover):
        for name in ("read_range", "ends_of", "offsets_at"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(made, name))
    return made


def fresh(log: Log, like: GateBook) -> Stage:
    g = _like(like)
    for limit_ in like.limits.values():
        g.add_limit(limit_)
    for control in like.controls.values():
        g.add_control(control)
    g.refresh(log.now)
    return Stage(log, g)


def some_event(stage: Stage, rng: np.random.Generator, k: int, ids: list[str]) -> None:
    """Do something that a gate sees."""
    log, what = stage.log, rng.choice(["new", "new", "new", "replace", "cancel", "fill", "fill", "settle", "again", "look", "correct", "bust"])
    log.now += int(rng.integers(1, 400)) * MS
    ref = str(rng.choice(ids)) if ids else "none"
    account = "A" if not ids or rng.random() < 0.7 else "B"
    if what == "new":
        more: dict[str, Any] = {"time_in_force": str(rng.choice(["day", "gtc", "ioc"])), "venue": None if rng.random() < 0.3 else "V", "algo_id": "x" if rng.random() < 0.3 else None}
        stage.decide(order(f"o{k}", account, "buy" if rng.random() < 0.6 else "sell", int(rng.integers(1, 30)), 99.0 + float(rng.integers(0, 90)) / 100, **more))
        ids.append(f"o{k}")
    elif what == "replace":
        known = stage.gate.find(ref)
        side = known.order.side if known else "buy"
        stage.decide(order(f"o{k}", known.order.account if known else "A", side, int(rng.integers(1, 40)), 99.5, action="replace", ref_order_id=ref, venue="V"))
        ids.append(f"o{k}")
    elif what == "cancel":
        stage.decide(order(f"o{k}", action="cancel", ref_order_id=ref))
    elif what == "fill":
        known = stage.gate.find(ref)
        stage.trade(trade_id=f"T{k}", order_id=ref, quantity=str(int(rng.integers(1, 8))), account=known.order.account if known else "A")
    elif what == "again" and log.records["trades"]:
        _, value, _ = log.records["trades"][int(rng.integers(0, len(log.records["trades"])))]
        stage.trade(**msgspec.json.decode(value or b""))
    elif what in ("correct", "bust") and log.records["trades"]:
        named = msgspec.json.decode(log.records["trades"][int(rng.integers(0, len(log.records["trades"])))][1] or b"")
        own: dict[str, Any] = {} if rng.random() < 0.4 else {"trade_id": f"C{k}", "ref_trade_id": named["trade_id"]}
        stage.trade(**named | own | {"action": str(what), "quantity": str(int(rng.integers(1, 8)))})
    elif what == "look":
        for g in (stage.gate,):
            g.add_control(Control(scope="trader:t", state="active", reason="looked at it", by="p", ts=log.now, rev=k))
    stage.settle() if what == "settle" else None
    stage.gate.refresh(log.now)


@pytest.mark.parametrize("seed", range(12))
def test_who_takes_over_is_the_gate_that_wrote_whatever_happened_before_and_since(gate: GateBook, log: Log, seed: int) -> None:
    async def scenario() -> None:
        rng = np.random.default_rng(seed)
        for rule in (limit("M", "desk:D", "message_count", 1e6, window_ms=10_000), limit("D", "book:BA", "daily_value", 1e9), limit("R", "trader:t", "repeated_executions", 1e6)):
            gate.add_limit(rule)
        stage, ids = fresh(log, gate), list[str]()
        await stage.take_over()
        for life in range(4):
            for k in range(40):
                some_event(stage, rng, life * 100 + k, ids)
                if rng.random() < 0.08:
                    log.vague = bool(rng.random() < 0.2)
                    await stage.write_down()
                    log.vague = False
            if life == 2:
                log.now += DAY_NS
                stage.gate.refresh(log.now)
            stage.settle()
            stage.gate.refresh(log.now)
            exact = bool(rng.random() < 0.5)
            if exact:
                await stage.write_down()
            keep = len(log.records["gate-changelog"])
            last_mark = max((k for k, (key, _, _) in enumerate(log.records["gate-changelog"]) if key == b"m"), default=0)
            if rng.random() < 0.4:  # the changelog of a gate that dies amid writing, compacted by and by
                await stage.write_down()
                log.records["gate-changelog"] = log.records["gate-changelog"][: int(rng.integers(keep, len(log.records["gate-changelog"]) + 1))]
                exact = False
            log.compact(int(rng.integers(0, last_mark + 1)) if rng.random() < 0.5 else 0)
            changelog, others = list(log.records["gate-changelog"]), []
            for kept in (True, False):
                log.records["gate-changelog"] = list(changelog) if kept else []
                other = fresh(log, stage.gate)
                other.offset = stage.offset
                taken = await other.take_over()
                assert taken.next_offset == {TopicPartition(t, 0): stage.next[t] for t in ("orders", "trades")}
                others.append(other)
                if kept:
                    after = log.records["gate-changelog"]
            log.records["gate-changelog"] = after
            from_changelog, from_log = (o.says() for o in others)
            if exact:  # R1: the hash of who takes over is that of the gate that lived
                assert state_hash(others[0].gate) == state_hash(stage.gate)
            sessions = {k for k, d in taken.accepted.items() if d.session} & stage.gate.working.keys()
            assert {k for k, w in stage.says()["working"].items() if w[4]} == sessions
            for source, found, whole in (("changelog", from_changelog, exact), ("log", from_log, False)):
                mine, theirs = ({k: w[:4] + w[5:] for k, w in x["working"].items()} for x in (stage.says(), found))
                assert theirs == mine, (source, life)
                for what in ("nodes", "executed", "accepted", "positions", "windows"):
                    mine, theirs = stage.says()[what], found[what]
                    if what == "executed" and not whole:  # an execution of an order that was cancelled since is not looked for
                        theirs, mine = [k for k in theirs if k in mine], theirs
                    if what == "nodes" and not whole:
                        mine, theirs = ({name: row for name, row in x.items() if any(x > 0.0 for x in map(abs, row[:CREDIT] + row[CREDIT + 1:-1]))} for x in (mine, theirs))
                        for x in (mine, theirs):
                            x.get("venue:V", [0.0] * 99)[CREDIT] = 0.0
                    assert theirs == mine, (source, what, life, {k: (mine.get(k), theirs.get(k)) for k in mine if mine.get(k) != theirs.get(k)} if isinstance(mine, dict) else (mine, theirs))
            stage = others[0]
            for order_id in sorted(sessions):  # their sessions are gone: the stage cancels them
                stage.cancel(order_id)

    asyncio.run(scenario())


def test_what_was_not_finished_is_nobodys_and_what_is_long_past_is_not_gone_on_from() -> None:
    kept = Kept()
    assert not kept.fits(10, T0)

    def mark(kind: str, **more: Any) -> bytes:
        return encode(GateMark(kind=kind, ts=T0, **more))  # type: ignore[arg-type]

    ids = encode(GateExecuted(ids=["a"]))
    for key, value in ((b"m", mark("anew")), (b"x|0", ids), (b"m", mark("state", decisions=5)), (b"x|1", ids)):
        kept.take(key, value)
    assert kept.entries.keys() == {b"x|0"} and kept.fits(5, T0 + UNFINISHED_NS_MAX - 1)
    assert not kept.fits(4, T0)  # a log of decisions that was made anew
    assert not kept.fits(5, T0 + UNFINISHED_NS_MAX)  # a compaction may have taken away what was before
    kept.take(b"m", mark("begin"))
    kept.take(b"m", mark("state", decisions=6))
    assert kept.entries.keys() == {b"x|0"} and kept.fits(6, T0 + UNFINISHED_NS_MAX)
    kept.take(b"x|0", None)
    kept.take(b"m", mark("state", decisions=7))
    assert not kept.entries
    kept.take(b"m", mark("anew"))
    assert not kept.fits(9, T0)


def test_executed_ids_are_kept_in_chunks_the_oldest_written_over(gate: GateBook, log: Log) -> None:
    async def scenario() -> None:
        stage = fresh(log, gate)
        await stage.take_over()
        for part in range(3):
            stage.gate.changes.executed.update({f"{part}-{k}": 0 for k in range(CHUNK_IDS - 1)})
            await stage.write_down()
        kept = (await stage.changelog.read([0]))[0]
        assert kept.executed() == [f"{part}-{k}" for part in range(3) for k in range(CHUNK_IDS - 1)]
        # what lies before the mark is not read again, but for windows of messages
        stage.decide(order("a", venue="V"))
        await stage.write_down()
        kept = (await stage.changelog.read([0]))[0]
        assert await stage.takeover._starts({0}, {0: kept}, log.now + 60_000 * MS) == {TopicPartition("decisions", 0): 1}
        stage.gate.add_limit(limit("M", "desk:D", "message_count", 5, window_ms=120_000))
        assert await stage.takeover._starts({0}, {0: kept}, log.now + 60_000 * MS) == {TopicPartition("decisions", 0): 0}
        assert kept.mark is not None and kept.mark.chunk == 2 and len(kept.filling()) == CHUNK_IDS - 3

    asyncio.run(scenario())


def test_ids_that_were_let_through_are_kept_in_chunks_and_what_could_not_be_written_down_is_the_next_time(gate: GateBook, log: Log) -> None:
    async def scenario() -> None:
        stage = fresh(log, gate)
        await stage.take_over()
        for part in range(3):
            for k in range(CHUNK_IDS - 1):
                stage.gate.accepted.add(k % 2, f"{part}-{k}")
            log.vague = part == 1
            await stage.write_down()
        kept = (await stage.changelog.read([0]))[0]
        assert sorted(kept.accepted()) == sorted(("AB"[k % 2], f"{part}-{k}") for part in range(3) for k in range(CHUNK_IDS - 1))
        assert kept.mark is not None and kept.mark.accepted == 2
        heir = fresh(log, gate)
        await heir.take_over()
        assert list(heir.gate.accepted) == list(stage.gate.accepted) and heir.gate.accepted.unwritten() == []

    asyncio.run(scenario())


def test_an_order_that_came_and_went_between_two_marks_leaves_no_record(gate: GateBook, log: Log) -> None:
    """A market maker's day is a hundred thousand of them: to write down that each is gone stopped the gate for 40 ms."""
    async def scenario() -> None:
        stage = fresh(log, gate)
        await stage.take_over()
        stage.decide(order("stays"))
        await stage.write_down()
        written = len(log.records["gate-changelog"])
        stage.decide(order("gone", price=99))
        stage.decide(order("c1", action="cancel", ref_order_id="gone"))
        stage.decide(order("c2", action="cancel", ref_order_id="stays"))
        assert list(stage.gate.changes.orders) == ["stays"]
        await stage.write_down()
        keys = [(key, value is None) for key, value, _ in log.records["gate-changelog"][written:] if key.startswith(b"o|")]
        # its id is written down with others, in one record: a cancel may name it
        assert sum(key.startswith(b"k|") for key, _, _ in log.records["gate-changelog"][written:]) == 1
        assert keys == [(b"o|stays", True)]
        assert not stage.gate.changes.written
        heir = fresh(log, gate)
        await heir.take_over()
        assert heir.says() == stage.says()

    asyncio.run(scenario())
