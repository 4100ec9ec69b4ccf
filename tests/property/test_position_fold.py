"""The fold against its naive twin: any sequence, any batch size, any duplicate, any restart."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import trade_columns as tc
from models.position_order import refold_whole
from models.trade_decode import check_trade
from schemas.codec import trade_decoder
from tables.position_partition import PositionPartition
from tests.folding import ACCOUNTS, INSTRUMENTS, assert_equal, close, empty_book, feed, naive, new_partition, trade

T0 = 1_800_000_000_000_000_000


@st.composite
def sequences(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Trades with duplicates, disorder within and beyond the window, corrections, busts and repeated ids."""
    n = draw(st.integers(1, 40))
    out: list[dict[str, Any]] = []
    ts = T0
    for i in range(n):
        ts += draw(st.integers(0, 900_000_000))
        kind = draw(st.sampled_from("nnnnnnnndcbrlsf"))
        instrument = draw(st.sampled_from(list(INSTRUMENTS)))
        new = {"trade_id": f"T{i}", "account": draw(st.sampled_from(ACCOUNTS)), "instrument": instrument,
               "side": draw(st.sampled_from(["buy", "sell"])), "quantity": str(draw(st.integers(1, 60))),
               "price": str(draw(st.decimals("0.5", "200", places=3))),
               "ts_event": max(1, ts - (draw(st.integers(0, 2_000_000_000)) if kind == "r" else 0)
                               - (5_000_000_000 if kind == "l" else 0))}
        if out and kind == "d":
            new = dict(draw(st.sampled_from(out)))
        elif out and kind in "cb":
            target = draw(st.sampled_from(out))
            new |= {"account": target["account"], "action": "correct" if kind == "c" else "bust",
                    "ref_trade_id": target["trade_id"]}
            if kind == "c":
                new |= {"instrument": target["instrument"], "ts_event": target["ts_event"]}
        if kind == "f":  # funding: cash without a fill
            new |= {"action": "funding", "quantity": 0}
        if kind == "s" and out:  # a correction under the number of what it corrects
            target = draw(st.sampled_from(out))
            new |= {k: target[k] for k in ("trade_id", "account", "instrument", "ts_event")} | {"action": "correct"}
        if kind == "f" or draw(st.booleans()):
            new["fees"] = draw(st.lists(st.builds(lambda a, c: {"amount": str(a), "currency": c}, st.decimals("-5", "50", places=2),
                                                  st.sampled_from(["USD", "EUR", "BTC"])), min_size=1, max_size=3))
        out.append(new)
    return out


@given(sequences(), st.integers(1, 45))
def test_any_sequence_equals_the_naive_book(trades: list[dict[str, Any]], batch: int) -> None:
    part = new_partition()
    feed(part, trades, batch)
    assert_equal(part, naive(trades))


@st.composite
def edges(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Trades at prices and of sizes that the stage may refuse, corrections among them."""
    out = draw(sequences())
    for t in out:
        t["instrument"] = draw(st.sampled_from(["EURUSD", "FUT", "INV", "ACME"])) if t.get("action") in (None, "new") else t["instrument"]
        if t.get("action") == "funding" or not draw(st.booleans()):
            continue
        t["price"] = draw(st.sampled_from(["0", "-0.5", "0.5", t["price"]]))
        t["quantity"] = draw(st.sampled_from(["999999999999999999", "23058430092136939.51", "23058430092136939.52", "15000000000000000", "0", "0.5", t["quantity"]]))
        if draw(st.integers(0, 4)) == 0 and "action" not in t:
            t |= {"action": "receipt", "price": "0", "side": "buy"}
    return out


@given(edges(), st.integers(1, 45))
def test_the_naive_book_refuses_what_the_stage_refuses(trades: list[dict[str, Any]], batch: int) -> None:
    part, book = new_partition(), empty_book()
    got = feed(part, trades, batch)
    # what became of fills since says whether one comes too late, which refuses nothing
    said = {tc.APPLIED: "applied", tc.LATE: "applied", tc.DUPLICATE: "duplicate"}
    want = []
    for t in trades:
        said_of = trade_decoder.decode(json.dumps(t).encode())
        try:
            check_trade(said_of)
            want.append(book.apply(said_of).replace("late", "applied"))
        except ValueError:  # as `deskrisk verify` takes it
            want.append("refused")
    assert [said.get(status, "refused") for status in got] == want
    records = {(r.account, r.instrument): r for r in part.records(np.arange(len(part.positions)))}
    assert {key: Decimal(records[key].quantity) for key in book.fills} == {key: book.position(*key).quantity for key in book.fills}


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5])
def test_what_fits_a_position_does_not_depend_on_batches(batch: int) -> None:
    """A row that waits to be folded again is judged by what it holds, not by the size of what came for it."""
    most = "999999999999999999"
    sides = [*(("sell", most, k) for k in range(4)), ("sell", most, 4), ("buy", "1", -1), ("buy", most, 5), ("buy", most, 4), ("sell", most, 6), ("sell", most, 6), ("sell", "9" * 17, 7)]
    trades = [trade(f"T{k}", side, quantity, "1", T0 + at * 1_000_000) for k, (side, quantity, at) in enumerate(sides)]
    statuses = feed(new_partition(), trades, batch)
    assert [status == tc.OVERFLOW for status in statuses] == [k == 4 for k in range(len(trades))], statuses
    book = empty_book()
    assert [book.apply(trade_decoder.decode(json.dumps(t).encode())) == "refused" for t in trades] == [k == 4 for k in range(len(trades))]


@pytest.mark.parametrize("prices", [["0"], ["10", "-10"], ["-10", "5", "5"]])
def test_an_average_of_zero_is_a_price_and_not_unknown(prices: list[str]) -> None:
    trades = [trade(f"T{k}", "buy", "2", price, T0 + k, instrument="FUT") for k, price in enumerate(prices)]
    part = new_partition()
    feed(part, trades)
    record = part.records(np.arange(1))[0]
    assert record.average_price == record.fifo.average_price == record.break_even_price == 0.0
    assert_equal(part, naive(trades))


@given(sequences())
def test_batch_size_changes_nothing(trades: list[dict[str, Any]]) -> None:
    hashes = set()
    for batch in (1, 7, 512):
        part = new_partition()
        feed(part, trades, batch)
        hashes.add(part.state_hash())
    assert len(hashes) == 1


@given(sequences(), st.lists(st.integers(0, 40), max_size=6))
def test_restart_from_the_changelog_changes_nothing(trades: list[dict[str, Any]], cuts: list[int]) -> None:
    straight = new_partition()
    feed(straight, trades)
    part, changelog, at = new_partition(), {}, 0
    for cut in [*sorted(min(c, len(trades)) for c in cuts), len(trades)]:
        feed(part, trades[at:cut], 3, at)
        at = cut
        for key, value in part.cut():
            if value is None:
                changelog.pop(key, None)
            else:
                changelog[key] = value
        restored = PositionPartition(0, part.reference, 262_144, 2_000_000_000)
        restored.restore(dict(changelog))
        assert restored.state_hash() == part.state_hash()
        part = restored
    assert part.state_hash() == straight.state_hash()


@given(sequences(), st.floats(0.5, 300))
def test_total_pnl_is_the_same_under_all_three_methods(trades: list[dict[str, Any]], mark: float) -> None:
    part = new_partition()
    feed(part, trades)
    for slot, record in enumerate(part.records(np.arange(len(part.positions)))):
        row = part.positions.arrays.rows[slot]
        q, value = float(row["quantity"]), float(row["unit_value"])
        lots = part.positions.lots_of(slot)
        if INSTRUMENTS[record.instrument].inverse:
            average = row["realised_pnl"] + (q * value * (1 / row["average_price"] - 1 / mark) if q else 0)
            fifo = row["fifo_realised_pnl"] + sum(x * value * (1 / p - 1 / mark) for x, p in lots)
            even = row["break_even_realised_pnl"] + value * (row["cost"] - q / mark)
            scale = value * (abs(q) / mark + sum(abs(x) / p for x, p in lots)) + abs(row["realised_pnl"]) + 600 * value
        else:
            average = row["realised_pnl"] + q * value * (mark - row["average_price"])
            fifo = row["fifo_realised_pnl"] + sum(x * value * (mark - p) for x, p in lots)
            even = row["break_even_realised_pnl"] + value * (q * mark - row["cost"])
            scale = value * 1e6
        close(average, fifo, scale)
        close(average, even, scale)


@given(sequences())
def test_a_row_is_the_fold_of_its_base_and_window(trades: list[dict[str, Any]]) -> None:
    part = new_partition()
    feed(part, trades, 5)
    before = part.state_hash()
    for slot in range(len(part.positions)):
        refold_whole(part.positions.arrays, slot)
    assert part.state_hash() == before


@pytest.mark.parametrize("fills_max", [4096])
def test_eviction_keeps_every_position_and_forgets_old_ids(fills_max: int) -> None:
    rng = np.random.default_rng(3)
    trades = [{"trade_id": f"T{i}", "account": ACCOUNTS[i % 2], "instrument": list(INSTRUMENTS)[i % 5],
               "side": "buy" if rng.random() < 0.5 else "sell", "quantity": str(rng.integers(1, 90)),
               "price": f"{rng.uniform(1, 90):.3f}", "ts_event": T0 + i * 1_000_000} for i in range(11_000)]
    hashes = set()
    for batch in (1, 512, 11_000):
        part = new_partition(fills_max)
        assert set(feed(part, trades, batch)) == {tc.APPLIED}
        assert part.positions.fill_count <= fills_max
        hashes.add(part.state_hash())
    assert len(hashes) == 1
    assert_equal(part, naive(trades))
    assert feed(part, [trades[-1]]) == [tc.DUPLICATE]
    assert feed(part, [trades[0]]) == [tc.LATE], "beyond the window an id is unknown again: a stated bound"


def test_a_hot_position_is_folded_the_same_when_its_chain_is_shortened() -> None:
    rng = np.random.default_rng(4)
    trades = [{"trade_id": f"T{i}", "account": "A1", "instrument": "ACME",
               "side": "buy" if rng.random() < 0.5 else "sell", "quantity": str(rng.integers(1, 90)),
               "price": f"{rng.uniform(1, 90):.3f}",
               "ts_event": T0 + i * 1_000_000 - int(rng.integers(0, 2)) * 700_000_000} for i in range(9_000)]
    part = new_partition()
    feed(part, trades, 777)
    assert_equal(part, naive(trades))
    assert feed(part, [{"trade_id": "B", "account": "A1", "instrument": "ACME", "side": "buy", "quantity": "1",
                        "price": "1", "ts_event": T0 + 10**10, "action": "bust", "ref_trade_id": "T5"}]) == [tc.APPLIED]
    quantity = sum(float(t["quantity"]) * (1 if t["side"] == "buy" else -1) for t in trades if t["trade_id"] != "T5")
    assert float(part.records(np.array([0]))[0].quantity) == pytest.approx(quantity)


def test_a_damaged_row_without_its_lots_is_closed_and_says_that_fifo_is_not_exact() -> None:
    first = {"trade_id": "T1", "account": "A1", "instrument": "ACME", "side": "buy", "quantity": "100", "price": "10",
             "ts_event": T0}
    part = new_partition()
    feed(part, [first])
    rows = part.positions.arrays.rows
    rows["lot_head"][0] = rows["lot_tail"][0] = -1
    rows["lot_count"][0] = 0
    feed(part, [first | {"trade_id": "T2", "side": "sell", "quantity": "60", "price": "11", "ts_event": T0 + 10**10}])
    (row,) = part.records(np.array([0]))
    assert row.quantity == "40" and row.realised_pnl == pytest.approx(60.0) and not row.fifo.exact
