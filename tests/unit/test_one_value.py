"""One value, one formula: a position's row, its line, its node and what-if state the same numbers, whatever it is in."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from app.gateway.server import Gateway
from app.gateway.state import LADDER_COLUMNS
from app.settings import Settings
from models import rollup as ru
from schemas.records import Account, AsOf, Fifo, Position
from tests.unit.test_order_effects import LEVELS, MARKET, NOW, QUANTITY, gate

AVERAGES = 1.01


def made(currency: str = "USD") -> Gateway:
    """Return a gateway that knows the market of the gate's test, and one account with nothing, stated in a currency."""
    out, source = Gateway(Settings(brokers="localhost:1")), gate().book
    book = out.state.book
    assert book.levels == LEVELS
    for record in source.reference.instrument_records.values():
        book.add_instrument(record)
    for surface in source.contracts.surfaces.values():
        book.add_surface(surface)
    out.state.add_account(Account(account="A", book="B", desk="D", strategy="S", fund="F", base_currency=currency))
    for name, (_, price) in MARKET.items():
        book.market.set_mark(name, price, False)
    out.state.last_mark_ns = NOW
    book.rollup.node("desk:D")
    out.state.turn()
    return out


def hold(gateway: Gateway, name: str, quantity: float) -> float:
    """Give the account a position; return its average price."""
    terms, price = MARKET[name]
    average = price * AVERAGES
    gateway.state.add_position(Position(
        account="A", instrument=name, quantity=str(quantity), average_price=average, realised_pnl=0.0, fees={},
        currency=terms.get("settlement", terms["currency"]), trades=1, last_ts_event=1, fifo=Fifo(0.0, price, 1),
        break_even_price=price, as_of=AsOf(0, 1)), 0)
    gateway.state.turn()
    return average


async def what_if(gateway: Gateway, name: str, quantity: float) -> dict[str, Any]:
    """Return what a trade would change."""
    asked = {"node": "desk:D", "trades": [{"instrument": name, "quantity": quantity}]}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway.app()), base_url="http://gateway") as client:
        reply = await client.post("/api/whatif", json=asked)
    assert reply.status_code == 200, reply.text
    trades: dict[str, Any] = reply.json()["trades"]
    return trades


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", MARKET)
def test_one_value(name: str, sign: int) -> None:
    gateway = made()
    state, quantity = gateway.state, float(sign * QUANTITY)
    asked = asyncio.run(what_if(gateway, name, quantity))
    average = hold(gateway, name, quantity)
    node = state.book.rollup.nodes[state.book.rollup.node_index["desk:D"]]
    (row,) = state.ladder("desk:D", -1)[0]
    line, position = dict(zip(LADDER_COLUMNS, row, strict=True)), state.valued(0)
    assert line["mv"] == position["market_value"] == pytest.approx(node[ru.NET]) and line["mv"] != 0.0
    assert asked["net"]["change"] == pytest.approx(node[ru.NET], rel=1e-12)
    for greek in ru.GREEKS:
        assert asked[greek]["change"] == pytest.approx(node[getattr(ru, greek.upper())], rel=1e-9), greek
        assert (line[greek] or 0.0) == pytest.approx(node[getattr(ru, greek.upper())], rel=1e-9), greek
    assert line["avg"] == pytest.approx(average, rel=1e-14), "the record's, discounted or not"
    assert line["mid"] == position["mid"] == MARKET[name][1] and line["upnl"] == position["unrealised_pnl"]
