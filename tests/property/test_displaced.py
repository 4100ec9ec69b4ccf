"""R3 on every topic that is compacted: what a refused record, or one under another's key, displaces is there for who starts after compaction."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents import displaced_statements
from agents.gate import GateStage
from agents.positions import PositionStage
from agents.reference_tail import ReferenceTail
from agents.risk import RiskStage
from agents.statements import opening_of
from models.gate import state as gs
from models.reference import Reference
from schemas.keys import external_key
from schemas.records import External
from schemas.topics import TOPICS
from tables.records import RecordBatch
from tests.folding import reference
from tests.property.test_every_topic_is_fuzzed import LEVELS, T0, Quiet, position_part

NAMES = {t.name: t.name for t in TOPICS}
MS = T0 // 1_000_000


class Log(Quiet):
    """One partition of a compacted topic, and what readers write to it."""

    def __init__(self, topic: str) -> None:
        self.topic, self.records = topic, list[tuple[str, bytes | None]]()

    def send(self, topic: str, key: bytes, value: bytes | None = None, *_: Any, **__: Any) -> Any:
        if topic == self.topic:
            self.records.append((key.decode(), value))
        return Nothing()

    def batch(self, start: int, end: int) -> RecordBatch:
        keys, values = zip(*self.records[start:end], strict=True)
        n = end - start
        return RecordBatch(self.topic, 0, np.arange(start, end), list(values), [k.encode() for k in keys], {}, np.full(n, MS), end)

    def compacted(self) -> Log:
        newest = {key: at for at, (key, _) in enumerate(self.records)}
        left = Log(self.topic)
        left.records = [r for at, r in enumerate(self.records) if newest[r[0]] == at]
        return left


class Nothing:
    """What a publisher returns, for who waits for it."""

    def __await__(self) -> Any:
        return iter(())


class Follower:
    """One stage that reads a topic: what it reads with, writes with, and what it has come to."""

    def __init__(self, topic: str, log: Log) -> None:
        self.log, self.read = log, 0
        quiet, given_ = cast(Any, Quiet()), cast(Any, SimpleNamespace(reference=Reference(lambda account: 0)))
        made: dict[str, Callable[[], tuple[Any, Any, Callable[[], Any]]]] = {
            "reference": lambda: self._reference(ReferenceTail(quiet, NAMES, Reference(lambda account: 0), quiet)),
            "risk": lambda: self._risk(RiskStage(quiet, NAMES, given_, quiet, lambda: T0, quiet, "USD", LEVELS, 1)),
            "gate": lambda: self._gate(GateStage(quiet, NAMES, given_, quiet, lambda: T0, quiet, "USD", LEVELS, 1, quiet))}
        self.router, self.displaced, self.state = made[OF[topic]]()

    @staticmethod
    def _reference(tail: ReferenceTail) -> Any:
        known = tail.reference
        return tail._tail._on_batch, tail.displaced, lambda: (dict(known.account_records), dict(known.instrument_records))

    @staticmethod
    def _risk(stage: RiskStage) -> Any:
        contracts = stage.book.contracts
        return stage._router, stage._inputs.displaced, lambda: (dict(contracts.surfaces), {k: v for k, v in contracts._touches.items() if v})

    @staticmethod
    def _gate(stage: GateStage) -> Any:
        def ratings() -> dict[str, float]:
            found = {name: float(stage.gate.state.nodes["value"][k, gs.RATING]) for name, k in stage.gate.state.node_index.items() if name.startswith("counterparty:")}
            return {name: rating for name, rating in found.items() if rating == rating}
        return stage.inputs.router, stage.inputs.displaced, ratings

    def follow(self) -> None:
        while self.read < len(self.log.records):
            self.read += 1
            self.router(self.log.batch(self.read - 1, self.read))

    def settle(self) -> None:
        self.displaced.write(self.log, NAMES)


OF = {"reference.instruments": "reference", "reference.accounts": "reference", "market.surfaces": "risk", "touches": "risk", "reference.counterparties": "gate"}


def good(topic: str, name: str, k: int) -> dict[str, Any]:
    return {"reference.instruments": {"instrument": name, "asset_class": "equity", "currency": "USD", "multiplier": str(k + 1)},
            "reference.accounts": {"account": name, "book": f"B{k}", "desk": "D", "strategy": "S", "fund": "F"},
            "market.surfaces": {"underlying": name, "ts_event": T0, "rates": [[1.0, 0.01 * k]]},
            "touches": {"instrument": name, "touched": True, "ts_event": T0, "by": "x", "reason": f"seen {k}"},
            "reference.counterparties": {"counterparty": name, "rating": k + 1}}[topic]


STEPS = st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from("ABC"), st.sampled_from(["good", "good", "bad", "bad", "gone"]), st.booleans()), min_size=1, max_size=9)


@pytest.mark.parametrize("topic", sorted(OF))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_who_starts_after_compaction_has_what_all_others_have(topic: str, steps: list[tuple[str, str, str, bool]]) -> None:
    async def run() -> None:
        left_behind(topic, steps)
    asyncio.run(run())


def left_behind(topic: str, steps: list[tuple[str, str, str, bool]]) -> None:
    log = Log(topic)
    early = Follower(topic, log)
    withdrawn = topic in ("market.surfaces", "reference.counterparties")  # of the others what is withdrawn keeps its terms
    for k, (key, name, kind, settles) in enumerate(steps):
        if kind == "gone" and not withdrawn:
            continue
        log.records.append((key, None if kind == "gone" else json.dumps(good(topic, name, k)).encode() if kind == "good" else b'{"rating":"x"}'))
        early.follow()
        if settles:
            early.settle()
    for _ in range(4):
        early.settle()
        early.follow()
    count = len(log.records)
    early.settle()
    assert len(log.records) == count, "nobody answers himself for ever"
    late = Follower(topic, log.compacted())
    late.follow()
    assert late.state() == early.state()


FACTS = st.lists(st.tuples(st.sampled_from(["PB", "CUST"]), st.sampled_from(["own", "own", "account", "other"]), st.integers(0, 4), st.sampled_from(["good", "good", "bad", "broken", "unknown", "many"]),
                           st.sampled_from(["start_of_day", "snapshot"]), st.booleans()), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(facts=FACTS)
def test_a_statement_that_another_record_displaced_is_found_on_the_log_and_written_once_more(tmp_path: Path, facts: list[Any]) -> None:
    """Whatever came under its key, and whenever: statements of before it, ones that cannot be read, or that are of what nobody knows."""
    log = Log("positions.external")

    async def read_range(client: Any, starts: Any, on_batch: Any) -> None:
        await asyncio.sleep(0)
        if log.records:
            on_batch(log.batch(0, len(log.records)))

    def statement(source: str, ts: int, kind: Any, account: str = "A1", quantity: int = 0) -> dict[str, Any]:
        return {"source": source, "account": account, "instrument": "EURUSD", "quantity": str(quantity), "ts_event": T0 - 10**12 + ts, "kind": kind}

    async def follow(records: Log, stage: PositionStage, part: Any, start: int) -> int:
        while start < len(records.records):
            await stage.statements.take(records.batch(start, start + 1), part, [])
            start += 1
        return start

    def begin(records: Log) -> tuple[PositionStage, Any]:
        known = cast(Any, SimpleNamespace(reference=reference(), catch_up=lambda: asyncio.sleep(0)))
        stage = PositionStage(cast(Any, Quiet()), "g", NAMES, 1, tmp_path, known, cast(Any, records), lambda: T0, cast(Any, Quiet()), 4096, 0)
        stage.parts[0] = part = position_part()
        part.reference = known.reference
        return stage, part

    async def run() -> None:
        stage, part = begin(log)
        read = 0
        for k, (source, keyed, ts, what, kind, at_once) in enumerate(facts):
            record = statement(source, 1000 * ts + k, kind, "A9" if what == "unknown" else "A1", 10 * k + 1)
            key = {"own": f"{source}|A1|EURUSD|{kind}", "account": "A1", "other": "PB|A2|EURUSD|snapshot"}[keyed]
            raw = json.dumps(record).encode()
            log.records.append((key, {"bad": b'{"quantity":"x"}', "broken": b"{", "many": b"[" + raw + b',{"quantity":"x"}]'}.get(what, raw)))
            if at_once:
                read = await follow(log, stage, part, read)
                await asyncio.sleep(0.001)
        for _ in range(6):
            read = await follow(log, stage, part, read)
            if stage.statements.displaced._task is not None:
                await stage.statements.displaced._task
        count = len(log.records)
        assert await follow(log, stage, part, read) == count and count < 6 * len(facts) + 6, "nobody answers himself for ever"
        late, its = begin(log.compacted())
        await follow(late._publisher, late, its, 0)  # type: ignore[arg-type]
        stated = {s: opening_of(part, "A1", "EURUSD", s) for s in ("PB", "CUST")}
        assert {s: opening_of(its, "A1", "EURUSD", s) for s in ("PB", "CUST")} == stated
        assert snapshots(log.compacted()) == snapshots(log)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(displaced_statements, "read_range", read_range)
        asyncio.run(run())


def snapshots(log: Log) -> dict[bytes, tuple[int, int]]:
    """Return the newest snapshot of each key, as a comparison reads them."""
    found: dict[bytes, tuple[int, int]] = {}
    for _, value in log.records:
        for s in displaced_statements._statements(value):
            if isinstance(s, External) and s.kind == "snapshot" and s.account == "A1":
                key, at = external_key(s), (int(s.ts_event), int(s.quantity))
                if key not in found or found[key][0] <= at[0]:
                    found[key] = at
    return found
