"""Incremental sums equal a recount from nothing, whatever the order of trades, marks and moves in the tree."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import rollup as ru
from models.valued_book import ValuedBook
from schemas.records import Account, AsOf, Fifo, Instrument, Mark, Position

#: 24 November 2025, in days since 1970
MONDAY = 20_416
LEVELS = ("book", "desk", "strategy", "fund", "firm")
INSTRUMENTS = [
    Instrument(instrument="EURUSD", asset_class="fx", currency="USD", prior_close=Decimal("1.08")),
    Instrument(instrument="USDJPY", asset_class="fx", currency="JPY", prior_close=Decimal(150)),
    Instrument(instrument="SAP", asset_class="equity", currency="EUR", prior_close=Decimal(100)),
    Instrument(instrument="FUT", asset_class="future", currency="JPY", multiplier=Decimal(10), prior_close=Decimal(50)),
    Instrument(instrument="INV", asset_class="perpetual", currency="USD", inverse=True, settlement="BTC",
               multiplier=Decimal(100), prior_close=Decimal(40_000)),
    Instrument(instrument="BTCUSD", asset_class="fx", currency="USD", prior_close=Decimal(40_000)),
]


def account(name: str, book: int) -> Account:
    """Return an account under a book."""
    return Account(account=name, book=f"B{book}", desk=f"D{book // 2}", strategy=f"S{book // 3}", fund=f"F{book // 4}",
                   dealer=f"X{book % 2}", base_currency="EUR" if book // 4 else "USD")


def position(name: str, instrument: str, quantity: float, average: float, realised: float, rev: int,
             **more: Any) -> Position:
    """Return a position row; perpetuals have paid funding."""
    if instrument == "INV":
        more = {"funding": {"BTC": 0.01 * rev, "USD": -float(rev)}, "opening_funding": {"BTC": 0.01}} | more
    record = next(i for i in INSTRUMENTS if i.instrument == instrument)
    return Position(account=name, instrument=instrument, quantity=str(quantity), average_price=average if quantity else None,
                    realised_pnl=realised, fees={"EUR": 1.5}, currency=record.settlement or record.currency, trades=rev,
                    last_ts_event=rev, fifo=Fifo(0.0, None, 0), break_even_price=None, as_of=AsOf(0, rev), revision=rev, **more)


def mark(instrument: str, mid: float | None, quality: Any = "good") -> Mark:
    """Return a mark."""
    return Mark(instrument=instrument, window_end=1, ts_event=1, bid=mid, ask=mid, mid=mid, last=None, quality=quality)


EVENTS = st.lists(st.one_of(
    st.tuples(st.just("p"), st.integers(0, 5), st.sampled_from([i.instrument for i in INSTRUMENTS]),
              st.floats(-1e6, 1e6).map(lambda x: round(x, 2)), st.floats(0.5, 5e4)),
    st.tuples(st.just("m"), st.sampled_from([i.instrument for i in INSTRUMENTS]), st.one_of(st.none(), st.floats(0.5, 6e4)),
              st.sampled_from(["good", "stale"])),
    st.tuples(st.just("a"), st.integers(0, 5), st.integers(0, 9)),
    st.tuples(st.just("v")), st.tuples(st.just("x"), st.integers(0, 5))), max_size=60)


def run(events: list[Any], incremental: bool, valued: Callable[[ValuedBook], None] = lambda book: None) -> ValuedBook:
    """Play events; value after each, or only at the end; ``valued`` is called each time."""
    book = ValuedBook("USD", LEVELS)
    for record in INSTRUMENTS:
        book.add_instrument(record)
    for k in range(6):
        book.add_account(account(f"A{k}", k))
    for rev, event in enumerate(events, start=1):
        if event[0] == "p":
            book.add_position(position(f"A{event[1]}", event[2], event[3], event[4], event[4] / 3, rev))
        elif event[0] == "m":
            book.add_mark(mark(event[1], event[2], event[3]))
        elif event[0] == "a":
            book.add_account(account(f"A{event[1]}", event[2]))
        elif event[0] == "x":
            book.remove(f"A{event[1]}|SAP")
        if incremental:
            book.revalue()
            valued(book)
    book.revalue()
    valued(book)
    return book


@given(EVENTS)
def test_what_was_published_last_of_a_node_is_what_it_has(events: list[Any]) -> None:
    """Nodes that are touched are published: nothing that a figure rests on moves without touching its node."""
    published: dict[int, Any] = {}

    def publish(book: ValuedBook) -> None:
        nodes = book.rollup.take_touched().tolist()
        published.update((node, (book.currency_of(node), figures)) for node, figures in zip(nodes, book.figures_of(nodes), strict=True))

    book = run(events, True, publish)
    for name, node in book.rollup.node_index.items():
        currency, figures = published[node]
        assert currency == book.currency_of(node), name
        np.testing.assert_array_equal(figures, book.figures(node), err_msg=name)


@given(EVENTS)
def test_incremental_equals_full_and_the_tree_adds_up(events: list[Any]) -> None:
    book, once = run(events, True), run(events, False)
    assert book.rollup.recount() <= ru.DRIFT_RELATIVE_MAX
    scale = max(1.0, float(np.abs(once.rollup.contribution[: once.rollup.count]).sum()))
    for name, index in book.rollup.node_index.items():
        other = once.rollup.node_index.get(name)
        want = once.rollup.nodes[other] if other is not None else np.zeros(ru.M)
        np.testing.assert_allclose(book.rollup.nodes[index], want, atol=1e-9 * scale, err_msg=name)
    firm = book.rollup.nodes[book.rollup.node_index["firm"]] if book.positions else np.zeros(ru.M)
    for level in LEVELS[:-1]:
        parts = [book.rollup.nodes[i] for n, i in book.rollup.node_index.items() if n.startswith(f"{level}:")]
        np.testing.assert_allclose(np.sum(parts, axis=0) if parts else np.zeros(ru.M), firm, atol=1e-9 * scale)


def test_figures_are_what_a_dealer_computes_by_hand() -> None:
    book = run([("m", "EURUSD", 1.10, "good"), ("m", "USDJPY", 150.0, "good"), ("m", "SAP", 110.0, "good"),
                ("p", 0, "SAP", 200.0, 105.0)], True)
    row = book.figures(book.rollup.node_index["desk:D0"])
    assert row[ru.NET] == pytest.approx(200 * 110 * 1.10) and row[ru.UNREALISED] == pytest.approx(200 * 5 * 1.10)
    assert row[ru.REALISED] == pytest.approx(35 * 1.10) and row[ru.FEES] == pytest.approx(1.5 * 1.10)


def test_funding_is_a_line_of_its_own_and_the_days_part_is_carry() -> None:
    book = run([("m", "BTCUSD", 40_000.0, "good"), ("m", "INV", 41_000.0, "good"), ("m", "EURUSD", 1.10, "good")], True)
    held = {"opening_quantity": "3", "opening_price": 40_000.0, "opening_realised_pnl": 0.001}
    book.add_position(position("A0", "INV", 3.0, 40_000.0, 0.001, 5, funding={"BTC": 0.02, "USD": -7.0},
                               opening_funding={"BTC": 0.015}, **held))
    book.revalue()
    row = book.figures(book.rollup.node_index["firm"])
    fees, earned = 1.5 * 1.10, 3 * 100 * (1 / 40_000 - 1 / 41_000) * 40_000
    assert row[ru.FEES] == pytest.approx(fees) and row[ru.FUNDING] == pytest.approx(0.02 * 40_000 - 7)
    assert row[ru.CARRY] == pytest.approx(-(0.005 * 40_000 - 7)), "what was paid since the day began"
    assert ru.total_pnl(row) == pytest.approx(0.001 * 40_000 + earned - fees - (0.02 * 40_000 - 7))
    assert row[ru.PRICE] == pytest.approx(earned - fees)
    assert row[ru.DAY] == pytest.approx(row[ru.PRICE] + row[ru.FX] + row[ru.CARRY]) and row[ru.CARRY_UNKNOWN] == 0
    # the same without what was held overnight: all funding that is not of the days before is the day's
    book.add_position(position("A0", "INV", 3.0, 40_000.0, 0.0, 6, funding={"USD": 9.0}, opening_funding={}))
    book.revalue()
    row = book.figures(book.rollup.node_index["firm"])
    assert row[ru.CARRY] == pytest.approx(-9) and row[ru.DAY] == pytest.approx(earned - fees - 9)
    # funding in a currency without a rate makes the P&L unknown, not smaller, and says nothing of what is held
    book.add_position(position("A0", "INV", 3.0, 40_000.0, 0.0, 7, funding={"XYZ": 9.0}))
    book.revalue()
    row = book.figures(book.rollup.node_index["firm"])
    assert (row[ru.UNPRICED], row[ru.PNL_UNKNOWN], row[ru.COSTS_UNKNOWN], row[ru.DAY_UNKNOWN]) == (0, 1, 1, 1)
    assert row[ru.NET] == pytest.approx(300 / 41_000 * 40_000) and row[ru.UNREALISED] == pytest.approx(earned)


def test_fees_in_more_currencies_than_there_is_room_for_make_the_pnl_unknown_not_smaller() -> None:
    book = run([("m", "EURUSD", 1.10, "good"), ("m", "USDJPY", 150.0, "good"), ("m", "BTCUSD", 40_000.0, "good"),
                ("m", "SAP", 110.0, "good")], True)
    firm = book.rollup.node("firm")
    held = position("A0", "SAP", 5.0, 100.0, 0.0, 5, funding={"USD": 1.0, "EUR": 1.0, "JPY": 1.0})
    for fees, unknown in (({"USD": 2.0, "EUR": 2.0, "JPY": 2.0}, 0), ({"USD": 2.0, "EUR": 2.0, "JPY": 2.0, "BTC": 2.0}, 1)):
        book.add_position(msgspec.structs.replace(held, fees=fees, revision=5 + len(fees)))
        book.revalue()
        assert book.rollup.nodes[firm][ru.PNL_UNKNOWN] == unknown, fees
        assert book.rollup.nodes[firm][ru.GROSS] == pytest.approx(5 * 110 * 1.10), "a fee says nothing of what is held"


def test_a_bond_held_overnight_leaves_carry_unknown() -> None:
    book = run([("m", "EURUSD", 1.10, "good")], True)
    book.add_instrument(Instrument(instrument="BUND", asset_class="bond", currency="EUR", prior_close=Decimal(99)))
    book.add_mark(mark("BUND", 100.0))
    bond = {"account": "A0", "instrument": "BUND", "quantity": "10", "average_price": 98.0, "realised_pnl": 0.0, "fees": {},
            "currency": "EUR", "trades": 1, "last_ts_event": 1, "fifo": Fifo(0.0, None, 0), "break_even_price": None}
    book.add_position(Position(**bond, as_of=AsOf(0, 50)))
    book.revalue()
    assert book.figures(book.rollup.node_index["firm"])[ru.CARRY_UNKNOWN] == 0, "bought today: nothing has accrued"
    book.add_position(Position(**bond, as_of=AsOf(0, 51), opening_quantity="10", opening_price=98.0))
    book.revalue()
    assert book.figures(book.rollup.node_index["firm"])[ru.CARRY_UNKNOWN] == 1


def test_what_was_held_overnight_splits_into_price_and_fx() -> None:
    book = run([("m", "EURUSD", 1.10, "good"), ("m", "SAP", 110.0, "good")], True)
    book.add_position(position("A0", "SAP", 200.0, 95.0, 0.0, 9, opening_quantity="200", opening_price=95.0))
    book.revalue()
    row = book.figures(book.rollup.node_index["firm"])
    fees = 1.5 * 1.10
    assert row[ru.PRICE] == pytest.approx(200 * (110 - 100) * 1.10 - fees)
    assert row[ru.FX] == pytest.approx(200 * 100 * (1.10 - 1.08))
    assert row[ru.DAY] == pytest.approx(200 * 110 * 1.10 - 200 * 100 * 1.08 - fees)


def test_without_a_price_or_a_rate_a_position_is_counted_never_zero() -> None:
    book = run([("p", 0, "SAP", 200.0, 105.0)], True)
    row = book.figures(book.rollup.node_index["firm"])
    assert (row[ru.UNPRICED], row[ru.POSITIONS], row[ru.GROSS]) == (1, 1, 0)
    assert book.rollup.unpriced_rows(book.rollup.node_index["firm"], 5).tolist() == [0]
    book.add_mark(mark("SAP", 110.0))
    book.revalue()
    assert book.figures(book.rollup.node_index["firm"])[ru.UNPRICED] == 1, "a price in EUR without EURUSD is no value"
    book.add_mark(mark("EURUSD", 1.10, "stale"))
    book.add_mark(mark("SAP", 110.0, "stale"))
    book.revalue()
    row = book.figures(book.rollup.node_index["firm"])
    assert (row[ru.UNPRICED], row[ru.STALE]) == (0, 1) and row[ru.GROSS] > 0


def test_without_a_cost_a_position_has_its_exposure_and_its_greeks_and_no_pnl() -> None:
    book = run([("m", "EURUSD", 1.10, "good"), ("m", "SAP", 110.0, "good"), ("p", 1, "SAP", 10.0, 100.0)], True)
    firm = book.rollup.node_index["firm"]
    known = book.rollup.nodes[firm].copy()
    held = position("A0", "SAP", 200.0, 105.0, 0.0, 5)
    for gone in ({"average_price": None}, {"realised_pnl": None}, {"fees": {"XYZ": 0.01}}):
        book.add_position(msgspec.structs.replace(held, **gone, revision=held.revision + 1))
        book.revalue()
        row = book.rollup.nodes[firm]
        assert row[ru.GROSS] == pytest.approx(210 * 110 * 1.10) == row[ru.DELTA], gone
        assert (row[ru.UNPRICED], row[ru.NO_GREEKS], row[ru.PNL_UNKNOWN], row[ru.DAY_UNKNOWN]) == (0, 0, 1, 1), gone
        assert [ru.left_out(m, row) for m in ("gross", "delta", "loss_total", "loss_day")] == [0, 0, 1, 1]
    # what is gone has no figure that is unknown
    book.add_position(msgspec.structs.replace(held, quantity="0", average_price=None, fees={}, revision=9))
    book.revalue()
    np.testing.assert_allclose(book.rollup.nodes[firm][: ru.MONEY], known[: ru.MONEY])
    assert book.rollup.nodes[firm][ru.PNL_UNKNOWN] == 0


@given(EVENTS, st.sampled_from(["EURUSD", "USDJPY", "SAP", "FUT", "INV", "BTCUSD"]), st.sampled_from(["none", "stale"]))
def test_less_knowledge_is_counted_in_every_figure_that_it_concerns(events: list[Any], name: str, how: str) -> None:
    """R10: take a mark away, or let it go stale: what a figure then leaves out, or rests on, is counted."""
    prices = {"EURUSD": 1.1, "USDJPY": 150.0, "SAP": 110.0, "FUT": 50.0, "INV": 4e4, "BTCUSD": 4.1e4}
    book = run([*(("m", n, p, "good") for n, p in prices.items()), *[e for e in events if e[0] == "p"]], False)
    before, held = book.rollup.contribution[: book.rollup.count].copy(), book.rollup.rows[: book.rollup.count].copy()
    book.add_mark(mark(name, None if how == "none" else prices[name], how))
    book.revalue()
    after = book.rollup.contribution[: book.rollup.count]
    settled = {"EURUSD": "EUR", "USDJPY": "JPY", "BTCUSD": "BTC"}.get(name)
    concerned = (held["instrument"] == book.market.instruments[name]) | (
        held["currency"] == book.market.currencies[settled] if settled else False)
    concerned &= held["quantity"] != 0
    assert ((after[:, ru.UNPRICED if how == "none" else ru.STALE] != 0) == concerned).all()
    if how == "stale":
        np.testing.assert_array_equal(after[:, : ru.MONEY], before[:, : ru.MONEY])


def test_cash_is_worth_itself_without_a_quote() -> None:
    book = run([("m", "EURUSD", 1.10, "good")], True)
    book.add_instrument(Instrument(instrument="EUR-CASH", asset_class="cash", currency="EUR"))
    cash = msgspec.structs.replace(position("A0", "SAP", 500.0, 1.0, 0.0, 5), instrument="EUR-CASH", fees={})
    book.add_position(cash)
    book.revalue()
    row = book.rollup.nodes[book.rollup.node_index["firm"]]
    assert row[ru.NET] == pytest.approx(550) and (row[ru.UNPRICED], row[ru.STALE]) == (0, 0)
    book.add_mark(mark("EUR-CASH", 3.0, "stale"))
    book.revalue()
    assert book.rollup.nodes[book.rollup.node_index["firm"], ru.NET] == pytest.approx(550)


def test_a_close_of_another_day_makes_the_day_unknown() -> None:
    day = 86_400_000_000_000
    opened = (MONDAY + 1) * day
    held = {"opening_quantity": "200", "opening_price": 110.0, "opening_ts": opened}
    for closed, known in (("2025-11-24", True), ("2025-11-21", False), ("2025-11-25", False), (None, True)):
        book = run([("m", "EURUSD", 1.10, "good"), ("m", "SAP", 110.0, "good")], True)
        book.add_instrument(msgspec.structs.replace(INSTRUMENTS[2], prior_close_date=closed))
        book.add_position(position("A0", "SAP", 200.0, 110.0, 0.0, 9, **held))
        book.revalue()
        row = book.rollup.nodes[book.rollup.node_index["firm"]]
        assert bool(row[ru.DAY_UNKNOWN] == 0) is known and bool(row[ru.DAY] != 0.0) is known, closed
        assert row[ru.PNL_UNKNOWN] == 0
    # the opening of a Monday has the close of the Friday before, and so have those of the weekend
    book.add_instrument(msgspec.structs.replace(INSTRUMENTS[2], prior_close_date="2025-11-21"))
    for rev, (days, known) in enumerate(((0, True), (-1, True), (-2, True), (-3, False), (1, False)), start=20):
        held["opening_ts"] = (MONDAY + days) * day
        book.add_position(position("A0", "SAP", 200.0, 110.0, 0.0, rev, **held))
        book.revalue()
        assert bool(book.rollup.nodes[book.rollup.node_index["firm"], ru.DAY_UNKNOWN] == 0) is known, days


def test_an_older_row_never_replaces_a_newer_one() -> None:
    book = run([], True)
    assert book.add_position(position("A0", "SAP", 5, 1.0, 0.0, 9)) >= 0
    assert book.add_position(position("A0", "SAP", 4, 1.0, 0.0, 8)) == -1
    assert book.positions[0].quantity == "5"


@settings(max_examples=30, deadline=None)
@given(EVENTS, st.randoms(use_true_random=False))
def test_a_book_built_again_from_its_records_in_any_order_has_the_hash_of_the_one_that_lived(events: list[Any], order: Any) -> None:
    """R1 of the risk stage: after any event, from what compaction leaves of positions, marks and accounts."""
    events = events[: order.randint(0, len(events))]
    lived = run(events, True)
    records: dict[Any, Any] = {("a", f"A{k}"): account(f"A{k}", k) for k in range(6)}
    for rev, event in enumerate(events, start=1):
        if event[0] == "p":
            records["p", f"A{event[1]}|{event[2]}"] = position(f"A{event[1]}", event[2], event[3], event[4], event[4] / 3, rev)
        elif event[0] == "m":
            records["m", event[1]] = mark(event[1], event[2], event[3])
        elif event[0] == "a":
            records["a", f"A{event[1]}"] = account(f"A{event[1]}", event[2])
        elif event[0] == "x":
            records.pop(("p", f"A{event[1]}|SAP"), None)
    again, left = ValuedBook("USD", LEVELS), [*records.values(), *INSTRUMENTS]
    order.shuffle(left)
    for record in left:
        {Position: again.add_position, Mark: again.add_mark, Account: again.add_account, Instrument: again.add_instrument}[type(record)](record)
        if order.random() < 0.3:
            again.revalue()
    again.revalue()
    assert again.rollup.state_hash(again.names) == lived.rollup.state_hash(lived.names)


@settings(max_examples=30, deadline=None)
@given(EVENTS)
def test_children_add_up_to_their_parents_after_every_event(events: list[Any]) -> None:
    """R17: also where accounts have just moved. A desk is two books, a strategy three, a fund four."""
    for until in range(0, len(events) + 1, 5):
        rollup = run(events[:until], True).rollup
        scale = max(1.0, float(np.abs(rollup.contribution[: rollup.count]).sum()))
        for below, above, n in (("book:B", "desk:D", 2), ("book:B", "strategy:S", 3), ("book:B", "fund:F", 4), ("desk:D", "fund:F", 2)):
            sums: dict[int, Any] = {}
            for name, k in rollup.node_index.items():
                if name.startswith(below):
                    parent = int(name.removeprefix(below)) // n
                    sums[parent] = sums.get(parent, 0.0) + rollup.nodes[k]
            for name, k in rollup.node_index.items():
                if name.startswith(above):
                    np.testing.assert_allclose(sums[int(name.removeprefix(above))], rollup.nodes[k], atol=1e-9 * scale, err_msg=name)


#: what a client may send as a price, a cost, a fee: figures of positions come to infinity, and to NaN, by them
EXTREME = st.sampled_from([0.0, 5e-324, 1e-300, 1e-100, 1.0, 1e60, 1e150, 1.7e308, -1.7e308, -1e200])
EXTREMES = st.lists(st.one_of(
    st.tuples(st.just("p"), st.integers(0, 5), st.sampled_from([i.instrument for i in INSTRUMENTS]), st.sampled_from([0.0, 1.0, -3.0, 9e23]),
              st.tuples(EXTREME, EXTREME, EXTREME, EXTREME, EXTREME)),
    st.tuples(st.just("m"), st.sampled_from([i.instrument for i in INSTRUMENTS]), st.one_of(st.none(), EXTREME, st.just(1.1))),
    st.tuples(st.just("a"), st.integers(0, 5), st.integers(0, 9)), st.tuples(st.just("x"), st.integers(0, 5))), max_size=40)


def naive_figures(book: ValuedBook, row: int) -> dict[str, float | None]:
    """Return what a position comes to, one formula a figure; None: it is not known, or is no figure."""
    r, market = book.rollup.rows[row], book.market
    q, unit, average, price = (np.float64(x) for x in (r["quantity"], r["multiplier"], r["average_price"], market.price[r["instrument"]]))
    rate = market.rate[r["currency"]]
    worth = q * unit / price if r["inverse"] else q * unit * price
    gained = q * unit * (1 / average - 1 / price) if r["inverse"] else q * unit * (price - average)
    paid = {kind: sum(np.float64(x["amount"]) * market.rate[x["currency"]] for x in book.rollup.paid[row] if x["currency"] >= 0 and x["kind"] == kind
                      and (x["amount"] != 0 or x["before"] != 0)) for kind in (ru.FEE, ru.FUNDED)}
    found = {"net": worth * rate if q else 0.0, "unrealised": gained * rate if q else 0.0, "realised": r["realised_pnl"] * rate if r["realised_pnl"] else 0.0,
             "fees": paid[ru.FEE], "funding": paid[ru.FUNDED]}
    return {name: float(x) if abs(x) <= 1e100 else None for name, x in found.items()}


@given(EXTREMES)
@np.errstate(all="ignore")
def test_what_is_no_figure_is_counted_and_enters_no_sum(events: list[Any]) -> None:
    book = run([], True)
    for rev, event in enumerate(events, start=1):
        if event[0] == "p":
            average, realised, fee, opened, before = event[4]
            more = {"opening_quantity": str(event[3]), "opening_price": opened, "opening_realised_pnl": before} if rev % 2 else {}
            book.add_position(msgspec.structs.replace(position(f"A{event[1]}", event[2], event[3], average, realised, rev, **more), fees={"USD": fee, "EUR": 1.0}))
        elif event[0] == "m":
            book.add_mark(mark(event[1], event[2]))
        elif event[0] == "a":
            book.add_account(account(f"A{event[1]}", event[2]))
        else:
            book.remove(f"A{event[1]}|SAP")
        book.revalue()
        assert np.isfinite(book.rollup.nodes).all() and np.isfinite(book.rollup.contribution).all(), event
        book.rollup.recount()  # the largest numbers go with whoever brought them
        assert np.isfinite(book.rollup.nodes).all()
    for row in range(book.rollup.count):
        c, want = book.rollup.contribution[row], naive_figures(book, row)
        if not book.rollup.rows["live"][row]:
            assert not c.any()
            continue
        assert [bool(c[k]) for k in (ru.UNPRICED, ru.UNREALISED_UNKNOWN, ru.REALISED_UNKNOWN, ru.COSTS_UNKNOWN)] == [
            want["net"] is None, want["unrealised"] is None, want["realised"] is None, want["fees"] is None or want["funding"] is None]
        for name, value in want.items():
            known = value is not None and (name not in ("fees", "funding") or not c[ru.COSTS_UNKNOWN])
            assert c[ru.METRICS.index(name)] == pytest.approx(value if known else 0.0, rel=1e-9), name
        assert not np.isinf(book.rollup.own[row, 1:]).any()


def test_a_price_without_bounds_leaves_nothing_behind_when_it_is_put_right() -> None:
    """Whatever was right beside it stays what it was, before any recount."""
    book = run([("m", "EURUSD", 1.1, "good"), ("m", "SAP", 110.0, "good"), ("p", 0, "SAP", 200.0, 105.0), ("m", "USDJPY", 150.0, "good"),
                ("m", "FUT", 50.0, "good")], True)
    firm = book.rollup.node_index["firm"]
    before = book.rollup.nodes[firm].copy()
    book.add_position(position("A1", "FUT", 3.0, 50.0, 0.0, 90))
    for price in (1.7e308, -1.7e308, 50.0):
        book.add_mark(mark("FUT", price))
        book.revalue()
        assert np.isfinite(book.rollup.nodes).all() and bool(book.rollup.nodes[firm][ru.UNPRICED]) == (price != 50.0)
    book.add_account(account("A1", 7))  # it moves: what it contributed is taken back
    book.remove("A1|FUT")
    book.revalue()
    np.testing.assert_allclose(book.rollup.nodes[firm], before, rtol=1e-9)


def test_carry_is_known_without_a_price_and_without_a_close() -> None:
    """Each figure by itself: what a dividend paid rests on no mark, and on no close of the day before."""
    book = run([("m", "EURUSD", 1.10, "good")], True)
    book.add_instrument(msgspec.structs.replace(next(i for i in INSTRUMENTS if i.instrument == "SAP"), prior_close=None))
    held = {"opening_quantity": "100", "opening_price": 15.0, "opening_realised_pnl": 0.0}
    book.add_position(position("A0", "SAP", 100.0, 15.0, 0.0, 5, funding={"USD": -100.0}, **held))
    book.revalue()
    row = book.figures(book.rollup.node_index["firm"])
    assert (row[ru.CARRY], row[ru.CARRY_UNKNOWN], row[ru.DAY_UNKNOWN], row[ru.UNREALISED_UNKNOWN]) == (100, 0, 1, 1)
    book.add_mark(mark("SAP", 110.0))
    book.revalue()
    row = book.figures(book.rollup.node_index["firm"])
    assert (row[ru.CARRY], row[ru.CARRY_UNKNOWN], row[ru.DAY_UNKNOWN], row[ru.UNREALISED_UNKNOWN]) == (100, 0, 1, 0)
    book.add_position(position("A0", "SAP", 100.0, 15.0, 0.0, 6, funding={"XYZ": -100.0}, **held))
    book.revalue()
    row = book.figures(book.rollup.node_index["firm"])
    assert (row[ru.CARRY], row[ru.COSTS_UNKNOWN], row[ru.DAY_UNKNOWN]) == (0, 1, 1)
    book.add_position(position("A0", "SAP", 100.0, 15.0, 0.0, 7, funding={"USD": 9e99}, opening_funding={"USD": -9e99}, **held))
    book.revalue()
    assert book.figures(book.rollup.node_index["firm"])[ru.CARRY_UNKNOWN] == 1, "what no sum can hold is not known"
