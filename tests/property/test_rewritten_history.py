"""A correction is history rewritten, a bust a trade never sent, a repeat nothing: over whole logs, however cut."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models import trade_columns as tc
from schemas.records import Position
from tests.folding import ACCOUNTS, INSTRUMENTS, close, feed, new_partition, trade

T0 = 1_800_000_000_000_000_000
DAY = T0 + 20_000_000_000
#: no trade is late: where it is ordered is its own time
FOREVER = 1 << 60
CURRENCIES = ["USD", "EUR", "BTC", "BNB"]
amounts = st.lists(st.builds(lambda a, c: {"amount": str(a), "currency": c}, st.decimals("-5", "50", places=2),
                             st.sampled_from(CURRENCIES)), min_size=1, max_size=3)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a log with chains of corrections, busts and repeats, and the log as if the last word had come first."""
    sent: list[dict[str, Any]] = []
    final: list[dict[str, Any] | None] = []
    chains: list[list[str]] = []
    for i in range(draw(st.integers(1, 22))):
        what = draw(st.sampled_from("nnnnfcccbd"))
        alive = [k for k, t in enumerate(final) if t is not None]
        if what in "cb" and alive:
            k = draw(st.sampled_from(alive))
            was = final[k]
            assert was is not None
            ref = draw(st.sampled_from(chains[k]))
            new = {**was, "ts_event": was["ts_event"] if draw(st.booleans()) else T0 + draw(st.integers(0, 40)) * 10**9}
            new.pop("fees", None)
            if was["quantity"] == "0" or draw(st.booleans()):
                new["fees"] = draw(amounts)
            if was["quantity"] != "0":
                new |= {"quantity": str(draw(st.integers(1, 60))), "side": draw(st.sampled_from(["buy", "sell"])),
                        "price": str(draw(st.decimals("0.5", "200", places=3)))}
            own = what == "c" and draw(st.integers(0, 3)) == 0
            name = ref if own else f"X{i}"
            action = "correct" if what == "c" else "bust"
            sent.append(new | {"trade_id": name, "action": action, "ref_trade_id": ref})
            if own and any(s | {"ref_trade_id": ref} == sent[-1] for s in sent[:-1]):
                sent.pop()  # what it says was said before: a repeat, not a correction
                continue
            final[k] = None if what == "b" else {k: v for k, v in new.items() if k != "ref_trade_id"}
            if what == "c":
                chains[k].append(name)
        elif what == "d" and sent:
            sent.append(dict(draw(st.sampled_from(sent))))
        else:
            new = trade(f"T{i}", draw(st.sampled_from(["buy", "sell"])), str(draw(st.integers(1, 60))),
                        str(draw(st.decimals("0.5", "200", places=3))), T0 + draw(st.integers(0, 40)) * 10**9,
                        account=draw(st.sampled_from(ACCOUNTS)), instrument=draw(st.sampled_from(list(INSTRUMENTS))))
            if what == "f":
                new |= {"action": "funding", "quantity": "0", "price": "0"}
            if what == "f" or draw(st.booleans()):
                new["fees"] = draw(amounts)
            sent.append(new)
            final.append(new)
            chains.append([f"T{i}"])
    return sent, [t for t in final if t is not None]


def rows_of(log: list[dict[str, Any]], batch: int, roll_at: int | None = None) -> dict[tuple[str, str], Position]:
    """Return the records that a log comes to; a roll comes before the record of that number."""
    part = new_partition(lateness_ns=FOREVER)
    cut = len(log) if roll_at is None else min(roll_at, len(log))
    feed(part, log[:cut], batch)
    if roll_at is not None:
        for account in ACCOUNTS:
            part.roll(account, DAY)
    feed(part, log[cut:], batch, cut)
    return {(r.account, r.instrument): r for r in part.records(np.arange(len(part.positions)))}


def assert_same(got: dict[tuple[str, str], Position], want: dict[tuple[str, str], Position]) -> None:
    """Assert that two logs came to the same; a position that is nothing need not be there."""
    for key in got.keys() | want.keys():
        a, b = got.get(key), want.get(key)
        if a is None or b is None:
            there = a if b is None else b
            assert there is not None and there.quantity == "0" and not there.fees and not there.funding
            assert abs(there.realised_pnl) < 1e-9 and there.trades == 0
            continue
        assert (a.quantity, a.trades, a.fifo.lots) == (b.quantity, b.trades, b.fifo.lots), key
        for x, y in ((a.realised_pnl, b.realised_pnl), (a.fifo.realised_pnl, b.fifo.realised_pnl),
                     (a.average_price or 0.0, b.average_price or 0.0)):
            close(x or 0.0, y or 0.0, 1e4)
        for mine, other in ((a.fees, b.fees), (a.funding, b.funding)):
            assert mine.keys() == other.keys(), key
            for currency in mine:
                close(mine[currency], other[currency], 1e2)


@settings(max_examples=60)
@given(histories(), st.sampled_from([1, 3, 100]))
def test_a_correction_is_history_rewritten_and_a_bust_a_trade_never_sent(
        history: tuple[list[dict[str, Any]], list[dict[str, Any]]], batch: int) -> None:
    sent, final = history
    assert_same(rows_of(sent, batch), rows_of(final, 100))


@settings(max_examples=40)
@given(histories(), st.integers(0, 22))
def test_fees_of_the_day_are_those_of_its_trades_whenever_they_were_corrected(
        history: tuple[list[dict[str, Any]], list[dict[str, Any]]], roll_at: int) -> None:
    sent, final = history
    got, want = rows_of(sent, 3, roll_at), rows_of(final, 100, len(final))
    assert_same(got, want)
    for key in got.keys() & want.keys():
        a, b = got[key], want[key]
        if a.opening_ts and b.opening_ts:
            assert a.opening_quantity == b.opening_quantity, key
            assert (a.opening_fees, a.opening_funding) == (b.opening_fees, b.opening_funding), key


@settings(max_examples=40)
@given(histories(), st.data())
def test_what_came_before_changes_nothing_when_it_comes_again(
        history: tuple[list[dict[str, Any]], list[dict[str, Any]]], data: st.DataObject) -> None:
    sent, _ = history
    part = new_partition(lateness_ns=FOREVER)
    statuses = feed(part, sent, 5)
    before = part.state_hash()
    again = [t for t, status in zip(sent, statuses, strict=True) if status == tc.APPLIED]
    if again:
        assert set(feed(part, data.draw(st.permutations(again)), 3)) <= {tc.DUPLICATE}
    assert part.state_hash() == before


def test_every_id_of_a_chain_leads_to_its_live_fill() -> None:
    t1 = trade("T1", "buy", "100", "10", T0)
    c1 = t1 | {"trade_id": "C1", "action": "correct", "ref_trade_id": "T1", "quantity": "90"}
    c2 = c1 | {"trade_id": "C2", "quantity": "80"}
    bust = t1 | {"trade_id": "B1", "action": "bust", "ref_trade_id": "T1"}
    part = new_partition()
    assert feed(part, [t1, c1, c2, c1, t1], 1) == [tc.APPLIED] * 3 + [tc.DUPLICATE] * 2
    assert part.records(np.array([0]))[0].quantity == "80"
    assert feed(part, [bust, bust], 1) == [tc.APPLIED, tc.DUPLICATE]
    assert part.records(np.array([0]))[0].quantity == "0"
    revived = [t1 | {"trade_id": f"R{k}", "action": "correct", "ref_trade_id": ref} for k, ref in enumerate(
        ["T1", "C1", "C2", "B1"])]
    assert feed(part, revived, 1) == [tc.REF_UNKNOWN] * 4
    assert part.records(np.array([0]))[0].quantity == "0"


def test_one_id_with_other_content_is_reused_and_with_the_same_in_other_words_a_repeat() -> None:
    t1 = trade("T1", "buy", "10", "100", T0, fees=[{"amount": "1.50", "currency": "EUR"},
                                                   {"amount": "2", "currency": "USD"}], trader="t", venue=None)
    same = t1 | {"quantity": "10.00", "price": "1e2", "action": "new", "order_id": None, "fees": [
        {"amount": "2.0", "currency": "USD"}, {"amount": "1", "currency": "EUR"}, {"amount": "0.5", "currency": "EUR"}]}
    others = [t1 | {"fees": []}, t1 | {"trader": "u"}, t1 | {"venue": "EBS"}, t1 | {"order_id": "O"},
              t1 | {"fees": [{"amount": "3.5", "currency": "EUR"}]}, t1 | {"counterparty": "t", "trader": None}]
    part = new_partition()
    feed(part, [t1])
    before = part.state_hash()
    assert feed(part, [same, *others], 1) == [tc.DUPLICATE] + [tc.ID_REUSED] * len(others)
    assert part.state_hash() == before


def test_fills_leave_the_window_by_trade_time() -> None:
    late = [trade("T1", "buy", "100", "10", T0), trade("T2", "buy", "100", "20", T0 + 2 * 10**9),
            trade("T3", "sell", "50", "12", T0 + 10**9)]
    rest = [trade(f"R{i}", "buy", "1", "10", T0 + 3 * 10**9 + i, account="A2") for i in range(5000)]
    part = new_partition(fills_max=4096)
    feed(part, [*late, *rest, trade("T4", "buy", "1", "10", T0 + 10**10),
                trade("T5", "buy", "1", "10", T0 + 9 * 10**9)], 512)
    assert part.positions.first_fill_seq > 3
    assert part.records(np.array([0]))[0].realised_pnl == 100.0


def test_fees_are_taken_back_for_as_long_as_the_fill_can_be() -> None:
    trades = [trade(f"T{i}", "buy", "1", "10", T0 + i, fees=[{"amount": "0.1", "currency": "BNB"}])
              for i in range(1000)]
    part = new_partition()
    feed(part, trades, 100)
    restored = new_partition()
    restored.restore({k: v for k, v in part.whole() if v is not None})
    for kept in (part, restored):
        feed(kept, [t | {"trade_id": f"B{i}", "action": "bust", "ref_trade_id": t["trade_id"]}
                    for i, t in enumerate(trades)], 1)
        record = kept.records(np.array([0]))[0]
        assert (record.quantity, record.fees, record.trades) == ("0", {}, 0)
