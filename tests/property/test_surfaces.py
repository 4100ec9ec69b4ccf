"""Market inputs at their border: what a record may state, that nothing of it ends as no number, and how old it may be at the gate."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import rollup as ru
from models.gate.book import GateBook
from schemas.codec import decoder_of, encode
from schemas.market import DAYS_MAX, RATE_MAX, RATE_MIN, Surface
from schemas.records import AsOf, Fifo, Instrument, Limit, Mark, Position
from tests.unit.test_order_effects import CALL, MARKET, NOW, gate, order

S, DAY = 1_000_000_000, 86_400_000_000_000
SLICE = {"expiry": "2027-11-19", "strikes": [90.0, 110.0], "vols": [0.2, 0.3]}
_surface = decoder_of(Surface)


def read(**fields: Any) -> Surface:
    return _surface.decode(json.dumps({"underlying": "STOCK", "ts_event": NOW} | fields).encode())


@pytest.mark.parametrize(("fields", "says"), [
    ({"rates": [[1, 1e308]]}, r"<= 10.0 - at `\$.rates\[0\]\[1\]"), ({"rates": [[1, -1e308]]}, ">= -1.0"), ({"rates": [[1, 10.01]]}, "<= 10.0"), ({"rates": [[-1, 0.1]]}, ">= 0.0"),
    ({"rates": [[1e9, 0.1]]}, "<= 36525.0"), ({"rates": []}, "length >= 1"), ({"rates": [[30, 0.1], [1, 0.1]]}, "ascending ones, was 30.0 before 1.0"),
    ({"rates": [[1, 0.1], [1, 0.2]]}, "ascending"), ({"rates": [[k, 0.1] for k in range(1001)]}, "length <= 1000"), ({"dividends": [[1, 11]]}, "<= 10.0"),
    ({"dividends": [[-30, 0.1]]}, ">= 0.0"), ({"vols": [SLICE | {"vols": [0.2, 1e9]}]}, "above 0 and at most 1100, was 1000000000"), ({"vols": [SLICE | {"vols": [0.2, 0.0]}]}, "above 0"),
    ({"vols": [SLICE | {"vols": [0.2, -0.3]}]}, "above 0"), ({"vols": [SLICE | {"vols": [0.2]}]}, "one for each of 2 strikes, was 1"), ({"vols": [SLICE | {"strikes": [110, 90]}]}, "ascending"),
    ({"vols": [SLICE | {"strikes": [-1e300, 1e300]}]}, "-1000000000000.0"), ({"vols": [SLICE | {"strikes": [], "vols": []}]}, "length >= 1"), ({"vols": [SLICE, SLICE]}, "one slice an expiry"),
    ({"funding_rate": 1e308}, "<= 1.0"), ({"funding_rate": -1.5}, ">= -1.0"), ({"funding_interval_hours": 0}, ">= 0.0166"), ({"funding_interval_hours": -8}, ">= 0.0166"),
    ({"funding_interval_hours": 1e9}, "<= 744.0"), ({"curve": {"calendar": "TARGET", "deposits": [["1M", 1e308]]}}, "<= 10.0"),
    ({"rates": [[1, 0.1]], "curve": {"calendar": "TARGET", "deposits": [["1M", 0.02]]}}, "was both")])
def test_what_no_market_has_is_refused_with_its_field(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read(**fields)


@pytest.mark.parametrize("fields", [
    {"rates": [[0, RATE_MIN], [DAYS_MAX, RATE_MAX]]}, {"dividends": []}, {"dividends": [[365, -0.02]]}, {"vols": []}, {"vols": [SLICE | {"vols": [1e-4, 100]}]},
    {"vols": [SLICE | {"strikes": [-5.0, 18_000.0], "vols": [30, 4_000]}]}, {"funding_rate": -0.0075, "funding_interval_hours": 1}, {"funding_rate": 1, "funding_interval_hours": 744}])
def test_what_markets_have_is_taken(fields: dict[str, Any]) -> None:
    assert read(**fields)


def test_a_curve_whose_quotes_come_to_odd_rates_is_refused_and_the_one_before_stands() -> None:
    g = gate()
    before = dict(g.book.contracts.surfaces)
    with pytest.raises(ValueError, match=r"curve of 2026-11-20: |expected zero rates from -1 to 10"):
        g.book.add_surface(read(underlying="USD", curve={"calendar": "TARGET", "swaps": [["10Y", 9.9]]}))
    with pytest.raises(ValueError, match=r"expected|curve"):
        g.book.add_surface(read(underlying="USD", curve={"calendar": "TARGET", "deposits": [["-3M", 0.02]]}))
    assert g.book.contracts.surfaces == before


RATES = st.floats(RATE_MIN, RATE_MAX)
TERMS = st.lists(st.tuples(st.floats(0.0, DAYS_MAX), RATES), min_size=1, max_size=3, unique_by=lambda x: x[0]).map(sorted)
SLICES = st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(1e-6, 100.0)), min_size=1, max_size=3, unique_by=lambda x: x[0]).map(sorted).map(
    lambda x: {"expiry": "2027-11-19", "strikes": [k for k, _ in x], "vols": [v for _, v in x]})
SURFACES = st.fixed_dictionaries({"underlying": st.sampled_from(["USD", "EUR", "STOCK", "STOCK.EU"])}, optional={
    "rates": TERMS, "dividends": st.one_of(st.just([]), TERMS), "vols": SLICES.map(lambda x: [x]), "funding_rate": st.floats(-1, 1), "funding_interval_hours": st.floats(0.02, 744)})


@settings(max_examples=60, deadline=None)
@given(st.lists(SURFACES, min_size=1, max_size=4))
def test_whatever_the_border_takes_is_counted_with_and_leaves_no_node_without_a_number(surfaces: list[dict[str, Any]]) -> None:
    g = gate()
    for name, terms in (("AMER", {"style": "american"}), ("NORM", {"model": "bachelier"}), ("KO", {"barrier_kind": "up_and_out", "barrier": Decimal(140)})):
        g.add_instrument(Instrument(instrument=name, **(CALL | {"currency": "USD", "underlying": "STOCK", "strike": Decimal(100)} | terms)))
    for name in (*MARKET, "AMER", "NORM", "KO"):
        g.add_position(Position(account="A", instrument=name, quantity="7", average_price=1.0, realised_pnl=0.0, fees={}, currency="USD", trades=1, last_ts_event=1,
                                fifo=Fifo(0.0, 1.0, 1), break_even_price=1.0, as_of=AsOf(0, 1), desk="D", book="B", strategy="S", fund="F"))
    for fields in surfaces:
        g.book.add_surface(_surface.decode(encode(read(**fields))))
    g.refresh(NOW)
    sums = g.book.rollup.nodes[: len(g.book.rollup.node_names)]
    assert np.isfinite(sums).all(), [(g.book.rollup.node_names[n], ru.METRICS[m]) for n, m in np.argwhere(~np.isfinite(sums))][:10]
    for name in MARKET:
        verdict = g.decide(order(name), NOW)
        assert verdict.outcome in ("accept", "reject") and "INTERNAL_ERROR" not in {r.code for r in verdict.reasons}


def aged(*limits: tuple[str, str], old: str = "", by_ns: int = DAY + S) -> GateBook:
    """Return a gate whose surfaces may be a day old; one of them is older."""
    g = gate(surface_age_ns=DAY)
    for name in ("USD", "EUR", "STOCK", "STOCK.EU"):
        held = g.book.contracts.surfaces[name]
        at = NOW - by_ns if name == old else NOW - DAY
        g.book.add_surface(Surface(underlying=name, ts_event=at, rates=held.rates, dividends=held.dividends, vols=held.vols))
    for node, metric in limits:
        g.add_limit(Limit(limit_id=f"{node} {metric}", node=node, metric=metric, limit=Decimal(10**12), version=1, by="r", reason="of Greeks"))
    g.refresh(NOW)
    return g


def codes(g: GateBook, name: str, side: str = "buy") -> list[tuple[str, str]]:
    return [(r.code, r.measured) for r in g.decide(order(name, side), NOW).reasons]


@pytest.mark.parametrize("metric", ["delta", "vega", "leverage"])
@pytest.mark.parametrize("node", ["firm", "desk:D", "account:A", "trader:t"])
@pytest.mark.parametrize(("old", "name"), [("STOCK", "CALL"), ("USD", "CALL"), ("STOCK.EU", "CALL.EU"), ("EUR", "CALL.EU")])
def test_a_limit_on_greeks_is_not_judged_by_an_old_surface(metric: str, node: str, old: str, name: str) -> None:
    if (metric, node) == ("leverage", "trader:t"):  # a trader has no positions
        return
    assert codes(aged((node, metric)), name) == []
    ((code, measured),) = codes(aged((node, metric), old=old), name)
    assert (code, measured) == ("STALE_PRICE", f"{old}: 86401 s old")
    other = next(n for n in ("CALL", "CALL.EU", "STOCK") if n != name and not (old == "USD" and n.startswith("CALL")))
    assert codes(aged((node, metric), old=old), other) == [], "what does not rest on it"


def test_without_a_limit_on_greeks_nothing_rests_on_the_surface_and_what_reduces_passes() -> None:
    assert codes(aged(("desk:D", "gross"), old="STOCK"), "CALL") == [] and codes(aged(("desk:OTHER", "vega"), old="STOCK"), "CALL") == []
    g = aged(("desk:D", "vega"), old="STOCK")
    g.add_position(Position(account="A", instrument="CALL", quantity="10", average_price=9.5, realised_pnl=0.0, fees={}, currency="USD", trades=1, last_ts_event=1,
                            fifo=Fifo(0.0, 9.5, 1), break_even_price=9.5, as_of=AsOf(0, 1)))
    assert codes(g, "CALL") == [("STALE_PRICE", "STOCK: 86401 s old")]
    assert codes(g, "CALL", "sell") == [], "7 of 10"
    more = msgspec.structs.replace(order("CALL", "sell"), order_id="more", quantity=Decimal(4), price=Decimal("9.6"))
    assert [r.code for r in g.decide(more, NOW).reasons] == ["STALE_PRICE"], "what works already leaves 3"
    assert g.decide(msgspec.structs.replace(more, order_id="less", quantity=Decimal(3)), NOW).outcome == "accept"
    again = msgspec.structs.replace(more, order_id="again", action="replace", ref_order_id="CALL.sell", quantity=Decimal(6))
    assert g.decide(again, NOW).outcome == "accept", "in the place of what works"


def test_a_forward_rests_on_its_curves_whatever_is_limited_and_time_alone_makes_them_old() -> None:
    assert codes(aged(), "FORWARD") == []
    for old in ("USD", "EUR"):
        assert codes(aged(old=old), "FORWARD") == [("STALE_PRICE", f"{old}: 86401 s old")]
    g, later = aged(("desk:D", "vega")), NOW + 20 * S
    for name, (_, price) in MARKET.items():
        g.book.add_mark(Mark(instrument=name, window_end=later, ts_event=later, bid=price, ask=price, mid=price, last=price, quality="good"))
        g.set_price(name, price, price, price, price, later, True)
    g.positions_hold(later)
    g.refresh(later)
    assert {r.code for r in g.decide(order("CALL"), later).reasons} == {"STALE_PRICE"}
    g.book.add_surface(read(ts_event=later, dividends=[], vols=[SLICE]))
    g.book.add_surface(read(underlying="USD", ts_event=later, rates=[[1, 0.04]]))
    g.refresh(later)
    assert g.decide(order("CALL"), later).outcome == "accept"
    assert datetime.fromtimestamp(later / 1e9, UTC).year == 2026
