"""Barriers and digitals in a live book: value, Greeks, scenarios, and a touch that is not forgotten."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import QuantLib as ql

from app.control import Refused, set_touched
from models import rollup as ru
from models.risk.factor_history import History
from models.risk.option_grid import gamma_grid
from models.risk.scenarios import ScenarioBook
from models.valued_book import INSTRUMENT_GROUPINGS, ValuedBook
from schemas.market import Surface, Touch, VolSlice
from schemas.records import Account, AsOf, Fifo, Instrument, Mark, Position

NOW = 1_800_000_000_000_000_000
EXPIRY = "2028-01-15"
SPOT, STRIKE, VOL, RATE, DIVIDEND, QUANTITY = 100.0, 100.0, 0.25, 0.03, 0.01, 10.0


def option(name: str, **terms: Any) -> Instrument:
    return Instrument(instrument=name, asset_class="option", currency="USD", underlying="X", right="call", strike=Decimal(100),
                      expiry=EXPIRY, **terms)


OUT = option("OUT", style="european", barrier_kind="down_and_out", barrier=Decimal(90), rebate=Decimal(2))
IN = option("IN", style="european", barrier_kind="down_and_in", barrier=Decimal(90))
UP = option("UP", barrier_kind="up_and_out", barrier=Decimal(150))
CASH = option("CASH", digital_kind="cash_or_nothing", payout=Decimal(10))
ASSET = option("ASSET", digital_kind="asset_or_nothing")
VANILLA = option("VANILLA", style="european")


def mark(book: ValuedBook, spot: float) -> None:
    book.add_mark(Mark(instrument="X", window_end=NOW, ts_event=NOW, bid=spot, ask=spot, mid=spot, last=None, quality="good"))
    book.revalue(NOW)


def held(*instruments: Instrument, spot: float = SPOT, touches: tuple[Touch, ...] = ()) -> ValuedBook:
    book = ValuedBook("USD", ("book", "desk", "strategy", "fund", "firm"))
    for touch in touches:
        book.add_touch(touch)
    book.add_instrument(Instrument(instrument="X", asset_class="equity", currency="USD"))
    book.add_account(Account(account="A", book="B", desk="D", strategy="S", fund="F"))
    book.add_surface(Surface(underlying="USD", ts_event=1, rates=[(1.0, RATE)]))
    book.add_surface(Surface(underlying="X", ts_event=1, dividends=[(1.0, DIVIDEND)],
                             vols=[VolSlice(expiry=EXPIRY, strikes=[100.0], vols=[VOL])]))
    for k, instrument in enumerate(instruments):
        book.add_instrument(instrument)
        book.add_position(Position(account="A", instrument=instrument.instrument, quantity=str(int(QUANTITY)), average_price=1.0,
                                   realised_pnl=0.0, fees={}, currency="USD", trades=1, last_ts_event=1, fifo=Fifo(0.0, 1.0, 1),
                                   break_even_price=1.0, as_of=AsOf(0, k)))
    mark(book, spot)
    return book


def price_of(book: ValuedBook, name: str) -> float:
    return float(book.market.price[book.market.instruments[name]])


def quantlib(instrument: Instrument, spot: float, vol: float = VOL) -> float:
    """Return QuantLib's price at the same time to expiry (its own day count would round to days)."""
    days = 36_500
    today = ql.Date(1, 1, 2030)
    ql.Settings.instance().evaluationDate = today
    t = (1_831_593_599_000_000_000 - NOW) / (365 * 86_400 * 1e9)

    class Years:  # flat curves stretched so that `days` days stand for `t` years: rate x time and variance are what counts
        scale = t / (days / 365.0)

    counter = ql.Actual365Fixed()
    process = ql.BlackScholesMertonProcess(
        ql.QuoteHandle(ql.SimpleQuote(spot)),
        ql.YieldTermStructureHandle(ql.FlatForward(today, DIVIDEND * Years.scale, counter)),
        ql.YieldTermStructureHandle(ql.FlatForward(today, RATE * Years.scale, counter)),
        ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), vol * Years.scale**0.5, counter)))
    exercise = ql.EuropeanExercise(today + days)
    if instrument.barrier_kind is not None:
        kinds = {"down_and_out": ql.Barrier.DownOut, "down_and_in": ql.Barrier.DownIn, "up_and_out": ql.Barrier.UpOut}
        out = ql.BarrierOption(kinds[instrument.barrier_kind], float(instrument.barrier), float(instrument.rebate or 0),
                               ql.PlainVanillaPayoff(ql.Option.Call, STRIKE), exercise)
        out.setPricingEngine(ql.AnalyticBarrierEngine(process))
        return float(out.NPV())
    payoff = (ql.CashOrNothingPayoff(ql.Option.Call, STRIKE, float(instrument.payout)) if instrument.payout
              else ql.AssetOrNothingPayoff(ql.Option.Call, STRIKE))
    plain = ql.VanillaOption(payoff, exercise)
    plain.setPricingEngine(ql.AnalyticEuropeanEngine(process))
    return float(plain.NPV())


@pytest.mark.parametrize("instrument", [OUT, IN, UP, CASH, ASSET], ids=lambda x: x.instrument)
def test_value_and_greeks_are_those_of_quantlib(instrument: Instrument) -> None:
    book = held(instrument)
    firm = book.figures(book.rollup.node_index["firm"])
    value = quantlib(instrument, SPOT)
    assert price_of(book, instrument.instrument) == pytest.approx(value, rel=1e-7)
    assert firm[ru.NET] == pytest.approx(QUANTITY * value, rel=1e-7)
    h = 0.01
    up, down = quantlib(instrument, SPOT + h), quantlib(instrument, SPOT - h)
    assert firm[ru.DELTA] == pytest.approx(QUANTITY * SPOT * (up - down) / (2 * h), rel=1e-4)
    assert firm[ru.GAMMA] == pytest.approx(QUANTITY * SPOT**2 / 100 * (up - 2 * value + down) / h**2, rel=1e-2)
    vega = (quantlib(instrument, SPOT, VOL + 1e-3) - quantlib(instrument, SPOT, VOL - 1e-3)) / 2e-3
    assert firm[ru.VEGA] == pytest.approx(QUANTITY * vega / 100, rel=1e-3)
    assert firm[ru.NO_GREEKS] == 0


def test_scenarios_revalue_in_full_and_touch_the_barrier() -> None:
    book = held(OUT, IN, UP, CASH, ASSET)
    moves = np.array([[-0.15], [-0.05], [0.0], [0.10], [0.60]])
    scenarios = ScenarioBook(book, book.contracts, History(("X",), moves), INSTRUMENT_GROUPINGS)
    scenarios.fill_units()
    for instrument in (OUT, IN, UP, CASH, ASSET):
        unit = scenarios.unit[book.market.instruments[instrument.instrument]]
        now = quantlib(instrument, SPOT)
        for s, move in enumerate(moves[:, 0].tolist()):
            spot = SPOT * (1 + move)
            if instrument is OUT and spot <= 90:
                then = 2.0  # the rebate
            elif instrument is IN and spot <= 90:
                then = quantlib(option("PLAIN", digital_kind="asset_or_nothing"), spot) - quantlib(
                    option("PLAIN", digital_kind="cash_or_nothing", payout=Decimal(100)), spot)  # a plain call
            elif instrument is UP and spot >= 150:
                then = 0.0
            else:
                then = quantlib(instrument, spot)
            assert unit[s] == pytest.approx(then - now, rel=1e-6, abs=1e-7), (instrument.instrument, move)
    grid = gamma_grid(book.contracts.options, book.contracts.tables, book.market.price, np.array([-0.15, 0.0, 0.1]))
    row = grid[book.contracts.option_row["OUT"]]
    slope = (quantlib(OUT, SPOT * 1.0001) - quantlib(OUT, SPOT * 0.9999)) / 2e-4
    assert row[0] == pytest.approx(2.0 - quantlib(OUT, SPOT) + 0.15 * slope, rel=1e-4) and abs(row[1]) < 1e-9


def test_a_touch_is_seen_told_once_and_not_forgotten() -> None:
    book = held(OUT, IN)
    mark(book, 90.01)
    assert book.contracts.take_touched() == []
    mark(book, 89.5)
    assert sorted(book.contracts.take_touched()) == [("IN", 89.5), ("OUT", 89.5)]
    mark(book, SPOT)
    assert book.contracts.take_touched() == []
    assert price_of(book, "OUT") == 2.0, "knocked out: what is left is the rebate"
    assert book.figures(book.rollup.node_index["firm"])[ru.NO_GREEKS] == 0
    plain = held(VANILLA)
    assert price_of(book, "IN") == pytest.approx(price_of(plain, "VANILLA")), "knocked in: a plain call"
    # who starts later knows it from the record, whichever comes first
    touch = Touch(instrument="OUT", touched=True, ts_event=NOW, by="deskrisk", reason="marked at 89.5, barrier 90", price=89.5)
    assert price_of(held(OUT, touches=(touch,)), "OUT") == 2.0
    later = held(OUT)
    later.add_touch(touch)
    later.revalue(NOW)
    assert price_of(later, "OUT") == 2.0
    # a person takes back what a wrong price did
    later.add_touch(Touch(instrument="OUT", touched=False, ts_event=NOW, by="ann", reason="a wrong price of the feed"))
    later.revalue(NOW)
    assert price_of(later, "OUT") == pytest.approx(quantlib(OUT, SPOT), rel=1e-7)
    mark(later, 80.0)
    assert later.contracts.take_touched() == [("OUT", 80.0)], "touched again is touched"


@pytest.mark.parametrize("instrument", [
    option("E", barrier_kind="down_and_out"), option("E", barrier_kind="down_and_out", barrier=Decimal(0)),
    option("E", barrier_kind="down_and_out", barrier=Decimal(90), style="american"),
    option("E", barrier_kind="down_and_out", barrier=Decimal(90), digital_kind="asset_or_nothing"),
    option("E", digital_kind="cash_or_nothing")], ids=["no barrier", "barrier at 0", "american", "both", "no payout"])
def test_what_lacks_terms_is_counted_and_never_valued_as_something_else(instrument: Instrument) -> None:
    book = held(instrument)
    firm = book.figures(book.rollup.node_index["firm"])
    assert np.isnan(price_of(book, "E")) and firm[ru.UNPRICED] == 1
    book.add_mark(Mark(instrument="E", window_end=NOW, ts_event=NOW, bid=9.0, ask=9.0, mid=9.0, last=None, quality="good"))
    book.revalue(NOW)
    firm = book.figures(book.rollup.node_index["firm"])
    assert price_of(book, "E") == 9.0 and firm[ru.UNPRICED] == 0 and firm[ru.NO_GREEKS] == 1


@pytest.mark.parametrize("own", [None, [(1.0, 0.05)]], ids=["the base currency's curve", "a yield of the pair"])
def test_an_fx_option_earns_the_base_currencys_rate(own: list[tuple[float, float]] | None) -> None:
    """Garman and Kohlhagen: a pair needs no record of dividends where the curve of its base currency is there."""
    book = held()
    book.add_instrument(Instrument(instrument="EURUSD", asset_class="fx", currency="USD"))
    book.add_instrument(Instrument(instrument="EC", asset_class="fx_option", currency="USD", underlying="EURUSD", right="call",
                                   strike=Decimal("1.1"), expiry=EXPIRY))
    book.add_surface(Surface(underlying="EURUSD", ts_event=1, dividends=own, vols=[VolSlice(expiry=EXPIRY, strikes=[1.1], vols=[0.1])]))
    book.add_mark(Mark(instrument="EURUSD", window_end=NOW, ts_event=NOW, bid=1.12, ask=1.12, mid=1.12, last=None, quality="good"))
    book.revalue(NOW)
    assert np.isnan(price_of(book, "EC")) == (own is None), "without either curve it has no price"
    book.add_surface(Surface(underlying="EUR", ts_event=1, rates=[(1.0, 0.02)]))
    book.revalue(NOW)
    t = (1_831_593_599_000_000_000 - NOW) / (365 * 86_400 * 1e9)
    domestic, foreign = RATE, own[0][1] if own else 0.02
    black = ql.BlackCalculator(ql.PlainVanillaPayoff(ql.Option.Call, 1.1), 1.12 * np.exp((domestic - foreign) * t), 0.1 * t**0.5,
                               np.exp(-domestic * t))
    assert price_of(book, "EC") == pytest.approx(black.value(), rel=1e-9)


def test_its_own_quote_does_not_imply_a_volatility() -> None:
    """A vanilla without a surface takes the volatility its mark implies; a barrier's mark does not say which."""
    book = held(OUT)
    book.add_surface(Surface(underlying="X", ts_event=2, dividends=[]))
    book.add_mark(Mark(instrument="OUT", window_end=NOW, ts_event=NOW, bid=9.0, ask=9.0, mid=9.0, last=None, quality="good"))
    book.revalue(NOW + 1)
    firm = book.figures(book.rollup.node_index["firm"])
    assert price_of(book, "OUT") == 9.0 and firm[ru.NO_GREEKS] == 1 and firm[ru.UNPRICED] == 0


def test_only_a_barrier_can_be_said_to_be_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    async def known(*_: Any) -> dict[str, Instrument]:
        return {"OUT": OUT, "VANILLA": VANILLA}

    sent: list[Any] = []

    async def publish(*args: Any) -> None:
        sent.append(args[1:])

    monkeypatch.setattr("app.control.current", known)
    monkeypatch.setattr("app.control.publish", publish)
    for name, by, reason, field in (("VANILLA", "ann", "a good enough reason", "instrument"), ("NONE", "ann", "a good enough reason",
                                    "instrument"), ("OUT", "", "a good enough reason", "by"), ("OUT", "ann", "why", "reason")):
        with pytest.raises(Refused, match=field):
            asyncio.run(set_touched(None, name, True, by, reason))  # type: ignore[arg-type]
    asyncio.run(set_touched(None, "OUT", True, "ann", "said by the calculation agent"))  # type: ignore[arg-type]
    assert [(topic, key, touch.touched, touch.by) for topic, key, touch in sent] == [("touches", "OUT", True, "ann")]
