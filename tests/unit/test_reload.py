"""A key folded again from the log while slices are taken in: each record counts once, and dividends are put right too."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from agents import reload
from agents.reload import KeyReloads
from models import position_order as order
from models.position_window import N_FILLS
from schemas.codec import decoder_of
from schemas.corporate import CorporateAction
from schemas.records import Position
from tables.position_partition import PositionPartition
from tables.records import RecordBatch
from tests.folding import feed, new_partition, trade

T0, S = 1_800_000_000_000_000_000, 1_000_000_000
TOPICS = {name: name for name in ("trades", "positions.external", "alerts")}


def first(part: PositionPartition) -> Position:
    return part.records(np.array([0]))[0]


def act(part: PositionPartition, name: str, at_s: int, **said: str) -> None:
    record = {"action_id": name, "instrument": "ACME", "effective_ts": T0 + at_s * S, **said}
    part.reference.add_action(decoder_of(CorporateAction).decode(json.dumps(record).encode()))
    part.reference.turn(T0 + 10**15)
    assert part.follow_terms() == []


def batch_of(trades: list[dict[str, Any]], at: int = 0) -> RecordBatch:
    n = len(trades)
    return RecordBatch("trades", 0, np.arange(at, at + n), [json.dumps(t).encode() for t in trades], [b"A1"] * n, {},
                       np.full(n, T0 // 10**6 + 10**6), at + n)


class Log:
    """What lies on the log of trades, and the reloads that read it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, part: PositionPartition, trades: list[dict[str, Any]]) -> None:
        self.part, self.trades, self.replaced, self.said = part, trades, 0, list[str]()
        monkeypatch.setattr(reload, "read_range", self._read)
        publisher = SimpleNamespace(send=lambda topic, key, value: self.said.append(json.loads(value)["note"]))
        self.reloads = KeyReloads(cast(Any, None), TOPICS, cast(Any, publisher), lambda: T0,
                                  cast(Any, SimpleNamespace(add=lambda *_: None)), 262_144, 1 << 60, self._replaced)

    async def _read(self, client: Any, starts: Any, on_batch: Any) -> None:
        await asyncio.sleep(0)
        on_batch(batch_of(self.trades))

    def _replaced(self, part: PositionPartition) -> None:
        self.replaced += 1

    async def settle(self) -> None:
        for _ in range(200):
            await asyncio.sleep(0.001)
            if not self.reloads.busy:
                return

    def ask(self, marker: int) -> None:
        while self.part.behind:
            self.reloads.request(self.part, *self.part.behind.pop(), {"trades": marker})


def leave_the_window(part: PositionPartition) -> None:
    order.evict_oldest(part.positions.arrays, int(part.positions.arrays.meta[N_FILLS]))


BUY, SELL = trade("T1", "buy", "100", "10", T0, instrument="ACME"), trade("T2", "sell", "40", "12", T0 + 30 * S, instrument="ACME")


def test_a_dividend_that_the_log_alone_can_say_is_paid_though_all_else_is_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    part = new_partition()
    feed(part, [BUY, SELL])
    leave_the_window(part)
    act(part, "D1", 20, kind="cash_dividend", amount="0.5", currency="USD")
    assert part.behind == {("A1", "ACME")}

    async def run() -> None:
        log = Log(monkeypatch, part, [BUY, SELL])
        log.ask(2)
        await log.settle()
        assert (first(part).quantity, first(part).funding, log.replaced) == ("60", {"USD": -50.0}, 1)
        assert "funding -50 USD was 0" in log.said[0]
        act(part, "D1", 20, kind="cash_dividend", amount="0.6", currency="USD")
        assert not part.behind and first(part).funding == {"USD": -60.0}, "what was held then is remembered"

    asyncio.run(run())


def test_a_split_after_the_last_fill_is_not_applied_to_a_fold_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    part = new_partition()
    feed(part, [BUY])
    leave_the_window(part)
    act(part, "S1", -10, kind="split", ratio="3")
    act(part, "S2", 10, kind="split", ratio="2")
    act(part, "S1", 5, kind="split", ratio="3")
    part.behind.add(("A1", "ACME"))

    async def run() -> None:
        log = Log(monkeypatch, part, [BUY])
        part.positions.arrays.base["quantity"][0] += 7  # somebody's hand is in the row
        part.positions.refold(0)
        log.ask(1)
        await log.settle()
        assert first(part).quantity == "600"
        assert feed(part, [trade("T2", "buy", "1", "10", T0 + S, instrument="ACME")]) and first(part).quantity == "606"

    asyncio.run(run())


@pytest.mark.parametrize("asked", ["before the slice", "within it", "after its fold"])
def test_a_slice_that_is_taken_in_while_a_key_is_folded_again_counts_once(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    part = new_partition()
    feed(part, [BUY])
    leave_the_window(part)

    async def run() -> None:
        log = Log(monkeypatch, part, [BUY])
        act(part, "D1", -5, kind="cash_dividend", amount="0.5", currency="USD")
        part.positions.arrays.base["quantity"][0] += 700  # somebody's hand is in the row
        part.positions.refold(0)
        if asked == "before the slice":
            log.ask(1)
        log.trades.append(SELL)
        with log.reloads.taking_in(batch_of([SELL], 1)):
            if asked == "within it":
                log.ask(1)
            await asyncio.sleep(0.03)  # reference data are waited for
            feed(part, [SELL], first_offset=1)
            if asked == "after its fold":
                log.ask(1)
            await asyncio.sleep(0.03)
            assert log.replaced == 0, "it is not put in place amid a slice"
        await log.settle()
        assert (first(part).quantity, log.replaced) == ("60", 1)

    asyncio.run(run())
