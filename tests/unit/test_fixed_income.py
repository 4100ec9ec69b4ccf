"""Live bonds, bills and FX forwards: interest, settlement, sensitivities and shocks, against QuantLib and by hand."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
import QuantLib as ql
from hypothesis import given, settings
from hypothesis import strategies as st

from app.interest import interest_until
from models import rollup as ru
from models.fixed_income import FixedIncome, paper_of
from models.market import Market
from models.pricing.calendars import calendar_of, settlement_date
from models.pricing.curve import zero_rates
from models.pricing.money_market import MoneyMarket
from models.risk.factor_history import History
from models.risk.scenarios import ScenarioBook
from models.risk.stress import Scenario, Shock, stress
from models.trading_day import TradingDay
from models.valued_book import INSTRUMENT_GROUPINGS, ValuedBook
from schemas.market import CurveQuotes, Surface
from schemas.records import Account, AsOf, Fifo, Instrument, Mark, Position

LEVELS = ("book", "desk", "strategy", "fund", "firm")
DAY_NS = 86_400_000_000_000
TODAY = date(2026, 11, 20)  # a Friday
NOW = int(datetime(2026, 11, 20, 15, tzinfo=UTC).timestamp()) * 1_000_000_000
BOND = Instrument(instrument="UST", asset_class="bond", currency="USD", multiplier=Decimal("0.01"), coupon=Decimal("4.5"),
                  maturity="2034-05-15", frequency=2, calendar="US-BONDS", settlement_days=1, prior_close=Decimal("99.5"))
BILL = Instrument(instrument="BILL", asset_class="money_market", currency="USD", multiplier=Decimal("0.01"), maturity="2027-03-18",
                  calendar="US-BONDS", settlement_days=1, prior_close=Decimal("98.6"))
CD = Instrument(instrument="CD", asset_class="money_market", currency="USD", multiplier=Decimal("0.01"), maturity="2027-06-15",
                coupon=Decimal("4.2"), dated="2026-06-15", calendar="US-FED", settlement_days=2)
PAIR = Instrument(instrument="EURUSD", asset_class="fx", currency="USD", prior_close=Decimal("1.08"))
FORWARD = Instrument(instrument="EURUSD-6M", asset_class="fx_forward", currency="USD", underlying="EURUSD", expiry="2027-05-20",
                     prior_close=Decimal("1.09"))


def book_of(*instruments: Instrument, marks: dict[str, float], rates: dict[str, float] | None = None) -> ValuedBook:
    book = ValuedBook("USD", LEVELS)
    book.add_account(Account(account="A", book="B", desk="D", strategy="S", fund="F"))
    for i in instruments:
        book.add_instrument(i)
    for currency, rate in (rates or {}).items():
        book.add_surface(Surface(underlying=currency, ts_event=NOW, rates=[(1.0, rate), (3650.0, rate)]))
    for name, price in marks.items():
        quote(book, name, price)
    return book


def quote(book: ValuedBook, name: str, price: float) -> None:
    book.add_mark(Mark(instrument=name, window_end=NOW, ts_event=NOW, bid=price, ask=price, mid=price, last=price, quality="good"))


def held(name: str, quantity: float, price: float, offset: int = 1, **more: Any) -> Position:
    return Position(**({"account": "A", "instrument": name, "quantity": str(quantity), "average_price": price, "realised_pnl": 0.0,
                        "fees": {}, "currency": "USD", "trades": 1, "last_ts_event": 1, "fifo": Fifo(0.0, price, 1),
                        "break_even_price": price, "as_of": AsOf(0, offset)} | more))


def firm(book: ValuedBook) -> np.ndarray:
    return book.figures(book.rollup.node_index["firm"])


def ql_accrued(bond: Instrument, settle: date) -> float:
    """Accrued interest by QuantLib's own bond."""
    maturity = date.fromisoformat(str(bond.maturity))
    end = ql.Date(maturity.day, maturity.month, maturity.year)
    schedule = ql.Schedule(ql.Date(15, 5, 2020), end, ql.Period(12 // int(bond.frequency or 2), ql.Months), ql.NullCalendar(),
                           ql.Unadjusted, ql.Unadjusted, ql.DateGeneration.Backward, False)
    made = ql.FixedRateBond(0, 100.0, schedule, [float(bond.coupon or 0) / 100], ql.ActualActual(ql.ActualActual.ISMA, schedule))
    return float(made.accruedAmount(ql.Date(settle.day, settle.month, settle.year)))


@settings(max_examples=60, deadline=None)
@given(start=st.integers(0, 1500), days=st.integers(0, 400))
def test_interest_between_days_is_what_accrued_and_what_was_paid(start: int, days: int) -> None:
    paper = FixedIncome(Market("USD"))
    paper.add(BOND)
    a, b = date(2023, 1, 2) + timedelta(start), date(2023, 1, 2) + timedelta(start + days)
    first, last = settlement_date(a, 1, "US-BONDS"), settlement_date(b, 1, "US-BONDS")
    coupons = sum(2.25 for y in range(2023, 2035) for d in (date(y, 5, 15), date(y, 11, 15)) if first < d <= last)
    earned, before = paper.interest("UST", a, b)
    assert before == pytest.approx(ql_accrued(BOND, first), abs=1e-10)
    assert earned == pytest.approx(ql_accrued(BOND, last) - before + coupons, abs=1e-10)
    middle = a + timedelta(days // 2)
    assert earned == pytest.approx(paper.interest("UST", a, middle)[0] + paper.interest("UST", middle, b)[0], abs=1e-10)


def test_a_bond_is_worth_its_accrued_interest_and_earns_it_as_carry() -> None:
    book = book_of(BOND, marks={"UST": 99.8})
    opening = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp()) * 1_000_000_000
    book.add_position(held("UST", 1_000_000, 99.0, opening_quantity="1000000", opening_price=99.0, opening_ts=opening))
    book.revalue(NOW)
    row = firm(book)
    # Friday's trades settle on Monday: three days of interest are Friday's
    accrued, before = ql_accrued(BOND, date(2026, 11, 23)), ql_accrued(BOND, date(2026, 11, 20))
    assert row[ru.NET] == pytest.approx(10_000 * (99.8 + accrued)) and row[ru.UNREALISED] == pytest.approx(10_000 * 0.8)
    assert row[ru.INTEREST] == pytest.approx(10_000 * (accrued - before)) and row[ru.INTEREST] == pytest.approx(10_000 * 2.25 * 3 / 181)
    assert row[ru.CARRY] == row[ru.INTEREST] and row[ru.CARRY_UNKNOWN] == 0
    assert row[ru.DAY] == pytest.approx(10_000 * 0.3 + row[ru.INTEREST])
    assert ru.total_pnl(row) == pytest.approx(10_000 * 0.8 + row[ru.INTEREST])
    assert row[ru.DELTA] == pytest.approx(10_000 * 99.8), "a bond's price moves its value one to one"
    book.revalue(NOW + DAY_NS)  # on Saturday a trade settles no later
    assert firm(book)[ru.INTEREST] == pytest.approx(row[ru.INTEREST])
    book.revalue(NOW + 3 * DAY_NS)
    assert firm(book)[ru.INTEREST] == pytest.approx(10_000 * 2.25 * 4 / 181), "nobody rolled: Monday's is added"


def test_what_lacks_terms_or_a_day_has_unknown_carry_never_zero() -> None:
    without = Instrument(instrument="X", asset_class="bond", currency="USD", multiplier=Decimal("0.01"), prior_close=Decimal(99))
    book = book_of(BOND, without, marks={"UST": 99.8, "X": 99.0})
    book.add_position(held("UST", 100, 99.0, opening_quantity="100", opening_price=99.0, opening_ts=NOW - DAY_NS))
    book.revalue()
    assert firm(book)[ru.CARRY_UNKNOWN] == 1, "nobody said what day it is"
    book.revalue(NOW)
    assert firm(book)[ru.CARRY_UNKNOWN] == 0
    book.add_position(held("X", 100, 99.0, opening_quantity="100", opening_price=99.0, opening_ts=NOW - DAY_NS))
    book.revalue(NOW)
    row = firm(book)
    assert row[ru.CARRY_UNKNOWN] == 1 and row[ru.NO_GREEKS] == 1 and row[ru.UNPRICED] == 0
    assert np.isfinite(row).all(), "what is unknown of one position spoils no sum"


def test_a_foreign_bond_without_terms_spoils_no_sum_and_its_value_still_moves_with_the_rate() -> None:
    bund = Instrument(instrument="BUND", asset_class="bond", currency="EUR", multiplier=Decimal("0.01"), prior_close=Decimal(99))
    book = book_of(PAIR, bund, marks={"EURUSD": 1.10, "BUND": 100.0})
    book.add_position(held("BUND", 1_000, 99.0, currency="EUR", opening_quantity="1000", opening_price=99.0, opening_ts=NOW - DAY_NS))
    book.value_pending()  # a trade, before anybody said what day it is
    assert np.isfinite(firm(book)).all()
    book.revalue(NOW)
    row = firm(book)
    assert row[ru.FX] == pytest.approx(10 * 99 * (1.10 - 1.08)) and row[ru.CARRY_UNKNOWN] == 1
    assert row[ru.DAY] == pytest.approx(10 * 1.10 + row[ru.FX])
    assert row[ru.DAY_UNKNOWN] == row[ru.PNL_UNKNOWN] == 1, "without its interest neither is whole"


def test_a_new_close_leaves_what_is_known_and_new_terms_do_not() -> None:
    book = book_of(PAIR, FORWARD, BOND, marks={"EURUSD": 1.10, "UST": 99.8}, rates={"USD": 0.04, "EUR": 0.02})
    book.revalue(NOW)
    bond, forward = (book.market.instruments[n] for n in ("UST", "EURUSD-6M"))
    for record in (BOND, FORWARD):
        book.add_instrument(msgspec.structs.replace(record, prior_close=Decimal("1.5")))
    assert book.market.unit_greeks[bond, 4] < 0 < book.market.accrued[bond] and book.market.discount[forward] < 1
    book.add_instrument(msgspec.structs.replace(BOND, coupon=Decimal(3)))
    book.add_instrument(msgspec.structs.replace(FORWARD, expiry="2027-08-20"))
    assert np.isnan(book.market.unit_greeks[bond]).all() and np.isnan(book.market.discount[forward])
    book.add_instrument(msgspec.structs.replace(BOND, coupon=None))
    assert book.market.accrued[bond] == 0 and bond not in book.contracts.paper.sensitivity


def test_a_day_count_that_sees_no_time_left_stops_nobody() -> None:
    last = Instrument(instrument="CP", asset_class="money_market", currency="USD", maturity="2027-03-31", day_count="30/360 US")
    book = book_of(last, marks={"CP": 100.0})
    book.revalue(int(datetime(2027, 3, 30, 12, tzinfo=UTC).timestamp()) * 1_000_000_000)
    assert np.isnan(book.market.unit_greeks[book.market.instruments["CP"]]).any()


def test_the_roll_books_what_the_day_before_earned_once() -> None:
    begin = NOW // DAY_NS * DAY_NS
    rows = [held("UST", 1_500_000, 99.0, opening_quantity="1000000", opening_ts=begin),
            held("UST", 5, 99.0, account="B", opening_quantity="-10000", opening_ts=begin), held("EURUSD", 5, 1.0, opening_quantity="5"),
            held("X", 5, 99.0, opening_quantity="5", opening_ts=begin)]
    known = {i.instrument: i for i in (BOND, PAIR, Instrument(instrument="X", asset_class="bond", currency="USD"))}
    out = interest_until(begin + DAY_NS, rows, known, TradingDay())
    assert [(t.trade_id, t.ts_event, t.action) for t in out.booked] == [
        (f"interest|{a}|UST|2026-11-20", begin + DAY_NS - 1, "funding") for a in ("A", "B")]
    assert [float(t.fees[0].amount) for t in out.booked if t.fees] == pytest.approx([-10_000 * 2.25 * 3 / 181, 100 * 2.25 * 3 / 181])
    assert out.unknown == ["A|X"]
    assert not interest_until(begin, rows, known, TradingDay()).booked, "the same roll again: their day begins with it"
    # from day to day it adds up to what a buyer pays for, whatever the weekend
    whole = interest_until(begin + 10 * DAY_NS, rows[:1], known, TradingDay()).booked[0]
    parts = []
    for k in range(10):
        row = held("UST", 1, 99.0, opening_quantity="1000000", opening_ts=begin + k * DAY_NS)
        parts += [float(t.fees[0].amount) for t in interest_until(begin + (k + 1) * DAY_NS, [row], known, TradingDay()).booked if t.fees]
    assert whole.fees and sum(parts) == pytest.approx(float(whole.fees[0].amount))


def test_money_market_paper_against_quantlib() -> None:
    bill = MoneyMarket(date(2027, 3, 18))
    y, first, second = bill.sensitivity(date(2026, 11, 23), 98.7)
    rate = ql.InterestRate(y, ql.Actual360(), ql.Simple, ql.Annual)
    assert 100 * rate.discountFactor(ql.Date(23, 11, 2026), ql.Date(18, 3, 2027)) == pytest.approx(98.7, rel=1e-12)
    up, down = bill.price(date(2026, 11, 23), y + 1e-5), bill.price(date(2026, 11, 23), y - 1e-5)
    assert first == pytest.approx((up - down) / 2e-5, rel=1e-7) and second == pytest.approx((up - 2 * 98.7 + down) / 1e-10, rel=1e-3)
    cd = paper_of(CD)
    assert isinstance(cd, MoneyMarket)
    assert cd.accrued(date(2026, 11, 24)) == pytest.approx(4.2 * 162 / 360)
    assert cd.paid(date(2027, 6, 14), date(2027, 6, 15)) == pytest.approx(4.2 * 365 / 360) and cd.accrued(date(2027, 6, 15)) == 0
    y = cd.sensitivity(date(2026, 11, 24), 100.1)[0]
    assert (100.1 + 4.2 * 162 / 360) * (1 + y * 203 / 360) == pytest.approx(100 + 4.2 * 365 / 360)
    with pytest.raises(ValueError, match="dated"):
        paper_of(Instrument(instrument="C", asset_class="money_market", currency="USD", maturity="2027-06-15", coupon=Decimal(4)))


@pytest.mark.parametrize(("change", "says"), [({"calendar": "MARS"}, "calendar: expected"), ({"day_count": "ACT/99"}, "day_count: expected"),
                                              ({"maturity": "soon"}, "soon"), ({"dated": "15/05/2024"}, "dated: expected a date"),
                                              ({"dated": "2024-05-15", "first_coupon": "2024-12-15"}, "first_coupon: expected a coupon date")])
def test_terms_that_are_none_are_refused_by_name(change: dict[str, Any], says: str) -> None:
    wrong = msgspec.structs.replace(BOND, **change)
    with pytest.raises(ValueError, match=says):
        paper_of(wrong)
    paper = FixedIncome(Market("USD"))
    paper.add(wrong)  # a worker that meets it goes on; the position is counted
    assert np.isnan(paper.interest("UST", TODAY, TODAY)[0])


def test_a_forward_is_worth_what_two_deposits_make_of_it() -> None:
    book = book_of(PAIR, FORWARD, marks={"EURUSD": 1.10}, rates={"USD": 0.043, "EUR": 0.021})
    book.add_position(held("EURUSD-6M", 1_000_000, 1.09, realised_pnl=500.0))
    book.revalue(NOW)
    t = (int(datetime(2027, 5, 20, 23, 59, 59, tzinfo=UTC).timestamp()) * 10**9 - NOW) / (365 * DAY_NS)
    bought, sold = 1.10 * np.exp(-0.021 * t), 1.09 * np.exp(-0.043 * t)
    row = firm(book)
    assert row[ru.UNREALISED] == pytest.approx(1_000_000 * (bought - sold)), "receive euros, pay dollars, both then"
    assert row[ru.REALISED] == pytest.approx(500 * np.exp(-0.043 * t)), "what was locked in is paid on the value date"
    assert row[ru.DELTA] == pytest.approx(1_000_000 * bought) and row[ru.NET] == pytest.approx(1_000_000 * bought)
    # its rho is the difference quotient, of a forward agreed at today's price
    ahead = 1.10 * np.exp((0.043 - 0.021) * t)
    up = 1_000_000 * (1.10 * np.exp(-0.021 * t) - ahead * np.exp(-(0.043 + 1e-4) * t))
    assert row[ru.RHO] == pytest.approx(up, rel=1e-4)
    quote(book, "EURUSD-6M", 1.12)
    book.revalue(NOW)
    assert firm(book)[ru.UNREALISED] == pytest.approx(1_000_000 * 0.03 * np.exp(-0.043 * t)), "its own quote comes first"


def test_a_forward_without_a_curve_is_unpriced() -> None:
    book = book_of(PAIR, FORWARD, marks={"EURUSD": 1.10}, rates={"EUR": 0.02})
    book.add_position(held("EURUSD-6M", 1_000_000, 1.09))
    book.revalue(NOW)
    row = firm(book)
    assert row[ru.UNPRICED] == 1 and row[ru.NET] == 0
    book.add_surface(Surface(underlying="USD", ts_event=NOW, rates=[(1.0, 0.04)]))
    book.revalue(NOW)
    assert firm(book)[ru.UNPRICED] == 0


def test_shocks_of_prices_and_rates_reach_paper_and_forwards() -> None:
    book = book_of(BOND, BILL, PAIR, FORWARD, marks={"UST": 99.8, "BILL": 98.7, "EURUSD": 1.10}, rates={"USD": 0.04, "EUR": 0.02})
    for name, quantity, price in (("UST", 1_000_000, 99.0), ("BILL", 2_000_000, 98.0), ("EURUSD-6M", 500_000, 1.10)):
        book.add_position(held(name, quantity, price))
    book.revalue(NOW)
    shocks = [Scenario(name="rates", shocks=[Shock(kind="rate", match={}, move=0.01)]),
              Scenario(name="bonds", shocks=[Shock(match={"asset_class": "bond"}, move=-0.05)]),
              Scenario(name="euro", shocks=[Shock(match={"asset_class": "fx"}, move=0.10)])]
    out = stress(book, book.contracts, shocks)
    pnl = out.vectors[book.rollup.node_index["firm"]]
    bond, bill = book.contracts.paper.sensitivity[book.market.instruments["UST"]], book.contracts.paper.sensitivity[book.market.instruments["BILL"]]
    k = book.market.instruments["EURUSD-6M"]
    size = float(book.market.price[k] * book.market.discount[k])
    rates = 10_000 * (bond[0] * 0.01 + 0.5 * bond[1] * 1e-4) + 20_000 * (bill[0] * 0.01 + 0.5 * bill[1] * 1e-4)
    assert pnl[0] == pytest.approx(rates, rel=1e-9), "both rates of the pair move: the forward stays"
    assert pnl[1] == pytest.approx(-0.05 * 10_000 * 99.8) and pnl[2] == pytest.approx(0.10 * 500_000 * size)
    assert out.missing[book.rollup.node_index["firm"]] == 0


def test_history_moves_a_forward_with_its_pair_and_both_rates() -> None:
    book = book_of(PAIR, FORWARD, marks={"EURUSD": 1.10}, rates={"USD": 0.04, "EUR": 0.02})
    book.add_position(held("EURUSD-6M", 500_000, 1.10))
    book.revalue(NOW)
    moves = np.array([[0.01, 0.001, -0.002], [-0.02, 0.0, 0.003]])
    scenarios = ScenarioBook(book, book.contracts, History(("EURUSD", "RATE:USD", "RATE:EUR"), moves), INSTRUMENT_GROUPINGS)
    scenarios.fill_units()
    k = book.market.instruments["EURUSD-6M"]
    t = float(book.contracts.forwards.rows["t_years"][0])
    size = float(book.market.price[k] * book.market.discount[k])
    assert scenarios.unit[k] == pytest.approx(size * ((1 + moves[:, 0]) * np.exp((moves[:, 1] - moves[:, 2]) * t) - 1))


CURVES = [CurveQuotes(calendar="TARGET", deposits=[("1W", 0.0195), ("3M", 0.021)], swaps=[("1Y", 0.022), ("2Y", 0.023), ("5Y", 0.025), ("10Y", 0.028)]),
          CurveQuotes(calendar="US-SOFR", ois=[("1M", 0.043), ("6M", 0.041), ("1Y", 0.04), ("2Y", 0.038), ("10Y", 0.037)]),
          CurveQuotes(calendar="JP", deposits=[("1M", -0.001)], swaps=[("2Y", -0.0005), ("10Y", 0.006)], fixed_frequency=2,
                      fixed_day_count="ACT/365F", day_count="ACT/365F")]


@pytest.mark.parametrize("as_of", [TODAY, date(2026, 11, 21), date(2027, 1, 1), date(2027, 3, 28)], ids=str)
@pytest.mark.parametrize("quotes", CURVES, ids=lambda q: q.calendar)
def test_a_curve_prices_what_it_was_made_of(quotes: CurveQuotes, as_of: date) -> None:
    """Also on a Saturday, a holiday, an Easter Sunday: the quotes are those of the next day on which anybody trades."""
    today = ql.Date(as_of.day, as_of.month, as_of.year)
    points = zero_rates(quotes, as_of)
    days, rates = np.array(points).T
    assert (np.diff(days) > 0).all() and len(points) == len(quotes.deposits) + len(quotes.ois) + len(quotes.swaps)

    def discount(day: ql.Date) -> float:
        d = day - today
        return float(np.exp(-np.interp(d, days, rates) * d / 365))

    calendar = calendar_of(quotes.calendar)
    begin = calendar.advance(calendar.adjust(today), quotes.settlement_days, ql.Days)
    fixed_count = ql.Actual365Fixed() if quotes.fixed_day_count == "ACT/365F" else ql.Thirty360(ql.Thirty360.USA)
    count = ql.Actual365Fixed() if quotes.day_count == "ACT/365F" else ql.Actual360()
    for tenor, rate in quotes.deposits:
        end = calendar.advance(begin, ql.Period(tenor), ql.ModifiedFollowing)
        assert (discount(begin) / discount(end) - 1) / count.yearFraction(begin, end) == pytest.approx(rate, abs=1e-9)
    for given_, step, day_count in ((quotes.swaps, ql.Period(12 // quotes.fixed_frequency, ql.Months), fixed_count), (quotes.ois, ql.Period("1Y"), count)):
        for tenor, rate in given_:
            dates = list(ql.Schedule(begin, begin + ql.Period(tenor), step, calendar, ql.ModifiedFollowing, ql.ModifiedFollowing,
                                     ql.DateGeneration.Backward, False))
            annuity = sum(day_count.yearFraction(a, b) * discount(b) for a, b in itertools.pairwise(dates))
            assert (discount(dates[0]) - discount(dates[-1])) / annuity == pytest.approx(rate, abs=2e-7)


def test_a_currency_gets_its_rates_from_quotes() -> None:
    book = book_of(PAIR, FORWARD, marks={"EURUSD": 1.10}, rates={"EUR": 0.02})
    book.add_surface(Surface(underlying="USD", ts_event="2026-11-20T15:00:00Z", curve=CURVES[1]))
    assert book.contracts.surfaces["USD"].rates == zero_rates(CURVES[1], TODAY)
    with pytest.raises(ValueError, match="rates or a curve of USD, was both"):
        book.add_surface(Surface(underlying="USD", ts_event=NOW, curve=CURVES[1], rates=[(1.0, 0.1)]))


@pytest.mark.parametrize(("start", "ts", "named"), [("00:00", NOW, TODAY), ("17:00", NOW, TODAY), ("17:00", NOW + 6 * DAY_NS // 24, date(2026, 11, 21)),
                                                    ("06:00", NOW, TODAY)])
def test_a_trading_day_that_begins_the_evening_before_is_named_by_its_end(start: str, ts: int, named: date) -> None:
    assert TradingDay(start, "UTC").date_of(ts) == named
