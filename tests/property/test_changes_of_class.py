"""R1: after any change of terms, of the class too, everything is what a start with the newest records makes of it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import rollup as ru
from models.gate.book import GateBook
from models.risk.factor_history import History
from models.risk.live import RiskModels
from models.valued_book import INSTRUMENT_GROUPINGS, ValuedBook
from schemas.market import Surface, Touch, VolSlice
from schemas.records import Account, AsOf, Fifo, Instrument, Mark, Order, Position

LEVELS = ("book", "desk", "strategy", "fund", "firm")
NOW, S = 1_795_000_000_000_000_000, 1_000_000_000
EXPIRY, LATER = "2027-06-18", "2027-12-17"
#: what GBPUSD may be: by its name a pair, if it is of class fx
OPTION = {"asset_class": "option", "underlying": "U", "right": "call", "strike": Decimal(100), "expiry": EXPIRY, "style": "european"}
TERMS: list[dict[str, Any]] = [
    {"asset_class": "equity", "issuer": "I", "sector": "tech"}, {"asset_class": "equity", "currency": "EUR", "adv": Decimal(1000)},
    {"asset_class": "future", "multiplier": Decimal(10)}, {"asset_class": "perpetual", "inverse": True, "settlement": "EUR"},
    {"asset_class": "fx"}, {"asset_class": "fx", "currency": "EUR"}, {"asset_class": "cash"}, {"asset_class": "cash", "currency": "EUR"},
    {"asset_class": "bond", "coupon": Decimal(4), "maturity": "2034-05-15", "frequency": 2}, {"asset_class": "bond", "coupon": Decimal(8), "maturity": "2031-05-15", "frequency": 1},
    {"asset_class": "bond"}, {"asset_class": "money_market", "maturity": "2027-05-14"}, {"asset_class": "money_market"},
    OPTION, {**OPTION, "right": "put", "strike": Decimal(90), "style": "american"}, {**OPTION, "expiry": LATER}, {**OPTION, "strike": None}, {**OPTION, "expiry": "JAN27"},
    {**OPTION, "barrier_kind": "down_and_out", "barrier": Decimal(80), "rebate": Decimal(2)}, {**OPTION, "digital_kind": "cash_or_nothing", "payout": Decimal(10)},
    {**OPTION, "model": "bachelier", "strike": Decimal(-5)}, {**OPTION, "premium_in_underlying": True}, {**OPTION, "premium_in_underlying": True, "strike": None},
    {**OPTION, "asset_class": "fx_option", "underlying": "EURUSD", "strike": Decimal("1.1")},
    {"asset_class": "fx_forward", "underlying": "EURUSD", "expiry": EXPIRY}, {"asset_class": "fx_forward", "underlying": "EURUSD", "expiry": LATER}, {"asset_class": "fx_forward"}]
U_TERMS: list[dict[str, Any]] = [{"asset_class": "equity"}, {"asset_class": "future"}]
NAME = "GBPUSD"
#: what rests on it: an option on it, a forward to it as a pair, an equity in pounds
RESTS = [Instrument(instrument="ON", asset_class="option", currency="USD", underlying=NAME, right="put", strike=Decimal(100), expiry=EXPIRY),
         Instrument(instrument="FWD", asset_class="fx_forward", currency="USD", underlying=NAME, expiry=EXPIRY),
         Instrument(instrument="LSE", asset_class="equity", currency="GBP", prior_close=Decimal(9))]
NAMES = (NAME, "U", "ON", "FWD", "LSE", "EURUSD")


def record(terms: dict[str, Any], close: str | None = "95") -> Instrument:
    return Instrument(**{"instrument": NAME, "currency": "USD", "prior_close": None if close is None else Decimal(close)} | terms)


def under(terms: dict[str, Any]) -> Instrument:
    return Instrument(**{"instrument": "U", "currency": "USD", "prior_close": Decimal(99)} | terms)


def surfaces() -> list[Surface]:
    vols = [VolSlice(expiry=e, strikes=[80.0, 120.0], vols=[0.3, 0.25]) for e in (EXPIRY, LATER)]
    return [*(Surface(underlying=c, ts_event=NOW, rates=[(1.0, r), (700.0, r)]) for c, r in (("USD", 0.04), ("EUR", 0.02), ("GBP", 0.05))),
            *(Surface(underlying=u, ts_event=NOW, dividends=[(1.0, 0.01)], vols=vols) for u in ("U", NAME)),
            Surface(underlying="EURUSD", ts_event=NOW, vols=[VolSlice(expiry=e, strikes=[1.0, 1.2], vols=[0.1, 0.1]) for e in (EXPIRY, LATER)])]


def mark(name: str, mid: float | None, quality: Any = "good") -> Mark:
    side = {"bid": mid - 0.01, "ask": mid + 0.01} if mid is not None else {"bid": None, "ask": None}
    return Mark(instrument=name, window_end=NOW, ts_event=NOW, mid=mid, last=None, quality=quality, **side)


def held(name: str, quantity: float, currency: str, rev: int) -> Position:
    return Position(account="A", instrument=name, quantity=str(quantity), average_price=90.0, realised_pnl=5.0, fees={"USD": 1.0}, currency=currency, trades=1, last_ts_event=1,
                    fifo=Fifo(0.0, 90.0, 1), break_even_price=90.0, as_of=AsOf(0, rev), opening_quantity=str(quantity), opening_price=91.0, opening_ts=NOW - 3600 * S)


def fill(book: Any, of: Instrument, underlying: Instrument) -> None:
    book.add_account(Account(account="A", book="B", desk="D", strategy="S", fund="F", nav=Decimal(10**6)))
    for known in (Instrument(instrument="EURUSD", asset_class="fx", currency="USD", prior_close=Decimal("1.09")), of, underlying, *RESTS):
        book.add_instrument(known)


def book_of(of: Instrument, underlying: Instrument, marks: dict[str, Mark], touches: dict[str, bool]) -> ValuedBook:
    """Return a book that starts with what there is."""
    book = ValuedBook("USD", LEVELS)
    fill(book, of, underlying)
    for surface in surfaces():
        book.add_surface(surface)
    for name, touched in touches.items():
        book.add_touch(Touch(instrument=name, touched=touched, ts_event=NOW, by="x", reason="test of classes"))
    for said in marks.values():
        book.add_mark(said)
    for rev, name in enumerate(NAMES, 1):
        book.add_position(held(name, 10.0 + rev, "GBP" if name == "LSE" else "USD", rev))
    return book


def settled(book: ValuedBook, now: int) -> ValuedBook:
    """Value a book until what rests on model prices of model prices has come."""
    for k in range(3):
        book.revalue(now + k * 11 * S)
    return book


MARKET = ("mid", "price", "half_spread", "greek_kind", "unit_greeks", "prior_close", "accrued", "discount", "mark_stale", "inputs_stale", "stale", "close_begin", "close_end")


def state(book: ValuedBook) -> dict[str, Any]:
    """Return everything that a book knows of its instruments, by name."""
    m, c, n = book.market, book.contracts, len(book.market.mid)
    out: dict[str, Any] = {f"{name} {column}": getattr(m, column)[k] for name, k in m.instruments.items() for column in MARKET}
    for column, values in (("coin", c.coin_by_instrument(n)), ("vol", c.vol_by_instrument(n)), ("rate", c.rate_by_instrument(n)), ("years", c.forwards.years_of(n))):
        out |= {f"{name} {column}": values[k] for name, k in m.instruments.items()}
    names = {k: name for name, k in m.instruments.items()}
    out |= {f"{name} under": names.get(int(c.underlying_by_instrument(n)[k]), "") for name, k in m.instruments.items()}
    out |= {f"{names[k]} {i}": x for k, both in c.paper.sensitivity.items() for i, x in enumerate(both)}
    out |= {f"{code} {column}": getattr(m, column)[m.currencies[code]] for code in ("USD", "EUR", "GBP") for column in ("rate", "prior_rate", "rate_stale", "rate_begin", "rate_end")}
    out |= {f"{key} {metric}": book.rollup.contribution[row][k] for key, row in book.keys.items() for k, metric in enumerate(ru.METRICS)}
    out |= {f"{key} own {k}": book.rollup.own[row][k] for key, row in book.keys.items() for k in range(3)}
    out |= {f"{key} above": sorted(book.rollup.node_names[k] for k in book.rollup.ancestors[row] if k >= 0) for key, row in book.keys.items()}
    return out | {"pairs": dict(m.pairs), "options": sorted(c.option_row), "forwards": sorted(c.forwards.names), "old": c.rests_on_old}


def differences(lived: dict[str, Any], fresh: dict[str, Any]) -> list[str]:
    def same(a: Any, b: Any) -> bool:
        if isinstance(a, float | np.ndarray | np.generic) and b is not None:
            return bool(np.allclose(np.asarray(a, float), np.asarray(b, float), rtol=1e-6, atol=1e-9, equal_nan=True))
        return bool(a == b)
    return [f"{k}: {lived.get(k)} for {fresh.get(k)}" for k in sorted(lived.keys() | fresh.keys()) if k not in lived or k not in fresh or not same(lived[k], fresh[k])]


EVENTS = st.lists(st.one_of(
    st.tuples(st.just("i"), st.sampled_from(TERMS), st.sampled_from(["95", None])), st.tuples(st.just("u"), st.sampled_from(U_TERMS)),
    st.tuples(st.just("m"), st.sampled_from(NAMES), st.sampled_from([None, 1.1, 70.0, 97.0, 103.0]), st.sampled_from(["good", "stale"])), st.just(("v",))), min_size=1, max_size=14)


def live(events: list[Any], each: Any = lambda book, now: None) -> tuple[ValuedBook, ValuedBook, int]:
    """Return a book that lived through events, one that starts afterwards, and the time."""
    marks = {"EURUSD": mark("EURUSD", 1.1), "U": mark("U", 98.0)}
    of, underlying, now = record(TERMS[0]), under(U_TERMS[0]), NOW
    lived = book_of(of, underlying, marks, {})
    for event in events:
        if event[0] == "i":
            of = record(event[1], event[2])
            lived.add_instrument(of)
        elif event[0] == "u":
            underlying = under(event[1])
            lived.add_instrument(underlying)
        elif event[0] == "m":
            marks[event[1]] = mark(event[1], event[2], event[3] if event[2] is not None else "none")
            lived.add_mark(marks[event[1]])
        else:
            now += 3 * S
            lived.revalue(now)
            each(lived, now)
    settled(lived, now + 20 * S)
    return lived, settled(book_of(of, underlying, marks, dict(lived.contracts._touches)), now + 20 * S), now + 60 * S


@settings(max_examples=150)
@given(EVENTS)
def test_what_lived_through_changes_of_terms_is_what_starts_with_the_newest(events: list[Any]) -> None:
    lived, fresh, _ = live(events)
    assert not differences(state(lived), state(fresh))
    for name, k in lived.rollup.node_index.items():  # a node that nothing lies under any more is empty
        other = fresh.rollup.node_index.get(name)
        np.testing.assert_allclose(lived.rollup.nodes[k], fresh.rollup.nodes[other] if other is not None else 0.0, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("before", TERMS, ids=lambda t: " ".join(str(v) for v in t.values()))
def test_any_class_leaves_nothing_behind_in_any_other(before: dict[str, Any]) -> None:
    for after in TERMS:
        for price in (103.0, None):
            lived, fresh, _ = live([("m", NAME, price, "good"), ("i", before, "95"), ("v",), ("i", after, "95"), ("v",)])
            assert not differences(state(lived), state(fresh)), after


FACTORS = (NAME, "U", "EURUSD", "LSE", "RATE:USD", "VOL:U")


@settings(max_examples=12, deadline=None)
@given(EVENTS)
def test_models_that_lived_through_changes_of_terms_are_those_of_a_start(events: list[Any]) -> None:
    history = History(FACTORS, np.random.default_rng(5).normal(0, 0.01, (40, len(FACTORS))))
    models: list[RiskModels] = []

    def run(book: ValuedBook, now: int) -> None:
        if not models:
            models.append(RiskModels(book, book.contracts, history, INSTRUMENT_GROUPINGS))
        models[0].run(now)

    _, fresh, now = live([("v",), *events], run)
    one, two = models[0].run(now), RiskModels(fresh, fresh.contracts, history, INSTRUMENT_GROUPINGS).run(now)
    for node, found in two.models.items():
        for name in ("var_hist", "var_mc", "greeks", "factor", "liquidity", "concentration", "leverage", "stress"):
            assert not differences(flat(one.models[node][name]), flat(found[name])), (node, name)


def flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for name in sorted(value) for k, v in flat(value[name], f"{path}.{name}").items()}
    if isinstance(value, list):
        return {k: v for n, x in enumerate(value) for k, v in flat(x, f"{path}[{n}]").items()}
    return {path: value}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(TERMS), min_size=1, max_size=5))
def test_a_gate_that_lived_through_changes_of_terms_measures_as_one_that_starts(changes: list[dict[str, Any]]) -> None:
    def start(of: Instrument) -> GateBook:
        g = GateBook("USD", LEVELS, accounts=8, instruments=16, positions=64, nodes=256, rates=16, ring=4)
        g.positions_hold(9 * 10**18)
        fill(g, of, under(U_TERMS[0]))
        for surface in surfaces():
            g.book.add_surface(surface)
        for name, price in (("EURUSD", 1.1), ("U", 98.0), (NAME, 97.0), ("LSE", 9.0)):
            g.book.add_mark(mark(name, price))
            g.set_price(name, price - 0.01, price + 0.01, price, None, NOW, True)
        for rev, name in enumerate(NAMES, 1):
            g.add_position(held(name, 10.0 + rev, "GBP" if name == "LSE" else "USD", rev))
        return g

    def order(k: int) -> Order:
        return Order(order_id=f"o{k}", account="A", trader="t", instrument=NAME, side="buy", type="limit", quantity=Decimal(1 + k), price=Decimal("96.9"), ts_event=NOW)

    lived = start(record(TERMS[0]))
    lived.refresh(NOW)
    for k, change in enumerate(changes):
        lived.decide(order(k), NOW)
        lived.add_instrument(record(change))
        lived.refresh(NOW + k * S)
    fresh = start(record(changes[-1]))
    for w in lived.working.values():
        fresh.place(w.order, w.decided_ns, NOW, w.earlier, w.executed)
    for g in (lived, fresh):
        for k in range(3):
            g.refresh(NOW + (100 + 11 * k) * S)
    for name, k in fresh.state.instrument_index.items():
        one, two = lived.state.instruments[lived.state.instrument_index[name]], fresh.state.instruments[k]
        for field in ("unit", "unit_delta", "unit_vega", "accrued", "discount", "inverse", "equity", "positive", "age_max_ns", "prior_close", "base_cash", "margin_rate"):
            assert np.allclose(one[field], two[field], equal_nan=True), (name, field, one[field], two[field])
    for name, k in lived.state.node_index.items():
        other = fresh.state.node_index.get(name)
        for values in ("value", "reserved"):
            a, b = ((g.state.nodes["value"] if values == "value" else g.reserved) for g in (lived, fresh))
            figures = slice(0, 6)  # exposures: gross, net, long, short, delta, vega; sums of the day are what decisions said
            assert np.allclose(a[k][figures], b[other][figures] if other is not None else 0.0, equal_nan=True, atol=1e-6), (name, values, a[k][figures], other is not None and b[other][figures])


def test_a_bond_that_becomes_an_equity_is_worth_its_price() -> None:
    """It kept the interest that it had accrued, for as long as the process lived."""
    bond = {"asset_class": "bond", "coupon": Decimal(4), "maturity": "2034-05-15", "frequency": 2}
    lived, _, _ = live([("m", NAME, 97.0, "good"), ("i", bond, "95"), ("v",), ("i", TERMS[0], "95"), ("v",)])
    row = lived.rollup.contribution[lived.keys[f"A|{NAME}"]]
    assert row[ru.NET] == row[ru.DELTA] == pytest.approx(11 * 97.0) and row[ru.RHO] == row[ru.INTEREST] == 0.0


def test_a_quote_that_came_while_it_was_cash_is_its_price_when_it_is_none() -> None:
    book, _, now = live([("i", {"asset_class": "cash"}, None), ("v",), ("m", NAME, 97.0, "stale"), ("v",)])
    k = book.market.instruments[NAME]
    assert book.market.price[k] == 1.0 and not book.market.stale[k]
    book.add_instrument(record(TERMS[0]))
    book.revalue(now)
    assert book.market.price[k] == 97.0 and book.market.stale[k] and msgspec.to_builtins(record(TERMS[0]))["asset_class"] == "equity"


def test_an_option_on_an_option_that_nobody_quotes_follows_it_in_the_same_window() -> None:
    """Its Greeks were those of the window before, until surfaces were looked up again."""
    lived, _, now = live([("i", OPTION, "95"), ("v",)])
    lived.add_mark(mark("U", 104.0))
    lived.revalue(now + S)
    moved, k = lived.market.unit_greeks[lived.market.instruments["ON"]].copy(), lived.market.instruments["ON"]
    settled(lived, now + S)
    np.testing.assert_allclose(moved, lived.market.unit_greeks[k], rtol=1e-3, atol=1e-9)


def test_an_early_exercise_premium_follows_the_carry_of_its_underlying() -> None:
    """The table of an American option was kept when dividends came, or its underlying turned out to be a future."""
    american = {**OPTION, "right": "put", "strike": Decimal(110), "style": "american"}
    for change in (("u", U_TERMS[1]), None):
        lived, fresh, now = live([("i", american, "95"), ("v",), *([change] if change else [])])
        if change is None:
            paid = msgspec.structs.replace(next(s for s in surfaces() if s.underlying == "U"), dividends=[(1.0, 0.15)])
            for book in (lived, fresh):
                book.add_surface(paid)
                if book is fresh:
                    book.contracts.options["table_t"] = np.nan  # as a start has none
                settled(book, now)
        k = lived.market.instruments[NAME]
        assert lived.market.price[k] == pytest.approx(float(fresh.market.price[fresh.market.instruments[NAME]]), rel=1e-5)
