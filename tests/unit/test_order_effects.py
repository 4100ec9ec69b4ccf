"""What the gate says an order adds is what the position it makes then has, whatever the instrument is."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from models.gate import state as gs
from models.gate.book import GateBook
from models.gate.explain import explain
from models.risk.margin import Margins
from schemas.codec import encode
from schemas.market import Surface, VolSlice
from schemas.records import Account, AsOf, Fifo, Instrument, Limit, MarginTier, Mark, Order, Position

NOW = int(datetime(2026, 11, 20, 15, tzinfo=UTC).timestamp()) * 1_000_000_000
LEVELS = ("book", "desk", "strategy", "fund", "firm")
CALL: dict[str, Any] = {"asset_class": "option", "right": "call", "style": "european", "expiry": "2027-11-19"}
#: instruments and their prices
MARKET: dict[str, tuple[dict[str, Any], float]] = {
    "EURUSD": ({"asset_class": "fx", "currency": "USD"}, 1.1), "BTCUSD": ({"asset_class": "fx", "currency": "USD"}, 67_000.0),
    "STOCK": ({"asset_class": "equity", "currency": "USD"}, 100.0), "STOCK.EU": ({"asset_class": "equity", "currency": "EUR"}, 40.0),
    "FUTURE": ({"asset_class": "future", "currency": "USD", "multiplier": Decimal(50)}, 5_900.0), "BELOW": ({"asset_class": "future", "currency": "USD"}, -3.5),
    "PERP": ({"asset_class": "perpetual", "currency": "USD"}, 67_010.0),
    "INVERSE": ({"asset_class": "perpetual", "currency": "USD", "settlement": "BTC", "inverse": True, "multiplier": Decimal(100)}, 67_010.0),
    "QUANTO": ({"asset_class": "future", "currency": "EUR", "quanto_rate": Decimal(10), "settlement": "USD"}, 120.0),
    "CALL": (CALL | {"currency": "USD", "underlying": "STOCK", "strike": Decimal(100), "multiplier": Decimal(100)}, 9.5),
    "CALL.EU": (CALL | {"currency": "EUR", "underlying": "STOCK.EU", "strike": Decimal(42), "multiplier": Decimal(10)}, 3.0),
    "BOND": ({"asset_class": "bond", "currency": "USD", "multiplier": Decimal("0.01"), "coupon": Decimal("4.5"), "maturity": "2034-05-15", "frequency": 2,
              "calendar": "US-BONDS", "settlement_days": 1}, 99.8),
    "BILL": ({"asset_class": "money_market", "currency": "USD", "multiplier": Decimal("0.01"), "maturity": "2027-03-18", "calendar": "US-BONDS", "settlement_days": 1}, 98.6),
    "FORWARD": ({"asset_class": "fx_forward", "currency": "USD", "underlying": "EURUSD", "expiry": "2028-05-19"}, 1.13)}
TIERS = [MarginTier(up_to=Decimal(100), initial=Decimal("0.05"), maintenance=Decimal("0.03")), MarginTier(initial=Decimal("0.2"), maintenance=Decimal("0.1"))]
QUANTITY = 7
COMPARED = {"gross": gs.GROSS, "net": gs.NET, "long": gs.LONG, "short": gs.SHORT, "margin": gs.MARGIN, "delta": gs.DELTA, "vega": gs.VEGA}


def gate(*without: str, surface_age_ns: int | None = None) -> GateBook:
    """Return a gate with the whole market but the curves of some currencies."""
    g = GateBook("USD", LEVELS, None, surface_age_ns, accounts=4, instruments=32, positions=64, nodes=128, rates=4, ring=4)
    g.positions_hold(NOW)
    for name, (terms, _) in MARKET.items():
        g.add_instrument(Instrument(instrument=name, prior_close=Decimal(str(MARKET[name][1])), margin_tiers=TIERS, **terms))
    for currency in {"USD", "EUR"} - set(without):
        g.book.add_surface(Surface(underlying=currency, ts_event=NOW, rates=[(1.0, 0.04 if currency == "USD" else 0.02)]))
    for name, strike in (("STOCK", 100.0), ("STOCK.EU", 42.0)):
        g.book.add_surface(Surface(underlying=name, ts_event=NOW, dividends=[], vols=[VolSlice(expiry="2027-11-19", strikes=[strike], vols=[0.2])]))
    for name, (_, price) in MARKET.items():
        g.book.add_mark(Mark(instrument=name, window_end=NOW, ts_event=NOW, bid=price, ask=price, mid=price, last=price, quality="good"))
        g.set_price(name, price, price, price, price, NOW, True)
    g.add_account(Account(account="A", book="B", desk="D", strategy="S", fund="F", nav=Decimal(10**6)))
    for metric in ("order_quantity", "order_value", "margin"):
        g.add_limit(Limit(limit_id=metric, node="firm", metric=metric, limit=Decimal(10**12), version=1, by="r", reason="test of effects"))
    g.refresh(NOW)
    return g


def order(name: str, side: str = "buy") -> Order:
    return Order(order_id=f"{name}.{side}", account="A", trader="t", instrument=name, side=side, type="limit", quantity=Decimal(QUANTITY),  # type: ignore[arg-type]
                 price=Decimal(str(MARKET[name][1])), ts_event=NOW, locate_id="L")


def values(g: GateBook, node: str = "desk:D") -> dict[str, float]:
    return {name: float(g.state.nodes["value"][g.state.node_index[node], m]) for name, m in COMPARED.items()}


@pytest.mark.parametrize("side", ["buy", "sell"])
@pytest.mark.parametrize("name", MARKET)
def test_what_an_order_adds_is_what_its_position_has(name: str, side: str) -> None:
    g = gate()
    asked = order(name, side)
    verdict = g.decide(asked, NOW)
    assert verdict.outcome == "accept", verdict.reasons
    works = values(g)
    g.release(f"{name}.{side}")
    assert not any(values(g).values())
    price = MARKET[name][1]
    currency = MARKET[name][0].get("settlement", MARKET[name][0]["currency"])
    g.add_position(Position(account="A", instrument=name, quantity=str(QUANTITY if side == "buy" else -QUANTITY), average_price=price, realised_pnl=0.0, fees={},
                            currency=currency, trades=1, last_ts_event=1, fifo=Fifo(0.0, price, 1), break_even_price=price, as_of=AsOf(0, 1)))
    held = values(g)
    assert held["margin"] == pytest.approx(Margins().of(g.book)[g.book.rollup.node_index["desk:D"], 0])
    assert held["gross"] > 0.0 and held["delta"] != 0.0
    assert works == pytest.approx(held, rel=1e-9)
    for metric in ("gross", "net", "delta", "vega"):
        assert verdict.effect[metric] == pytest.approx(held[metric], rel=1e-9), metric
    assert explain(msgspec.json.decode(encode(verdict.inputs)), asked).effect == verdict.effect


def test_a_forward_without_a_curve_has_no_value_so_its_order_cannot_be_checked() -> None:
    g = gate("EUR", "USD")
    assert [r.code for r in g.decide(order("FORWARD"), NOW).reasons][:1] == ["NO_REFERENCE_PRICE"]
    assert gate().decide(order("FORWARD"), NOW).outcome == "accept"
