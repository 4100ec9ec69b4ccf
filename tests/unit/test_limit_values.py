"""Margin and shares of issuers as limits watch them after the trade, against the obvious sums and the calculator's tiers."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.control import Refused, new_limit
from app.files.refusals import FileRefused
from app.reference_files import read_folder
from models.limits import LimitKey, LimitMonitor
from models.risk.exposure import tiered_margin
from models.risk.limit_values import limit_values
from models.risk.live import RiskModels
from models.risk.margin import Margins
from models.valued_book import INSTRUMENT_GROUPINGS, ValuedBook
from schemas.records import Account, AsOf, Fifo, Instrument, Limit, MarginTier, Mark, Position

T0 = 1_795_000_000_000_000_000
LEVELS = ("book", "desk", "strategy", "fund", "firm")
TIERS = ((5_000.0, 0.05, 0.03), (20_000.0, 0.1, 0.06), (math.inf, 0.5, 0.3))
METRICS = {"margin", "margin_maintenance", "margin_usage", "concentration", "sector_concentration"}


def held(quantity: float, instrument: str, account: str = "A", currency: str = "USD") -> Position:
    return Position(account=account, instrument=instrument, quantity=str(quantity), average_price=90.0, realised_pnl=0.0, fees={}, currency=currency, trades=1,
                    last_ts_event=1, fifo=Fifo(0.0, None, 0), break_even_price=None, as_of=AsOf(0, 1), revision=1)


def book(*positions: Position, **prices: float) -> ValuedBook:
    b = ValuedBook("USD", LEVELS)
    tiers = [MarginTier(up_to=None if up_to == math.inf else Decimal(up_to), initial=Decimal(str(i)), maintenance=Decimal(str(m))) for up_to, i, m in TIERS]
    for name, issuer, more in (("X", "I", {"margin_tiers": tiers}), ("Y", "J", {"margin_initial": Decimal("0.2"), "margin_maintenance": Decimal("0.1")}), ("N", "J", {}),
                               ("E", "I", {"margin_tiers": tiers, "currency": "EUR"})):
        b.add_instrument(Instrument(**{"instrument": name, "asset_class": "future", "currency": "USD", "issuer": issuer, "sector": "tech"} | more))  # type: ignore[arg-type]
    b.add_instrument(Instrument(instrument="EURUSD", asset_class="fx", currency="USD"))
    for a, fund, nav in (("A", "F", 10**5), ("B", "F", 10**5), ("C", "G", None)):
        b.add_account(Account(account=a, book=f"B{a}", desk="D", strategy="S", fund=fund, nav=None if nav is None else Decimal(nav)))
    for p in positions:
        b.add_position(p)
    for name, price in ({"X": 100.0, "Y": 100.0, "E": 100.0, "EURUSD": 1.2} | prices).items():
        b.add_mark(Mark(instrument=name, window_end=T0, ts_event=T0, bid=None, ask=None, mid=price, last=None, quality="good"))
    b.revalue(T0)
    return b


def values(b: ValuedBook, *names: str, metrics: set[str] = METRICS) -> dict[tuple[str, str], float]:
    return limit_values(RiskModels(b, b.contracts, None, INSTRUMENT_GROUPINGS), set(names), metrics)


@given(st.floats(-1e6, 1e6))
def test_margin_of_tiers_is_the_calculators(quantity: float) -> None:
    b = book(held(quantity, "X"))
    initial, maintenance = Margins().of(b)[b.rollup.node_index["account:A"]].tolist()
    notional = abs(quantity) * 100.0
    assert initial == pytest.approx(tiered_margin(notional, [(up_to, i) for up_to, i, _ in TIERS]), rel=1e-9)
    assert maintenance == pytest.approx(tiered_margin(notional, [(up_to, m) for up_to, _, m in TIERS]), rel=1e-9)


def test_margin_sums_up_the_tree_in_the_firms_currency() -> None:
    b = book(held(60, "X"), held(-10, "Y", "B"), held(60, "E", "B", "EUR"))
    v = values(b, "account:A", "fund:F", "firm")
    assert v["account:A", "margin"] == pytest.approx(250 + 100) and v["account:A", "margin_maintenance"] == pytest.approx(150 + 60)
    assert v["fund:F", "margin"] == v["firm", "margin"] == pytest.approx(350 + 200 + 350 * 1.2), "the tiers of E are in euros"


def test_margin_usage_is_of_equity_and_calls_above_one() -> None:
    b = book(held(1_000, "X"), X=80.0)  # 80,000: maintenance 150 + 900 + 18,000; 10,000 lost of 100,000
    v = values(b, "account:A")
    assert v["account:A", "margin_usage"] == pytest.approx(19_050 / 90_000)
    monitor = LimitMonitor()
    monitor.add(Limit(limit_id="M", node="account:A", metric="margin_usage", limit=Decimal("0.2"), version=1, by="r", reason="margin call", action="reduce"))
    (change,) = monitor.measure({LimitKey(*k): x for k, x in v.items()}, T0, T0)
    assert (change.alert.kind, change.control) == ("breach", "reducing")
    ruined = values(book(held(10_000, "X"), X=75.0), "account:A")["account:A", "margin_usage"]
    assert ruined > 1e5, "equity that is gone covers nothing"


@pytest.mark.parametrize(("position", "prices"), [(held(1, "N"), {"N": 10.0}), (held(1, "X"), {"X": math.nan}), (held(1, "E", "A", "EUR"), {"EURUSD": math.nan})])
def test_margin_is_not_known_without_rates_prices_or_exchange_rates_and_changes_no_state(position: Position, prices: dict[str, float]) -> None:
    v = values(book(position, held(5, "Y", "B"), **prices), "account:A", "account:B")
    assert math.isnan(v["account:A", "margin"]) and math.isnan(v["account:A", "margin_usage"])
    assert v["account:B", "margin"] == pytest.approx(100)
    monitor = LimitMonitor()
    monitor.add(Limit(limit_id="M", node="account:A", metric="margin", limit=Decimal(1), version=1, by="r", reason="of a test"))
    assert monitor.measure({LimitKey(*k): x for k, x in v.items()}, T0, T0) == [] and monitor.watches["M"].value is None


def test_concentration_is_the_largest_share_of_nav_and_of_an_issuer_the_firms() -> None:
    b = book(held(60, "X"), held(-100, "Y"), held(30, "X", "B"), held(500, "X", "C"), X=100.0)
    v = values(b, "account:A", "fund:F", "fund:G", "issuer:J", "sector:tech")
    assert v["account:A", "concentration"] == pytest.approx(0.1) and v["account:A", "sector_concentration"] == pytest.approx(0.16)
    assert v["fund:F", "concentration"] == pytest.approx(0.05) and v["fund:F", "sector_concentration"] == pytest.approx(0.095)
    assert math.isnan(v["fund:G", "concentration"]), "its NAV is not known, nor is the firm's then"
    assert math.isnan(v["issuer:J", "concentration"]) and ("issuer:J", "sector_concentration") not in v
    assert not any(metric in METRICS for _, metric in values(b, "fund:F", metrics={"gross"})), "a pass over all positions only where it is asked for"


def test_a_limit_that_cannot_be_checked_where_it_is_set_is_refused_with_what_was_expected() -> None:
    def asked(**fields: Any) -> Limit:
        return new_limit({}, {"limit_id": "L", "limit": 1, "reason": "a test of limits"} | fields, "ann", 10**18)

    assert asked(node="asset_class:fx", metric="collar_bps").metric == "collar_bps" and asked(node="fund:F", metric="margin_usage").version == 1
    for fields, text in (({"node": "desk:D", "metric": "collar_bps"}, "node: expected firm, asset_class:NAME or instrument:NAME for collar_bps, was 'desk:D'"),
                         ({"node": "account:A", "metric": "position_long"}, "node: expected account:NAME and an instrument for position_long, was 'account:A'"),
                         ({"node": "account:A", "metric": "message_count", "window_ms": 0}, "window_ms: expected at least 1, was 0"),
                         ({"node": "sector:tech", "metric": "sector_concentration"}, "node: expected a node of the tree")):
        with pytest.raises(Refused, match=text):
            asked(**fields)


def test_margin_tiers_are_read_from_text_and_from_yaml_and_what_is_wrong_is_named(tmp_path: Path) -> None:
    (tmp_path / "accounts.csv").write_text("account,book,desk,strategy,fund\nA,B,D,S,F\n")
    (tmp_path / "instruments.csv").write_text("instrument,asset_class,currency,margin_tiers\nX,future,USD,5000:0.05:0.03 20000:0.1:0.06 :0.5:0.3\n")
    (tmp_path / "instruments_2.yaml").write_text("- {instrument: Y, asset_class: future, currency: USD, margin_tiers: [{up_to: 5000, initial: 0.05, maintenance: 0.03},"
                                                 " {up_to: 20000, initial: 0.1, maintenance: 0.06}, {initial: 0.5, maintenance: 0.3}]}\n")
    (x, y), *_ = read_folder(tmp_path)
    want = [MarginTier(up_to=None if up_to == math.inf else Decimal(int(up_to)), initial=Decimal(str(i)), maintenance=Decimal(str(m))) for up_to, i, m in TIERS]
    assert x.margin_tiers == y.margin_tiers == want
    (tmp_path / "instruments.csv").write_text("instrument,asset_class,currency,margin_tiers\nX,future,USD,5000:0.05:0.03 4000:0.1:0.06\n")
    with pytest.raises(FileRefused, match=r"instruments.csv:2: margin_tiers\[1\].up_to: expected more than 5000 of the tier before, was 4000"):
        read_folder(tmp_path)
